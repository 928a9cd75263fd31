"""The slot of the one trial that a DeepSpeed engine trains, and how its sharded state is saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorasweep.data.shard import Shard
from lorasweep.model.base import base_path, save_tuned
from lorasweep.model.lora import AdapterLayer, save_adapter
from lorasweep.model.single import adapter_of
from lorasweep.spec.sweep import DeepSpeedSpec, ModelSpec
from lorasweep.spec.trial import LoraHyperparameters
from lorasweep.store.paths import TrialPaths
from lorasweep.train import sharded_state, zero
from lorasweep.train.progress import Position, Trial, TrialNotes


@dataclass(frozen=True)
class ShardedModel:
    """A base that DeepSpeed has set up to train on all workers of a shard.

    engine: DeepSpeed's own, whose module is the transformers model.
    layers: that have an adapter; none where the whole model trains.
    trainable: trained parameters, over all workers.
    """

    spec: ModelSpec
    deepspeed: DeepSpeedSpec
    shard: Shard
    device: torch.device
    engine: Any
    layers: tuple[AdapterLayer, ...]
    trainable: int

    @property
    def module(self) -> Any:
        """The transformers model, with adapters in its layers where LoRA trains."""
        return self.engine.module

    @property
    def state_kind(self) -> str:
        """Description of a state; one can be loaded only where its kind is the same."""
        trained = "lora" if self.layers else "full"
        stage = self.deepspeed.stage
        offload = " with offload" if self.deepspeed.offload else ""
        return f"{trained} under stage {stage}{offload}, {self.trainable} numbers trained"


class DeepSpeedSlot:
    """The trial of a DeepSpeed engine; every worker holds a shard of its state."""

    def __init__(self, trial: Trial, model: ShardedModel, state: Path | None = None) -> None:
        """Start a trial at its first step, or at the state that the first worker was given.

        Raises:
            LorasweepError: another number of workers has written the state, or it is another
                trial's.
        """
        self.trial, self._model = trial, model
        self.position = Position()
        self.notes = TrialNotes()
        self.diverged: str | None = None
        state = model.shard.broadcast(state)
        if state is not None:
            with zero.silent():
                self.position, self.notes = sharded_state.load(
                    model.engine, state, model.shard, model.state_kind
                )

    @property
    def trainable(self) -> int:
        """Number of trained parameters."""
        return self._model.trainable

    def save_state(self, folder: Path, notes: TrialNotes) -> None:
        """Write a checkpoint over an earlier one; every worker must call it.

        A crash leaves either the old one or the new one.
        """
        model = self._model
        with zero.silent():
            sharded_state.save(
                model.engine, folder, model.shard, model.state_kind, self.position, notes
            )

    def save_trained(self, paths: TrialPaths, tokenizer: Any) -> Path:
        """Write a PEFT folder for LoRA, else a transformers folder; every worker must call it.

        Sharded weights are gathered one by one into the first worker's host memory.
        """
        model, hyperparameters = self._model, self.trial.hyperparameters
        first = model.shard.worker == 0
        if isinstance(hyperparameters, LoraHyperparameters):
            folder = paths.adapter
            adapter = self._gather(adapter_of(model.module))
            if first:
                save_adapter(folder, adapter, model.layers, hyperparameters, base_path(model.spec))
        else:
            folder = paths.model
            weights = self._gather(model.module.state_dict(keep_vars=True))
            if first:
                save_tuned(folder, model.module, weights, model.spec)
                tokenizer.save_pretrained(str(folder))
        # Wait until it is written. Reading the sum is what waits: on a GPU the collective alone is
        # only queued.
        model.shard.total(torch.zeros((), device=model.device)).item()
        return folder

    def _gather(self, named: dict[str, Any]) -> dict[str, Tensor]:
        """Copy tensors to the first worker's host memory; tied ones stay one tensor."""
        # Gathering is a collective, so all workers do it, though only the first keeps the result.
        distinct = {id(tensor): tensor for tensor in named.values()}
        copies: dict[int, Tensor] = {}
        for key, tensor in distinct.items():
            with zero.gathered([tensor]):
                if self._model.shard.worker == 0:
                    copies[key] = tensor.detach().cpu().clone()
        return {name: copies[id(tensor)] for name, tensor in named.items() if copies}
