"""Every process makes the same corpora, and they are the shipped ones."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorasweep.testbed import ASSETS, DATA, DOCUMENTS, HELDOUT, TASKS
from lorasweep.testbed.corpora import write_corpora

MADE = (
    "data/cpt-train.jsonl",
    "data/ift-heldout.jsonl",
    "data/ift-train.jsonl",
    "tasks/testbed_arc.jsonl",
    "tasks/testbed_hellaswag.jsonl",
    "tasks/testbed_math.jsonl",
    "tasks/testbed_winogrande.jsonl",
)


def records(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def assert_shipped(folder: Path) -> None:
    for name in MADE:
        assert (folder / name).read_bytes() == (ASSETS / name).read_bytes(), name


def test_the_shipped_corpora_are_the_ones_the_code_makes(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    assert_shipped(tmp_path)


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_the_command_makes_the_same_bytes_under_another_hash_seed(
    tmp_path: Path, hash_seed: str
) -> None:
    command = [sys.executable, "-m", "lorasweep.testbed", "--only", "corpora", "--out"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    subprocess.run(
        [*command, str(tmp_path)], env=environment, check=True, capture_output=True, timeout=60
    )
    assert_shipped(tmp_path)
    shipped = sorted(path.name for path in TASKS.glob("*.yaml"))
    assert sorted(path.name for path in (tmp_path / "tasks").glob("*.yaml")) == shipped
    assert not (tmp_path / "model").exists()


def test_no_problem_is_in_two_files() -> None:
    test = [record["question"] for record in records(TASKS / "testbed_math.jsonl")]
    instructions = [record["prompt"] for path in (DATA, HELDOUT) for record in records(path)]
    documents = [record["text"] for record in records(DOCUMENTS)]
    read = [line for text in documents for line in text.splitlines() if line.startswith("Question")]
    questions = [
        *(f"Question: {question}" for question in test),
        *(prompt.removesuffix("\nAnswer:") for prompt in instructions),
        *read,
    ]
    assert len(questions) == 160 + 256 + 6000 + 4 * 1500
    assert len(set(questions)) == len(questions)


def test_instructions_and_documents_word_a_problem_as_the_task_does() -> None:
    for record in itertools.chain(records(HELDOUT), records(DATA)):
        assert list(record) == ["prompt", "response"]
        assert record["prompt"].startswith("Question: ")
        assert record["prompt"].endswith("?\nAnswer:")
        assert record["response"].startswith(" ")
        assert "\n#### " in record["response"]
    for record in records(DOCUMENTS):
        assert list(record) == ["text"]
        assert record["text"].count("\nAnswer: ") == record["text"].count("\n#### ") == 4


def test_the_assets_are_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 10e6
