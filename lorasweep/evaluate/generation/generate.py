"""Let all copies of a model write completions that no company changes.

What a copy writes for a problem follows from its weights, the prompt, and draws that belong to the
problem and the sample alone; every copy is given the same draws, so that tuned models differ by
what they learned, not by luck. Only where a draw falls within a rounding of the border between two
tokens can other rows beside it matter, and on CPUs in fp32 not even there (see `reader`).

Shape legend: C copies, P prompts and N completions of one copy in a batch, L rows of each copy, R
rows of all copies, M tokens of a completion.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorasweep.data.batches import ALIGNMENT, round_up
from lorasweep.errors import LorasweepError
from lorasweep.evaluate.generation.nucleus import draw
from lorasweep.evaluate.generation.predictor import make_predictor, row_width
from lorasweep.evaluate.generation.stopping import CHECK_EVERY, CompletionDecoder, eos_tokens
from lorasweep.model.served import Served

CACHE_BYTES = 2**28  # of KV cache per copy, up to which a batch may exceed the configured size


def generation_batch_size(served: Served, batch_size: int) -> int:
    """Choose how many rows each copy generates at once: the configured size, or more if they fit.

    Decoding one token per row is bound by reading the weights, so more rows are almost free as long
    as their keys and values are small.
    """
    return max(batch_size, CACHE_BYTES // served.cache_bytes)


@dataclass(frozen=True)
class Sampling:
    """Say how completions are drawn.

    samples: completions of each prompt.
    temperature: 0 takes the likeliest token.
    top_p: probability of the nucleus that tokens are drawn from.
    max_tokens: of a completion.
    until: texts before which a completion is cut.
    """

    samples: int
    temperature: float
    top_p: float
    max_tokens: int
    until: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class _Batch:
    """Hold N completions that go into rows of one width.

    asked: prompt and sample of each.
    prompts: token ids of those prompts, by their number.
    rows: how many rows each copy writes; those after N fill up a vector, and nobody reads them.
    uniforms_NM: what tokens are drawn by.
    """

    asked: list[tuple[int, int]]
    prompts: dict[int, list[int]]
    rows: int
    uniforms_NM: NDArray[np.float64]


def uniforms(seed: int, number: int, sample: int, count: int) -> NDArray[np.float64]:
    """Give what the tokens of one completion are drawn by: M numbers in [0, 1).

    Philox (Salmon et al. 2011) counts through a stream of its own for each seed, problem and
    sample; its raw output is the same in every version of NumPy.
    """
    stream = np.random.Philox(key=[seed, number], counter=[0, sample, 0, 0])
    return (stream.random_raw(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def sample(
    served: Served,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    numbers: Sequence[int] | None = None,
    tokenizer: Any,
    batch_size: int,
    device: torch.device,
) -> list[list[list[str]]]:
    """Let every copy complete every prompt.

    A prompt longer than the model's positions less `max_tokens` loses its beginning; an empty one
    begins with the end token. Passes through the model depend on the arguments and on what is
    written, so workers that are given the same ones stay in step.

    Args:
        prompts: token ids.
        numbers: of the prompts among all problems of the task, which seed their draws; None counts
            from 0.
        batch_size: rows of each copy at a time. Of memory, a row takes up to the model's positions.

    Returns:
        Completions, cut before the first stop text and the end token, by copy, prompt and sample.

    Raises:
        LorasweepError: the model has no positions left for a prompt.
    """
    numbers = range(len(prompts)) if numbers is None else numbers
    with served.together() as model:
        kept = [list(prompt) or [tokenizer.eos_token_id] for prompt in prompts]
        room = _room(model, sampling.max_tokens)
        kept = kept if room is None else [prompt[-room:] for prompt in kept]
        count = len(kept) * sampling.samples
        texts = [[""] * count for _ in range(served.copies)]
        decoder = CompletionDecoder(tokenizer, kept, eos_tokens(model, tokenizer), sampling.until)
        for batch in _batches(kept, numbers, sampling, batch_size):
            written_CNM = _write(
                model, served.copies, batch, sampling, decoder, tokenizer.pad_token_id, device
            )
            for own, written_NM in zip(texts, written_CNM.tolist(), strict=True):
                for (prompt, number), tokens in zip(batch.asked, written_NM, strict=True):
                    own[prompt * sampling.samples + number], _ = decoder.decode(prompt, tokens)
    each = sampling.samples
    return [[own[first : first + each] for first in range(0, count, each)] for own in texts]


def _room(model: Any, max_tokens: int) -> int | None:
    """Give how many tokens a prompt may have, None if any number.

    Raises:
        LorasweepError: there is no room.
    """
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is None:
        return None
    if max_tokens >= positions:
        raise LorasweepError(
            f"evaluate: max_gen_toks must be less than the model's {positions} positions, since a "
            f"prompt needs some, got {max_tokens}"
        )
    return int(positions - max_tokens)


def _batches(
    prompts: list[list[int]], numbers: Sequence[int], sampling: Sampling, batch_size: int
) -> Iterator[_Batch]:
    """Lay completions into batches of one width each; all of a prompt stand side by side."""
    by_width: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for prompt, tokens in enumerate(prompts):
        asked = [(prompt, number) for number in range(sampling.samples)]
        by_width[row_width(len(tokens))].extend(asked)
    most = batch_size // ALIGNMENT * ALIGNMENT or batch_size
    for width in sorted(by_width, reverse=True):  # what takes most memory fails first
        for first in range(0, len(by_width[width]), most):
            asked = by_width[width][first : first + most]
            drawn = [
                uniforms(sampling.seed, numbers[prompt], number, sampling.max_tokens)
                for prompt, number in asked
            ]
            yield _Batch(
                asked,
                {prompt: prompts[prompt] for prompt, _ in asked},
                min(round_up(len(asked)), most),
                np.stack(drawn),
            )


def _write(
    model: Any,
    copies: int,
    batch: _Batch,
    sampling: Sampling,
    decoder: CompletionDecoder,
    pad: int,
    device: torch.device,
) -> Tensor:
    """Write one batch, without going on for rows that have ended.

    Returns:
        What each copy wrote; behind the end of a completion there may be anything: C x N x M.
    """
    predictor = make_predictor(model, [*batch.prompts.values()] * copies, pad=pad, device=device)
    count, spare = len(batch.asked), batch.rows - len(batch.asked)
    of_prompt = {prompt: place for place, prompt in enumerate(batch.prompts)}
    prompts_L = [of_prompt[prompt] for prompt, _ in batch.asked] + [0] * spare
    copies_C1 = torch.arange(copies, device=device)[:, None]
    rows_R = (copies_C1 * len(of_prompt) + torch.tensor(prompts_L, device=device)).flatten()
    # Spare rows write into a place after the last.
    owners_CL = torch.arange(batch.rows, device=device).clamp(max=count).repeat(copies, 1)
    uniforms_NM = torch.from_numpy(np.pad(batch.uniforms_NM, ((0, 1), (0, 0)))).to(device)
    written_CNM = torch.full((copies, count + 1, sampling.max_tokens), pad, device=device)
    logits_RV = predictor.predict()[rows_R]
    predictor.select(rows_R)
    for place in range(sampling.max_tokens):
        tokens_R = draw(
            logits_RV,
            uniforms_NM[owners_CL.flatten(), place],
            temperature=sampling.temperature,
            top_p=sampling.top_p,
        )
        written_CNM[copies_C1, owners_CL, place] = tokens_R.view_as(owners_CL)
        if place + 1 == sampling.max_tokens:
            break
        if (place + 1) % CHECK_EVERY == 0:
            kept_CK = _going(written_CNM[..., : place + 1], owners_CL, batch.asked, decoder)
            if not kept_CK.numel():
                break
            if kept_CK.shape < owners_CL.shape:
                rows_R = (copies_C1 * owners_CL.shape[1] + kept_CK).flatten()
                predictor.select(rows_R)
                tokens_R, owners_CL = tokens_R[rows_R], owners_CL.gather(1, kept_CK)
        predictor.append(tokens_R)
        logits_RV = predictor.predict()
    return written_CNM[:, :count]


def _going(
    written_CNM: Tensor, owners_CL: Tensor, asked: list[tuple[int, int]], decoder: CompletionDecoder
) -> Tensor:
    """Give the rows that go on, and some others, so that every copy has as many and they are even.

    Returns:
        Their places among the rows of each copy; none if none goes on: C x K.
    """
    going_CL = [
        [
            owner < len(asked) and not decoder.decode(asked[owner][0], written_NM[owner])[1]
            for owner in owners_L
        ]
        for written_NM, owners_L in zip(written_CNM.tolist(), owners_CL.tolist(), strict=True)
    ]
    most = max(map(sum, going_CL))
    kept_CL = torch.tensor(going_CL, device=owners_CL.device).argsort(descending=True, stable=True)
    return kept_CL[:, : round_up(most)]
