"""Write the JSON Schema of report/analysis.json from its model; a test checks it is up to date."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic.json_schema import GenerateJsonSchema

from lorasweep.analysis.result import Analysis

FILE = Path(__file__).parent.parent / "lorasweep" / "analysis" / "analysis.schema.json"


class _WithoutTitles(GenerateJsonSchema):
    """Leave out the titles of fields, which repeat their names."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 (its signature)
        return False


def schema() -> str:
    """Format the schema of what `Analysis.to_json` writes."""
    content = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Analysis.model_json_schema(mode="serialization", schema_generator=_WithoutTitles),
        "title": "lorasweep analysis",
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(schema(), encoding="utf-8")
