"""lm-eval's back end for a model that answers as several copies at once.

Import it only where lm-eval is about to run: that takes seconds.

Shape legend: C copies, B contexts, L of them that are unfinished, K of those kept, R rows of all
copies, T tokens, E end tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from types import SimpleNamespace
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, PretrainedConfig

from lorasweep.data.batches import round_up
from lorasweep.evaluate.continuations import Pair
from lorasweep.evaluate.generation.generate import generation_batch_size
from lorasweep.evaluate.generation.stopping import CHECK_EVERY, eos_tokens
from lorasweep.model.served import Served

SEED = 1234  # lm-eval's own, for tasks that sample answers
# Generation settings under which a text can be continued in pieces with the same result.
RESUMABLE = frozenset({"attention_mask", "do_sample", "temperature", "top_k", "top_p"})


class ServedLM(HFLM):  # type: ignore[misc]
    """Tokenises requests as lm-eval does, and generates for all copies of a model at once."""

    def __init__(self, tokenizer: Any, batch_size: int, device: torch.device) -> None:
        """Set up without a model, which only `generate` needs."""
        no_model = SimpleNamespace(config=PretrainedConfig(), device=device)
        super().__init__(
            pretrained=no_model, backend="causal", tokenizer=tokenizer, batch_size=batch_size
        )
        self._rows = batch_size
        self._served: Served | None = None
        self._copy = 0
        self._queues: list[deque[Tensor]] = []

    @contextmanager
    def serving(self, served: Served) -> Iterator[None]:
        """Use a model, and drop the reference to it and its adapters afterwards."""
        with served.all_copies() as model:
            self._model, self._served = model, served
            try:
                yield
            finally:
                self._model = self._served = None

    def encode(self, requests: Sequence[Any]) -> list[Pair]:
        """Tokenise each request's context and continuation."""
        pairs: list[Pair] = self.loglikelihood(list(requests), disable_tqdm=True)
        return pairs

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,  # noqa: ARG002 - lm-eval's signature
        override_bs: int | None = None,  # noqa: ARG002
    ) -> list[Pair]:
        """Return the tokens that `loglikelihood` made of the requests, instead of scoring them."""
        return [(context, continuation) for _, context, continuation in requests]

    def generate(self, requests: Sequence[Any]) -> list[list[str]]:
        """Generate each copy's answer to each request.

        lm-eval runs once per copy. In the first run all copies generate at once, and the later runs
        take their answers from the queues.
        """
        assert self._served is not None
        self.batch_size_per_gpu = generation_batch_size(self._served, self._rows)
        self._queues = [deque() for _ in range(self._served.copies)]
        answers = []
        for copy in range(self._served.copies):
            self._copy = copy
            torch.manual_seed(SEED)
            answers.append(self.generate_until(list(requests), disable_tqdm=True))
        return answers

    def _model_generate(
        self,
        context: Tensor,
        max_length: int,
        stop: list[str],
        **generation_kwargs: Any,  # lm-eval's signature
    ) -> Tensor:
        """Continue each context by the current copy."""
        assert self._served is not None
        generate = super()._model_generate
        if generation_kwargs.get("do_sample"):
            # torch's generator is shared by all rows, so samples would depend on the other copies.
            with self._served.one_copy(self._copy):
                sampled: Tensor = generate(context, max_length, stop, **generation_kwargs)
                return sampled
        if self._copy == 0:

            def extend(
                texts_RT: Tensor, mask_RT: Tensor, length: int, cache: DynamicCache | None
            ) -> Tensor:
                more: dict[str, Any] = {} if cache is None else {"past_key_values": cache}
                more["attention_mask"] = mask_RT
                longer_RT: Tensor = generate(texts_RT, length, stop, **(generation_kwargs | more))
                return longer_RT

            mask_BT = generation_kwargs["attention_mask"]
            pieces = self._is_resumable(set(generation_kwargs))
            cache = DynamicCache(config=self.model.config) if pieces else None
            written_CBT = self._generate_all(context, mask_BT, max_length, stop, extend, cache)
            for queue, part in zip(self._queues, written_CBT, strict=True):
                queue.append(part)
        return self._queues[self._copy].popleft()

    def _is_resumable(self, settings: set[str]) -> bool:
        """Check whether generation can stop and resume: greedy, with a plain key-value cache.

        Args:
            settings: generation settings that the task names.
        """
        layers = getattr(self.model.config.get_text_config(), "layer_types", None) or ()
        return (
            settings <= RESUMABLE
            and (getattr(self.model.generation_config, "num_beams", None) or 1) == 1
            and "past_key_values" in signature(self.model.forward).parameters
            and all("attention" in layer and "linear" not in layer for layer in layers)
        )

    def _generate_all(
        self,
        context_BT: Tensor,
        mask_BT: Tensor,
        max_length: int,
        stop: list[str],
        extend: Callable[[Tensor, Tensor, int, DynamicCache | None], Tensor],
        cache: DynamicCache | None,
    ) -> Tensor:
        """Continue each context by every copy, in pieces, dropping contexts that all have finished.

        Args:
            extend: makes texts longer, up to a length.
            cache: empty; without one everything is generated in one piece.

        Returns:
            Contexts and what follows them: C x B x T.
        """
        assert self._served is not None
        copies, (count, width) = self._served.copies, context_BT.shape
        written_CBT = context_BT.new_full((copies, count, max_length), self.tokenizer.pad_token_id)
        ended_CB = torch.zeros(copies, count, dtype=torch.bool, device=context_BT.device)
        left_L = torch.arange(count, device=context_BT.device)
        texts_RT, mask_RT = context_BT.repeat(copies, 1), mask_BT.repeat(copies, 1)
        while True:
            piece = max_length if cache is None else CHECK_EVERY
            wanted = min(texts_RT.shape[1] + piece, max_length)
            texts_RT = extend(texts_RT, mask_RT, wanted, cache)
            length = texts_RT.shape[1]
            texts_CLT = texts_RT.view(copies, -1, length)
            fresh_CL = ~ended_CB[:, left_L]  # tokens after the end are not stored
            part_CLT = written_CBT[:, left_L, :length]
            written_CBT[:, left_L, :length] = texts_CLT.where(fresh_CL[..., None], part_CLT)
            if cache is None or length == max_length or length < wanted:
                return written_CBT
            ended_CB[:, left_L] |= self._ended(texts_RT[:, width:], stop).view(copies, -1)
            active_L = ~ended_CB[:, left_L].all(0)
            if not active_L.any():
                return written_CBT
            # Fill up with finished ones to a whole vector of rows (see `predictor.py`).
            kept = min(len(left_L), round_up(int(active_L.sum())))
            kept_K = torch.argsort(active_L, descending=True, stable=True)[:kept]
            firsts_C1 = torch.arange(copies, device=kept_K.device)[:, None] * len(left_L)
            rows_R = (firsts_C1 + kept_K).flatten()
            cache.batch_select_indices(rows_R)
            texts_RT, left_L = texts_RT[rows_R], left_L[kept_K]
            mask_RT = functional.pad(mask_RT[rows_R], (0, length - mask_RT.shape[1]), value=1)

    def _ended(self, written_RT: Tensor, stop: list[str]) -> Tensor:
        """Check for each text whether it holds an end token or a stop text."""
        texts = self.tokenizer.batch_decode(written_RT)
        stopped = [any(end in text for end in stop) for text in texts]
        ends_E = torch.tensor(
            sorted(eos_tokens(self.model, self.tokenizer)), device=written_RT.device
        )
        ended_R = torch.isin(written_RT, ends_E).any(1)
        return ended_R | torch.tensor(stopped, device=written_RT.device)
