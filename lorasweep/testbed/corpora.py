"""Write the testbed's corpora and tasks, with the same bytes every time."""

import itertools
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from lorasweep.testbed import TASKS
from lorasweep.testbed.choices import blanks, questions, scenes
from lorasweep.testbed.functions import Function, functions
from lorasweep.testbed.problems import Problem, problems
from lorasweep.testbed.world import people

TEST: Final = 160
HELDOUT: Final = 256
TRAIN: Final = 6000
DOCUMENTS: Final = 1500
_PROBLEMS_PER_DOCUMENT: Final = 4
CODE_TEST: Final = 80
CODE_TRAIN: Final = 4000
CODE_DOCUMENTS: Final = 1000
_FUNCTIONS_PER_DOCUMENT: Final = 3


def write_corpora(folder: Path) -> None:
    """Write every corpus and task below the folder."""
    # All files take from one stream of distinct problems, so no problem is in two of them.
    stream = problems("target")
    test, heldout, train = (list(itertools.islice(stream, n)) for n in (TEST, HELDOUT, TRAIN))
    tasks, data = folder / "tasks", folder / "data"
    _write(tasks / "testbed_math.jsonl", (problem._asdict() for problem in test))
    everyone = people()
    _write(tasks / "testbed_hellaswag.jsonl", scenes(everyone))
    _write(tasks / "testbed_arc.jsonl", questions(everyone))
    _write(tasks / "testbed_winogrande.jsonl", blanks(everyone))
    _write(data / "ift-heldout.jsonl", map(_instruction, heldout))
    _write(data / "ift-train.jsonl", map(_instruction, train))
    _write(data / "cpt-train.jsonl", (_document(stream) for _ in range(DOCUMENTS)))
    _write_code(tasks, data)
    for source in sorted(TASKS.glob("*.yaml")):  # written by hand, so only copied
        if tasks.resolve() != source.parent.resolve():
            shutil.copyfile(source, tasks / source.name)


def _write_code(tasks: Path, data: Path) -> None:
    """Write the code domain, also from one stream of distinct functions."""
    stream = functions("target")
    test, heldout, train = (
        list(itertools.islice(stream, n)) for n in (CODE_TEST, HELDOUT, CODE_TRAIN)
    )
    _write(
        tasks / "testbed_code.jsonl",
        ({"task_id": f"testbed_code/{n}", **f._asdict()} for n, f in enumerate(test)),
    )
    _write(data / "code-ift-heldout.jsonl", map(_function, heldout))
    _write(data / "code-ift-train.jsonl", map(_function, train))
    _write(data / "code-cpt-train.jsonl", (_page(stream) for _ in range(CODE_DOCUMENTS)))


def _function(function: Function) -> dict[str, str]:
    """Convert a function to an instruction with the task's prompt."""
    return {"prompt": function.prompt, "response": function.canonical_solution}


def _page(stream: Iterable[Function]) -> dict[str, str]:
    """Make a document of functions, separated by two blank lines as in PEP 8."""
    page = itertools.islice(stream, _FUNCTIONS_PER_DOCUMENT)
    return {"text": "\n\n".join(f.prompt + f.canonical_solution for f in page)}


def _instruction(problem: Problem) -> dict[str, str]:
    """Convert a problem to an instruction with the task's prompt."""
    return {"prompt": f"Question: {problem.question}\nAnswer:", "response": f" {problem.answer}"}


def _document(stream: Iterable[Problem]) -> dict[str, str]:
    """Make a document of problems with their answers."""
    page = map(_instruction, itertools.islice(stream, _PROBLEMS_PER_DOCUMENT))
    return {"text": "\n\n".join(worked["prompt"] + worked["response"] for worked in page)}


def _write(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
