"""The DeepSpeed engine: trains one trial, the whole model or LoRA, sharded over many workers.

Data, schedule, loss, clipping and divergence are those of packed training. The loss of a step is
the mean over its predicted tokens on all workers; DeepSpeed averages the workers' gradients, so
each worker multiplies its share of the loss by their number. All trained parameters form one group
of the optimizer, so norms and biases decay as weights do.

Under stage 3 no device ever holds all weights: the base is loaded in shards, and gathered layer by
layer where it computes. So every worker must make the same calls in the same order. Knows no Ray.

Shape legend: B rows and T tokens of a micro-batch, K tokens that it predicts, V the vocabulary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from lorasweep.data.batches import IGNORED, MicroBatch
from lorasweep.data.shard import Shard
from lorasweep.errors import OutOfMemoryError
from lorasweep.model.base import compute_dtype, empty_base, load_base
from lorasweep.model.lora import AdapterLayer
from lorasweep.model.rows import attention_cost, forward_inputs, numel, shares_rows, vocabulary_of
from lorasweep.model.served import Served, logits_at
from lorasweep.model.single import SingleModel, insert_adapter
from lorasweep.model.targets import adapter_layers
from lorasweep.spec.sweep import DeepSpeedSpec, ModelSpec, TrainSpec
from lorasweep.spec.targets import OwnSets
from lorasweep.spec.trial import FullHyperparameters, LoraHyperparameters
from lorasweep.train import zero
from lorasweep.train.deepspeed_slot import DeepSpeedSlot, ShardedModel
from lorasweep.train.device import CatchOutOfMemory
from lorasweep.train.dropout import dropout_seed
from lorasweep.train.optim import build_optimizer, clip_factor, learning_rate, set_learning_rate
from lorasweep.train.progress import Progress, Trial, divergence, micro_batch_size


class DeepSpeedEngine:
    """Engine with one slot, whose trial all workers share (`Engine` describes the interface).

    `load` must come first: it sets DeepSpeed up for one trial's hyperparameters.

    lockstep: whether the model stays sharded while it is evaluated. Every worker must then evaluate
        the same problems, as with `Shard()`, instead of a share of its own.
    tokens, seconds: trained on by this worker in the last step, and how long that took.
    """

    def __init__(
        self,
        model: ModelSpec,
        deepspeed: DeepSpeedSpec,
        shard: Shard,
        device: torch.device,
        own: OwnSets | None = None,
    ) -> None:
        """Join the process group, or make one of this worker alone; load nothing yet.

        Args:
            own: the sets of targets that the sweep defines.

        Raises:
            LorasweepError: the process group has other workers than the shard's.
            ResourceError: DeepSpeed computes on another kind of device in this process.
        """
        self.spec, self.deepspeed, self.shard, self.device = model, deepspeed, shard, device
        self._own: OwnSets = own or {}
        self.slots: dict[str, DeepSpeedSlot] = {}
        self.lockstep = False
        self.tokens, self.seconds = 0, 0.0
        self.timed = False  # a step waits for the gradient's norm in any case
        self._loaded: ShardedModel | None = None
        zero.join_process_group(shard, device)
        self._library = zero.import_deepspeed(device)
        zero.set_local_rank(device)

    def load(
        self,
        hyperparameters: LoraHyperparameters | FullHyperparameters,
        train: TrainSpec,
        seed: int,
    ) -> None:
        """Load the base and set DeepSpeed up for a trial of these hyperparameters.

        Raises:
            ModelError: the base cannot be loaded, or does not fit the hyperparameters.
            OutOfMemoryError: it does not fit into memory.
        """
        with CatchOutOfMemory() as caught, zero.silent():
            self._loaded = self._load(hyperparameters, train, seed)
            self._loaded_for = hyperparameters, train, seed
            self.lockstep = self.deepspeed.stage == 3 and not zero.fits_gathered(
                self._model.engine, self.shard, self.device
            )
        if caught.message is not None:
            raise self._out_of_memory("the model", caught.message)

    def _load(
        self,
        hyperparameters: LoraHyperparameters | FullHyperparameters,
        train: TrainSpec,
        seed: int,
    ) -> ShardedModel:
        batch_size, workers = hyperparameters.batch_size, self.shard.workers
        micro_batch = micro_batch_size(train, batch_size, workers)
        config = zero.deepspeed_config(
            self.deepspeed,
            train,
            dtype=compute_dtype(self.spec, self.device),
            device=self.device,
            micro_batch=micro_batch,
            accumulated=batch_size // micro_batch // workers,
        )
        layers: tuple[AdapterLayer, ...] = ()
        attention_dropout = 0.0
        if isinstance(hyperparameters, LoraHyperparameters):
            # Under stage 3 the loaded base is sharded, and its weights do not show their shapes.
            layers = adapter_layers(empty_base(self.spec), hyperparameters.targets, self._own)
        else:
            attention_dropout = hyperparameters.attention_dropout
        with zero.sharded_loading(config) if self.deepspeed.stage == 3 else nullcontext():
            model = load_base(self.spec, self.device, attention_dropout=attention_dropout)
        if train.recompute:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if isinstance(hyperparameters, LoraHyperparameters):
            insert_adapter(model, layers, hyperparameters, seed)
        else:
            model.requires_grad_(True)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        trainable = sum(numel(parameter) for parameter in trained)
        zero.limit_buckets(config, trainable)
        optimizer = build_optimizer(
            train, trained, hyperparameters.lr, hyperparameters.weight_decay
        )
        engine, *_ = self._library.initialize(model=model, optimizer=optimizer, config=config)
        return ShardedModel(
            self.spec, self.deepspeed, self.shard, self.device, engine, layers, trainable
        )

    @property
    def _model(self) -> ShardedModel:
        assert self._loaded is not None, "load() must come first"
        return self._loaded

    @property
    def base_bytes(self) -> int:
        """Zero, since no other trial shares the base."""
        return 0

    @cached_property
    def shares_rows(self) -> bool:
        """Whether attention keeps apart several examples in one row; every worker must ask."""
        return shares_rows(self._model.module, self.device)

    @property
    def attention_cost(self) -> float:
        """Cost of attending to one more token, relative to all other work for a token."""
        return attention_cost(self._model.module)

    def prepare(self, trial: Trial, state: Path | None = None) -> DeepSpeedSlot:
        """Build the trial's slot, from its first step or from a saved state.

        Every worker must call it; all resume from the state that the first one was given.

        Raises:
            LorasweepError: another number of workers has written the state, or it is another
                trial's.
        """
        model = self._model
        own = trial.hyperparameters, trial.train, trial.batches.seed
        assert self._loaded_for == own, f"must be what load() got, {self._loaded_for}, got {own}"
        return DeepSpeedSlot(trial, model, state)

    def admit(self, slot: DeepSpeedSlot) -> None:
        """Train the trial from the next step on."""
        self.slots = {slot.trial.id: slot}

    def retire(self, trial: str) -> DeepSpeedSlot:
        """Remove the trial."""
        return self.slots.pop(trial)

    def step(self, resting: Collection[str] = ()) -> list[Progress]:
        """Train all micro-batches of one optimizer step, unless the trial rests.

        Raises:
            OutOfMemoryError: the step does not fit into the device's memory. This engine cannot go
                on; another one can, from the trial's last state.
        """
        self.tokens, self.seconds = 0, 0.0
        return [self._step(slot) for slot in self.slots.values() if slot.trial.id not in resting]

    def _step(self, slot: DeepSpeedSlot) -> Progress:
        began = time.perf_counter()
        trial, position = slot.trial, slot.position
        self._model.engine.train()
        lr = learning_rate(trial.hyperparameters, trial.train, trial.steps, position.step)
        with CatchOutOfMemory() as caught:
            loss, tokens = self._accumulate(trial, position.step)
            norm = self._update(lr, trial.train.clip) if math.isfinite(loss) else math.nan
        if caught.message is not None:
            raise self._out_of_memory("a micro-batch", caught.message)
        vocabulary = vocabulary_of(self._model.module)
        slot.diverged = divergence(position.recent_losses(loss), norm, vocabulary)
        self.seconds = time.perf_counter() - began
        if slot.diverged is None:
            slot.position = position.next(loss, tokens, self.seconds)
        return Progress(trial.id, slot.position, lr, norm, slot.diverged)

    def _accumulate(self, trial: Trial, step: int) -> tuple[float, int]:
        """Compute a step's gradient; return its loss and tokens over all workers."""
        loss_tokens = trial.batches.loss_tokens(step)
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        for number, batch in enumerate(trial.batches.for_worker(step, self.shard)):
            if number > 0:
                # DeepSpeed counts micro-batches by calls of step(), and updates at the last one.
                self._model.engine.step()
            share = self._loss(trial, step, batch) / loss_tokens
            # Undo DeepSpeed's average over workers. Its average over micro-batches is off, since
            # dividing by the step's tokens has done that.
            self._model.engine.backward(share * self.shard.workers, scale_wrt_gas=False)
            loss += share.detach()
            self.tokens += batch.tokens
        counts = torch.tensor(float(self.tokens), dtype=torch.float64, device=self.device)
        summed, tokens = self.shard.total(torch.stack([loss, counts])).tolist()
        return summed, int(tokens)

    def _loss(self, trial: Trial, step: int, batch: MicroBatch) -> Tensor:
        """Compute the summed loss of a micro-batch."""
        if trial.hyperparameters.drop_probability:
            # Seeded anew for every micro-batch, so that a resumed trial draws as an uninterrupted
            # one, and each worker as one worker alone would.
            torch.manual_seed(dropout_seed(trial.batches.seed, step, batch.index, 0))
        model, engine = self._model.module, self._model.engine
        inputs = forward_inputs(
            batch.ids_BT, batch.positions_BT, self.device, shared=self.shares_rows
        )
        with logits_at(model, batch.logit_indices_K.to(self.device)):
            logits_KV = engine(**inputs).logits[0].float()
        labels_K = batch.labels_K.to(self.device)
        return functional.cross_entropy(logits_KV, labels_K, ignore_index=IGNORED, reduction="sum")

    def _update(self, lr: float, clip: float | None) -> float:
        """Clip and take the step, unless the gradient is not finite; return its norm before."""
        engine = self._model.engine
        set_learning_rate(engine.optimizer, lr)
        if engine.zero_optimization_stage() > 0:
            engine.step()
            return float(engine.get_global_grad_norm())
        # Without sharding DeepSpeed does not report the norm, and steps even if it is not finite.
        gradients = [p.grad for p in self._model.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not norm.isfinite():
            return float(norm)
        if clip is not None:
            torch._foreach_mul_(gradients, clip_factor(norm, clip))
        engine.step()
        return float(norm)

    @contextmanager
    def serving(self, trials: Collection[str]) -> Iterator[tuple[Served, list[str]]]:
        """Serve the trial's model for evaluation; every worker must call it."""
        with self.serving_base() as served:
            yield served, list(trials)

    @contextmanager
    def serving_base(self) -> Iterator[Served]:
        """Serve the model as it is now: before the first step, the base.

        Under stage 3 the model is gathered, so that each worker may use it on its own, unless
        `lockstep` says that it stays sharded.
        """
        gather = self.deepspeed.stage == 3 and not self.lockstep
        with zero.gathered_model(self._model.engine) if gather else nullcontext():
            yield SingleModel(self._model.module)

    def _out_of_memory(self, what: str, message: str) -> OutOfMemoryError:
        return OutOfMemoryError(
            f"deepspeed.stage: {what} must fit into the memory of {self.device}, and does not "
            f"under stage {self.deepspeed.stage} on {self.shard.workers} workers ({message})"
        )
