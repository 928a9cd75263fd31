"""Trials as a CSV: read those that were made elsewhere, write ours so that they can be read again.

Only `learning` is needed. Where a column is absent, a trial is named by its row, its method is
`lora`, its seed 0, and it is COMPLETE if it has a score, else FAILED. `tokens` is what a trial was
trained on, and a hyperparameter only where the axes name it: equal trials differ a bit in it.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from lorasweep.errors import DataError, UsageError
from lorasweep.spec.space import Level
from lorasweep.store.records import FinalStatus
from lorasweep.store.results import SweepResults, TrialResult

_STATUSES = (*get_args(FinalStatus), "RUNNING", "PENDING")
_KNOWN: dict[str, type] = {
    "lr": float,
    "targets": str,
    "rank": int,
    "alpha": object,
    "dropout": float,
    "weight_decay": float,
    "warmup": float,
    "batch_size": int,
    "epochs": float,
    "tokens": int,
}
_SCORES = ("learning", "source_accuracy", "forgetting", "response_loss", "train_loss")
_COUNTS = ("steps", "trainable")
_TIMES = ("wall_s", "train_s", "evaluate_s")
_OWN = ("trial", "method", "status", "seed", "number", "stage", "error")
_TASK = "task:"
_RESERVED = frozenset((*_OWN, *_SCORES, *_COUNTS, *_TIMES))


def _float(text: str) -> float:
    """Read a number as spreadsheets write it, without Python's underscores."""
    if "_" in text:
        raise ValueError(text)
    return float(text)


@dataclass(frozen=True, slots=True)
class _Row:
    """Hold one line of the table with what an error must name."""

    file: str
    line: int
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """Give a cell's text, empty where the table has no such column."""
        return self.cells.get(column, "").strip()

    def fail(self, column: str, rule: str) -> DataError:
        """Phrase a mistake in one sentence."""
        got = self.text(column) or "an empty cell"
        return DataError(f"{self.file}, row {self.line}, column {column}: {rule}, got {got!r}")

    def number(self, column: str) -> float | None:
        """Read a finite number, None for an empty cell."""
        if not (text := self.text(column)):
            return None
        try:
            value = _float(text)
        except ValueError:
            raise self.fail(column, "must be a number or empty") from None
        if not math.isfinite(value):
            raise self.fail(column, "must be a finite number or empty")
        return value

    def whole(self, column: str) -> int | None:
        """Read a whole number, None for an empty cell; 2e9 and 16.0 are whole."""
        value = self.number(column)
        if value is not None and not value.is_integer():
            raise self.fail(column, "must be a whole number")
        try:
            return int(self.text(column))  # exact also where a float would round
        except ValueError:
            return None if value is None else int(value)

    def choice(self, column: str, choices: Sequence[str], default: str) -> str:
        """Read one of a few words in any case."""
        text = self.text(column)
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        if column in self.cells and (text or column == "method"):
            raise self.fail(column, f"must be one of {', '.join(choices)}")
        return default

    def level(self, column: str, kind: type) -> Level | None:
        """Read a hyperparameter's level by its kind; `object` is a number where it can be."""
        if not (text := self.text(column)):
            return None
        if kind is str:
            return text
        if kind is int:
            return self.whole(column)
        if kind is float:
            return self.number(column)
        try:
            value = _float(text)
        except ValueError:
            return text
        return self.number(column) if not math.isfinite(value) else value


def read_table(path: Path, axes: Sequence[str] = ()) -> SweepResults:
    """Read trials that were made elsewhere.

    Args:
        path: CSV with a header; see the module's text for its columns.
        axes: the searched hyperparameters; none means every known one that differs between trials,
            except `tokens`.

    Raises:
        UsageError: the file cannot be read, or an axis is no column of it.
        DataError: its content breaks a rule; the sentence names file, row and column.
    """
    rows = _rows(path)
    columns = tuple(rows[0].cells)
    for axis in axes:
        if axis not in columns or axis in _RESERVED or axis.startswith(_TASK):
            usable = ", ".join(c for c in columns if c not in _RESERVED and not c.startswith(_TASK))
            raise UsageError(
                f"{path}: the axis {axis!r} must be a hyperparameter's column of the table; it has "
                f"{usable or 'none'}"
            )
    kinds = {name: kind for name, kind in _KNOWN.items() if name in columns and name != "tokens"}
    kinds.update({name: _KNOWN.get(name) or _kind(rows, name) for name in axes})
    trials = tuple(_trial(row, position, kinds) for position, row in enumerate(rows))
    _check_unique(trials, rows)
    searched = tuple(dict.fromkeys(axes)) or tuple(
        name for name in kinds if len({trial.hyperparameters.get(name) for trial in trials}) > 1
    )
    _check_complete(trials, rows, searched)
    return SweepResults(
        name=path.stem,
        question="Which of these hyperparameters matter, and what should I use?",
        axes=searched,
        trials=trials,
        origin=str(path),
    )


def _rows(path: Path) -> list[_Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if "learning" not in header:
                found = ", ".join(name for name in header if name) or "nothing"
                raise DataError(
                    f"{path}, row 1: must have a column 'learning' among comma-separated columns, "
                    f"got {found}"
                )
            for name in header:
                if not name or header.count(name) > 1:
                    raise DataError(f"{path}, row 1: each column needs a name once, got {name!r}")
            rows = []
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise DataError(
                        f"{path}, row {reader.line_num}: must have {len(header)} columns as the "
                        f"header has, got {len(cells)}"
                    )
                row = dict(zip(header, cells, strict=True))
                rows.append(_Row(str(path), reader.line_num, row))
    except OSError as error:
        raise UsageError(f"{path}: the table cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: must be a CSV file in UTF-8 ({error})") from None
    if not rows:
        raise DataError(f"{path}: must have at least one trial below its header, got none")
    return rows


def _kind(rows: Sequence[_Row], name: str) -> type:
    """Tell whether a column of unknown meaning holds whole numbers, numbers or text."""
    texts = [text for row in rows if (text := row.text(name))]
    try:
        numbers = [_float(text) for text in texts]
    except ValueError:
        return str
    whole = all(number.is_integer() for number in numbers)
    return int if whole and not any("." in text for text in texts) else float


def _trial(row: _Row, position: int, kinds: Mapping[str, type]) -> TrialResult:
    learning = row.number("learning")
    scored = "FAILED" if learning is None else "COMPLETE"
    status: Any = row.choice("status", _STATUSES, scored)
    if status == "COMPLETE" and learning is None:
        raise row.fail("learning", "a COMPLETE trial must have a score")
    levels = {name: row.level(name, kind) for name, kind in kinds.items()}
    rate = levels.get("lr")
    if isinstance(rate, float) and rate <= 0:
        raise row.fail("lr", "must be above 0")
    for column in ("trial", "method"):
        if column in row.cells and not row.text(column):
            raise row.fail(column, "must not be empty")
    tasks = {name: row.number(name) for name in row.cells if name.startswith(_TASK)}
    number = row.whole("number")
    return TrialResult(
        trial=row.text("trial") or f"row-{row.line}",
        method=row.text("method") or "lora",
        status=status,
        seed=row.whole("seed") or 0,
        hyperparameters={name: level for name, level in levels.items() if level is not None},
        number=position if number is None else number,
        stage=row.choice("stage", ("search", "confirm"), "search"),
        learning=learning,
        source_accuracy=row.number("source_accuracy"),
        forgetting=row.number("forgetting"),
        response_loss=row.number("response_loss"),
        train_loss=row.number("train_loss"),
        tasks={name[len(_TASK) :]: score for name, score in tasks.items() if score is not None},
        steps=row.whole("steps") or 0,
        tokens=row.whole("tokens") or 0,
        wall_s=row.number("wall_s") or 0.0,
        train_s=row.number("train_s") or 0.0,
        evaluate_s=row.number("evaluate_s") or 0.0,
        trainable=row.whole("trainable") or 0,
        error=row.cells.get("error") or None,
    )


def _check_unique(trials: Sequence[TrialResult], rows: Sequence[_Row]) -> None:
    first: dict[str, int] = {}
    for trial, row in zip(trials, rows, strict=True):
        if trial.trial in first:
            raise row.fail("trial", f"must be unique and stands in row {first[trial.trial]} too")
        first[trial.trial] = row.line


def _check_complete(
    trials: Sequence[TrialResult], rows: Sequence[_Row], axes: Sequence[str]
) -> None:
    """See that a method's complete trials agree in which axes they have."""
    complete = [(t, r) for t, r in zip(trials, rows, strict=True) if t.status == "COMPLETE"]
    having = {(t.method, axis) for t, _ in complete for axis in axes if axis in t.hyperparameters}
    for trial, row in complete:
        for axis in axes:
            if axis not in trial.hyperparameters and (trial.method, axis) in having:
                raise row.fail(axis, f"a COMPLETE trial of {trial.method} must have a level")


def format_table(trials: Iterable[TrialResult]) -> str:
    """Write trials as CSV text that `read_table` reads back to the same trials."""
    trials = tuple(trials)
    named = dict.fromkeys(name for trial in trials for name in trial.hyperparameters)
    names = [name for name in named if name != "tokens"]
    tasks = list(dict.fromkeys(name for trial in trials for name in trial.tasks))
    fields = (*_SCORES, "tokens", *_COUNTS, *_TIMES, "number", "stage")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ("trial", "method", "status", "seed", *names, *fields)
    writer.writerow([*header, *(_TASK + task for task in tasks), "error"])
    for trial in trials:
        writer.writerow(
            [
                *(trial.trial, trial.method, trial.status, trial.seed),
                *(trial.hyperparameters.get(name) for name in names),
                *(getattr(trial, name) for name in fields),
                *(trial.tasks.get(task) for task in tasks),
                trial.error,
            ]
        )
    return text.getvalue()
