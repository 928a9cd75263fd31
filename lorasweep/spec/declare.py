"""What is declared of a hyperparameter beside its type: everything else follows from it."""

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
    is_duration: it sets how long a trial is; a trial has one such hyperparameter.
    held_equal: methods are compared at equal values of it; others are each method's own to tune.
    is_later: it was added after trials had been named, whose names it leaves alone at its default.
    """

    help: str
    levels: tuple[Level, ...] = ()
    interval: tuple[float, float] | None = None
    scale: Literal["log", "linear"] | None = None
    unit: str = ""
    full_factor: float = 1.0
    is_duration: bool = False
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
