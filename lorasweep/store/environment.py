"""Versions and hardware of the machine that started a sweep."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import lorasweep

_PACKAGES = [
    "ray",
    "torch",
    "transformers",
    "peft",
    "deepspeed",
    "datasets",
    "lm-eval",
    "optuna",
    "accelerate",
    "numpy",
    "scipy",
]


def environment() -> dict[str, Any]:
    """Collect versions and hardware without importing heavy libraries."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "lorasweep": lorasweep.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "packages": versions,
    }
