"""Log-likelihoods of what follows a context, for all copies of the model at once.

Texts are sorted by length, so that a batch is nearly free of padding. Each text has a row of its
own and starts at position 0, which works with every causal model.

Shape legend: C copies, N continuations, B texts of a batch, T tokens of its longest text, K tokens
whose successor is predicted, A tokens that are scored, P of them at a time, S those of all
batches, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorasweep.data.batches import ALIGNMENT, MIN_ROWS
from lorasweep.errors import LorasweepError
from lorasweep.model.served import Served, logits_at

# Most memory goes to logits, one for each prediction and token of the vocabulary. With 152,000
# tokens these limits mean 1.2 GB of bf16 logits for each copy, and 0.6 GB of fp32 log-softmax.
MAX_PREDICTIONS = 4096  # of a batch, unless one text has more
TOKENS_AT_A_TIME = 1024  # scored tokens whose log-softmax is in memory at once

Pair = tuple[Sequence[int], Sequence[int]]  # token ids of a context, and of what follows it


@dataclass(frozen=True)
class Likelihoods:
    """Scores of N continuations by each copy of a model.

    log_CN: log-likelihood of each continuation as a whole, in nats.
    correct_CN: how many of its tokens are the most likely one, given all true tokens before them.
    """

    log_CN: NDArray[np.float64]
    correct_CN: NDArray[np.int64]


@dataclass(frozen=True)
class _Batch:
    """Texts of one forward pass, and the tokens that are scored on them.

    indices_K: tokens whose successor is predicted, in rows laid end to end.
    predictions_A: which of the K predictions scores each token.
    tokens_A: the scored tokens.
    owners_A: the continuation that each of them belongs to.
    """

    ids_BT: Tensor
    indices_K: Tensor
    predictions_A: Tensor
    tokens_A: Tensor
    owners_A: NDArray[np.int64]


class Continuations:
    """Contexts with continuations, batched once and scored by one model after another.

    Continuations that differ only in their last token share a text: the last token is predicted but
    never read, so the single-token answers of a multiple-choice question cost one row.

    lengths_N: scored tokens of each continuation.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        batch_size: int,
        pad: int,
        positions: int,
        scored: Sequence[NDArray[np.bool_]] | None = None,
    ) -> None:
        """Sort and batch the texts.

        Args:
            scored: which tokens of each continuation count; None scores all of them.
            batch_size: texts of a batch at most; fewer where much is predicted in each.
            positions: tokens that the model takes; a longer text loses its beginning.

        Raises:
            LorasweepError: a continuation alone is longer than what the model takes.
        """
        masks = scored or [np.ones(len(tokens), dtype=np.bool_) for _, tokens in pairs]
        self.lengths_N = np.asarray([mask.sum() for mask in masks], dtype=np.int64)
        texts: dict[tuple[int, ...], list[int]] = {}
        for number, (context, continuation) in enumerate(pairs):
            if len(continuation) > positions:
                raise LorasweepError(
                    f"evaluate: a continuation must fit into the model's {positions} positions, "
                    f"got {len(continuation)} tokens"
                )
            text = (*context, *continuation)[:-1][-positions:]
            texts.setdefault(text, []).append(number)
        unique = sorted(
            (text for text, numbers in texts.items() if self.lengths_N[numbers].any()),
            key=len,
            reverse=True,
        )
        predictions = [max(len(pairs[n][1]) for n in texts[text]) for text in unique]
        self._batches = [
            _batch({text: texts[text] for text in unique[part]}, pairs, masks, pad, positions)
            for part in _parts(predictions, batch_size)
        ]

    def score(self, served: Served, device: torch.device) -> Likelihoods:
        """Score the continuations by all copies of a model at once.

        The scores of one copy do not depend on how many copies there are.
        """
        copies, count = served.copies, len(self.lengths_N)
        with served.all_copies() as model:
            scores = [_score_batch(model, copies, batch, device) for batch in self._batches]
        scores_C2S = torch.cat([torch.zeros(copies, 2, 0, device=device), *scores], dim=2)
        owners = [batch.owners_A for batch in self._batches]
        owners_S = np.concatenate([np.zeros(0, dtype=np.int64), *owners])
        log_CN = np.zeros((copies, count))
        correct_CN = np.zeros((copies, count), dtype=np.int64)
        for copy, (log_S, right_S) in enumerate(scores_C2S.double().cpu().numpy()):
            log_CN[copy] = np.bincount(owners_S, log_S, count)
            correct_CN[copy] = np.bincount(owners_S, right_S, count)
        return Likelihoods(log_CN, correct_CN)


def _parts(predictions: Sequence[int], batch_size: int) -> Iterator[slice]:
    """Cut texts into batches of at most `batch_size` texts and `MAX_PREDICTIONS` predictions.

    Args:
        predictions: number of predictions in each text.
    """
    first = left = 0
    for index, count in enumerate(predictions):
        if index > first and (index - first == batch_size or count > left):
            yield slice(first, index)
            first = index
        left = (MAX_PREDICTIONS if index == first else left) - count
    if predictions:
        yield slice(first, len(predictions))


def _batch(
    texts: dict[tuple[int, ...], list[int]],
    pairs: Sequence[Pair],
    masks: Sequence[NDArray[np.bool_]],
    pad: int,
    positions: int,
) -> _Batch:
    """Lay out texts as rows, each with the numbers of the continuations scored on it.

    The number of tokens is padded to whole vectors, or CPU kernels would treat the remainder
    differently and round it differently from batch to batch.
    """
    rows = len(texts)
    step = ALIGNMENT // gcd(ALIGNMENT, rows)
    width = min(-(-max(map(len, texts)) // step) * step, positions)
    ids_BT = np.full((rows, width), pad, dtype=np.int64)
    indices: list[int] = []
    predictions, tokens, owners = [], [], []
    for row, (text, numbers) in enumerate(texts.items()):
        ids_BT[row, : len(text)] = text
        longest = max(len(pairs[number][1]) for number in numbers)
        for number in numbers:
            length, mask = len(pairs[number][1]), masks[number]
            predictions.append((np.arange(longest - length, longest) + len(indices))[mask])
            tokens.append(np.asarray(pairs[number][1], dtype=np.int64)[mask])
            owners.append(np.full(int(mask.sum()), number))
        end = row * width + len(text)
        indices.extend(range(end - longest, end))
    indices.extend([0] * (MIN_ROWS - len(indices)))  # computed and not used; see `MIN_ROWS`
    return _Batch(
        torch.from_numpy(ids_BT),
        torch.tensor(indices),
        torch.from_numpy(np.concatenate(predictions)),
        torch.from_numpy(np.concatenate(tokens)),
        np.concatenate(owners),
    )


def _score_batch(model: Any, copies: int, batch: _Batch, device: torch.device) -> Tensor:
    """Compute each scored token's log-likelihood, and whether it is the likeliest: C x 2 x A."""
    firsts_C1 = torch.arange(copies)[:, None] * batch.ids_BT.numel()
    indices_CK = (firsts_C1 + batch.indices_K).to(device)
    with logits_at(model, indices_CK.flatten()):
        inputs = batch.ids_BT.repeat(copies, 1).to(device)
        logits_CKV = model(input_ids=inputs, use_cache=False).logits[0].view(*indices_CK.shape, -1)
    predictions_A, tokens_A = batch.predictions_A.to(device), batch.tokens_A.to(device)
    return torch.stack(
        [_score_tokens(logits_KV, predictions_A, tokens_A) for logits_KV in logits_CKV]
    )


def _score_tokens(logits_KV: Tensor, predictions_A: Tensor, tokens_A: Tensor) -> Tensor:
    """Compute each scored token's log-likelihood, and whether it is the likeliest: 2 x A.

    The softmax is in fp32, which takes twice the memory of bf16, so it takes some tokens at a time.
    """
    scores = []
    parts = (torch.split(values_A, TOKENS_AT_A_TIME) for values_A in (predictions_A, tokens_A))
    for predictions_P, tokens_P in zip(*parts, strict=True):
        log_PV = logits_KV[predictions_P].log_softmax(-1, dtype=torch.float32)
        log_P = log_PV.gather(1, tokens_P[:, None])[:, 0]
        scores.append(torch.stack([log_P, (log_PV.argmax(-1) == tokens_P).float()]))
    return torch.cat(scores, dim=1)
