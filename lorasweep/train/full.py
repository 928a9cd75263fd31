"""Train one trial under DeepSpeed, the whole model or LoRA on a sharded base; knows no Ray.

Data, schedule, loss, clipping and divergence are those of packed training. The loss of a step is
the mean over its predicted tokens on all workers: DeepSpeed averages the workers' gradients, so
each multiplies its share by their number. All that is trained is one group of the optimizer, and
so norms and biases decay as weights do.

Under stage 3 no device holds all weights, from the loading of the base on: what computes is
gathered layer by layer. So every worker must make the same calls in the same order.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lorasweep.data.batches import IGNORED, MicroBatch
from lorasweep.data.shard import Shard
from lorasweep.errors import OutOfMemoryError
from lorasweep.model.base import base_path, compute_dtype, empty_base, load_base, save_tuned
from lorasweep.model.lora import AdapterLayer, adapter_layers, save_adapter
from lorasweep.model.rows import attention_cost, shares_rows
from lorasweep.model.served import Served, predictions_at
from lorasweep.model.single import SingleModel, adapter_of, insert_adapter
from lorasweep.spec.sweep import DeepSpeedSpec, ModelSpec, TrainSpec
from lorasweep.spec.trial import FullHyperparameters, LoraHyperparameters
from lorasweep.train import sharded_state, zero
from lorasweep.train.broadcast import broadcast
from lorasweep.train.checkpoint import Position
from lorasweep.train.device import Attempt, free_cache
from lorasweep.train.dropout import dropout_seed
from lorasweep.train.optim import build_optimizer, learning_rate
from lorasweep.train.progress import SMOOTHED_STEPS, Progress, Trial, divergence


class DeepSpeedEngine:
    """Train one trial, together with the other workers of its shard.

    Call `load`, then `begin`; what asks about the model, or serves it, works in between.

    position: where the trial stands.
    notes: plain values that came with the state it was begun from.
    trainable: numbers that are trained.
    lockstep: whether the model stays sharded while it is evaluated; every worker must then evaluate
        the same problems, as with `Shard()`, and not a share of its own.
    tokens, seconds: that the last step trained on, on this worker, and took.
    """

    def __init__(
        self, model: ModelSpec, deepspeed: DeepSpeedSpec, shard: Shard, device: torch.device
    ) -> None:
        """Join the workers, unless they are; load nothing yet.

        Raises:
            LorasweepError: torch.distributed has joined other workers than the shard's.
            ResourceError: DeepSpeed computes on another kind of device in this process.
        """
        self.model, self.spec, self.shard, self.device = model, deepspeed, shard, device
        self.position = Position()
        self.notes: dict[str, Any] = {}
        self.trainable = 0
        self.lockstep = False
        self.tokens, self.seconds = 0, 0.0
        self.diverged: str | None = None
        self._loaded: tuple[Any, TrainSpec, int] | None = None
        self._trial: Trial | None = None
        self._engine: Any = None
        self._layers: tuple[AdapterLayer, ...] = ()
        self._joined = zero.join(shard, device)
        self._deepspeed = zero.import_deepspeed(device)
        self._displace = zero.place(device)

    def load(
        self,
        hyperparameters: LoraHyperparameters | FullHyperparameters,
        train: TrainSpec,
        seed: int,
    ) -> None:
        """Load the base and make it ready for a trial of these hyperparameters.

        Raises:
            ModelError: it cannot be loaded, or does not fit the hyperparameters.
            OutOfMemoryError: memory does not hold it.
        """
        size = hyperparameters.batch_size
        micro_batch = train.micro_batch or size // self.shard.workers
        config = zero.configuration(
            self.spec,
            train,
            dtype=compute_dtype(self.model, self.device),
            device=self.device,
            micro_batch=micro_batch,
            accumulated=size // micro_batch // self.shard.workers,
        )
        with Attempt() as attempt, zero.quietly():
            self._wrap(hyperparameters, train, seed, config)
        if attempt.shortage is not None:
            raise self._misfit("the model", attempt.shortage)
        self._loaded = hyperparameters, train, seed

    def _wrap(
        self,
        hyperparameters: LoraHyperparameters | FullHyperparameters,
        train: TrainSpec,
        seed: int,
        config: dict[str, Any],
    ) -> None:
        dropped = 0.0
        if isinstance(hyperparameters, LoraHyperparameters):
            self._layers = adapter_layers(empty_base(self.model), hyperparameters.targets)
        else:
            dropped = hyperparameters.attention_dropout
        with zero.sharding(config) if self.spec.stage == 3 else nullcontext():
            model = load_base(self.model, self.device, attention_dropout=dropped)
        if train.recompute:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if isinstance(hyperparameters, LoraHyperparameters):
            insert_adapter(model, self._layers, hyperparameters, seed)
        else:
            model.requires_grad_(True)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.trainable = sum(zero.size(parameter) for parameter in trained)
        zero.fit_buckets(config, self.trainable)
        optimizer = build_optimizer(
            train, trained, hyperparameters.lr, hyperparameters.weight_decay
        )
        self._engine, *_ = self._deepspeed.initialize(
            model=model, optimizer=optimizer, config=config
        )
        self.lockstep = self.spec.stage == 3 and not zero.fits_whole(
            self._engine, self.shard, self.device
        )

    @property
    def _model(self) -> Any:
        """Give the transformers model, with an adapter in its layers where LoRA trains."""
        assert self._engine is not None, "load() or begin() must come first"
        return self._engine.module

    @property
    def vocabulary(self) -> int:
        """Count the tokens that the base embeds."""
        return int(self._model.config.get_text_config().vocab_size)

    @cached_property
    def shares_rows(self) -> bool:
        """Tell whether attention keeps apart examples in one row; every worker must ask."""
        return shares_rows(self._model, self.device)

    @property
    def attention_cost(self) -> float:
        """Give the cost of attending to one more token over that of all else done for a token."""
        return attention_cost(self._model)

    def begin(self, trial: Trial, state: Path | None = None) -> None:
        """Take a trial up at its beginning, or where a state in this folder left it.

        Every worker must call it, and all take up the state that the first one was given.

        Raises:
            LorasweepError: the state was written by another number of workers, or is another
                trial's.
            ModelError, OutOfMemoryError: as `load`, where that was not called before.
        """
        if self._engine is None:
            self.load(trial.hyperparameters, trial.train, trial.batches.seed)
        own = trial.hyperparameters, trial.train, trial.batches.seed
        assert self._loaded == own, f"must be what load() was given, {self._loaded}, got {own}"
        self._trial = trial
        state = broadcast(state, self.shard)
        if state is not None:
            with zero.quietly():
                self.position, self.notes = sharded_state.load(
                    self._engine, state, self.shard, self._kind
                )

    @property
    def _kind(self) -> str:
        """Name what a state must agree on with the engine that goes on from it."""
        trained = "lora" if self._layers else "full"
        offload = " with offload" if self.spec.offload else ""
        return f"{trained} under stage {self.spec.stage}{offload}, {self.trainable} numbers trained"

    @property
    def trial(self) -> Trial:
        """Give the trial that was begun."""
        assert self._trial is not None, "begin() must come first"
        return self._trial

    def step(self) -> Progress:
        """Train on all micro-batches of one optimizer step, and take it unless it diverges.

        Raises:
            OutOfMemoryError: the device's memory does not hold the step. The engine cannot go on;
                another one can, from the trial's last state.
        """
        began = time.perf_counter()
        trial, position = self.trial, self.position
        self._engine.train()
        lr = learning_rate(trial.hyperparameters, trial.train, trial.steps, position.step)
        with Attempt() as attempt:
            loss, tokens = self._accumulate()
            norm = self._update(lr) if math.isfinite(loss) else math.nan
        if attempt.shortage is not None:
            raise self._misfit("a micro-batch", attempt.shortage)
        losses = (*position.losses, loss)[-SMOOTHED_STEPS:]
        self.diverged = divergence(losses, norm, math.log(self.vocabulary))
        self.seconds = time.perf_counter() - began
        if self.diverged is None:
            self.position = replace(
                position,
                step=position.step + 1,
                tokens=position.tokens + tokens,
                losses=losses,
                train_s=position.train_s + self.seconds,
            )
        return Progress(trial.id, self.position, lr, norm, self.diverged)

    def _accumulate(self) -> tuple[float, int]:
        """Compute the step's gradient; give its loss and tokens, over all workers."""
        batches, step = self.trial.batches, self.position.step
        targets = batches.targets(step)
        self.tokens = 0
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        for number, batch in enumerate(batches.dealt(step, self.shard)):
            if number > 0:
                self._engine.step()  # which only counts, but for the last micro-batch
            mean = self._mean(batch, targets)
            self._engine.backward(mean * self.shard.workers, scale_wrt_gas=False)
            loss += mean.detach()
            self.tokens += batch.tokens
        counts = torch.tensor(float(self.tokens), dtype=torch.float64, device=self.device)
        summed, tokens = self.shard.total(torch.stack([loss, counts])).tolist()
        return summed, int(tokens)

    def _mean(self, batch: MicroBatch, targets: int) -> Tensor:
        """Give a micro-batch's share of the step's loss."""
        if self._drops:
            # From the step on, so that what was drawn before does not matter.
            seed, step = self.trial.batches.seed, self.position.step
            torch.manual_seed(dropout_seed(seed, step, batch.index, 0))
        inputs: dict[str, Any] = {
            "input_ids": batch.ids_BT.to(self.device),
            "use_cache": False,
        }
        if self.shares_rows:
            inputs["position_ids"] = batch.positions_BT.to(self.device)
        with predictions_at(self._model, batch.places_K.to(self.device)):
            logits_KV = self._engine(**inputs).logits[0].float()
        labels_K = batch.labels_K.to(self.device)
        summed = functional.cross_entropy(
            logits_KV, labels_K, ignore_index=IGNORED, reduction="sum"
        )
        return summed / targets

    @property
    def _drops(self) -> bool:
        hyperparameters = self.trial.hyperparameters
        if isinstance(hyperparameters, LoraHyperparameters):
            return hyperparameters.dropout > 0
        return hyperparameters.attention_dropout > 0

    def _update(self, lr: float) -> float:
        """Clip and take the step, unless the gradient is not finite; give its norm before."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        if self._engine.zero_optimization_stage() > 0:
            self._engine.step()
            return float(self._engine.get_global_grad_norm())
        # Without sharding DeepSpeed clips unseen, and steps whatever the norm is.
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not norm.isfinite():
            return float(norm)
        if self.trial.train.clip is not None:
            scale = (self.trial.train.clip / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(gradients, scale)
        self._engine.step()
        return float(norm)

    @contextmanager
    def serve(self) -> Iterator[Served]:
        """Give the model for evaluation; every worker must ask, and may use it as it likes.

        Under stage 3 it is gathered for that long, unless `lockstep` says that it stays sharded.
        """
        gather = self.spec.stage == 3 and not self.lockstep
        with zero.whole(self._deepspeed, self._engine) if gather else nullcontext():
            yield SingleModel(self._model)

    def save(self, folder: Path, notes: dict[str, Any]) -> None:
        """Write a state to go on from, in place of an earlier one; every worker must call it.

        A crash leaves either the old state or the new one.
        """
        with zero.quietly():
            sharded_state.save(self._engine, folder, self.shard, self._kind, self.position, notes)

    def save_model(self, folder: Path, tokenizer: Any) -> None:
        """Write what was trained where others load it; every worker must call it.

        A model that was tuned whole becomes a transformers folder with its tokenizer, and LoRA a
        PEFT folder. Sharded weights are gathered one by one, into the first worker's own memory.
        """
        hyperparameters = self.trial.hyperparameters
        if isinstance(hyperparameters, LoraHyperparameters):
            adapter = self._collect(adapter_of(self._model))
            if self.shard.worker == 0:
                name = base_path(self.model)
                save_adapter(folder, adapter, self._layers, hyperparameters, name)
        else:
            weights = self._collect(self._model.state_dict(keep_vars=True))
            if self.shard.worker == 0:
                save_tuned(folder, self._model, weights, self.model)
                tokenizer.save_pretrained(str(folder))
        # Until it is written; a GPU's sum alone would not make its worker wait.
        self.shard.total(torch.zeros((), device=self.device)).item()

    def _collect(self, named: dict[str, Any]) -> dict[str, Tensor]:
        """Copy tensors to the first worker's memory; tied ones stay one tensor."""
        # Every worker gathers the same ones, though only the first keeps them.
        distinct = {id(tensor): tensor for tensor in named.values()}
        copies: dict[int, Tensor] = {}
        for key, tensor in distinct.items():
            with zero.gathered(self._deepspeed, [tensor]):
                if self.shard.worker == 0:
                    copies[key] = tensor.detach().cpu().clone()
        return {name: copies[id(tensor)] for name, tensor in named.items() if copies}

    def _misfit(self, what: str, shortage: str) -> OutOfMemoryError:
        """Say in a sentence what did not fit into memory."""
        return OutOfMemoryError(
            f"deepspeed.stage: {what} must fit into the memory of {self.device}, and does not "
            f"under stage {self.spec.stage} on {self.shard.workers} workers ({shortage})"
        )

    def close(self) -> None:
        """Give memory back, and leave the group that was made for a worker alone."""
        if self._engine is not None:
            zero.release(self._engine)
        self._engine = None
        gc.collect()  # DeepSpeed's hooks and the model refer to one another
        free_cache(self.device)
        self._displace()
        if self._joined:
            zero.leave(self._deepspeed)
            self._joined = False
