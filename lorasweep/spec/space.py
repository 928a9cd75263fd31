"""The search space: which hyperparameters vary, over which values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    ValidationError,
    ValidationInfo,
    create_model,
    model_validator,
)

from lorasweep.errors import SpecError
from lorasweep.spec.declare import Declaration, Level
from lorasweep.spec.trial import HYPERPARAMETERS, OF_METHOD, Frozen

__all__ = [
    "AXES",
    "DEFAULT_AXES",
    "Axis",
    "Choices",
    "Level",
    "Range",
    "Space",
    "parse_space",
    "read_axis",
    "read_level",
]


class Range(Frozen):
    """An interval, searched on a log scale or a linear one."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low must be below high, got {self.low:g}..{self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log scale must begin above 0, got {self.low:g}..{self.high:g}")
        return self

    def grid(self, points: int) -> tuple[float, ...]:
        """Spread levels evenly over the interval, ends included."""
        if self.log:
            ratio = math.log(self.high / self.low) / (points - 1)
            inner = [self.low * math.exp(ratio * i) for i in range(1, points - 1)]
        else:
            width = (self.high - self.low) / (points - 1)
            inner = [self.low + width * i for i in range(1, points - 1)]
        # Six digits read well; in a very narrow interval they could fall outside of it.
        rounded = [min(max(float(f"{level:.6g}"), self.low), self.high) for level in inner]
        return (self.low, *rounded, self.high)


class Choices(Frozen):
    """A list of levels."""

    values: tuple[Level, ...]


Axis = Range | Choices


def _default_axis(declared: Declaration) -> Axis:
    if declared.interval is not None:
        low, high = declared.interval
        return Range(low=low, high=high, log=declared.scale == "log")
    return Choices(values=declared.levels)


# An axis named without a range takes this one.
DEFAULT_AXES = {name: _default_axis(declared) for name, declared in HYPERPARAMETERS.items()}
AXES = tuple(DEFAULT_AXES)


def read_level(name: str, value: Any, own_sets: Collection[str] | None = ()) -> Level:
    """Validate one level by its hyperparameter's rule, and convert it to its type.

    Args:
        own_sets: names of the sets of targets that the sweep defines; None where they are unknown.

    Raises:
        ValueError: there is no such axis, or the level breaks its rule.
    """
    if name not in AXES:
        raise ValueError(f"axis must be one of {', '.join(AXES)}, got {name!r}")
    try:
        owner = next(kind for kind in OF_METHOD.values() if name in kind.model_fields)
        checked = owner.model_validate({name: value}, context=own_sets)
    except ValidationError as error:
        detail = error.errors()[0]
        message = detail["msg"].removeprefix("Value error, ")
        got = "" if "got " in message else f", got {value!r}"
        raise ValueError(message.replace("Input should be", "must be") + got) from None
    level: Level = getattr(checked, name)
    return level


def _from_text(text: str) -> Any:
    """Read the inline forms `1e-5..1e-2` and `4|16|64`."""
    if ".." in text:
        low, _, high = text.partition("..")
        try:
            return {"low": float(low), "high": float(high)}
        except ValueError:
            raise ValueError(
                f"a range must be written LOW..HIGH with numbers, got {text!r}"
            ) from None
    return [part.strip() for part in text.split("|")]


def _interval(name: str, value: Mapping[str, Any]) -> Range:
    """Read {low, high} or {low, high, log}; without `log`, the scale is the declared one."""
    scale = HYPERPARAMETERS[name].scale
    if scale is None:
        raise ValueError(f"must be a list of levels such as 'a|b', got a range {dict(value)!r}")
    if not {"low", "high"} <= set(value) <= {"low", "high", "log"}:
        raise ValueError(f"a range must be written {{low, high, log}}, got {dict(value)!r}")
    try:
        interval = Range.model_validate({"log": scale == "log", **value})
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    for end in (interval.low, interval.high):
        read_level(name, end)
    return interval


def read_axis(name: str, value: Any, own_sets: Collection[str] | None = ()) -> Axis | None:
    """Parse an axis as a sweep file or `--space` writes it.

    Args:
        name: one of `AXES`.
        value: text (`1e-5..1e-2`, `4|16|64`), a list of levels, {low, high, log}, true or "default"
            for the default range, or None for an axis that is not searched.
        own_sets: as for `read_level`.

    Raises:
        ValueError: a level breaks the rule of its hyperparameter, or the range is out of order.
    """
    if value is None or value is False:
        return None
    if value is True or value == "default":
        return DEFAULT_AXES[name]
    if isinstance(value, Range | Choices):
        value = value.model_dump()
    if isinstance(value, str):
        value = _from_text(value)
    if isinstance(value, Mapping) and set(value) == {"values"}:
        value = value["values"]
    if isinstance(value, Mapping):
        return _interval(name, value)
    if not isinstance(value, list | tuple):
        value = [value]
    if not value:
        raise ValueError("must have at least one level, got an empty list")
    levels = tuple(read_level(name, item, own_sets) for item in value)
    if len(set(levels)) != len(levels):
        raise ValueError(f"must have each level once, got {list(levels)!r}")
    return Choices(values=levels)


def _reader(name: str) -> BeforeValidator:
    def read(value: Any, info: ValidationInfo) -> Axis | None:
        return read_axis(name, value, info.context)

    return BeforeValidator(read)


class _Space(Frozen):
    """An axis for each hyperparameter that is searched, None for the others."""

    @model_validator(mode="after")
    def _something_varies(self) -> Self:
        if not self.axes:
            raise ValueError(f"must name at least one axis of {', '.join(AXES)}")
        return self

    @property
    def axes(self) -> dict[str, Axis]:
        """Searched axes by name, in the fixed order of `AXES`."""
        return {name: axis for name in AXES if (axis := getattr(self, name)) is not None}

    def levels(self, points: int) -> dict[str, tuple[Level, ...]]:
        """List the levels of each axis; a range becomes `points` evenly spread ones."""
        return {
            name: axis.grid(points) if isinstance(axis, Range) else axis.values
            for name, axis in self.axes.items()
        }

    def grid(self, points: int) -> Iterator[dict[str, Level]]:
        """Enumerate the full factorial, the last axis fastest."""
        levels = self.levels(points)
        for combination in itertools.product(*levels.values()):
            yield dict(zip(levels, combination, strict=True))

    def contains(self, name: str, level: Level) -> bool:
        """Check whether a level lies on an axis; an axis that is not searched has none."""
        match self.axes.get(name):
            case Range(low=low, high=high):
                return isinstance(level, float | int) and low <= level <= high
            case Choices(values=values):
                return level in values
            case _:
                return False


# One field for each declared hyperparameter; type checkers cannot follow how they are made.
if TYPE_CHECKING:

    class Space(_Space):
        """An axis for each hyperparameter that is searched; `axes` has them by name."""

else:
    Space = create_model(
        "Space",
        __base__=_Space,
        __module__=__name__,
        **{name: (Annotated[Axis | None, _reader(name)], None) for name in AXES},
    )


def parse_space(text: str, known: Callable[[str], Axis | None]) -> dict[str, Any]:
    """Parse `--space lr=1e-5..1e-2,targets,rank=4|16` into the fields of `Space`.

    Args:
        text: axes separated by commas, each a name alone or NAME=RANGE.
        known: the range that the sweep at hand gives to an axis, None where it has none; the
            default range is then left to the method that it is for.

    Raises:
        SpecError: an axis is unknown or named twice; all mistakes at once.
    """
    space: dict[str, Any] = {}
    problems = []
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in DEFAULT_AXES:
            problems.append(f"space: axis must be one of {', '.join(AXES)}, got {name!r}")
        elif name in space:
            problems.append(f"space.{name}: each axis must be named once, got it twice")
        else:
            space[name] = value if equals else known(name) or True
    if problems:
        raise SpecError(problems)
    return space
