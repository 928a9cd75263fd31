"""The JSON embedded in the page: the trials column by column, and the figures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lorasweep.report.picture import Picture
from lorasweep.report.wording import LONGEST, signed
from lorasweep.store.results import SweepResults
from lorasweep.store.scores import MEASURES, SCORES, label_of

_COLUMNS = (
    *("trial", "method", "status", "stage", "error", "seed", "number"),
    *SCORES,
    *("tokens", "wall_s"),
)
_PLACES = ("number", "learning", "forgetting", "source_accuracy")  # where a figure places a trial
_LONGEST_SENTENCE = 1500


def embed(parts: Sequence[SweepResults], drawn: Sequence[Sequence[Picture]]) -> tuple[str, int]:
    """Write trials and figures as JSON for a script element, and count the trials.

    No text in it can end that element or open another one: `<`, `>`, `&` and all that is not ASCII
    are written as JSON escapes.

    Args:
        parts: the results, domain by domain; drawn: the figures of each.
    """
    content = [_part(part, own) for part, own in zip(parts, drawn, strict=True)]
    text = json.dumps({"parts": content}, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text, sum(len(part.trials) for part in parts)


def tidy(value: Any, longest: int = LONGEST) -> Any:
    """Cut long text, round numbers to seven digits, and replace infinity and NaN by None."""
    if isinstance(value, str):
        return value if len(value) <= longest else f"{value[: longest - 1]}…"
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.7g}")
    # Most values are None or whole numbers; the tests for any Mapping and Sequence take longest.
    if isinstance(value, dict):
        return {tidy(str(key), longest): tidy(item, longest) for key, item in value.items()}
    return [tidy(item, longest) for item in value] if isinstance(value, list | tuple) else value


def _part(results: SweepResults, drawn: Sequence[Picture]) -> dict[str, Any]:
    names = dict.fromkeys(
        (*results.axes, *(name for trial in results.trials for name in trial.hyperparameters))
    )
    base = results.base
    columns = {name: [getattr(t, name) for t in results.trials] for name in _COLUMNS}
    settings = {name: [t.hyperparameters.get(name) for t in results.trials] for name in names}
    return {
        "domain": tidy(results.domain),
        "base": tidy(base and {"learning": base.learning, "source_accuracy": base.source_accuracy}),
        "columns": tidy(columns),
        "scores": [
            {
                "name": name,
                "label": label_of(name),
                "higher_is_better": MEASURES[name].higher_is_better,
            }
            for name in SCORES
        ],
        "hyperparameters": [
            {"name": tidy(name), "searched": name in results.axes, "values": tidy(values)}
            for name, values in settings.items()
        ],
        "pictures": [_picture(picture, columns, settings) for picture in drawn],
    }


def _picture(
    picture: Picture, columns: Mapping[str, list[Any]], settings: Mapping[str, list[Any]]
) -> dict[str, Any]:
    """Dump a picture, with references in place of numbers that the trials' columns already have.

    With ten thousand trials most of the page would otherwise be the same numbers, once a figure.
    """
    dumped = picture.model_dump()
    found: dict[tuple[str, str | int], list[Any]]
    found = {("column", name): columns[name] for name in _PLACES}
    found |= {("setting", place): values for place, values in enumerate(settings.values())}

    def shared(values: Sequence[float | None], trials: Sequence[int | None]) -> Any:
        known = [index for index in trials if index is not None]
        if len(known) < len(values):
            return values
        for (kind, name), column in found.items():
            if all(column[i] == value for i, value in zip(known, values, strict=True)):
                return {kind: name}
        return values

    dumped["caption"] = signed(picture.caption)
    for panel in dumped["panels"]:
        panel["alt"] = signed(panel["alt"])
        for series in panel.get("series", ()):
            for axis in ("x", "y"):
                series[axis] = shared(series[axis], series["trials"])
        if panel["kind"] == "parallel":
            panel["values"] = [shared(values, panel["trials"]) for values in panel["values"]]
    if picture.table is not None:
        rows = [[signed(cell) for cell in row] for row in picture.table.rows]
        dumped["table"] = {**dumped["table"], "rows": rows}
    return {key: tidy(value, _LONGEST_SENTENCE) for key, value in dumped.items()}
