"""Fixtures: a model that has memorised some answers, and lm-eval tasks about them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from lorasweep.data.batches import collate
from lorasweep.data.tokens import Tokens
from tests.conftest import WORDS
from tests.evaluate.taught import (
    ANSWERS,
    ASKED_RIGHTLY,
    SUBJECTS,
    TASKS,
    known_answer,
    load,
    question,
)
from tests.examples import pack
from tests.workers import one_thread, two_workers

__all__ = ["one_thread", "two_workers"]


@pytest.fixture(scope="session")
def tasks_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of tasks over the same ten questions; seven expect the memorised answer."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(task, encoding="utf-8")
    choices = [f"#### {answer}" for answer in ANSWERS]
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as file:
        for number, rightly in enumerate(ASKED_RIGHTLY):
            known = known_answer(number)
            wrong = ANSWERS[ANSWERS.index(known) - 1]
            asked = known if rightly else wrong
            row = {"question": question(number), "answer": asked, "choices": choices}
            file.write(json.dumps(row) + "\n")
    with (folder / "shots.jsonl").open("w", encoding="utf-8") as file:
        for number, word in enumerate(WORDS):
            row = {"question": f"Why {word}?", "answer": ANSWERS[number % 3], "choices": choices}
            file.write(json.dumps(row) + "\n")
    return folder


@pytest.fixture(scope="session")
def taught_tokens(tiny_model: Path) -> Tokens:
    """Tokenise every question with the answer that the taught model knows."""
    _, tokenizer = load(tiny_model)
    rows = []
    for number in range(len(SUBJECTS)):
        prompt = tokenizer(f"Question: {question(number)}\nAnswer:")["input_ids"]
        response = tokenizer(f" #### {known_answer(number)}")["input_ids"]
        rows.append(([*prompt, *response, tokenizer.eos_token_id], len(prompt)))
    return pack(rows)


@pytest.fixture(scope="session")
def taught_model(
    tiny_model: Path, taught_tokens: Tokens, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Make a folder of the tiny model after it has learned every answer by heart."""
    model, tokenizer = load(tiny_model)
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    torch.manual_seed(0)
    width = int(np.diff(taught_tokens.starts_N1).max())
    rows = np.arange(len(taught_tokens))
    batch = collate(taught_tokens, rows, 0, 0, width, shared=False)
    for _ in range(300):
        logits_KV = model(input_ids=batch.ids_BT).logits.flatten(0, 1)[batch.logit_indices_K]
        loss = cross_entropy(logits_KV, batch.labels_K)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.01:
            break
    else:
        pytest.fail("the model must know every answer")
    folder = tmp_path_factory.mktemp("model") / "taught"
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder
