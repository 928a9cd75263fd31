"""What the trials of these tests train on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lorasweep.data.tokens import Tokens
from tests.train.trial import Trial, examples
from tests.workers import two_workers

__all__ = ["two_workers"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute with one thread, as each of two workers does; two spin idly on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokens(tiny_model: Path) -> Tokens:
    return examples(tiny_model)


@pytest.fixture
def trial(tiny_model: Path, tokens: Tokens) -> Trial:
    return Trial(tiny_model, tokens)
