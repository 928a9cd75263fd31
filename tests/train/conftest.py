"""Training data and small trials for the tests of the engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorasweep.data.tokens import Tokens
from tests.examples import examples
from tests.train.trial import Trial
from tests.workers import one_thread, two_workers

__all__ = ["one_thread", "two_workers"]


@pytest.fixture(scope="session")
def tokens(tiny_model: Path) -> Tokens:
    return examples(tiny_model)


@pytest.fixture
def trial(tiny_model: Path, tokens: Tokens) -> Trial:
    return Trial(tiny_model, tokens)
