from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lorasweep.data.shard import Shard
from lorasweep.errors import LorasweepError
from lorasweep.evaluate.code.pass_at_k import estimate_pass_at_k
from lorasweep.evaluate.code.suite import CodeResults, CodeSuite
from lorasweep.evaluate.sandbox.execution import Sandbox
from lorasweep.evaluate.tasks import code_tasks
from lorasweep.spec.sweep import EvaluateSpec
from lorasweep.store.scores import CodeScores, Distinct
from tests.evaluate.programs import TASK, FakeSandbox, write_task
from tests.evaluate.taught import CPU, alone, load, serve
from tests.workers import TwoWorkers


def _suite(
    folder: Path,
    tokenizer: Any,
    sandbox: Sandbox,
    shard: Shard = Shard(),  # noqa: B008
    limit: int | None = None,
) -> CodeSuite:
    spec = EvaluateSpec(tasks=str(folder), learning=("quoted",), allow_code_execution=True)
    return CodeSuite(
        code_tasks(spec),
        tokenizer,
        limit=limit,
        batch_size=4,
        shard=shard,
        device=CPU,
        sandbox=sandbox,
    )


def _results(
    model: Path,
    folder: Path,
    shard: Shard = Shard(),  # noqa: B008
) -> list[CodeResults]:
    served, tokenizer = serve(model, copies=3)
    return _suite(folder, tokenizer, FakeSandbox(), shard).results(served)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_task(tmp_path)


def _passed(answers: CodeResults) -> list[int]:
    """Count what passed, problem by problem."""
    counts: dict[str, int] = {}
    for completion in answers.completions:
        passed = completion.status == "passed"
        counts[completion.problem] = counts.get(completion.problem, 0) + passed
    return list(counts.values())


def test_programs_are_sampled_run_in_the_sandbox_and_scored(taught_model: Path, tmp_path: Path):
    served, tokenizer = serve(taught_model, copies=2)
    suite = _suite(write_task(tmp_path, problems=3), tokenizer, Sandbox())
    answers = suite.results(served)
    assert len(answers) == 2
    for own in answers:
        scores = own.scores["quoted"]
        assert (scores.problems, scores.samples) == (3, 4)
        assert [c.problem for c in own.completions[::4]] == ["q/0", "q/1", "q/2"]
        assert [c.sample for c in own.completions] == [0, 1, 2, 3] * 3
        for completion in own.completions:  # the program has a newline between text and test
            passes = len(completion.text) % 2 == 1
            assert completion.status == ("passed" if passes else "failed")
        for k in (1, 2, 4):
            each = [estimate_pass_at_k(k, samples=4, passed=count) for count in _passed(own)]
            assert scores.pass_at[str(k)] == pytest.approx(sum(each) / 3)
        assert 0 < scores.pass_at["1"] < scores.pass_at["4"]
        assert (scores.failed_to_run, scores.timed_out) == (0, 0)
    assert answers[0].completions != answers[1].completions


def test_the_stand_in_judges_as_the_sandbox_does(taught_model: Path, tmp_path: Path):
    served, tokenizer = serve(taught_model)
    write_task(tmp_path, problems=1)
    assert _suite(tmp_path, tokenizer, FakeSandbox()).results(served) == _suite(
        tmp_path, tokenizer, Sandbox()
    ).results(served)


def test_the_different_completions_of_a_problem_are_counted(taught_model: Path, folder: Path):
    for own in _results(taught_model, folder):
        texts: dict[str, list[str]] = {}
        for completion in own.completions:
            texts.setdefault(completion.problem, []).append(completion.text)
        expected = sum(len(set(written)) for written in texts.values()) / 5
        scores = own.scores["quoted"]
        assert scores.exact.all == pytest.approx(expected)
        assert scores.whitespace.all <= scores.exact.all
        assert 1 <= scores.syntax.all <= 4


def test_a_copy_answers_the_same_in_any_company(taught_model: Path, folder: Path):
    served, tokenizer = serve(taught_model, copies=4)
    suite = _suite(folder, tokenizer, FakeSandbox())
    together = suite.results(served)
    assert together == [suite.results(one)[0] for one in alone(served)]
    assert together == suite.results(served)


def test_the_number_of_workers_changes_nothing(
    taught_model: Path, folder: Path, two_workers: TwoWorkers
):
    expected = _results(taught_model, folder)
    first, second = two_workers(_results, taught_model, folder)
    assert first == expected
    assert second == expected


def test_a_worker_without_a_problem_has_all_answers_too(
    taught_model: Path, tmp_path: Path, two_workers: TwoWorkers
):
    write_task(tmp_path, problems=1)
    expected = _results(taught_model, tmp_path)
    assert two_workers(_results, taught_model, tmp_path) == [expected, expected]


def test_a_limit_asks_the_first_problems_only(taught_model: Path, folder: Path):
    served, tokenizer = serve(taught_model)
    (own,) = _suite(folder, tokenizer, FakeSandbox(), limit=2).results(served)
    whole, *_ = _suite(folder, tokenizer, FakeSandbox()).results(served)
    assert own.scores["quoted"].problems == 2
    assert own.completions == whole.completions[:8]


def test_a_sandbox_that_runs_nothing_gives_no_score(taught_model: Path, folder: Path):
    served, tokenizer = serve(taught_model)
    with pytest.raises(
        LorasweepError, match=r"task 'quoted', and ran none of 20 programs \(no namespace\)"
    ):
        _suite(folder, tokenizer, FakeSandbox(broken=True)).results(served)


def test_one_greedy_answer_is_scored_plainly(taught_model: Path, tmp_path: Path):
    write_task(tmp_path, samples=1, temperature=0, pass_at=[1])
    served, tokenizer = serve(taught_model)
    (own,) = _suite(tmp_path, tokenizer, FakeSandbox()).results(served)
    passed = sum(completion.status == "passed" for completion in own.completions)
    outcomes = Distinct(all=1, passed=1 if passed else None, failed=1 if passed < 5 else None)
    assert own.scores["quoted"] == CodeScores(
        problems=5,
        samples=1,
        pass_at={"1": passed / 5},
        exact=outcomes,
        whitespace=outcomes,
        syntax=outcomes,
    )


def test_without_tasks_nobody_is_asked(taught_model: Path):
    served, tokenizer = serve(taught_model, copies=2)
    suite = CodeSuite(
        {}, tokenizer, limit=None, batch_size=4, shard=Shard(), device=CPU, sandbox=Sandbox()
    )
    assert suite.results(served) == [CodeResults(), CodeResults()]


def test_the_programs_are_those_of_every_copy(taught_model: Path, folder: Path):
    served, _ = serve(taught_model, copies=2)
    sandbox = FakeSandbox()
    first, second = _suite(folder, load(taught_model)[1], sandbox).results(served)
    texts = [c.text for own in (first, second) for c in own.completions]
    assert len(sandbox.programs) == len(texts) == 2 * 5 * TASK["samples"]
    assert all(text in program for text, program in zip(texts, sandbox.programs, strict=True))
