"""What the trials of these tests train on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorasweep.data.tokens import Tokens
from tests.train.trial import examples
from tests.workers import two_workers

__all__ = ["two_workers"]


@pytest.fixture(scope="session")
def tokens(tiny_model: Path) -> Tokens:
    return examples(tiny_model)
