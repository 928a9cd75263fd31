"""Command lines of a recommendation: train it alone, or extend a range of the search."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorasweep.analysis.scale import Scale, show
from lorasweep.spec.space import AXES, Choices, Level, Range, read_axis
from lorasweep.spec.studies import study_name
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import OF_METHOD, kind_of
from lorasweep.store.paths import SweepPaths
from lorasweep.store.results import SweepResults

# Only these fields of the search change; the rungs are part of a trial's identity, and stay.
_ALONE: dict[str, Any] = {"algorithm": "grid", "scheduler": "none", "confirm": 0, "points": []}
_DECADE = 10.0


def train_command(
    results: SweepResults, method: str, configuration: Mapping[str, Level]
) -> str | None:
    """Write the command that trains one configuration alone; None where lorasweep cannot.

    It runs the same trial as the sweep did: the same content, so the same id. For a table of
    trials MODEL and DATA are left for the reader to fill in.
    """
    if method not in OF_METHOD:
        return None
    study = results.study(method)
    if study is None or results.spec is None:
        named = {a: v for a, v in configuration.items() if a in AXES and _is_level(a, v)}
        if not named:
            return None
        space = _one_level(named)
        words = ["--model", "MODEL", "--data", "DATA", "--method", method, "--space", space]
        return _join("tune", *words, *_sets("search", _ALONE))
    words = [str(SweepPaths(Path(results.origin)).sweep), "--method", method]
    words += ["--space", _one_level({a: configuration[a] for a in study.space.axes})]
    words += _sets("search", _ALONE)
    if any(name == method and "search" in own for name, own in results.spec.methods.items()):
        words += _sets(f"methods.{method}.search", _ALONE)
    words += _only_domain(results.spec, results.domain)
    name = f"{results.spec.name}-{study_name(method, results.domain)}-best".replace("/", "-")
    return _join("tune", *words, "--out", f"results/{name}")


def _is_level(axis: str, level: Level) -> bool:
    try:
        read_axis(axis, [level])
    except ValueError:
        return False
    return True


def _one_level(levels: Mapping[str, Level]) -> str:
    return ",".join(
        f"{axis}={level if isinstance(level, str) else repr(level)}"
        for axis, level in levels.items()
    )


def _sets(section: str, values: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value)
        words += ["--set", f"{section}.{name}={text}"]
    return words


def _only_domain(spec: SweepSpec, domain: str) -> list[str]:
    """Keep one of several domains, without what it says of the search and its space."""
    if not domain:
        return []
    own = {k: v for k, v in spec.domains[domain].items() if k not in {"search", "space"}}
    return ["--set", f"domains={json.dumps({domain: own})}"]


def _join(*words: str) -> str:
    return " ".join(["lorasweep", *(shlex.quote(word) for word in words)])


def extended_range(name: str, scale: Scale, side: str) -> str | None:
    """Extend a range on one side; None where no longer one is legal.

    An interval grows by its own width, at most by a decade; a list of numbers by one more level, in
    the ratio of its last two.
    """
    if name not in AXES or scale.kind == "text":
        return None
    if scale.is_interval:
        text = _wider(scale, side)
    else:
        levels = [float(level) for level in scale.levels if not isinstance(level, str)]
        if len(levels) < 2:
            return None
        ends = (levels[0], levels[1]) if side == "lower" else (levels[-1], levels[-2])
        by_ratio = min(ends) > 0
        further = ends[0] * ends[0] / ends[1] if by_ratio else 2 * ends[0] - ends[1]
        if kind_of(name) is int:
            further = float(max(1, round(further)))
        levels = sorted({*levels, float(f"{further:.4g}")})
        if len(levels) == len(scale.levels):
            return None
        text = "|".join(show(level) for level in levels)
    try:
        axis = read_axis(name, text)
    except ValueError:
        return None
    return f"{name}={text}" if isinstance(axis, Range | Choices) else None


def _wider(scale: Scale, side: str) -> str:
    low, high = scale.edges[0], scale.edges[-1]
    if scale.kind == "log":
        factor = min(_DECADE, high / low)
        low, high = (low / factor, high) if side == "lower" else (low, high * factor)
    else:
        width = high - low
        low, high = (max(0.0, low - width), high) if side == "lower" else (low, high + width)
    return f"{low:.4g}..{high:.4g}"


def space_with(results: SweepResults, method: str, axis: str, fragment: str) -> str:
    """Write the `--space` option that extends one axis and keeps the others."""
    study = results.study(method)
    axes = tuple(study.space.axes) if study else tuple(a for a in results.axes if a in AXES)
    named = [fragment if name == axis else name for name in axes]
    return f"--space {shlex.quote(','.join(named or [fragment]))}"
