"""The packed engine: trains many LoRA trials on one frozen base, each as if it were alone.

In every step each trial contributes one micro-batch of its own to a single forward and backward
pass. A trial whose batch is complete is clipped and updated by its own optimizer; the others
continue to accumulate. Learning rate, schedule, decay, optimizer, clipping, rank, scaling, targets,
dropout, seed, batch size and duration are all per trial, and trials come and go between steps.
Knows no Ray.

`tests/reference.py` is the same training for one trial, as a plain script in one screen: read it
first. The tests hold this engine to it.

The result does not depend on the number of workers: every worker divides the loss of its own
micro-batches by the token count of the trial's whole step, and adapter gradients are summed.

Shape legend: B rows and T tokens of a micro-batch, K tokens that it predicts, V the vocabulary, P
numbers of an adapter.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.nn import functional

from lorasweep.data.batches import IGNORED, MicroBatch
from lorasweep.data.shard import Shard
from lorasweep.errors import OutOfMemoryError
from lorasweep.model.packed import PackedCopies, PackedModel
from lorasweep.model.routing import TrialRows
from lorasweep.model.rows import forward_inputs
from lorasweep.model.served import Served, logits_at
from lorasweep.train.checkpoint import load_state
from lorasweep.train.device import CatchOutOfMemory, wait_for
from lorasweep.train.dropout import SeededDropout
from lorasweep.train.lora_slot import LoraSlot, LoraTrial
from lorasweep.train.optim import clip_factor, set_learning_rate
from lorasweep.train.progress import Progress, Trial, divergence


class PackedEngine:
    """Engine whose slots share one frozen base (`Engine` describes the interface).

    tokens, seconds: trained on by this worker in the last step, and how long that took.
    timed: whether a step waits for the device before it reads the clock. Comparing speeds needs
        it; training is faster without, since the host prepares the next step meanwhile.
    """

    def __init__(self, model: PackedModel, shard: Shard, *, level: bool = False) -> None:
        """Start with empty slots.

        Args:
            level: pad all trials of a step to equally many rows, so that adapters of one shape can
                share a batched product even where their data fill different numbers of rows. Fewer,
                larger kernels are worth the padding on a GPU, not on a CPU.
        """
        self.model, self.shard = model, shard
        self.level = level
        self.slots: dict[str, LoraSlot] = {}
        self.tokens, self.seconds = 0, 0.0
        self.timed = False
        self._row_order: list[LoraSlot] = []

    def prepare(self, trial: Trial, state: Path | None = None) -> LoraSlot:
        """Build a trial's slot, from its first step or from a saved state.

        Touches nothing that trains, so it may run in another thread.

        Raises:
            ModelError: the model has no layers by the names that the targets stand for.
        """
        assert isinstance(trial, LoraTrial), "only LoRA trials share a base"
        adapter = self.model.adapter(trial.hyperparameters, trial.batches.seed)
        adapter.move(self.model.device)
        slot = LoraSlot(trial, adapter, self.shard, self.model.base.config.name_or_path)
        if state is not None:
            slot.position, slot.notes = load_state(state, adapter.named(), slot.optimizer)
            slot.begin_step()
        return slot

    def admit(self, slot: LoraSlot) -> None:
        """Train a prepared trial from the next step on.

        Raises:
            OutOfMemoryError: the device has no room for one more adapter; the others train on.
        """
        with CatchOutOfMemory() as caught:
            self._restack([*self.slots.values(), slot])
        if caught.message is not None:
            # Some adapters may already be rows of a new stack, so stack the old ones again.
            self._restack(self.slots.values())
            raise OutOfMemoryError(
                f"lane: {len(self.slots) + 1} adapters do not fit into the memory of "
                f"{self.model.device} ({caught.message})"
            )
        self.slots[slot.trial.id] = slot

    def retire(self, trial: str) -> LoraSlot:
        """Remove a trial before the next step."""
        slot = self.slots.pop(trial)
        self._restack(self.slots.values())
        return slot

    def _restack(self, slots: Iterable[LoraSlot]) -> None:
        by_adapter = {id(slot.adapter): slot for slot in slots}
        # Only neighbours can share a product, and dropout is computed in another order than none:
        # so trials with dropout stand side by side.
        ordered = sorted(
            by_adapter.values(), key=lambda slot: bool(slot.trial.hyperparameters.dropout)
        )
        stacked = self.model.stack([slot.adapter for slot in ordered])
        self._row_order = [by_adapter[id(adapter)] for adapter in stacked]

    @property
    def device(self) -> torch.device:
        """The device that computes."""
        return self.model.device

    @property
    def base_bytes(self) -> int:
        """Memory of the base on this worker."""
        return int(self.model.base.get_memory_footprint())

    @property
    def shares_rows(self) -> bool:
        """Whether attention keeps apart several examples in one row."""
        return self.model.shares_rows

    @property
    def attention_cost(self) -> float:
        """Cost of attending to one more token, relative to all other work for a token."""
        return self.model.attention_cost

    @property
    def lockstep(self) -> bool:
        """False: every worker has the whole base, and may evaluate its own share of problems."""
        return False

    @contextmanager
    def serving(self, trials: Collection[str]) -> Iterator[tuple[Served, list[str]]]:
        """Serve trained models for evaluation, with the trials in the order of the models."""
        slots = [slot for slot in self._row_order if slot.trial.id in trials]
        adapters = [slot.adapter for slot in slots]
        yield PackedCopies(self.model, adapters), [slot.trial.id for slot in slots]

    @contextmanager
    def serving_base(self) -> Iterator[Served]:
        """Serve the base without any adapter, also while trials are in training."""
        yield PackedCopies(self.model)

    def step(self, resting: Collection[str] = ()) -> list[Progress]:
        """Train all but the resting trials on one micro-batch each; update those that are ready.

        Returns:
            The progress of the trials whose optimizer step this completed.

        Raises:
            OutOfMemoryError: the step does not fit into the device's memory. No trial has moved;
                each will start its optimizer step again.
        """
        slots = [
            slot
            for slot in self._row_order
            if slot.trial.id not in resting
            and slot.diverged is None
            and slot.position.step < slot.trial.steps
        ]
        self.tokens, self.seconds = 0, 0.0
        if not slots:
            return []
        began = time.perf_counter()
        self.model.base.train()
        with CatchOutOfMemory() as caught:
            batches = [slot.next_batch() for slot in slots]
            self._accumulate(slots, batches)
        if caught.message is not None:
            for slot in slots:
                slot.begin_step()
            raise OutOfMemoryError(
                f"lane: {len(slots)} trials at a time do not fit into the memory of "
                f"{self.model.device} ({caught.message})"
            )
        self.tokens = sum(batch.tokens for batch in batches)
        for slot, batch in zip(slots, batches, strict=True):
            slot.micro_batches_done += 1
            slot.tokens += batch.tokens
        ready = [slot for slot in slots if slot.step_complete]
        numbers = self._reduce_and_clip(ready) if ready else []
        # Trials train at once, so each is charged a share of the time by its share of the tokens.
        seconds = (time.perf_counter() - began) / self.tokens
        for slot, batch in zip(slots, batches, strict=True):
            slot.train_s += seconds * batch.tokens
        progress = [self._update(slot, *made) for slot, made in zip(ready, numbers, strict=True)]
        if self.timed:
            wait_for(self.device)
        self.seconds = time.perf_counter() - began
        return progress

    def _accumulate(self, slots: Sequence[LoraSlot], batches: Sequence[MicroBatch]) -> None:
        """Add one micro-batch of each trial to its gradient and loss."""
        device = self.model.device
        most = max(len(batch.ids_BT) for batch in batches)
        trial_rows, ids, positions, logit_indices, labels = [], [], [], [], []
        first = 0
        for slot, batch in zip(slots, batches, strict=True):
            padding = most - len(batch.ids_BT) if self.level else 0
            rows = len(batch.ids_BT) + padding
            tokens = rows * batch.ids_BT.shape[1]
            ids.append(functional.pad(batch.ids_BT, (0, 0, 0, padding)))
            positions.append(functional.pad(batch.positions_BT, (0, 0, 0, padding)))
            logit_indices.append(batch.logit_indices_K + first)
            labels.append(batch.labels_K)
            dropout = _dropout(slot, batch, tokens, device)
            trial_rows.append(TrialRows(slot.adapter, tokens, dropout))
            first += tokens
        inputs = forward_inputs(
            torch.cat(ids), torch.cat(positions), device, shared=self.model.shares_rows
        )
        with (
            self.model.route(trial_rows) as base,
            logits_at(base, torch.cat(logit_indices).to(device)),
        ):
            logits_KV = base(**inputs).logits[0].float()
            losses_K = functional.cross_entropy(
                logits_KV, torch.cat(labels).to(device), ignore_index=IGNORED, reduction="none"
            )
            # The loss of the pack is the sum of per-trial means, so gradients are disjoint by
            # construction. Each trial's losses are summed on their own: in one sum over all of
            # them, rounding would depend on the neighbours.
            sums = [own.sum() for own in torch.split(losses_K, [len(own) for own in labels])]
            means = [own / slot.loss_tokens for slot, own in zip(slots, sums, strict=True)]
            # Inside the routing, which gradient checkpointing needs when it runs layers again.
            torch.autograd.backward(means)
        for slot, mean in zip(slots, means, strict=True):
            slot.loss += mean.detach()

    def _reduce_and_clip(self, slots: Sequence[LoraSlot]) -> list[tuple[float, int, float]]:
        """Sum gradients over the workers and clip them; loss, tokens and gradient norm by trial."""
        tokens = self._all_reduce(slots)
        norms = []
        for slot in slots:
            gradient_P = slot.adapter.gradients_P
            norm = torch.linalg.vector_norm(gradient_P)
            if slot.trial.train.clip is not None:
                gradient_P.mul_(clip_factor(norm, slot.trial.train.clip))
            norms.append(norm)
        # One transfer for all trials, since each would wait for the device.
        measured = torch.stack([*(slot.loss for slot in slots), *norms]).tolist()
        losses, grad_norms = measured[: len(slots)], measured[len(slots) :]
        return list(zip(losses, tokens, grad_norms, strict=True))

    def _all_reduce(self, slots: Sequence[LoraSlot]) -> list[int]:
        """Sum gradients, losses and token counts over the workers, in one all-reduce."""
        if self.shard.workers == 1:
            return [slot.tokens for slot in slots]
        counts = torch.tensor([float(slot.tokens) for slot in slots], device=self.model.device)
        losses = torch.stack([slot.loss for slot in slots])
        gradients = [slot.adapter.gradients_P for slot in slots]
        # Adapters are small: many collectives would cost more in latency than one in copying.
        flat = self.shard.total(torch.cat([*gradients, losses, counts]))
        sizes = [*(len(gradient_P) for gradient_P in gradients), len(slots), len(slots)]
        *summed, losses, counts = torch.split(flat, sizes)
        for slot, gradient_P, loss in zip(slots, summed, losses, strict=True):
            slot.adapter.gradients_P.copy_(gradient_P)
            slot.loss = loss
        return [int(count) for count in counts.tolist()]

    def _update(self, slot: LoraSlot, loss: float, tokens: int, grad_norm: float) -> Progress:
        """Take a trial's optimizer step, unless it has diverged."""
        losses = slot.position.recent_losses(loss)
        slot.diverged = divergence(losses, grad_norm, self.model.vocabulary)
        lr = slot.lr
        if slot.diverged is None:
            began = time.perf_counter()
            set_learning_rate(slot.optimizer, lr)
            slot.adapter.weights_P.grad = slot.adapter.gradients_P
            slot.optimizer.step()
            slot.adapter.weights_P.grad = None
            seconds = slot.train_s + time.perf_counter() - began
            slot.position = slot.position.next(loss, tokens, seconds)
            if slot.position.step < slot.trial.steps:
                slot.begin_step()
        return Progress(slot.trial.id, slot.position, lr, grad_norm, slot.diverged)


def _dropout(
    slot: LoraSlot, batch: MicroBatch, tokens: int, device: torch.device
) -> SeededDropout | None:
    p = slot.trial.hyperparameters.dropout
    if not p:
        return None
    seed, step = slot.trial.batches.seed, slot.position.step
    return SeededDropout(p, seed, step, batch.index, tokens, batch.token_indices_S.to(device))
