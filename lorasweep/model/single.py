"""One model that trains alone, under DeepSpeed: PEFT's own LoRA layers in it, and evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lorasweep.model.lora import AdapterLayer, initial_adapter, peft_fields, saved_name_of
from lorasweep.model.rows import cache_bytes
from lorasweep.spec.trial import LoraHyperparameters


def insert_adapter(
    base: Any, layers: tuple[AdapterLayer, ...], hyperparameters: LoraHyperparameters, seed: int
) -> None:
    """Insert PEFT's LoRA layers into a base, initialised as for packed training.

    Only the adapter trains then, in the dtype of the base.

    Args:
        layers: to adapt; given, since sharded weights do not show the layers' shapes.
    """
    from peft import LoraConfig, inject_adapter_in_model

    dtype = next(base.parameters()).dtype
    # PEFT may take layers of a mixture-of-experts model for experts (`peft_names.py`). It asks the
    # model's configuration for the family, so it inserts into a module that has none.
    config = LoraConfig(**peft_fields(layers, hyperparameters))
    inject_adapter_in_model(config, nn.ModuleDict({"base": base}))
    # PEFT has drawn from the global generator, and under stage 3 on each worker for itself.
    drawn = initial_adapter(layers, hyperparameters, seed)
    for name, parameter in adapter_of(base).items():
        parameter.data = drawn[name].to(parameter.device, dtype)


def adapter_of(model: Any) -> dict[str, nn.Parameter]:
    """Collect the parameters of an inserted adapter, named as in PEFT's files."""
    return {
        saved_name_of(name): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


class SingleModel:
    """One model under evaluation (`Served` describes the interface)."""

    copies = 1

    def __init__(self, model: Any) -> None:
        """Wrap a transformers model."""
        self._model = model

    @property
    def cache_bytes(self) -> int:
        """Upper bound on the bytes that one row takes in the key-value cache."""
        return cache_bytes(self._model)

    @contextmanager
    def all_copies(self) -> Iterator[Any]:
        """Evaluate without dropout and gradients."""
        training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                yield self._model
        finally:
            self._model.train(training)

    @contextmanager
    def one_copy(self, copy: int) -> Iterator[Any]:
        """Evaluate the only copy."""
        assert copy == 0, f"must be the only copy, 0, got {copy}"
        with self.all_copies() as model:
            yield model
