"""Predict the next token of texts that grow token by token, with a key-value cache if possible.

A row's width follows from its own text alone, and the number of rows is padded to whole vectors, so
that CPU kernels in fp32 compute the same bits for a row whatever is batched with it.

Shape legend: R rows of all copies, T tokens, D tokens of one row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from lorasweep.data.batches import round_up
from lorasweep.model.served import logits_at

Texts = Sequence[Sequence[int]]  # token ids


def row_width(tokens: int) -> int:
    """Compute the width of a row for a prompt of this many tokens.

    At least one token is padding, since attention without a padding mask takes another kernel,
    which rounds differently.
    """
    return round_up(tokens + 1)


class Predictor(Protocol):
    """Reads texts and predicts the next token of each."""

    def predict(self) -> Tensor:
        """Compute the logits of each text's next token: R x V."""

    def select(self, rows_R: Tensor) -> None:
        """Keep only these rows; a row that is named several times is copied."""

    def append(self, tokens_R: Tensor) -> None:
        """Append one token to each text."""


def make_predictor(model: Any, texts: Texts, *, pad: int, device: torch.device) -> Predictor:
    """Start predicting texts that all have the same row width.

    A cache is used if every layer keeps keys and values: the state of a linear-attention or
    state-space layer would be changed by the padding on the left.

    Args:
        pad: padding token.
    """
    parameters = signature(model.forward).parameters
    layers = getattr(model.config.get_text_config(), "layer_types", None) or ()
    attends = all("attention" in layer and "linear" not in layer for layer in layers)
    if attends and {"past_key_values", "attention_mask"} <= parameters.keys():
        return _CachedPredictor(
            model, texts, pad, device, takes_positions="position_ids" in parameters
        )
    return _UncachedPredictor(model, texts, pad, device)


class _CachedPredictor:
    """Keeps keys and values of tokens that were read; texts are aligned at the right."""

    def __init__(
        self, model: Any, texts: Texts, pad: int, device: torch.device, *, takes_positions: bool
    ) -> None:
        self._model, self._takes_positions = model, takes_positions
        self._cache = DynamicCache(config=model.config)
        width = row_width(max(map(len, texts)))
        rows = [[pad] * (width - len(text)) + list(text) for text in texts]
        masks = [[0] * (width - len(text)) + [1] * len(text) for text in texts]
        self._unread_RT = torch.tensor(rows, device=device)
        self._mask_RT = torch.tensor(masks, device=device)

    def predict(self) -> Tensor:
        rows, unread = self._unread_RT.shape
        more: dict[str, Tensor] = {}
        if self._takes_positions:
            ordinals_RT = self._mask_RT.cumsum(-1) - 1
            more["position_ids"] = ordinals_RT[:, -unread:].clamp(min=0)
        last_R = torch.arange(1, rows + 1, device=self._mask_RT.device) * unread - 1
        with logits_at(self._model, last_R):
            logits_RV: Tensor = self._model(
                input_ids=self._unread_RT,
                attention_mask=self._mask_RT,
                past_key_values=self._cache,
                use_cache=True,
                **more,
            ).logits[0]
        return logits_RV

    def select(self, rows_R: Tensor) -> None:
        self._cache.batch_select_indices(rows_R)
        self._mask_RT, self._unread_RT = self._mask_RT[rows_R], self._unread_RT[rows_R]

    def append(self, tokens_R: Tensor) -> None:
        self._unread_RT = tokens_R[:, None]
        self._mask_RT = functional.pad(self._mask_RT, (0, 1), value=1)


class _UncachedPredictor:
    """Reads all tokens again for each prediction; texts are aligned at the left."""

    def __init__(self, model: Any, texts: Texts, pad: int, device: torch.device) -> None:
        self._model, self._pad = model, pad
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._max_width: int | None = positions
        width = max(map(len, texts))
        rows = [list(text) + [pad] * (width - len(text)) for text in texts]
        self._texts_RT = torch.tensor(rows, device=device)
        self._lengths_R = torch.tensor([len(text) for text in texts], device=device)

    def predict(self) -> Tensor:
        rows, length = self._texts_RT.shape
        width = (
            row_width(length)
            if self._max_width is None
            else min(row_width(length), self._max_width)
        )
        padded_RT = functional.pad(self._texts_RT, (0, width - length), value=self._pad)
        firsts_R = torch.arange(rows, device=padded_RT.device) * width
        with logits_at(self._model, firsts_R + self._lengths_R - 1):
            logits_RV: Tensor = self._model(input_ids=padded_RT, use_cache=False).logits[0]
        return logits_RV

    def select(self, rows_R: Tensor) -> None:
        self._texts_RT, self._lengths_R = self._texts_RT[rows_R], self._lengths_R[rows_R]

    def append(self, tokens_R: Tensor) -> None:
        longer_RT = functional.pad(self._texts_RT, (0, 1), value=self._pad)
        self._texts_RT = longer_RT.scatter(1, self._lengths_R[:, None], tokens_R[:, None])
        self._lengths_R = self._lengths_R + 1
