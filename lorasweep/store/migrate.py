"""Journal lines of earlier formats, brought to the present one as they are read."""

from __future__ import annotations

from typing import Any

FORMAT = 2


def migrate(content: dict[str, Any], version: int) -> dict[str, Any]:
    """Rewrite the fields of one line from an earlier format as the present one names them.

    Format 1 called a study `arm` and its window `max_concurrent`, a name that means something else
    in `resources`.
    """
    if version < 2:
        renamed = {"max_concurrent": "window"}
        content = {renamed.get(name, name): value for name, value in content.items()}
        if content.get("record") == "arm":
            content["record"] = "study"
    return content
