"""Every process makes the same corpora, and they are the shipped ones."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorasweep.testbed import (
    ASSETS,
    CODE_DATA,
    CODE_DOCUMENTS,
    CODE_HELDOUT,
    DATA,
    DOCUMENTS,
    HELDOUT,
    TASKS,
)
from lorasweep.testbed.corpora import write_corpora

MADE = (
    "data/code-cpt-train.jsonl",
    "data/code-ift-heldout.jsonl",
    "data/code-ift-train.jsonl",
    "data/cpt-train.jsonl",
    "data/ift-heldout.jsonl",
    "data/ift-train.jsonl",
    "tasks/testbed_arc.jsonl",
    "tasks/testbed_code.jsonl",
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


def code_task() -> list[dict[str, str]]:
    return records(TASKS / "testbed_code.jsonl")


def test_the_code_task_has_the_humaneval_schema() -> None:
    columns = ["task_id", "prompt", "canonical_solution", "test", "entry_point"]
    assert all(list(record) == columns for record in code_task())
    assert [record["task_id"] for record in code_task()] == [f"testbed_code/{n}" for n in range(80)]


def test_every_shipped_function_passes_its_test() -> None:
    for record in code_task():
        program = record["prompt"] + record["canonical_solution"] + record["test"]
        exec(f"{program}\ncheck({record['entry_point']})", {})


def test_no_function_is_in_two_files() -> None:
    instructions = [record for path in (CODE_DATA, CODE_HELDOUT) for record in records(path)]
    pages = [record["text"].split("\n\n\n") for record in records(CODE_DOCUMENTS)]
    assert {len(page) for page in pages} == {3}
    read = [text[: text.rindex('"""\n') + 4] for page in pages for text in page]
    prompts = [record["prompt"] for record in (*code_task(), *instructions)] + read
    assert len(prompts) == 80 + 256 + 4000 + 3 * 1000
    assert len(set(prompts)) == len(prompts)


def test_code_instructions_are_worded_as_the_code_task_words_them() -> None:
    for record in itertools.chain(records(CODE_HELDOUT), records(CODE_DATA)):
        assert list(record) == ["prompt", "response"]
        assert record["prompt"].startswith("def ")
        assert record["prompt"].endswith('"""\n')
        assert record["response"].startswith("    ")
        assert record["response"].splitlines()[-1].startswith("    return ")


def test_the_assets_are_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 10e6
