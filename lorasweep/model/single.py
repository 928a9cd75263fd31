"""One tuned model by itself: PEFT's own LoRA on it where it is not tuned whole, and evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lorasweep.model.lora import AdapterLayer, initial_adapter
from lorasweep.model.rows import cache_bytes
from lorasweep.spec.trial import LoraHyperparameters


def insert_adapter(
    base: Any, layers: tuple[AdapterLayer, ...], hyperparameters: LoraHyperparameters, seed: int
) -> None:
    """Put a fresh adapter into a base by PEFT's means, drawn as for packed training.

    From then on the base computes with it, and nothing but the adapter trains. It has the base's
    dtype. The base's weights may be sharded; so its layers are given, as a shard does not tell
    their shapes.
    """
    from peft import LoraConfig, inject_adapter_in_model

    alpha, rslora = hyperparameters.resolved_alpha
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=hyperparameters.rank,
        lora_alpha=alpha,
        use_rslora=rslora,
        lora_dropout=hyperparameters.dropout,
        target_modules=[layer.name for layer in layers],
        fan_in_fan_out=layers[0].transposed,
    )
    dtype = next(base.parameters()).dtype
    inject_adapter_in_model(config, base)
    drawn = initial_adapter(layers, hyperparameters.rank, seed)
    for name, parameter in adapter_of(base).items():
        parameter.data = drawn[name].to(parameter.device, dtype)


def adapter_of(model: Any) -> dict[str, nn.Parameter]:
    """Give the parameters of an adapter that was inserted, by the names of PEFT's files."""
    return {
        "base_model.model." + name.replace(".default.", "."): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


class SingleModel:
    """Give one tuned model for evaluation."""

    copies = 1

    def __init__(self, model: Any) -> None:
        """Serve a model as it is."""
        self._model = model

    @property
    def cache_bytes(self) -> int:
        """Bound what keys and values of one row take, however long it grows."""
        return cache_bytes(self._model)

    @contextmanager
    def together(self) -> Iterator[Any]:
        """Give the model without dropout and gradients."""
        training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                yield self._model
        finally:
            self._model.train(training)

    @contextmanager
    def alone(self, copy: int) -> Iterator[Any]:
        """Give the model, which is the only copy."""
        assert copy == 0, f"must be the only copy, 0, got {copy}"
        with self.together() as model:
            yield model
