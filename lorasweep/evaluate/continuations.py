"""How likely a model finds what follows a context, for all copies of the model at once.

Texts are sorted by length, so that those of one batch are nearly as long as each other and hardly
any padding is computed; a row of its own lets each of them stand at position 0, in any model.

Shape legend: C copies, N continuations, B texts of a batch, T tokens of its longest text, K tokens
whose successor is predicted, A tokens that are asked for, P of them at a time, S those of all
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

# Memory goes to a number for each prediction and token of the vocabulary. Where that has 152,000
# tokens, these are 1.2 GB of logits in bf16 for each copy, and 0.6 GB of likelihoods in fp32.
MAX_PREDICTIONS = 4096  # of a batch, unless one text has more
TOKENS_AT_A_TIME = 1024  # tokens that are judged at a time

Pair = tuple[Sequence[int], Sequence[int]]  # token ids of a context, and of what follows it


@dataclass(frozen=True)
class Likelihoods:
    """Hold what the copies of a model make of N continuations.

    log_CN: log-likelihood of each continuation as a whole, in nats.
    correct_CN: how many of its tokens are the model's most likely one, given all before them.
    """

    log_CN: NDArray[np.float64]
    correct_CN: NDArray[np.int64]


@dataclass(frozen=True)
class _Batch:
    """Hold texts, and the tokens that are asked for after them.

    indices_K: where a successor is predicted, in rows laid end to end.
    predictions_A: by which of the K predictions each asked token is judged.
    tokens_A: the asked tokens.
    owners_A: the continuations that they are of.
    """

    ids_BT: Tensor
    indices_K: Tensor
    predictions_A: Tensor
    tokens_A: Tensor
    owners_A: NDArray[np.int64]


class Continuations:
    """Hold contexts and what follows them, in batches that one model after another is asked.

    Continuations that differ in their last token alone are asked with one text.

    lengths_N: tokens of each continuation.
    """

    def __init__(self, pairs: Sequence[Pair], *, batch_size: int, pad: int, positions: int) -> None:
        """Sort and batch them.

        Args:
            batch_size: texts of a batch, of which it has fewer where much is predicted in each.
            positions: tokens that the model takes; a longer text loses its beginning.

        Raises:
            LorasweepError: a continuation alone is longer than what the model takes.
        """
        self.lengths_N = np.asarray([len(tokens) for _, tokens in pairs], dtype=np.int64)
        texts: dict[tuple[int, ...], list[int]] = {}
        for number, (context, continuation) in enumerate(pairs):
            if len(continuation) > positions:
                raise LorasweepError(
                    f"evaluate: a continuation must fit into the model's {positions} positions, "
                    f"got {len(continuation)} tokens"
                )
            # The last token is only predicted, never read.
            text = (*context, *continuation)[:-1][-positions:]
            texts.setdefault(text, []).append(number)
        asked = sorted(
            (text for text, numbers in texts.items() if self.lengths_N[numbers].any()),
            key=len,
            reverse=True,
        )
        predictions = [int(self.lengths_N[texts[text]].max()) for text in asked]
        self._batches = [
            _batch({text: texts[text] for text in asked[part]}, pairs, pad, positions)
            for part in _parts(predictions, batch_size)
        ]

    def score(self, served: Served, device: torch.device) -> Likelihoods:
        """Ask all copies of a model at once.

        What one copy answers does not depend on how many there are.
        """
        copies, count = served.copies, len(self.lengths_N)
        with served.together() as model:
            answers = [_score_batch(model, copies, batch, device) for batch in self._batches]
        answers_C2S = torch.cat([torch.zeros(copies, 2, 0, device=device), *answers], dim=2)
        owners = [batch.owners_A for batch in self._batches]
        owners_S = np.concatenate([np.zeros(0, dtype=np.int64), *owners])
        log_CN = np.zeros((copies, count))
        correct_CN = np.zeros((copies, count), dtype=np.int64)
        for copy, (log_S, right_S) in enumerate(answers_C2S.double().cpu().numpy()):
            log_CN[copy] = np.bincount(owners_S, log_S, count)
            correct_CN[copy] = np.bincount(owners_S, right_S, count)
        return Likelihoods(log_CN, correct_CN)


def _parts(predictions: Sequence[int], batch_size: int) -> Iterator[slice]:
    """Cut texts into batches.

    Args:
        predictions: in each text.
    """
    first = room = 0
    for place, wanted in enumerate(predictions):
        if place > first and (place - first == batch_size or wanted > room):
            yield slice(first, place)
            first = place
        room = (MAX_PREDICTIONS if place == first else room) - wanted
    if predictions:
        yield slice(first, len(predictions))


def _batch(
    texts: dict[tuple[int, ...], list[int]], pairs: Sequence[Pair], pad: int, positions: int
) -> _Batch:
    """Lay texts into rows, with the numbers of the continuations that each is asked for."""
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
            length = len(pairs[number][1])
            predictions.append(np.arange(longest - length, longest) + len(indices))
            tokens.append(np.asarray(pairs[number][1], dtype=np.int64))
            owners.append(np.full(length, number))
        end = row * width + len(text)
        indices.extend(range(end - longest, end))
    indices.extend([0] * (MIN_ROWS - len(indices)))
    return _Batch(
        torch.from_numpy(ids_BT),
        torch.tensor(indices),
        torch.from_numpy(np.concatenate(predictions)),
        torch.from_numpy(np.concatenate(tokens)),
        np.concatenate(owners),
    )


def _score_batch(model: Any, copies: int, batch: _Batch, device: torch.device) -> Tensor:
    """Give the log-likelihood of every asked token, and whether it is the likeliest: C x 2 x A."""
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
    """Give the log-likelihood of every asked token, and whether it is the likeliest: 2 x A.

    That is done in fp32, which takes twice the room of bf16, so for some of the tokens at a time.
    """
    answers = []
    parts = (torch.split(asked_A, TOKENS_AT_A_TIME) for asked_A in (predictions_A, tokens_A))
    for predictions_P, tokens_P in zip(*parts, strict=True):
        log_PV = logits_KV[predictions_P].log_softmax(-1, dtype=torch.float32)
        log_P = log_PV.gather(1, tokens_P[:, None])[:, 0]
        answers.append(torch.stack([log_P, (log_PV.argmax(-1) == tokens_P).float()]))
    return torch.cat(answers, dim=1)
