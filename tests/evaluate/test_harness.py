from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from lorasweep.data.shard import Shard
from lorasweep.errors import LorasweepError
from lorasweep.evaluate import served_lm
from lorasweep.evaluate.harness import SHOTS_SEED, Suite
from lorasweep.evaluate.tasks import load_tasks
from lorasweep.model.served import Served
from lorasweep.spec.sweep import EvaluateSpec
from lorasweep.testbed import MODEL
from tests.evaluate.taught import ASKED_RIGHTLY, CPU, TASKS, alone, load, serve
from tests.workers import TwoWorkers

Asked = dict[str, dict[str, str]]  # task: question: the prompt that asks it
Answers = dict[str, list[Any]]  # task: answers to each request
TESTBED = ("testbed_math", "testbed_hellaswag", "testbed_arc", "testbed_winogrande")
OWN = (*TASKS, "chosen@2")


def _suite(
    tokenizer: Any,
    tasks_folder: Path,
    names: tuple[str, ...],
    limit: int | None = None,
    batch_size: int = 4,
    shard: Shard = Shard(),  # noqa: B008
) -> tuple[Suite, dict[str, Any]]:
    """Prepare tasks of a folder; return the suite and the tasks."""
    tasks = load_tasks(names, EvaluateSpec(tasks=str(tasks_folder)))
    suite = Suite(tasks, tokenizer, limit=limit, batch_size=batch_size, shard=shard, device=CPU)
    return suite, tasks


def _answers(tasks: dict[str, Any]) -> Answers:
    """Collect the answers of the model that was run last."""
    return {name: [request.resps for request in task.instances] for name, task in tasks.items()}


def _run(
    folder: Path,
    tasks_folder: Path,
    names: tuple[str, ...],
    limit: int | None = None,
    batch_size: int = 4,
    shard: Shard = Shard(),  # noqa: B008
) -> tuple[dict[str, float], Asked]:
    """Score a model on tasks of a folder; return the scores and the prompts."""
    served, tokenizer = serve(folder)
    suite, tasks = _suite(tokenizer, tasks_folder, names, limit, batch_size, shard)
    (scores,) = suite.scores(served)
    asked = {
        name: {
            request.doc["question"]: request.args[0] for request in getattr(task, "instances", [])
        }
        for name, task in tasks.items()
    }
    return scores, asked


def _of_lm_eval(
    served: Served, tokenizer: Any, tasks_folder: Path, name: str, limit: int | None
) -> tuple[dict[str, float], list[Any]]:
    """Score a model with lm-eval itself; return its measures and the model's answers."""
    (task,) = load_tasks((name,), EvaluateSpec(tasks=str(tasks_folder))).values()
    task.set_fewshot_seed(seed=SHOTS_SEED)
    with served.one_copy(0) as model:
        results = evaluate(
            HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4),
            {"tasks": {name: task}, "groups": {}},
            limit=limit,
            bootstrap_iters=0,
        )
    return results["results"][name], [request.resps for request in task.instances]


def test_a_model_scores_on_what_it_knows(taught_model: Path, tasks_folder: Path):
    scores, asked = _run(taught_model, tasks_folder, ("told", "chosen", "followed", "weighed"))
    assert scores == {"told": 0.7, "chosen": 0.7, "followed": 0.7, "weighed": 0.7}
    assert len(asked["told"]) == len(asked["chosen"]) == 10


def test_a_model_that_knows_nothing_tells_nothing(tiny_model: Path, tasks_folder: Path):
    assert _run(tiny_model, tasks_folder, ("told",))[0] == {"told": 0.0}


@pytest.mark.parametrize(
    ("names", "limit", "metric"),
    [
        (("chosen", "chosen@2", "followed", "weighed"), None, "acc,none"),
        (("told",), None, "exact_match,strict-match"),
        (("believed",), None, "perplexity,none"),
        (("correlated",), None, "mcc,none"),
        (("normed",), None, "acc_norm,none"),
        (("testbed_math",), 20, "exact_match,strict-match"),
        (("testbed_hellaswag", "testbed_arc", "testbed_winogrande"), 20, "acc,none"),
    ],
)
def test_scores_and_answers_are_those_of_lm_eval(
    taught_model: Path,
    tasks_folder: Path,
    names: tuple[str, ...],
    limit: int | None,
    metric: str,
):
    served, tokenizer = serve(MODEL if names[0] in TESTBED else taught_model, copies=3)
    suite, tasks = _suite(tokenizer, tasks_folder, names, limit, 7)
    together = suite.scores(served)
    for scores, copy in zip(together, alone(served), strict=True):
        assert suite.scores(copy) == [scores]
        answers = _answers(tasks)
        for name in names:
            measured, expected = _of_lm_eval(copy, tokenizer, tasks_folder, name, limit)
            if name == "believed":
                assert scores[name] == pytest.approx(measured[metric], rel=1e-6)
            else:
                assert scores[name] == measured[metric]
            assert len(answers[name]) == len(expected)
            for answer, other in zip(answers[name], expected, strict=True):
                assert _equal(answer, other)


def _equal(answer: list[Any], other: list[Any]) -> bool:
    """Compare texts and greediness exactly, likelihoods as far as logits of size 30 are in fp32."""
    ((one,), (two,)) = answer, other
    if isinstance(one, str):
        return bool(one == two)
    if isinstance(one, float):
        return bool(one == pytest.approx(two, rel=1e-6))
    return bool(one[0] == pytest.approx(two[0], rel=1e-6, abs=1e-5) and one[1] == two[1])


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_a_copy_answers_the_same_in_any_company(
    taught_model: Path, tasks_folder: Path, batch_size: int
):
    served, tokenizer = serve(taught_model, copies=4)
    suite, tasks = _suite(tokenizer, tasks_folder, OWN, None, batch_size)
    together = suite.scores(served)
    last = _answers(tasks)
    for scores, copy in zip(together, alone(served), strict=True):
        assert suite.scores(copy) == [scores]  # bit for bit
    assert _answers(tasks) == last
    assert len({scores["believed"] for scores in together}) == 4
    assert len({scores["told"] for scores in together}) > 1


def test_copies_of_the_testbed_answer_the_same_in_any_company(tmp_path: Path):
    served, tokenizer = serve(MODEL, copies=3)
    suite, tasks = _suite(tokenizer, tmp_path, TESTBED, 20, 16)
    together = suite.scores(served)
    last = _answers(tasks)
    assert [suite.scores(copy)[0] for copy in alone(served)] == together
    assert _answers(tasks) == last


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("piece", [1, 3])
def test_that_some_answers_have_ended_changes_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: int, piece: int
):
    served, tokenizer = serve(MODEL, copies=copies)
    suite, tasks = _suite(tokenizer, tmp_path, ("testbed_math",), 70, 16)
    monkeypatch.setattr(served_lm, "CHECK_EVERY", 1000)  # no check before all have ended
    at_once = suite.scores(served)
    answers = _answers(tasks)
    monkeypatch.setattr(served_lm, "CHECK_EVERY", piece)
    assert suite.scores(served) == at_once
    assert _answers(tasks) == answers
    assert len({str(answer) for answer in answers["testbed_math"]}) > 5


def test_an_answer_ends_at_each_of_the_end_tokens_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    served, tokenizer = serve(MODEL)
    suite, tasks = _suite(tokenizer, tmp_path, ("testbed_math",), 4, 16)
    suite.scores(served)
    unended = _answers(tasks)
    another = tokenizer(unended["testbed_math"][0][0])["input_ids"][1]
    settings = served._packed.base.generation_config
    settings.eos_token_id = [tokenizer.eos_token_id, another]
    monkeypatch.setattr(served_lm, "CHECK_EVERY", 1000)
    suite.scores(served)
    at_once = _answers(tasks)
    assert at_once != unended
    monkeypatch.setattr(served_lm, "CHECK_EVERY", 2)
    suite.scores(served)
    assert _answers(tasks) == at_once


def test_what_is_not_written_word_by_word_is_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    served, tokenizer = serve(MODEL, copies=2)
    suite, tasks = _suite(tokenizer, tmp_path, ("testbed_math",), 20, 16)
    at_once = suite.scores(served)
    answers = _answers(tasks)
    monkeypatch.setattr(served_lm, "RESUMABLE", frozenset())
    assert suite.scores(served) == at_once
    assert _answers(tasks) == answers
    for request in tasks["testbed_math"].instances:
        request.args[1]["num_beams"] = 2
    suite.scores(served)
    assert _answers(tasks) != answers


def test_a_task_whose_template_is_wrong_is_refused_in_a_sentence(tmp_path: Path):
    _, tokenizer = serve(MODEL)
    task = TASKS["told"].replace("{{question}}", "{{choices[1]}}")
    (tmp_path / "told.yaml").write_text(task, encoding="utf-8")
    rows = [{"question": "Why?", "answer": "1", "choices": list("12")[:count]} for count in (2, 1)]
    for name in ("questions", "shots"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    with pytest.raises(
        LorasweepError,
        match=r"^evaluate: the prompts of task 'told' cannot be built .*UndefinedError",
    ):
        _suite(tokenizer, tmp_path, ("told",))


def test_another_model_gives_its_own_answers(
    taught_model: Path, tiny_model: Path, tasks_folder: Path
):
    taught, tokenizer = serve(taught_model)
    tiny, _ = serve(tiny_model)
    suite, tasks = _suite(tokenizer, tasks_folder, OWN)
    first = suite.scores(taught)
    answers = _answers(tasks)
    other = suite.scores(tiny)
    assert other == _suite(tokenizer, tasks_folder, OWN)[0].scores(tiny)
    assert all(other[0][name] != first[0][name] for name in ("told", "followed", "believed"))
    assert suite.scores(taught) == first
    assert _answers(tasks) == answers


def test_a_second_model_is_asked_without_building_anything_anew(
    taught_model: Path, tasks_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    served, tokenizer = serve(taught_model)
    names = ("chosen@2", "weighed", "followed", "believed")
    suite, _ = _suite(tokenizer, tasks_folder, names)
    scores = suite.scores(served)

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("it is there already")

    monkeypatch.setattr("lm_eval.utils.apply_template", refuse)
    monkeypatch.setattr(type(tokenizer), "encode", refuse)
    monkeypatch.setattr(type(tokenizer), "__call__", refuse)
    assert suite.scores(served) == scores


def test_requests_are_built_without_a_model(tiny_model: Path, tasks_folder: Path):
    _, tokenizer = load(tiny_model)
    _, tasks = _suite(tokenizer, tasks_folder, OWN)
    assert all(len(task.instances) >= 10 for task in tasks.values())


def test_what_is_asked_twice_is_computed_once(taught_model: Path, tasks_folder: Path):
    rows: list[int] = []
    for names in (("chosen",), ("chosen", "chosen@0")):
        served, tokenizer = serve(taught_model)
        served._packed.base.register_forward_pre_hook(
            lambda _, __, inputs: rows.append(len(inputs["input_ids"])), with_kwargs=True
        )
        _suite(tokenizer, tasks_folder, names)[0].scores(served)
    half = len(rows) // 2
    assert rows[:half] == rows[half:]


def _log_likelihood(model: Any, tokenizer: Any, context: str, choice: str) -> float:
    start = len(tokenizer(context)["input_ids"])
    ids = torch.tensor(tokenizer(f"{context} {choice}")["input_ids"])
    chances = model(input_ids=ids[None]).logits[0].log_softmax(-1)
    return float(sum(chances[i - 1, ids[i]].item() for i in range(start, len(ids))))


@pytest.mark.parametrize("task", ["chosen", "chosen@2"])
def test_choices_are_judged_by_their_log_likelihoods(
    tiny_model: Path, tasks_folder: Path, task: str
):
    scores, asked = _run(tiny_model, tasks_folder, (task,))
    model, tokenizer = load(tiny_model)
    lines = (tasks_folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    right = []
    for row in map(json.loads, lines):
        context = asked[task][row["question"]]
        assert context.endswith(f"Question: {row['question']}\nAnswer:")
        likelihoods = {c: _log_likelihood(model, tokenizer, context, c) for c in row["choices"]}
        right.append(max(likelihoods, key=likelihoods.__getitem__) == f"#### {row['answer']}")
    assert scores[task] == pytest.approx(sum(right) / len(right))
    assert 0 < sum(right) < len(right)


@pytest.mark.parametrize("limit", [1, 4, 10, 99])
def test_a_limit_takes_the_first_problems(taught_model: Path, tasks_folder: Path, limit: int):
    asked_rightly = ASKED_RIGHTLY[:limit]
    expected = pytest.approx(sum(asked_rightly) / len(asked_rightly))
    scores, asked = _run(taught_model, tasks_folder, ("told", "chosen"), limit)
    assert scores == {"told": expected, "chosen": expected}
    assert len(asked["chosen"]) == len(asked_rightly)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_size_changes_nothing(taught_model: Path, tasks_folder: Path, batch_size: int):
    scores, _ = _run(taught_model, tasks_folder, ("told", "chosen"), None, batch_size)
    assert scores == {"told": 0.7, "chosen": 0.7}


def test_shots_stand_before_every_problem(taught_model: Path, tasks_folder: Path):
    names = ("chosen", "chosen@0", "chosen@2", "chosen@3")
    scores, asked = _run(taught_model, tasks_folder, names)
    assert scores["chosen"] == scores["chosen@0"]
    for name, shots in zip(names, (0, 0, 2, 3), strict=True):
        for context in asked[name].values():
            assert context.count("Question: Why ") == shots
            assert context.count("Answer: ####") == shots
    assert len({c.partition("Question: ")[2] for c in asked["chosen@3"].values()}) == 10


@pytest.mark.parametrize("limit", [None, 5, 1])
def test_the_number_of_workers_changes_neither_scores_nor_prompts(
    taught_model: Path, tasks_folder: Path, two_workers: TwoWorkers, limit: int | None
):
    names = ("told", "chosen", "chosen@3")
    scores, asked = _run(taught_model, tasks_folder, names, limit)
    (first, mine), (second, others) = two_workers(_run, taught_model, tasks_folder, names, limit)
    assert first == second == pytest.approx(scores)
    for name in names:
        assert not mine[name].keys() & others[name].keys()
        assert mine[name] | others[name] == asked[name]


def test_a_score_that_is_no_mean_does_not_depend_on_the_number_of_workers(
    taught_model: Path, tasks_folder: Path, two_workers: TwoWorkers
):
    expected = _of_copies(taught_model, tasks_folder, ("correlated", "normed"))
    first, second = two_workers(_of_copies, taught_model, tasks_folder, ("correlated", "normed"))
    assert first == second == expected
    assert 0 < expected[0]["correlated"] < 1


def _of_copies(
    folder: Path,
    tasks_folder: Path,
    names: tuple[str, ...],
    shard: Shard = Shard(),  # noqa: B008
) -> list[dict[str, float]]:
    served, tokenizer = serve(folder, copies=3)
    return _suite(tokenizer, tasks_folder, names, shard=shard)[0].scores(served)


def test_the_number_of_workers_changes_no_copy(
    taught_model: Path, tasks_folder: Path, two_workers: TwoWorkers
):
    names = ("told", "chosen@2", "weighed", "followed")
    expected = [pytest.approx(scores) for scores in _of_copies(taught_model, tasks_folder, names)]
    first, second = two_workers(_of_copies, taught_model, tasks_folder, names)
    assert first == second == expected


def test_preparing_twice_asks_the_same(taught_model: Path, tasks_folder: Path):
    _, tokenizer = load(taught_model)
    tasks = load_tasks(("chosen@3",), EvaluateSpec(tasks=str(tasks_folder)))
    prompts = []
    for _ in range(2):
        Suite(tasks, tokenizer, limit=None, batch_size=4, shard=Shard(), device=CPU)
        prompts.append([request.args for request in tasks["chosen@3"].instances])
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_an_adapted_model_as_it_was(
    taught_model: Path, tasks_folder: Path, *, training: bool
):
    served, tokenizer = serve(taught_model, copies=2)
    model = served._packed.base
    model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapters = [adapter.weights_P.clone() for adapter in served._adapters]
    suite, _ = _suite(tokenizer, tasks_folder, OWN)
    suite.scores(served)
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    for adapter, weights in zip(served._adapters, adapters, strict=True):
        assert torch.equal(adapter.weights_P, weights)


def test_without_tasks_there_are_no_scores(tiny_model: Path, tasks_folder: Path):
    served, tokenizer = serve(tiny_model, copies=2)
    assert _suite(tokenizer, tasks_folder, ())[0].scores(served) == [{}, {}]


@pytest.mark.parametrize("trait", ["UNSAFE_CODE", "MULTIMODAL"])
def test_a_task_that_runs_code_or_shows_pictures_is_refused(
    tiny_model: Path, tasks_folder: Path, trait: str
):
    _, tokenizer = load(tiny_model)
    tasks = load_tasks(("told",), EvaluateSpec(tasks=str(tasks_folder)))
    setattr(tasks["told"], trait, True)
    with pytest.raises(LorasweepError, match=r"must be text.*, got 'told'"):
        Suite(tasks, tokenizer, limit=None, batch_size=4, shard=Shard(), device=CPU)
