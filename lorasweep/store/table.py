"""Trials as a CSV: read those that were made elsewhere, write ours so that they can be read again.

Only `learning` is required, a number, the higher the better. Without the other columns, a trial is
named by its row, its method is `lora`, its seed 0, and it is COMPLETE if it has a score, else
FAILED. The domain is in `domain` or in `setting`. `tokens` counts trained tokens, and is a
hyperparameter only where the axes name it, because equal trials differ slightly in it. A `duration`
with its `unit` is one hyperparameter.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from lorasweep.errors import DataError, UsageError
from lorasweep.spec.trial import HYPERPARAMETERS, kind_of
from lorasweep.store.records import FinalStatus
from lorasweep.store.results import SweepResults, TrialResult
from lorasweep.store.rows import Row, as_number, read_rows
from lorasweep.store.scores import COUNTS, SCORES, TIMES

_STATUSES = (*get_args(FinalStatus), "RUNNING", "PENDING")
_KNOWN = {name: kind_of(name) for name in HYPERPARAMETERS}
_COUNTS = tuple(name for name in COUNTS if name != "tokens")
_OWN = ("trial", "domain", "method", "status", "seed", "number", "stage", "error")
_TRAINED = "trained_tokens"  # beside `tokens`, where that is the hyperparameter
_TASK = "task:"
_RESERVED = frozenset((*_OWN, *SCORES, *_COUNTS, *TIMES, _TRAINED))
# A column with more methods, domains or levels in words holds remarks; no report could show it.
_MOST_NAMES = 50
_MOST_WORDS = 200


@dataclass(frozen=True, slots=True)
class _Layout:
    """Meaning of a table's columns.

    kinds: types of the hyperparameters; domain: name of the domain's column.
    unit: whether there is a `unit` of `duration`; of_words: whether each level needs it, because
        one domain has several units.
    """

    kinds: Mapping[str, type]
    domain: str
    unit: bool
    of_words: bool
    note: str


def read_table(path: Path, axes: Sequence[str] = ()) -> SweepResults:
    """Read trials that were made elsewhere.

    Args:
        path: CSV with a header; see the module's text for its columns.
        axes: the searched hyperparameters, each a column's name or NAME=RANGE; none means every
            known one that differs between trials, except `tokens`.

    Raises:
        UsageError: the file cannot be read, or an axis is no column of it.
        DataError: its content breaks a rule; the sentence names file, row and column.
    """
    rows = read_rows(path)
    named = _named(path, tuple(rows[0].cells), axes)
    layout = _lay_out(rows, named)
    trials = tuple(_trial(row, position, layout) for position, row in enumerate(rows))
    _check_names(trials, rows, layout)
    searched = named or tuple(
        name for name in layout.kinds if len({t.hyperparameters.get(name) for t in trials}) > 1
    )
    _check_levels(path, trials, searched)
    _check_complete(trials, rows, searched)
    return SweepResults(
        name=path.stem,
        question="Which of these hyperparameters matter, and what should I use?",
        axes=searched,
        trials=trials,
        origin=str(path),
        notes=(layout.note,) if layout.note and "duration" in searched else (),
    )


def _named(path: Path, columns: Sequence[str], axes: Sequence[str]) -> tuple[str, ...]:
    """Find the columns of the axes.

    Raises:
        UsageError: one is no hyperparameter's column.
    """
    usable = [c for c in columns if c not in _RESERVED and not c.startswith(_TASK)]
    named = []
    for axis in axes:
        name = " ".join(axis.split())
        name = name if name in usable else name.partition("=")[0].strip()
        if name not in usable:
            raise UsageError(
                f"{path}: the axis {name!r} must be a hyperparameter's column of the table; it has "
                f"{', '.join(usable) or 'none'}"
            )
        named.append(name)
    return tuple(dict.fromkeys(named))


def _lay_out(rows: Sequence[Row], axes: Collection[str]) -> _Layout:
    columns = rows[0].cells
    kinds = {name: kind for name, kind in _KNOWN.items() if name in columns and name != "tokens"}
    is_setting = "setting" in columns and "domain" not in columns and "setting" not in axes
    domain = "setting" if is_setting else "domain"
    unit, of_words, note = {"duration", "unit"} <= set(columns) and "unit" not in axes, False, ""
    if unit:
        units: dict[str, dict[str, None]] = {}
        for row in rows:
            units.setdefault(row.name(domain), {})[row.name("unit")] = None
        of_words = any(len(of_domain) > 1 for of_domain in units.values())
        kinds["duration"] = object
        note = "" if of_words else _in_units(units)
    kinds.update({name: _KNOWN.get(name) or _kind(rows, name) for name in axes})
    return _Layout(kinds, domain, unit, of_words, note)


def _in_units(units: Mapping[str, Iterable[str]]) -> str:
    """Phrase the units of durations, where each domain has one unit."""
    domains: dict[str, list[str]] = {}
    for domain, (unit,) in units.items():
        domains.setdefault(unit or "a unit that is not given", []).append(domain)
    where = {unit: ", ".join(filter(None, of_unit)) for unit, of_unit in domains.items()}
    counted = (f"{unit} ({own})" if own else unit for unit, own in where.items())
    return f"duration is in {', '.join(counted)}"


def _kind(rows: Sequence[Row], name: str) -> type:
    """Infer whether an undeclared column holds whole numbers, numbers or text."""
    texts = [text for row in rows if (text := row.text(name))]
    try:
        numbers = [as_number(text) for text in texts]
    except ValueError:
        return str
    whole = all(number.is_integer() for number in numbers)
    return int if whole and not any("." in text for text in texts) else float


def _trial(row: Row, position: int, layout: _Layout) -> TrialResult:
    scored = "COMPLETE" if row.text("learning") else "FAILED"
    status: Any = row.choice("status", _STATUSES, scored)
    # A trial that did not complete may have NaN as its score.
    scores = {name: row.measured(name, expected=status == "COMPLETE") for name in SCORES}
    if status == "COMPLETE" and scores["learning"] is None:
        raise row.fail("learning", "a COMPLETE trial must have a score")
    levels = {name: row.level(name, kind) for name, kind in layout.kinds.items()}
    if layout.of_words and levels["duration"] is not None:
        levels["duration"] = f"{row.name('duration')} {row.name('unit')}".strip()
    rate = levels.get("lr")
    if isinstance(rate, float) and rate <= 0:
        raise row.fail("lr", "must be above 0")
    for column in ("trial", "method"):
        if column in row.cells and not row.text(column):
            raise row.fail(column, "must not be empty")
    tasks = {name: row.number(name) for name in row.cells if name.startswith(_TASK)}
    number = row.whole("number")
    return TrialResult(
        trial=row.name("trial") or f"row-{row.line}",
        method=row.name("method") or "lora",
        domain=row.name(layout.domain),
        status=status,
        seed=row.whole("seed") or 0,
        hyperparameters={name: level for name, level in levels.items() if level is not None},
        number=position if number is None else number,
        stage=row.choice("stage", ("search", "confirm"), "search"),
        **scores,
        tasks={name[len(_TASK) :]: score for name, score in tasks.items() if score is not None},
        **{name: row.whole(name) or 0 for name in _COUNTS},
        tokens=row.whole(_TRAINED if _TRAINED in row.cells else "tokens") or 0,
        **{name: row.number(name) or 0.0 for name in TIMES},
        error=row.cells.get("error") or None,
    )


def _check_names(trials: Sequence[TrialResult], rows: Sequence[Row], layout: _Layout) -> None:
    """Check that trial names are unique, and that methods and domains are few."""
    first: dict[str, int] = {}
    several = any(trial.domain for trial in trials)
    for trial, row in zip(trials, rows, strict=True):
        if trial.trial in first:
            raise row.fail("trial", f"must be unique, and is in row {first[trial.trial]} too")
        if several and not trial.domain:
            raise row.fail(layout.domain, "must not be empty where other trials have one")
        first[trial.trial] = row.line
    for column, names in (
        ("method", {trial.method for trial in trials}),
        (layout.domain, {trial.domain for trial in trials}),
    ):
        if len(names) > _MOST_NAMES:
            raise DataError(
                f"{rows[0].file}, column {column}: must name at most {_MOST_NAMES}, got "
                f"{len(names)} of them"
            )


def _check_levels(path: Path, trials: Sequence[TrialResult], axes: Sequence[str]) -> None:
    """Check that a hyperparameter in words has few levels."""
    for axis in axes:
        levels = {trial.hyperparameters.get(axis) for trial in trials}
        if len(levels) > _MOST_WORDS and any(isinstance(level, str) for level in levels):
            raise DataError(
                f"{path}, column {axis}: a hyperparameter in words must have at most {_MOST_WORDS} "
                f"levels, got {len(levels)}"
            )


def _check_complete(
    trials: Sequence[TrialResult], rows: Sequence[Row], axes: Sequence[str]
) -> None:
    """Check that a method's complete trials all have the same axes, domain by domain."""
    complete = [(t, r) for t, r in zip(trials, rows, strict=True) if t.status == "COMPLETE"]
    having = {
        (t.domain, t.method, axis)
        for t, _ in complete
        for axis in axes
        if axis in t.hyperparameters
    }
    for trial, row in complete:
        for axis in axes:
            known = axis in trial.hyperparameters
            if not known and (trial.domain, trial.method, axis) in having:
                raise row.fail(axis, f"a COMPLETE trial of {trial.method} must have a level")


def lay_out_table(trials: Iterable[TrialResult]) -> tuple[list[str], list[list[Any]]]:
    """Convert trials to a header and rows of values, None for what is not known."""
    trials = tuple(trials)
    names = list(dict.fromkeys(name for trial in trials for name in trial.hyperparameters))
    counted = "tokens" if "tokens" not in names else _TRAINED
    tasks = list(dict.fromkeys(name for trial in trials for name in trial.tasks))
    domain = ["domain"] if any(trial.domain for trial in trials) else []
    fields = (*_COUNTS, *TIMES, "number", "stage")
    header = ["trial", *domain, "method", "status", "seed", *names, *SCORES, counted, *fields]
    header += [*(_TASK + task for task in tasks), "error"]
    rows = [
        [
            *(trial.trial, *(trial.domain for _ in domain)),
            *(trial.method, trial.status, trial.seed),
            *(trial.hyperparameters.get(name) for name in names),
            *(getattr(trial, name) for name in SCORES),
            trial.tokens,
            *(getattr(trial, name) for name in fields),
            *(trial.tasks.get(task) for task in tasks),
            trial.error,
        ]
        for trial in trials
    ]
    return header, rows


def format_table(trials: Iterable[TrialResult]) -> str:
    """Write trials as CSV text that `read_table` reads back to the same trials."""
    text = io.StringIO()
    header, rows = lay_out_table(trials)
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
