"""Measure models: what they learned, and what they still know."""

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
    """Hold all that measuring needs besides the model, so that it is set up once.

    sample: gives the base's own samples, which are asked for once, and only where a suite holds
        `base_agreement`.
    completions: what each copy wrote in answer to code tasks when `scores` was last asked, by copy.
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
        """Load the tasks and build all that models will be asked, unless it has been done.

        It touches no model, so another thread may do it while the first trials train.

        Raises:
            LorasweepError: a task cannot be loaded or asked.
        """
        with self._preparing:
            _ = self._suite, self._code, self._responses

    @cached_property
    def _suite(self) -> Suite | None:
        """Hold lm-eval's tasks; without any, nobody waits for lm-eval to load."""
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
        """The base's own samples."""
        return self.sample()

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.spec.learning, *self.spec.source)))

    def response_losses(self, served: Served) -> list[float]:
        """Measure each copy's response loss alone, in nats per token, as a rung does."""
        return [loss for loss, _ in self._heldout(served)]

    def _heldout(self, served: Served) -> list[tuple[float, float]]:
        return measure_heldout(served, self._responses, shard=self.shard, device=self.device)

    def scores(self, served: Served) -> list[Scores]:
        """Measure everything of each copy: both suites and the held-out examples."""
        self.prepare()
        heldout = self._heldout(served)
        code = self._code.results(served)
        self.completions[:] = [answers.completions for answers in code]
        tasks = [_passed(answers) for answers in code]
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
                code=answers.scores,
            )
            for scores, (loss, _), answers in zip(tasks, heldout, code, strict=True)
        ]


def _passed(answers: CodeResults) -> dict[str, float]:
    """Give pass@1 of each task, the score that it counts with."""
    return {name: scores.pass_at["1"] for name, scores in answers.scores.items()}


def _mean(scores: dict[str, float], names: tuple[str, ...]) -> float | None:
    """Give the unweighted mean of a suite (Biderman et al. 2024, v2, section 4), None if empty."""
    return sum(scores[name] for name in names) / len(names) if names else None
