"""Decode completions and find where they end: at an end token or a stop text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CHECK_EVERY = 8  # tokens generated between two checks of which completions have ended
# Prompt tokens that are decoded together with a completion: some tokenizers drop the blank at the
# start of a text, and some characters span several tokens.
CONTEXT = 8


def eos_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Collect the tokens that end a text; chat models have several."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [ends]
    return frozenset(end for end in (*ends, tokenizer.eos_token_id) if end is not None)


class CompletionDecoder:
    """Decodes the completions of a list of prompts."""

    def __init__(
        self,
        tokenizer: Any,
        prompts: Sequence[Sequence[int]],
        ends: frozenset[int],
        until: Sequence[str],
    ) -> None:
        """Prepare the end of each prompt, which is decoded together with its completions.

        Args:
            prompts: token ids.
            ends: tokens that end a completion.
            until: texts that end a completion.
        """
        self._tokenizer, self._ends, self._until = tokenizer, ends, tuple(until)
        self._contexts = [list(prompt[-CONTEXT:]) for prompt in prompts]
        self._lengths = [len(self._decode(context)) for context in self._contexts]

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
        return text

    def decode(self, prompt: int, tokens: Sequence[int]) -> tuple[str, bool]:
        """Decode a completion, cut before its end, and check whether it has ended.

        Args:
            prompt: index of its prompt.
        """
        end = next((index for index, token in enumerate(tokens) if token in self._ends), None)
        text = self._decode([*self._contexts[prompt], *tokens[:end]])[self._lengths[prompt] :]
        stops = [index for stop in self._until if (index := text.find(stop)) >= 0]
        return text[: min(stops, default=None)], end is not None or bool(stops)
