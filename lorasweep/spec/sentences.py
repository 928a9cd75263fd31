"""What is wrong with a sweep file, in sentences: where, the rule, the value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from lorasweep.spec.space import AXES
from lorasweep.spec.studies import has_no
from lorasweep.spec.trial import OF_METHOD, axes_of


def sentences_of(error: ValidationError) -> list[str]:
    """Phrase all of pydantic's findings on a sweep's content, each of them once."""
    sentences = [
        sentence
        for e in error.errors()
        for sentence in _sentence(_path(e["loc"]), e["type"], e["msg"], e["input"]).splitlines()
    ]
    return list(dict.fromkeys(sentences))


def _sentence(path: str, kind: str, message: str, value: Any) -> str:
    """Phrase one of pydantic's findings as where, rule and value."""
    owner, _, field = path.rpartition(".")
    if kind == "extra_forbidden" and owner == "hyperparameters" and field in AXES:
        return f"{path}: {has_no('full' if field in axes_of('lora') else 'lora', field)}"
    if kind == "extra_forbidden":
        return f"{path}: no such field; check its spelling"
    if kind == "missing":
        return f"{path}: must be given"
    message = message.removeprefix("Value error, ").replace("Input should be", "must be")
    shown = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:77]}..."
    got = "" if "got " in message or kind == "value_error" else f", got {shown}"
    if kind == "string_pattern_mismatch":
        message = "must have up to 64 letters, digits, '.', '_' or '-', a letter or digit first"
    if message.startswith("."):  # of fields below, each in a line
        return "\n".join(f"{path}{line}" for line in message.splitlines())
    return f"{path}: {message}{got}" if path else f"{message}{got}"


def _path(location: Sequence[int | str]) -> str:
    """Join a location, leaving out the names pydantic gives to the members of a union."""
    parts = [
        str(part) for part in location if not str(part).startswith(("literal[", "constrained-"))
    ]
    if len(parts) > 1 and parts[0] == "hyperparameters" and parts[1] in OF_METHOD:
        parts.pop(1)
    return ".".join(part for part in parts if part not in {"int", "float", "str"})
