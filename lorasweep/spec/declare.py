"""Declaration of a hyperparameter: all that is known of it besides its type and its rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

Level = float | int | str


@dataclass(frozen=True, slots=True)
class Declaration:
    """Metadata of a hyperparameter's field, from which axes, tables, exports and docs are made.

    help: one line.
    levels, interval: its default axis, one of the two.
    scale: how an interval of it is searched; None where it takes levels only.
    full_factor: full finetuning takes LoRA's value and default axis times this.
    is_duration: it sets how long a trial is; only one such hyperparameter applies to a trial.
    changes_cost: a trial's parameters, steps or tokens depend on it, so a plan needs its levels.
    held_equal: methods are compared at equal values of it; the others are tuned for each method.
    is_later: added after trials had been named; at its default it is left out of a trial's hash, so
        that those trials keep their names.
    """

    help: str
    levels: tuple[Level, ...] = ()
    interval: tuple[float, float] | None = None
    scale: Literal["log", "linear"] | None = None
    unit: str = ""
    full_factor: float = 1.0
    is_duration: bool = False
    changes_cost: bool = False
    held_equal: bool = False
    is_later: bool = False

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Refuse booleans, which pydantic would read as 0 and 1."""
        return core_schema.no_info_before_validator_function(_no_boolean, handler(source))


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"must be a number or a name, got {value!r}")
    return value
