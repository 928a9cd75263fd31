"""Journal lines of earlier formats, brought to the present one as they are read."""

from __future__ import annotations

from typing import Any

FORMAT = 2


def migrate(content: dict[str, Any], version: int) -> dict[str, Any]:
    """Rewrite the fields of one line from an earlier format as the present one names them.

    Format 1 called a study an arm, and the window, which `resources.max_concurrent` does not set,
    `max_concurrent`.
    """
    if version < 2:
        renamed = {"max_concurrent": "window"}
        content = {renamed.get(name, name): value for name, value in content.items()}
        if content.get("record") == "arm":
            content["record"] = "study"
    return content
