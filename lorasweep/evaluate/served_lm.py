"""lm-eval's own back end, put before a model that may answer as several copies at once.

Import it only where lm-eval is about to run: it takes seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor
from transformers import PretrainedConfig

from lorasweep.evaluate.continuations import Pair
from lorasweep.model.packed import Served

SEED = 1234  # of answers that a task wants sampled; lm-eval's own
CACHE_BYTES = 2**28  # of one copy, within which more rows are written to than the batch size says


class ServedLM(HFLM):  # type: ignore[misc]
    """Turn requests into tokens as lm-eval does, and generate for all copies of a model at once."""

    def __init__(self, tokenizer: Any, batch_size: int, device: torch.device) -> None:
        """Make it without a model; only `windows` and `write` need one."""
        nobody = SimpleNamespace(config=PretrainedConfig(), device=device)
        super().__init__(
            pretrained=nobody, backend="causal", tokenizer=tokenizer, batch_size=batch_size
        )
        self._rows = batch_size
        self._served: Served | None = None
        self._copy = 0
        self._written: list[deque[Tensor]] = []

    @contextmanager
    def before(self, served: Served) -> Iterator[None]:
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

    def windows(self, text: str) -> list[Pair]:
        """Cut a text into pieces that the model takes, each after as much as fits before it."""
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return [make_disjoint_window(window) for window in windows]

    def write(self, requests: Sequence[Any]) -> list[list[str]]:
        """Give for each copy what it writes in answer to each request.

        lm-eval asks copy by copy; what it asks the first one, all of them answer at once.
        """
        assert self._served is not None
        self.batch_size_per_gpu = max(self._rows, CACHE_BYTES // self._served.cache_bytes)
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
            copies = self._served.copies
            mask = generation_kwargs.pop("attention_mask").repeat(copies, 1)
            written = generate(
                context.repeat(copies, 1),
                max_length,
                stop,
                attention_mask=mask,
                **generation_kwargs,
            )
            for waiting, part in zip(self._written, written.chunk(copies), strict=True):
                waiting.append(part)
        return self._written[self._copy].popleft()
