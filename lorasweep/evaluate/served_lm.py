"""lm-eval's own back end, put before a model that may answer as several copies at once.

Import it only where lm-eval is about to run: it takes seconds.

Shape legend: C copies, B contexts, L of them that go on, R rows of all copies, T tokens, E end
tokens.
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

SEED = 1234  # of answers that a task wants sampled; lm-eval's own
PLAINLY = frozenset({"attention_mask", "do_sample", "temperature", "top_k", "top_p"})


class ServedLM(HFLM):  # type: ignore[misc]
    """Turn requests into tokens as lm-eval does, and generate for all copies of a model at once."""

    def __init__(self, tokenizer: Any, batch_size: int, device: torch.device) -> None:
        """Make it without a model; only `write` needs one."""
        nobody = SimpleNamespace(config=PretrainedConfig(), device=device)
        super().__init__(
            pretrained=nobody, backend="causal", tokenizer=tokenizer, batch_size=batch_size
        )
        self._rows = batch_size
        self._served: Served | None = None
        self._copy = 0
        self._written: list[deque[Tensor]] = []

    @contextmanager
    def serving(self, served: Served) -> Iterator[None]:
        """Stand before a model; it is let go afterwards, with its adapters."""
        with served.together() as model:
            self._model, self._served = model, served
            try:
                yield
            finally:
                self._model = self._served = None

    def encode(self, requests: Sequence[Any]) -> list[Pair]:
        """Give the tokens of each request's context and continuation."""
        pairs: list[Pair] = self.loglikelihood(list(requests), disable_tqdm=True)
        return pairs

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,  # noqa: ARG002 - lm-eval's signature
        override_bs: int | None = None,  # noqa: ARG002
    ) -> list[Pair]:
        """Hand back what `loglikelihood` has made of the requests, instead of computing."""
        return [(context, continuation) for _, context, continuation in requests]

    def write(self, requests: Sequence[Any]) -> list[list[str]]:
        """Give for each copy what it writes in answer to each request.

        lm-eval asks copy by copy; what it asks the first one, all of them answer at once.
        """
        assert self._served is not None
        self.batch_size_per_gpu = generation_batch_size(self._served, self._rows)
        self._written = [deque() for _ in range(self._served.copies)]
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
        """Continue each context, as the copy whose turn it is."""
        assert self._served is not None
        generate = super()._model_generate
        if generation_kwargs.get("do_sample"):  # draws would depend on the copies beside it
            with self._served.alone(self._copy):
                sampled: Tensor = generate(context, max_length, stop, **generation_kwargs)
                return sampled
        if self._copy == 0:

            def write(
                texts_RT: Tensor, mask_RT: Tensor, length: int, cache: DynamicCache | None
            ) -> Tensor:
                more: dict[str, Any] = {} if cache is None else {"past_key_values": cache}
                more["attention_mask"] = mask_RT
                longer_RT: Tensor = generate(texts_RT, length, stop, **(generation_kwargs | more))
                return longer_RT

            mask_BT = generation_kwargs["attention_mask"]
            pieces = self._goes_in_pieces(set(generation_kwargs))
            cache = DynamicCache(config=self.model.config) if pieces else None
            written_CBT = self._write_all(context, mask_BT, max_length, stop, write, cache)
            for waiting, part in zip(self._written, written_CBT, strict=True):
                waiting.append(part)
        return self._written[self._copy].popleft()

    def _goes_in_pieces(self, asked: set[str]) -> bool:
        """Tell whether a text can be left and taken up again: word by word, with a plain cache.

        Args:
            asked: names of what the task asks of the generation.
        """
        layers = getattr(self.model.config.get_text_config(), "layer_types", None) or ()
        return (
            asked <= PLAINLY
            and (getattr(self.model.generation_config, "num_beams", None) or 1) == 1
            and "past_key_values" in signature(self.model.forward).parameters
            and all("attention" in layer and "linear" not in layer for layer in layers)
        )

    def _write_all(
        self,
        context_BT: Tensor,
        mask_BT: Tensor,
        max_length: int,
        stop: list[str],
        write: Callable[[Tensor, Tensor, int, DynamicCache | None], Tensor],
        cache: DynamicCache | None,
    ) -> Tensor:
        """Continue each context as every copy does, without going on for those that have ended.

        Args:
            write: makes texts longer, up to a length.
            cache: empty; without one all is written at once.

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
            texts_RT = write(texts_RT, mask_RT, wanted, cache)
            length = texts_RT.shape[1]
            texts_CLT = texts_RT.view(copies, -1, length)
            fresh_CL = ~ended_CB[:, left_L]  # what others write after their end is left out
            part_CLT = written_CBT[:, left_L, :length]
            written_CBT[:, left_L, :length] = texts_CLT.where(fresh_CL[..., None], part_CLT)
            if cache is None or length == max_length or length < wanted:
                return written_CBT
            ended_CB[:, left_L] |= self._ended(texts_RT[:, width:], stop).view(copies, -1)
            going_L = ~ended_CB[:, left_L].all(0)
            if not going_L.any():
                return written_CBT
            # Those that go on, and some of the others, since kernels want whole vectors of rows.
            kept = min(len(left_L), round_up(int(going_L.sum())))
            kept_K = torch.argsort(going_L, descending=True, stable=True)[:kept]
            firsts_C1 = torch.arange(copies, device=kept_K.device)[:, None] * len(left_L)
            rows_R = (firsts_C1 + kept_K).flatten()
            cache.batch_select_indices(rows_R)
            texts_RT, left_L = texts_RT[rows_R], left_L[kept_K]
            mask_RT = functional.pad(mask_RT[rows_R], (0, length - mask_RT.shape[1]), value=1)

    def _ended(self, written_RT: Tensor, stop: list[str]) -> Tensor:
        """Tell of each text whether it holds something that ends it."""
        texts = self.tokenizer.batch_decode(written_RT)
        stopped = [any(end in text for end in stop) for text in texts]
        ends_E = torch.tensor(
            sorted(eos_tokens(self.model, self.tokenizer)), device=written_RT.device
        )
        ended_R = torch.isin(written_RT, ends_E).any(1)
        return ended_R | torch.tensor(stopped, device=written_RT.device)
