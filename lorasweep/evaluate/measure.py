"""Measure everything of a model: learning and source tasks, and held-out examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any

import torch

from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens
from lorasweep.evaluate.agreement import BaseSamples, base_agreement
from lorasweep.evaluate.code.suite import CodeResults, CodeSuite, Completion
from lorasweep.evaluate.continuations import Continuations
from lorasweep.evaluate.harness import Suite
from lorasweep.evaluate.heldout import heldout_responses, measure_heldout
from lorasweep.evaluate.sandbox.cores import max_parallel_programs
from lorasweep.evaluate.sandbox.execution import Sandbox
from lorasweep.evaluate.tasks import BASE_AGREEMENT, RESPONSE_ACCURACY, code_tasks, load_tasks
from lorasweep.model.served import Served
from lorasweep.spec.sweep import EvaluateSpec
from lorasweep.store.scores import Scores


@dataclass(frozen=True)
class Measurement:
    """Everything that evaluation needs besides the model, set up once for all trials.

    sample: generates the base's own samples; called once, and only if a suite has `base_agreement`.
    completions: what each copy wrote for the code tasks in the last call of `scores`.
    """

    spec: EvaluateSpec
    tokenizer: Any
    heldout: Tokens
    sample: Callable[[], BaseSamples]
    shard: Shard
    device: torch.device
    completions: list[list[Completion]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )
    _preparing: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def prepare(self) -> None:
        """Load the tasks and build their prompts and batches, unless that has been done.

        No model is involved, so another thread may do it while the first trials train.

        Raises:
            LorasweepError: a task cannot be loaded, or its prompts cannot be built.
        """
        with self._preparing:
            _ = self._suite, self._code, self._responses

    @cached_property
    def _suite(self) -> Suite | None:
        """lm-eval's tasks; None if there are none, so that lm-eval need not be loaded."""
        tasks = load_tasks(self._names, self.spec)
        if not tasks:
            return None
        return Suite(
            tasks,
            self.tokenizer,
            limit=self.spec.limit,
            batch_size=self.spec.batch_size,
            shard=self.shard,
            device=self.device,
        )

    @cached_property
    def _code(self) -> CodeSuite:
        return CodeSuite(
            code_tasks(self.spec),
            self.tokenizer,
            limit=self.spec.limit,
            batch_size=self.spec.batch_size,
            shard=self.shard,
            device=self.device,
            sandbox=Sandbox(),
            max_parallel=max_parallel_programs(self.device),
        )

    @cached_property
    def _responses(self) -> Continuations:
        return heldout_responses(
            self.heldout,
            batch_size=self.spec.batch_size,
            pad=self.tokenizer.pad_token_id,
            shard=self.shard,
        )

    @cached_property
    def samples(self) -> BaseSamples:
        """Samples that the base generated."""
        return self.sample()

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.spec.learning, *self.spec.source)))

    def response_losses(self, served: Served) -> list[float]:
        """Measure only the response loss of each copy, in nats per token, as rungs do."""
        return [loss for loss, _ in self._heldout(served)]

    def _heldout(self, served: Served) -> list[tuple[float, float]]:
        return measure_heldout(served, self._responses, shard=self.shard, device=self.device)

    def scores(self, served: Served) -> list[Scores]:
        """Measure each copy on both suites and on the held-out examples."""
        self.prepare()
        heldout = self._heldout(served)
        code = self._code.results(served)
        self.completions[:] = [results.completions for results in code]
        tasks = [_pass_at_1(results) for results in code]
        if self._suite is not None:
            for scores, more in zip(tasks, self._suite.scores(served), strict=True):
                scores.update(more)
        if RESPONSE_ACCURACY in self._names:
            for scores, (_, accuracy) in zip(tasks, heldout, strict=True):
                scores[RESPONSE_ACCURACY] = accuracy
        if BASE_AGREEMENT in self._names:
            agreements = base_agreement(
                served,
                self.samples,
                batch_size=self.spec.batch_size,
                shard=self.shard,
                device=self.device,
            )
            for scores, agreement in zip(tasks, agreements, strict=True):
                scores[BASE_AGREEMENT] = agreement
        return [
            Scores(
                learning=_mean(scores, self.spec.learning),
                source_accuracy=_mean(scores, self.spec.source),
                response_loss=loss,
                tasks={name: scores[name] for name in self._names},
                code=results.scores,
            )
            for scores, (loss, _), results in zip(tasks, heldout, code, strict=True)
        ]


def _pass_at_1(results: CodeResults) -> dict[str, float]:
    """Select each code task's score, pass@1."""
    return {name: scores.pass_at["1"] for name, scores in results.scores.items()}


def _mean(scores: dict[str, float], names: tuple[str, ...]) -> float | None:
    """Average a suite's tasks, unweighted (Biderman et al. 2024, v2, section 4); None if empty."""
    return sum(scores[name] for name in names) / len(names) if names else None
