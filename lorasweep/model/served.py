"""What evaluation asks of a model, be it one that is tuned whole or adapters on a shared base.

Shape legend: B rows, T tokens, D hidden size, K tokens whose successor is predicted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from torch import Tensor


class Served(Protocol):
    """Give a model for evaluation, which may answer as several copies of it at once.

    A batch has the same rows for each copy, all of the first one's, then all of the second's.
    """

    @property
    def copies(self) -> int:
        """Count the models that answer."""

    @property
    def cache_bytes(self) -> int:
        """Bound what keys and values of one row take, however long it grows."""

    def together(self) -> AbstractContextManager[Any]:
        """Give the model, with rows in equal shares for all copies, without gradients."""

    def alone(self, copy: int) -> AbstractContextManager[Any]:
        """Give the model as one copy, with all rows its own, without gradients."""


@contextmanager
def predictions_at(base: Any, places_K: Tensor) -> Iterator[None]:
    """Let the model compute logits only at some tokens, counted over rows laid end to end."""
    head = base.get_output_embeddings()

    def keep(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden_BTD, *rest = inputs
        return (hidden_BTD.flatten(0, 1).index_select(0, places_K).unsqueeze(0), *rest)

    handle = head.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
