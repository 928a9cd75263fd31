"""Run code tasks: sample programs from all copies of a model, run them, and score them."""

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

SEED = 1234  # of sampling; lm-eval's own


@dataclass(frozen=True)
class Completion:
    """One completion and the outcome of its program.

    task: its name in the sweep.
    problem: its id in the data.
    sample: index among the problem's completions.
    text: what the model wrote, without the prompt, cut before its end.
    status: passed, failed, timed_out or failed_to_run.
    """

    task: str
    problem: str
    sample: int
    text: str
    status: str


@dataclass
class CodeResults:
    """Results of one copy of a model: scores by task, and every completion."""

    scores: dict[str, CodeScores] = field(default_factory=dict)
    completions: list[Completion] = field(default_factory=list)


@dataclass(frozen=True)
class _ProblemResult:
    """Results of one copy on one problem.

    distinct: numbers of distinct completions, in each form that CodeScores has.
    obstacle: why a completion could not be run, "" if all could.
    """

    number: int
    completions: list[Completion]
    distinct: dict[str, Distinct]
    obstacle: str

    def count(self, status: str) -> int:
        """Count the completions with a status."""
        return sum(completion.status == status for completion in self.completions)


class CodeSuite:
    """Code tasks, prepared once and run on one model after another.

    Of W workers, each takes every W-th problem. All of them gather all results, so each of them
    computes the same scores.
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
        """Load the problems; no model is needed for that.

        Args:
            tasks: by the name of their score.
            max_parallel: programs that run at once.

        Raises:
            SpecError: the data of a task cannot be loaded, or lack a column.
        """
        self._tasks, self._tokenizer, self._batch_size = tasks, tokenizer, batch_size
        self._shard, self._device = shard, device
        self._sandbox, self._max_parallel = sandbox, max_parallel
        self._problems = {
            name: load_problems(task, limit)[shard.worker :: shard.workers]
            for name, task in tasks.items()
        }

    def results(self, served: Served) -> list[CodeResults]:
        """Sample programs from all copies of a model, and run them.

        Returns:
            Results of each copy, including the problems of other workers.

        Raises:
            LorasweepError: no program of a task could be run.
            SandboxError: this machine cannot run programs safely.
        """
        results = [CodeResults() for _ in range(served.copies)]
        for name, task in self._tasks.items():
            shares = self._shard.gather(self._solve(name, task, served))
            _require_runs(name, [result for share in shares for own in share for result in own])
            for copy, result in enumerate(results):
                solved = [problem for share in shares for problem in share[copy]]
                solved.sort(key=lambda problem: problem.number)
                result.scores[name] = _score(task, solved)
                for problem in solved:
                    result.completions.extend(problem.completions)
        return results

    def _solve(self, name: str, task: CodeTask, served: Served) -> list[list[_ProblemResult]]:
        """Sample and run every copy's programs for this worker's problems."""
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
        # All copies' programs go in one call, which runs identical ones once: copies that learned
        # little write much alike.
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


def _require_runs(task: str, results: Sequence[_ProblemResult]) -> None:
    """Require that the sandbox ran at least one program, or a score of 0 would mean nothing.

    Raises:
        LorasweepError: no program of a task could be run.
    """
    written = sum(len(result.completions) for result in results)
    if sum(result.count("failed_to_run") for result in results) == written:
        raise LorasweepError(
            f"evaluate: the sandbox must be able to run the programs of task {task!r}, and ran "
            f"none of {written} programs ({results[0].obstacle})"
        )


def _problem_result(
    task: str, problem: Problem, texts: Sequence[str], outcomes: Sequence[Outcome]
) -> _ProblemResult:
    """Collect one copy's results on one problem."""
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


def _score(task: CodeTask, results: Sequence[_ProblemResult]) -> CodeScores:
    """Average a task's results over its problems."""
    passed = [result.count("passed") for result in results]
    distinct = {
        form: diversity.average([result.distinct[form] for result in results])
        for form in results[0].distinct
    }
    return CodeScores(
        problems=len(results),
        samples=task.samples,
        pass_at={
            str(k): sum(
                estimate_pass_at_k(k, samples=task.samples, passed=count) for count in passed
            )
            / len(results)
            for k in task.pass_at
        },
        failed_to_run=sum(result.count("failed_to_run") for result in results),
        timed_out=sum(result.count("timed_out") for result in results),
        **distinct,
    )
