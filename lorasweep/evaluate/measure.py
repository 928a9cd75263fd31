"""Measure one model: what it learned, and what it still knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens
from lorasweep.evaluate.agreement import BaseSamples, base_agreement
from lorasweep.evaluate.harness import run_tasks
from lorasweep.evaluate.heldout import measure_heldout
from lorasweep.evaluate.tasks import BASE_AGREEMENT, RESPONSE_ACCURACY, load_tasks
from lorasweep.spec.sweep import EvaluateSpec
from lorasweep.store.records import Scores


@dataclass(frozen=True)
class Measurement:
    """Hold all that measuring needs besides the model, so that it is set up once.

    samples: the base's own samples, where the source suite holds `base_agreement`.
    """

    spec: EvaluateSpec
    tokenizer: Any
    heldout: Tokens
    samples: BaseSamples | None
    shard: Shard
    device: torch.device

    def response_loss(self, model: Any) -> float:
        """Measure the response loss alone, in nats per token, as a rung does."""
        return self._heldout(model)[0]

    def _heldout(self, model: Any) -> tuple[float, float]:
        return measure_heldout(
            model,
            self.heldout,
            batch_size=self.spec.batch_size,
            pad=self.tokenizer.pad_token_id,
            shard=self.shard,
            device=self.device,
        )

    def scores(self, model: Any) -> Scores:
        """Measure everything: both suites and the held-out examples."""
        loss, accuracy = self._heldout(model)
        names = tuple(dict.fromkeys((*self.spec.learning, *self.spec.source)))
        tasks = run_tasks(
            model,
            self.tokenizer,
            load_tasks(names, self.spec),
            limit=self.spec.limit,
            batch_size=self.spec.batch_size,
            shard=self.shard,
            device=self.device,
        )
        if RESPONSE_ACCURACY in names:
            tasks[RESPONSE_ACCURACY] = accuracy
        if BASE_AGREEMENT in names:
            assert self.samples is not None, "the driver samples the base where agreement is asked"
            tasks[BASE_AGREEMENT] = base_agreement(
                model,
                self.samples,
                batch_size=self.spec.batch_size,
                shard=self.shard,
                device=self.device,
            )
        return Scores(
            learning=_mean(tasks, self.spec.learning),
            source_accuracy=_mean(tasks, self.spec.source),
            response_loss=loss,
            tasks={name: tasks[name] for name in names},
        )


def _mean(scores: dict[str, float], names: tuple[str, ...]) -> float | None:
    """Give the unweighted mean of a suite (Biderman et al. 2024, v2, section 4), None if empty."""
    return sum(scores[name] for name in names) / len(names) if names else None
