"""Scales of hyperparameters: a few levels, or an interval cut into equal parts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from lorasweep.analysis.types import Result
from lorasweep.spec.space import Axis, Choices, Level, Range
from lorasweep.spec.trial import DURATIONS as DURATIONS_IN_A_SPACE
from lorasweep.store.results import SweepResults, TrialResult

BINS = 3
# A sampled interval hardly repeats a value; a list of levels hardly has more than this many.
_MOST_LEVELS = 6
# Tables made elsewhere have durations under other names too.
DURATIONS = (*DURATIONS_IN_A_SPACE, "duration", "steps")
_SIZES = {"lr", "rank", "trainable", *DURATIONS}


def show(level: Level) -> str:
    """Write a level as the command line takes it, equal numbers alike."""
    if isinstance(level, str):
        return level
    if float(level).is_integer() and abs(level) < 1e6:
        return str(int(level))
    return f"{level:.10g}"


class Scale(Result):
    """How the values of one hyperparameter are divided into levels or parts.

    kind: `text` and `numbers` are few levels, without and with an order; `linear` and `log` are an
        interval cut into `BINS` parts of equal width on that scale.
    levels: of `text` and `numbers`, in the order of the space.
    edges: of an interval, `BINS` + 1 of them.
    """

    name: str
    kind: Literal["text", "numbers", "linear", "log"]
    levels: tuple[Level, ...] = ()
    edges: tuple[float, ...] = ()

    @property
    def is_interval(self) -> bool:
        """Whether values are binned."""
        return self.kind in {"linear", "log"}

    @property
    def labels(self) -> tuple[str, ...]:
        """Levels or parts as the report shows them."""
        if not self.is_interval:
            return tuple(show(level) for level in self.levels)
        return tuple(
            f"{low:.2g}..{high:.2g}" for low, high in zip(self.edges, self.edges[1:], strict=False)
        )

    def part(self, level: Level) -> int:
        """Find the index of the level, or of the part of the interval that it lies in."""
        if not self.is_interval:
            return self.levels.index(level)
        assert not isinstance(level, str)  # an interval is only made of numbers
        return sum(level >= edge for edge in self.edges[1:-1])

    def coordinate(self, level: Level) -> float:
        """Place a level so that equal distances are equal steps; levels are 1 apart."""
        if not self.is_interval:
            return float(self.levels.index(level))
        return math.log10(float(level)) if self.kind == "log" else float(level)


def _interval(name: str, low: float, high: float, *, log: bool) -> Scale:
    steps = [part / BINS for part in range(1, BINS)]
    if log:
        inner = [low * math.exp(step * math.log(high / low)) for step in steps]
    else:
        inner = [low + step * (high - low) for step in steps]
    return Scale(name=name, kind="log" if log else "linear", edges=(low, *inner, high))


def lay_out(
    name: str, values: Sequence[Level], axis: Axis | None = None, *, is_grid: bool = False
) -> Scale:
    """Scale a hyperparameter by its axis, or by its values where there is none.

    Args:
        values: those that occur, with repeats.
        axis: of the space; None for a table of trials made elsewhere.
        is_grid: an interval was tried at a few points only, which then are its levels.
    """
    seen = tuple(dict.fromkeys(values))
    if isinstance(axis, Choices):
        seen = tuple(dict.fromkeys((*axis.values, *seen)))
    numbers = [float(value) for value in seen if not isinstance(value, str)]
    if len(numbers) < len(seen):
        declared = isinstance(axis, Choices)
        return Scale(
            name=name, kind="text", levels=seen if declared else tuple(sorted(seen, key=str))
        )
    if isinstance(axis, Choices) or is_grid:
        return Scale(name=name, kind="numbers", levels=tuple(sorted(seen, key=float)))
    low, high = min(numbers), max(numbers)
    if isinstance(axis, Range):
        return _interval(name, min(low, axis.low), max(high, axis.high), log=axis.log)
    repeats = len(values) >= 2 * len(seen)
    if len(seen) <= _MOST_LEVELS or (repeats and len(seen) <= 3 * _MOST_LEVELS):
        return Scale(name=name, kind="numbers", levels=tuple(sorted(seen, key=float)))
    return _interval(name, low, high, log=is_logarithmic(name, low, high))


def is_logarithmic(name: str, low: float, high: float) -> bool:
    """Check whether equal factors are equal steps: a rate, a size, or a range of a decade."""
    return low > 0 and (name in _SIZES or high / low >= 10)


def was_drawn(results: SweepResults, method: str, name: str, values: Sequence[Level]) -> bool:
    """Check whether values of a hyperparameter were drawn from an interval, not set by hand."""
    if results.has_factorial(method):
        return False
    study = results.study(method)
    return lay_out(name, values, study.space.axes.get(name) if study else None).is_interval


def scales(results: SweepResults, trials: Iterable[TrialResult]) -> Mapping[str, Scale]:
    """Scale every searched hyperparameter that these trials have."""
    trials = tuple(trials)
    study = results.study(trials[0].method) if trials else None
    space = study.space.axes if study else {}
    is_grid = bool(trials) and results.has_factorial(trials[0].method)
    laid_out = {}
    for name in results.axes:
        values = [t.hyperparameters[name] for t in trials if name in t.hyperparameters]
        if values:
            laid_out[name] = lay_out(name, values, space.get(name), is_grid=is_grid)
    return laid_out
