from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lorasweep.data.shard import Shard
from lorasweep.evaluate.harness import run_tasks
from lorasweep.evaluate.tasks import load_tasks
from lorasweep.model.lora import attach_lora
from lorasweep.spec.sweep import EvaluateSpec
from lorasweep.spec.trial import LoraHyperparameters
from tests.evaluate.taught import ASKED_RIGHTLY, CPU, load
from tests.workers import TwoWorkers

Asked = dict[str, dict[str, str]]  # task: question: everything that the model was shown before it


def _run(
    folder: Path,
    tasks_folder: Path,
    names: tuple[str, ...],
    limit: int | None = None,
    batch_size: int = 4,
    shard: Shard = Shard(),  # noqa: B008
) -> tuple[dict[str, float], Asked]:
    """Score a model on tasks of a folder, and tell what it was asked."""
    model, tokenizer = load(folder)
    tasks = load_tasks(names, EvaluateSpec(tasks=str(tasks_folder)))
    scores = run_tasks(
        model, tokenizer, tasks, limit=limit, batch_size=batch_size, shard=shard, device=CPU
    )
    asked = {
        name: {
            request.doc["question"]: request.args[0] for request in getattr(task, "instances", [])
        }
        for name, task in tasks.items()
    }
    return scores, asked


def test_a_model_scores_on_what_it_knows(taught_model: Path, tasks_folder: Path):
    scores, asked = _run(taught_model, tasks_folder, ("told", "chosen"))
    assert scores == {"told": 0.7, "chosen": 0.7}
    assert len(asked["told"]) == len(asked["chosen"]) == 10


def test_a_model_that_knows_nothing_tells_nothing(tiny_model: Path, tasks_folder: Path):
    assert _run(tiny_model, tasks_folder, ("told",))[0] == {"told": 0.0}


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


def test_measuring_twice_asks_the_same(taught_model: Path, tasks_folder: Path):
    model, tokenizer = load(taught_model)
    tasks = load_tasks(("chosen@3",), EvaluateSpec(tasks=str(tasks_folder)))
    prompts = []
    for _ in range(2):
        run_tasks(model, tokenizer, tasks, limit=None, batch_size=4, shard=Shard(), device=CPU)
        prompts.append([request.args for request in tasks["chosen@3"].instances])
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_an_adapted_model_as_it_was(
    taught_model: Path, tasks_folder: Path, *, training: bool
):
    base, tokenizer = load(taught_model)
    model = attach_lora(base, LoraHyperparameters(rank=2, dropout=0.5), 0)
    model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tasks = load_tasks(("told", "chosen"), EvaluateSpec(tasks=str(tasks_folder)))
    scores = run_tasks(model, tokenizer, tasks, limit=None, batch_size=4, shard=Shard(), device=CPU)
    assert scores == {"told": 0.7, "chosen": 0.7}
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad == ("lora_" in name) for name, p in model.named_parameters())


def test_without_tasks_there_are_no_scores(tiny_model: Path):
    model, tokenizer = load(tiny_model)
    assert not run_tasks(model, tokenizer, {}, limit=None, batch_size=4, shard=Shard(), device=CPU)
