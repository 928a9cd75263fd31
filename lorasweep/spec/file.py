"""Sweep files and `--set`: YAML into plain values, before anything in it is checked."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lorasweep.errors import SpecError

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a sweep file into plain values.

    Raises:
        SpecError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SpecError([f"{path}: the sweep file cannot be read ({reason})"]) from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise SpecError([f"{path}: the sweep file is not valid YAML ({problem})"]) from None
    if not isinstance(content, dict):
        raise SpecError([f"{path}: a sweep file must be a mapping, got {type(content).__name__}"])
    return content


def override(content: dict[str, Any], assignments: Sequence[str]) -> None:
    """Apply `key.path=value` assignments in place; values are read as YAML.

    Raises:
        SpecError: an assignment has no `=`, or goes through a value that is no mapping.
    """
    problems = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        *parents, leaf = key.strip().split(".")
        if not equals or not leaf:
            problems.append(f"--set: must be KEY.PATH=VALUE, got {assignment!r}")
            continue
        section: Any = content
        for parent in parents:
            section = section.setdefault(parent, {}) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            problems.append(
                f"--set: {'.'.join(parents)} is a value, not a section, in {assignment!r}"
            )
            continue
        try:
            section[leaf] = _value(text)
        except yaml.YAMLError:
            problems.append(f"--set: the value is not valid YAML in {assignment!r}")
    if problems:
        raise SpecError(problems)


def _value(text: str) -> Any:
    """Read YAML, and 1e-4 as a number, which YAML 1.1 takes for text because it has no dot.

    Quoted text stays text, so that a commit such as '12345e6' can be named.
    """
    value = yaml.safe_load(text)
    if isinstance(value, str) and _EXPONENT.fullmatch(text.strip()):
        number = float(value)
        return number if math.isfinite(number) else value
    return value
