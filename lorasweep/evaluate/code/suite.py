"""Ask copies of a model for programs, run what they write, and score it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lorasweep.data.shard import Shard
from lorasweep.errors import LorasweepError
from lorasweep.evaluate.code import diversity
from lorasweep.evaluate.code.pass_at_k import estimate_pass_at_k
from lorasweep.evaluate.code.task import CodeTask, Problem, load_problems
from lorasweep.evaluate.generation.generate import Sampling, generation_batch_size, sample
from lorasweep.evaluate.sandbox.execution import Outcome, Sandbox
from lorasweep.model.served import Served
from lorasweep.store.scores import CodeScores, Distinct

SEED = 1234  # of what models write; lm-eval's own


@dataclass(frozen=True)
class Completion:
    """Hold one completion and how its program ended.

    task: as the sweep names it.
    problem: its id in the data.
    sample: which of the problem's completions, from 0.
    text: what the model wrote, without the prompt, cut before what ended it.
    status: passed, failed, timed_out or failed_to_run.
    """

    task: str
    problem: str
    sample: int
    text: str
    status: str


@dataclass
class CodeResults:
    """Hold what one copy of a model did: scores by task, and every completion."""

    scores: dict[str, CodeScores] = field(default_factory=dict)
    completions: list[Completion] = field(default_factory=list)


@dataclass(frozen=True)
class _ProblemResult:
    """Hold what one copy made of one problem.

    distinct: how many different completions, in each form that CodeScores has.
    obstacle: why one of them could not be run, if so.
    """

    number: int
    completions: list[Completion]
    distinct: dict[str, Distinct]
    obstacle: str

    def count(self, status: str) -> int:
        """Count the completions that ended so."""
        return sum(completion.status == status for completion in self.completions)


class CodeSuite:
    """Hold code tasks, ready to be put to one model after another.

    Each worker takes every so-manieth problem, and all of them learn what came of every one, so
    that scores are the same numbers whoever computes them.
    """

    def __init__(
        self,
        tasks: dict[str, CodeTask],
        tokenizer: Any,
        *,
        limit: int | None,
        batch_size: int,
        shard: Shard,
        device: torch.device,
        sandbox: Sandbox,
        max_parallel: int = 1,
    ) -> None:
        """Load the problems; no model is needed for it.

        Args:
            tasks: by the name that their score is to bear.
            max_parallel: programs that run at once.

        Raises:
            SpecError: the data of a task cannot be had, or lack a column.
        """
        self._tasks, self._tokenizer, self._batch_size = tasks, tokenizer, batch_size
        self._shard, self._device = shard, device
        self._sandbox, self._max_parallel = sandbox, max_parallel
        self._problems = {
            name: load_problems(task, limit)[shard.worker :: shard.workers]
            for name, task in tasks.items()
        }

    def results(self, served: Served) -> list[CodeResults]:
        """Ask all copies of a model, and run what they write.

        Returns:
            For each copy what it did, that on the problems of other workers included.

        Raises:
            LorasweepError: not one program of a task could be run.
            SandboxError: this machine cannot run programs safely.
        """
        answers = [CodeResults() for _ in range(served.copies)]
        for name, task in self._tasks.items():
            shares = self._shard.gather(self._solve(name, task, served))
            _require_runs(name, [answer for share in shares for own in share for answer in own])
            for copy, answer in enumerate(answers):
                solved = [problem for share in shares for problem in share[copy]]
                solved.sort(key=lambda problem: problem.number)
                answer.scores[name] = _score(task, solved)
                for problem in solved:
                    answer.completions.extend(problem.completions)
        return answers

    def _solve(self, name: str, task: CodeTask, served: Served) -> list[list[_ProblemResult]]:
        """Give what each copy makes of this worker's problems."""
        problems = self._problems[name]
        sampling = Sampling(
            task.samples, task.temperature, task.top_p, task.max_gen_toks, task.until, SEED
        )
        texts = sample(
            served,
            [self._tokenizer(problem.prompt)["input_ids"] for problem in problems],
            sampling,
            numbers=[problem.number for problem in problems],
            tokenizer=self._tokenizer,
            batch_size=generation_batch_size(served, self._batch_size),
            device=self._device,
        )
        # Copies that learned little write the same, and what is the same runs once.
        programs = [
            problem.program(text)
            for own in texts
            for problem, samples in zip(problems, own, strict=True)
            for text in samples
        ]
        outcomes = iter(self._sandbox.run_all(programs, self._max_parallel))
        return [
            [
                _problem_result(name, problem, samples, [next(outcomes) for _ in samples])
                for problem, samples in zip(problems, own, strict=True)
            ]
            for own in texts
        ]


def _require_runs(task: str, answers: Sequence[_ProblemResult]) -> None:
    """Refuse to call it a score where the sandbox has judged nothing.

    Raises:
        LorasweepError: not one program of a task could be run.
    """
    written = sum(len(answer.completions) for answer in answers)
    if sum(answer.count("failed_to_run") for answer in answers) == written:
        raise LorasweepError(
            f"evaluate: the sandbox must be able to run what is written for task {task!r}, and ran "
            f"none of {written} programs ({answers[0].obstacle})"
        )


def _problem_result(
    task: str, problem: Problem, texts: Sequence[str], outcomes: Sequence[Outcome]
) -> _ProblemResult:
    """Put together what one copy made of one problem."""
    passed = [outcome.status == "passed" for outcome in outcomes]
    forms = {
        "exact": list(texts),
        "whitespace": [diversity.collapse_whitespace(text) for text in texts],
        "syntax": [diversity.syntax_tree(problem.prompt, text) for text in texts],
    }
    return _ProblemResult(
        problem.number,
        [
            Completion(task, problem.id, number, text, outcome.status)
            for number, (text, outcome) in enumerate(zip(texts, outcomes, strict=True))
        ],
        {form: diversity.count(written, passed) for form, written in forms.items()},
        next((outcome.detail for outcome in outcomes if outcome.status == "failed_to_run"), ""),
    )


def _score(task: CodeTask, answers: Sequence[_ProblemResult]) -> CodeScores:
    """Average over the problems."""
    passed = [answer.count("passed") for answer in answers]
    distinct = {
        form: diversity.average([answer.distinct[form] for answer in answers])
        for form in ("exact", "whitespace", "syntax")
    }
    return CodeScores(
        problems=len(answers),
        samples=task.samples,
        pass_at={
            str(k): sum(
                estimate_pass_at_k(k, samples=task.samples, passed=count) for count in passed
            )
            / len(answers)
            for k in task.pass_at
        },
        failed_to_run=sum(answer.count("failed_to_run") for answer in answers),
        timed_out=sum(answer.count("timed_out") for answer in answers),
        **distinct,
    )
