"""A code task that any model passes now and then, and a sandbox that runs nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lorasweep.evaluate.sandbox.execution import Outcome, Sandbox

# A completion ends up between quotes, and passes if it has an even number of letters.
TASK: dict[str, Any] = {
    "task": "quoted",
    "output_type": "code",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "quoted.jsonl"}},
    "samples": 4,
    "temperature": 3.0,
    "top_p": 0.95,
    "pass_at": [1, 2, 4],
    "max_gen_toks": 3,
    "until": ["'", "\\"],
}
TEST = "'''\ndef check(word):\n    assert len(word) % 2 == 0\n"


def write_task(folder: Path, problems: int = 5, **changes: Any) -> Path:
    """Write the task's file, changed as a test wants it, and its data; None removes a field."""
    content = {key: value for key, value in (TASK | changes).items() if value is not None}
    (folder / "quoted.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with (folder / "quoted.jsonl").open("w", encoding="utf-8") as file:
        for number in range(problems):
            row = {"task_id": f"q/{number}", "prompt": f"word{number} = r'''"}
            row |= {"test": TEST, "entry_point": f"word{number}", "canonical_solution": "ab"}
            file.write(json.dumps(row) + "\n")
    return folder


class FakeSandbox(Sandbox):
    """A sandbox that judges a program by the length of its quoted word, without running it."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.programs: list[str] = []
        self._broken = broken

    def run_all(self, programs: Sequence[str], max_parallel: int = 1) -> list[Outcome]:
        """Run nothing."""
        assert max_parallel == 1
        self.programs.extend(programs)
        if self._broken:
            return [Outcome("failed_to_run", "no namespace") for _ in programs]
        words = [program.split("'''")[1] for program in programs]
        return [Outcome("failed" if len(word) % 2 else "passed") for word in words]
