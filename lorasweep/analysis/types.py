"""Base class of every value in analysis.json: frozen, and written with its computed fields."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, model_validator

from lorasweep.spec.trial import Frozen
from lorasweep.store.scores import finite_or_none

# A number that may be unknown, or an open bound.
Number = Annotated[float | None, BeforeValidator(finite_or_none)]


class Result(Frozen):
    """Part of an analysis.

    Computed fields are written to analysis.json, and dropped again when it is read.
    """

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_computed(cls, value: Any) -> Any:
        computed = cls.model_computed_fields
        if not computed or not isinstance(value, dict):
            return value
        return {name: item for name, item in value.items() if name not in computed}
