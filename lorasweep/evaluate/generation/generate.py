"""Sample completions for all copies of a model at once, each independent of its batch.

A completion depends on the copy's weights, the prompt, and random numbers that belong to the
problem and the sample. All copies get the same random numbers, so tuned models differ by what they
learned and not by luck. Other rows of a batch can only matter if a random number falls within a
rounding error of the border between two tokens, and on CPUs in fp32 not even then (`predictor.py`).

Shape legend: C copies, N completions of one copy in a batch, L rows of each copy, K rows of each
copy that are kept, R rows of all copies, M tokens of a completion.
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
    """How completions are sampled.

    samples: completions of each prompt.
    temperature: 0 takes the likeliest token.
    top_p: probability mass of the nucleus.
    max_tokens: of a completion.
    until: stop texts; a completion is cut before the first of them.
    """

    samples: int
    temperature: float
    top_p: float
    max_tokens: int
    until: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class _Batch:
    """N completions whose prompts have the same row width.

    requests: prompt and sample of each.
    prompts: token ids of those prompts, by index.
    rows: rows of each copy; those after N are padding to a whole vector, and are never read.
    uniforms_NM: random numbers by which tokens are sampled.
    """

    requests: list[tuple[int, int]]
    prompts: dict[int, list[int]]
    rows: int
    uniforms_NM: NDArray[np.float64]


def uniforms(seed: int, number: int, sample: int, count: int) -> NDArray[np.float64]:
    """Generate the random numbers of one completion: M numbers in [0, 1).

    Philox (Salmon et al. 2011) is counter-based, so each seed, problem and sample has a stream of
    its own that needs no state. Its raw output is the same in every version of NumPy; the top 53
    bits of it make a float64.
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
    """Sample completions of every prompt by every copy.

    A prompt longer than the model's positions minus `max_tokens` loses its beginning; an empty one
    is replaced by the end token. The number of forward passes depends only on the arguments and on
    what is generated, so workers with the same arguments stay in step.

    Args:
        prompts: token ids.
        numbers: index of each prompt among all problems of the task, which seeds its random
            numbers; None counts from 0.
        batch_size: rows of each copy at a time; a row takes memory for up to all positions.

    Returns:
        Completions, cut before the first stop text and the end token, by copy, prompt and sample.

    Raises:
        LorasweepError: the model has no positions left for a prompt.
    """
    numbers = range(len(prompts)) if numbers is None else numbers
    with served.all_copies() as model:
        kept = [list(prompt) or [tokenizer.eos_token_id] for prompt in prompts]
        longest = _max_prompt_tokens(model, sampling.max_tokens)
        kept = kept if longest is None else [prompt[-longest:] for prompt in kept]
        count = len(kept) * sampling.samples
        texts = [[""] * count for _ in range(served.copies)]
        decoder = CompletionDecoder(tokenizer, kept, eos_tokens(model, tokenizer), sampling.until)
        for batch in _batches(kept, numbers, sampling, batch_size):
            written_CNM = _generate(
                model, served.copies, batch, sampling, decoder, tokenizer.pad_token_id, device
            )
            for own, written_NM in zip(texts, written_CNM.tolist(), strict=True):
                for (prompt, number), tokens in zip(batch.requests, written_NM, strict=True):
                    own[prompt * sampling.samples + number], _ = decoder.decode(prompt, tokens)
    each = sampling.samples
    return [[own[first : first + each] for first in range(0, count, each)] for own in texts]


def _max_prompt_tokens(model: Any, max_tokens: int) -> int | None:
    """Compute how many tokens a prompt may have, None for any number.

    Raises:
        LorasweepError: completions take all positions.
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
    """Batch completions by row width, so that all samples of a prompt are side by side."""
    by_width: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for prompt, tokens in enumerate(prompts):
        requests = [(prompt, number) for number in range(sampling.samples)]
        by_width[row_width(len(tokens))].extend(requests)
    max_rows = batch_size // ALIGNMENT * ALIGNMENT or batch_size
    for width in sorted(by_width, reverse=True):  # if memory is too small, fail on the first batch
        for first in range(0, len(by_width[width]), max_rows):
            requests = by_width[width][first : first + max_rows]
            drawn = [
                uniforms(sampling.seed, numbers[prompt], number, sampling.max_tokens)
                for prompt, number in requests
            ]
            yield _Batch(
                requests,
                {prompt: prompts[prompt] for prompt, _ in requests},
                min(round_up(len(requests)), max_rows),
                np.stack(drawn),
            )


def _generate(
    model: Any,
    copies: int,
    batch: _Batch,
    sampling: Sampling,
    decoder: CompletionDecoder,
    pad: int,
    device: torch.device,
) -> Tensor:
    """Generate one batch, dropping rows that have ended.

    All copies keep the same number of rows, so one that finished early carries ended rows along.

    Returns:
        Tokens of each copy, arbitrary after the end of a completion: C x N x M.
    """
    # Each prompt is read once per copy; its cache is then duplicated for all samples.
    predictor = make_predictor(model, [*batch.prompts.values()] * copies, pad=pad, device=device)
    count, spare = len(batch.requests), batch.rows - len(batch.requests)
    of_prompt = {prompt: index for index, prompt in enumerate(batch.prompts)}
    prompts_L = [of_prompt[prompt] for prompt, _ in batch.requests] + [0] * spare
    copies_C1 = torch.arange(copies, device=device)[:, None]
    rows_R = (copies_C1 * len(of_prompt) + torch.tensor(prompts_L, device=device)).flatten()
    # The completion of each row. Padding rows write into one slot after the last.
    owners_CL = torch.arange(batch.rows, device=device).clamp(max=count).repeat(copies, 1)
    uniforms_NM = torch.from_numpy(np.pad(batch.uniforms_NM, ((0, 1), (0, 0)))).to(device)
    written_CNM = torch.full((copies, count + 1, sampling.max_tokens), pad, device=device)
    logits_RV = predictor.predict()[rows_R]
    predictor.select(rows_R)
    for step in range(sampling.max_tokens):
        tokens_R = draw(
            logits_RV,
            uniforms_NM[owners_CL.flatten(), step],
            temperature=sampling.temperature,
            top_p=sampling.top_p,
        )
        written_CNM[copies_C1, owners_CL, step] = tokens_R.view_as(owners_CL)
        if step + 1 == sampling.max_tokens:
            break
        if (step + 1) % CHECK_EVERY == 0:
            kept_CK = _unfinished(written_CNM[..., : step + 1], owners_CL, batch.requests, decoder)
            if not kept_CK.numel():
                break
            if kept_CK.shape < owners_CL.shape:
                rows_R = (copies_C1 * owners_CL.shape[1] + kept_CK).flatten()
                predictor.select(rows_R)
                tokens_R, owners_CL = tokens_R[rows_R], owners_CL.gather(1, kept_CK)
        predictor.append(tokens_R)
        logits_RV = predictor.predict()
    return written_CNM[:, :count]


def _unfinished(
    written_CNM: Tensor,
    owners_CL: Tensor,
    requests: list[tuple[int, int]],
    decoder: CompletionDecoder,
) -> Tensor:
    """Select the unfinished rows, filled up so that all copies keep the same, aligned number.

    Returns:
        Indices of rows within each copy; none if all have ended: C x K.
    """
    active_CL = [
        [
            owner < len(requests) and not decoder.decode(requests[owner][0], written_NM[owner])[1]
            for owner in owners_L
        ]
        for written_NM, owners_L in zip(written_CNM.tolist(), owners_CL.tolist(), strict=True)
    ]
    most = max(map(sum, active_CL))
    kept_CL = torch.tensor(active_CL, device=owners_CL.device).argsort(descending=True, stable=True)
    return kept_CL[:, : round_up(most)]
