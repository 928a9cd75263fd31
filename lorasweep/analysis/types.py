"""What every value of analysis.json is: frozen, written with what is computed from its fields."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, model_validator

from lorasweep.spec.trial import Frozen


def _finite(value: Any) -> Any:
    """Replace NaN and infinity by None, since JSON has neither."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


# A number that may be unknown, or an open bound.
Number = Annotated[float | None, BeforeValidator(_finite)]


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
