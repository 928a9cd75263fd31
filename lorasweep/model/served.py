"""The interface of a model under evaluation: tuned whole, or adapters on a shared base.

Shape legend: B rows, T tokens, D hidden size, K tokens whose logits are computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from torch import Tensor


class Served(Protocol):
    """One or several tuned copies of a model, evaluated side by side in one batch.

    A batch has the same rows for each copy: all rows of the first, then all of the second.
    """

    @property
    def copies(self) -> int:
        """Number of models."""

    @property
    def cache_bytes(self) -> int:
        """Upper bound on the bytes that one row takes in the key-value cache."""

    def all_copies(self) -> AbstractContextManager[Any]:
        """Evaluate all copies at once, each on an equal share of the rows, without gradients."""

    def one_copy(self, copy: int) -> AbstractContextManager[Any]:
        """Evaluate one copy on all rows, without gradients."""


@contextmanager
def logits_at(base: Any, indices_K: Tensor) -> Iterator[None]:
    """Compute logits only at some tokens, indexed over rows laid end to end.

    Without this, fp32 logits of every token would take more memory than all other activations.
    """
    head = base.get_output_embeddings()

    def keep(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden_BTD, *rest = inputs
        # One row of K tokens for the head, whose logits are then 1 x K x vocabulary.
        return (hidden_BTD.flatten(0, 1).index_select(0, indices_K).unsqueeze(0), *rest)

    handle = head.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
