"""Turn what a model has written into text, and tell whether it has come to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CHECK_EVERY = 8  # tokens generated between two looks at which completions have ended
CONTEXT = 8  # tokens before a completion that are decoded with it, as some decide on its blanks


def eos_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Collect the tokens that end a text; chat models have several."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [ends]
    return frozenset(end for end in (*ends, tokenizer.eos_token_id) if end is not None)


class CompletionDecoder:
    """Read the completions of some prompts."""

    def __init__(
        self,
        tokenizer: Any,
        prompts: Sequence[Sequence[int]],
        ends: frozenset[int],
        until: Sequence[str],
    ) -> None:
        """Take the prompts' token ids.

        Args:
            ends: tokens that end a completion.
            until: texts that do.
        """
        self._tokenizer, self._ends, self._until = tokenizer, ends, tuple(until)
        self._contexts = [list(prompt[-CONTEXT:]) for prompt in prompts]
        self._lengths = [len(self._decode(context)) for context in self._contexts]

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
        return text

    def decode(self, prompt: int, tokens: Sequence[int]) -> tuple[str, bool]:
        """Give a completion as text, cut before what ends it, and whether anything does.

        Args:
            prompt: the place of its prompt among all.
        """
        end = next((place for place, token in enumerate(tokens) if token in self._ends), None)
        text = self._decode([*self._contexts[prompt], *tokens[:end]])[self._lengths[prompt] :]
        stops = [place for stop in self._until if (place := text.find(stop)) >= 0]
        return text[: min(stops, default=None)], end is not None or bool(stops)
