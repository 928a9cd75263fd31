"""Train many LoRA trials on one frozen base, each as if it were alone; knows no Ray.

A slot is the place of one trial. Slots are filled and freed between steps. In a step every trial
contributes one micro-batch of its own; a trial whose batch is complete is clipped and updated by
its own optimizer, and the others go on accumulating. Learning rate, schedule, decay, optimizer,
clipping, rank, scaling, targets, dropout, seed, batch and duration are each trial's own.

The outcome does not depend on how many workers share a step either: every worker sums the loss of
its own micro-batches, divided by the token count of the trial's whole step, and the gradients of
the adapters are added up.

Shape legend: B rows and T tokens of a micro-batch, K tokens that it predicts, S the slots whose
rows it holds, V the vocabulary, P numbers of an adapter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from lorasweep.data.batches import IGNORED, MicroBatch
from lorasweep.data.shard import Shard
from lorasweep.errors import OutOfMemoryError
from lorasweep.model.packed import PackedCopies, PackedModel
from lorasweep.model.routing import Part
from lorasweep.model.served import Served, predictions_at
from lorasweep.train.checkpoint import load_state
from lorasweep.train.device import Attempt, wait_for
from lorasweep.train.dropout import SeededDropout
from lorasweep.train.progress import SMOOTHED_STEPS, Progress, Trial, divergence
from lorasweep.train.slot import LoraTrial, Slot

__all__ = ["LoraTrial", "PackedEngine", "Slot"]


class PackedEngine:
    """Train the trials in its slots.

    slots: by trial.
    tokens, seconds: that the last step trained on, on this worker, and took.
    timed: whether a step waits for the device before it takes the time. Comparing speeds needs it;
        training goes faster without, since the next step is made ready while the device computes.
    """

    def __init__(
        self, model: PackedModel, shard: Shard, *, level: bool = False, strict: bool = False
    ) -> None:
        """Start with no slot filled.

        Args:
            level: give all trials of a step equally many rows, so that those whose adapters have
                one shape share a product whatever their data; it costs padding.
            strict: compute one trial after the other, the plain loop that the rest is held to.
        """
        self.model, self.shard = model, shard
        self.level, self.strict = level, strict
        self.slots: dict[str, Slot] = {}
        self.tokens, self.seconds = 0, 0.0
        self.timed = False
        self._order: list[Slot] = []

    def prepare(self, trial: Trial, state: Path | None = None) -> Slot:
        """Make a slot's content, at the trial's beginning or where a saved state left it.

        Touches nothing that trains, so it may run in another thread.

        Raises:
            ModelError: the model has no layers by the names that the targets stand for.
        """
        assert isinstance(trial, LoraTrial), "only LoRA trials share a base"
        adapter = self.model.adapter(trial.hyperparameters, trial.batches.seed)
        adapter.move(self.model.device)
        slot = Slot(trial, adapter, self.shard, self.model.base.config.name_or_path)
        if state is not None:
            named = adapter.named()
            slot.position, slot.notes = load_state(state, named, slot.optimizer)
            slot.begin_step()
        return slot

    def admit(self, slot: Slot) -> None:
        """Let a trial train from the next step on.

        Raises:
            OutOfMemoryError: the device's memory does not hold its adapter beside the others, which
                train on without it.
        """
        with Attempt() as attempt:
            self._hold([*self.slots.values(), slot])
        if attempt.shortage is not None:
            self._hold(self.slots.values())
            raise OutOfMemoryError(
                f"lane: {len(self.slots) + 1} adapters do not fit into the memory of "
                f"{self.model.device} ({attempt.shortage})"
            )
        self.slots[slot.trial.id] = slot

    def retire(self, trial: str) -> Slot:
        """Free a trial's slot from the next step on."""
        slot = self.slots.pop(trial)
        self._hold(self.slots.values())
        return slot

    def _hold(self, slots: Iterable[Slot]) -> None:
        by_adapter = {id(slot.adapter): slot for slot in slots}
        # Those that drop inputs side by side, since only they share a product.
        ordered = sorted(
            by_adapter.values(), key=lambda slot: bool(slot.trial.hyperparameters.dropout)
        )
        held = self.model.hold([slot.adapter for slot in ordered])
        self._order = [by_adapter[id(adapter)] for adapter in held]

    @property
    def device(self) -> torch.device:
        """Tell where it computes."""
        return self.model.device

    @property
    def base_bytes(self) -> int:
        """Count the memory that the base takes."""
        return int(self.model.base.get_memory_footprint())

    @property
    def shares_rows(self) -> bool:
        """Tell whether attention keeps apart examples in one row."""
        return self.model.shares_rows

    @property
    def attention_cost(self) -> float:
        """Give the cost of attending to one more token over that of all else done for a token."""
        return self.model.attention_cost

    @property
    def lockstep(self) -> bool:
        """Tell that workers may evaluate a share of the problems each."""
        return False

    @contextmanager
    def serving(self, trials: Collection[str]) -> Iterator[tuple[Served, list[str]]]:
        """Give the models of some trials for evaluation, and the trials in the models' order."""
        yield self.serve(trials)

    @contextmanager
    def serving_base(self) -> Iterator[Served]:
        """Give the base without any adapter, also while trials are in training."""
        yield PackedCopies(self.model)

    def serve(self, trials: Collection[str]) -> tuple[PackedCopies, list[str]]:
        """Give the models of some trials for evaluation, and the trials in the models' order."""
        slots = [slot for slot in self._order if slot.trial.id in trials]
        adapters = [slot.adapter for slot in slots]
        return PackedCopies(self.model, adapters), [slot.trial.id for slot in slots]

    def step(self, resting: Collection[str] = ()) -> list[Progress]:
        """Train every trial but the resting ones on one micro-batch; update those that are ready.

        Returns:
            What the trials did whose optimizer step this completed.

        Raises:
            OutOfMemoryError: the device's memory does not hold the step. No trial has moved: each
                begins its optimizer step again.
        """
        slots = [
            slot
            for slot in self._order
            if slot.trial.id not in resting
            and slot.diverged is None
            and slot.position.step < slot.trial.steps
        ]
        self.tokens, self.seconds = 0, 0.0
        if not slots:
            return []
        began = time.perf_counter()
        self.model.base.train()
        with Attempt() as attempt:
            batches = [slot.next_batch() for slot in slots]
            width = 1 if self.strict else len(slots)
            for first in range(0, len(slots), width):
                self._accumulate(slots[first : first + width], batches[first : first + width])
        if attempt.shortage is not None:
            for slot in slots:
                slot.begin_step()
            raise OutOfMemoryError(
                f"lane: {len(slots)} trials at a time do not fit into the memory of "
                f"{self.model.device} ({attempt.shortage})"
            )
        self.tokens = sum(batch.tokens for batch in batches)
        for slot, batch in zip(slots, batches, strict=True):
            slot.done += 1
            slot.tokens += batch.tokens
        ready = [
            slot
            for slot in slots
            if slot.done * self.shard.workers >= slot.trial.batches.micro_batches
        ]
        numbers = self._update(ready) if ready else []
        # A trial's share of the time that all have taken is its share of the tokens.
        seconds = (time.perf_counter() - began) / self.tokens
        for slot, batch in zip(slots, batches, strict=True):
            slot.train_s += seconds * batch.tokens
        progress = [self._advance(slot, *made) for slot, made in zip(ready, numbers, strict=True)]
        if self.timed:
            wait_for(self.device)
        self.seconds = time.perf_counter() - began
        return progress

    def _accumulate(self, slots: Sequence[Slot], batches: Sequence[MicroBatch]) -> None:
        """Add one micro-batch of each trial to its gradient and loss."""
        device = self.model.device
        most = max(len(batch.ids_BT) for batch in batches)
        parts, ids, positions, places, labels = [], [], [], [], []
        first = 0
        for slot, batch in zip(slots, batches, strict=True):
            empty = most - len(batch.ids_BT) if self.level else 0
            rows = len(batch.ids_BT) + empty
            tokens = rows * batch.ids_BT.shape[1]
            ids.append(functional.pad(batch.ids_BT, (0, 0, 0, empty)))
            positions.append(functional.pad(batch.positions_BT, (0, 0, 0, empty)))
            places.append(batch.places_K + first)
            labels.append(batch.labels_K)
            parts.append(Part(slot.adapter, tokens, _dropout(slot, batch, tokens, device)))
            first += tokens
        inputs: dict[str, Any] = {"input_ids": torch.cat(ids).to(device), "use_cache": False}
        if self.model.shares_rows:
            inputs["position_ids"] = torch.cat(positions).to(device)
        with (
            self.model.route(parts) as base,
            predictions_at(base, torch.cat(places).to(device)),
        ):
            logits_KV = base(**inputs).logits[0].float()
            losses_K = functional.cross_entropy(
                logits_KV, torch.cat(labels).to(device), ignore_index=IGNORED, reduction="none"
            )
            # Summed part by part: one sum over all would round with the neighbours' numbers.
            sums = [part.sum() for part in torch.split(losses_K, [len(part) for part in labels])]
            means = [part / slot.targets for slot, part in zip(slots, sums, strict=True)]
            torch.autograd.backward(means)
        for slot, mean in zip(slots, means, strict=True):
            slot.loss += mean.detach()

    def _update(self, slots: Sequence[Slot]) -> list[tuple[float, int, float, float]]:
        """Give every trial its loss, tokens, learning rate and gradient norm, and clip."""
        tokens = self._combine(slots)
        norms = []
        for slot in slots:
            gradient_P = slot.adapter.gradients_P
            norm = torch.linalg.vector_norm(gradient_P)
            if slot.trial.train.clip is not None:
                gradient_P.mul_((slot.trial.train.clip / (norm + 1e-6)).clamp(max=1.0))
            norms.append(norm)
        measured = torch.stack([*(slot.loss for slot in slots), *norms]).tolist()
        return [
            (loss, count, slot.lr, norm)
            for slot, count, loss, norm in zip(
                slots, tokens, measured[: len(slots)], measured[len(slots) :], strict=True
            )
        ]

    def _combine(self, slots: Sequence[Slot]) -> list[int]:
        """Add up gradients, losses and token counts over the workers in one exchange."""
        if self.shard.workers == 1:
            return [slot.tokens for slot in slots]
        counts = torch.tensor([float(slot.tokens) for slot in slots], device=self.model.device)
        losses = torch.stack([slot.loss for slot in slots])
        gradients = [slot.adapter.gradients_P for slot in slots]
        flat = self.shard.total(torch.cat([*gradients, losses, counts]))
        sizes = [*(len(gradient_P) for gradient_P in gradients), len(slots), len(slots)]
        *summed, losses, counts = torch.split(flat, sizes)
        for slot, gradient_P, loss in zip(slots, summed, losses, strict=True):
            slot.adapter.gradients_P.copy_(gradient_P)
            slot.loss = loss
        return [int(count) for count in counts.tolist()]

    def _advance(
        self, slot: Slot, loss: float, tokens: int, lr: float, grad_norm: float
    ) -> Progress:
        """Take a trial's optimizer step, unless it has diverged."""
        position = slot.position
        losses = (*position.losses, loss)[-SMOOTHED_STEPS:]
        slot.diverged = divergence(losses, grad_norm, math.log(self.model.vocabulary))
        if slot.diverged is None:
            began = time.perf_counter()
            for group in slot.optimizer.param_groups:
                group["lr"] = lr
            slot.adapter.weights_P.grad = slot.adapter.gradients_P
            slot.optimizer.step()
            slot.adapter.weights_P.grad = None
            slot.position = replace(
                position,
                step=position.step + 1,
                tokens=position.tokens + tokens,
                losses=losses,
                train_s=position.train_s + slot.train_s + time.perf_counter() - began,
            )
            if slot.position.step < slot.trial.steps:
                slot.begin_step()
        return Progress(slot.trial.id, slot.position, lr, grad_norm, slot.diverged)


def _dropout(
    slot: Slot, batch: MicroBatch, tokens: int, device: torch.device
) -> SeededDropout | None:
    p = slot.trial.hyperparameters.dropout
    if not p:
        return None
    seed, step = slot.trial.batches.seed, slot.position.step
    return SeededDropout(p, seed, step, batch.index, tokens, batch.filled_S.to(device))
