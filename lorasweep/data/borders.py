"""Tokenise a text of which some parts carry loss, so that the tokens are those of the whole text.

Parts that are tokenised apart may not join: SentencePiece puts a blank before each, and a response
"2" after "Answer:" would be trained as "Answer: 2" with one blank more than was written. So the
text is tokenised as a whole, and each token belongs to the part that its characters are in. Where a
token would span a border, the parts are tokenised apart after all, each as a continuation of what
is before it, since at inference the prompt is tokenised alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorasweep.data.example import Example, Span
from lorasweep.data.tokens import token_ids

Part = tuple[str, bool]  # a text, and whether it carries loss
Masked = tuple[list[int], list[bool]]  # token ids, and which of them carry loss

# Tried in front of a continuation, to keep SentencePiece from putting a blank there. A character
# that a tokenizer drops or merges with what follows is of no use, so there are several.
_ANCHORS = ("\n", ".", ":", "1", "a")


def tokenise_parts(examples: Sequence[Example], tokenizer: Any) -> list[Masked]:
    """Tokenise examples, without the EOS that some of them get at their end.

    The tokens decode to what the tokenizer makes of the whole text, and no token with loss has a
    character of a part without loss, unless the tokenizer can write the text in no other way.
    """
    pairs = iter(_tokenise_pairs([e for e in examples if not e.rendered], tokenizer))
    others = iter(_tokenise_rendered([e for e in examples if e.rendered], tokenizer))
    return [next(others if example.rendered else pairs) for example in examples]


def _tokenise_pairs(examples: Sequence[Example], tokenizer: Any) -> list[Masked]:
    """Tokenise prompts with their responses, after what the tokenizer puts before a text."""
    wholes = token_ids(tokenizer, [example.text for example in examples], special=True)
    prompts = token_ids(tokenizer, [example.prompt for example in examples], special=True)
    found = []
    for example, whole, prompt in zip(examples, wholes, prompts, strict=True):
        loss = _by_prompt(example, whole, prompt)
        found.append((whole, loss) if loss else _apart(example, tokenizer, whole, special=True))
    return found


def _tokenise_rendered(examples: Sequence[Example], tokenizer: Any) -> list[Masked]:
    """Tokenise what a chat template rendered: it has BOS, and must not get another."""
    texts = [example.text for example in examples]
    wholes = token_ids(tokenizer, texts, special=False)
    offsets = _offsets(tokenizer, texts, wholes, special=False)
    found = []
    for example, whole, own in zip(examples, wholes, offsets, strict=True):
        loss = _by_offsets(example, own)
        found.append((whole, loss) if loss else _apart(example, tokenizer, whole, special=False))
    return found


def _by_prompt(example: Example, whole: list[int], prompt: list[int]) -> list[bool] | None:
    """Mark the response of a pair; None if the prompt is not tokenised as it is alone.

    At inference the model sees the prompt's own tokens, so it is to learn an answer to those.
    """
    if not example.is_pair or whole[: len(prompt)] != prompt:
        return None
    return [False] * len(prompt) + [True] * (len(whole) - len(prompt))


def _by_offsets(example: Example, offsets: Sequence[Span] | None) -> list[bool] | None:
    """Mark the tokens of a rendered text; None if one of them spans a border."""
    if offsets is None:
        return None
    borders = {border for span in example.spans for border in span}
    if any(start < border < end for start, end in offsets for border in borders):
        return None
    return _inside(example, offsets)


def parts_of(example: Example) -> list[Part]:
    """Cut a text at the borders of its parts with loss; no part is empty."""
    parts, last = [], 0
    for start, end in example.spans:
        parts += [(example.text[last:start], False), (example.text[start:end], True)]
        last = end
    parts.append((example.text[last:], False))
    return [part for part in parts if part[0]]


def _offsets(
    tokenizer: Any, texts: list[str], wholes: list[list[int]], *, special: bool
) -> list[list[Span]] | list[None]:
    """Find the characters of each token; None if the tokenizer does not know."""
    if not tokenizer.is_fast or not texts:
        return [None] * len(texts)
    options = {"add_special_tokens": special, "return_offsets_mapping": True, "verbose": False}
    offsets = tokenizer(texts, **options)["offset_mapping"]
    return [_joined(own[: len(whole)]) for own, whole in zip(offsets, wholes, strict=True)]


def _joined(offsets: Sequence[Span]) -> list[Span]:
    """Let each token begin where the one before it ends, as some tokenizers leave blanks out.

    Tokens that are bytes of one character have it in common.
    """
    joined, last = [], 0
    for start, end in offsets:
        joined.append((min(start, last), max(last, end)) if end else (last, last))  # added: none
        last = joined[-1][1]
    return joined


def _inside(example: Example, offsets: Sequence[Span]) -> list[bool]:
    """Mark the tokens that have a character with loss."""
    return [
        any(start < last and end > first for first, last in example.spans) for start, end in offsets
    ]


def _apart(example: Example, tokenizer: Any, whole: list[int], *, special: bool) -> Masked:
    """Tokenise the parts one by one, so that they decode to what the whole decodes to."""
    parts = parts_of(example)
    expected = _decoded(tokenizer, whole)
    for as_continuation in (False, True):
        ids: list[int] = []
        loss: list[bool] = []
        for text, has_loss in parts:
            first = not ids
            own = token_ids(tokenizer, [text], special=special and first)[0]
            if as_continuation and not first:
                own = _continued(tokenizer, text, own)
            ids += own
            loss += [has_loss] * len(own)
        if _decoded(tokenizer, ids) == expected:
            return ids, loss
    # The tokenizer cannot write the parts apart: a token over a border carries loss.
    (offsets,) = _offsets(tokenizer, [example.text], [whole], special=special)
    return (ids, loss) if offsets is None else (whole, _inside(example, offsets))


def _continued(tokenizer: Any, text: str, alone: list[int]) -> list[int]:
    """Tokenise a text as it is tokenised after other text, without what begins a text."""
    for anchor in _ANCHORS:
        (before,) = token_ids(tokenizer, [anchor], special=False)
        (both,) = token_ids(tokenizer, [anchor + text], special=False)
        continued = both[len(before) :]
        written = _decoded(tokenizer, both) == _decoded(tokenizer, before) + text
        if before and both[: len(before)] == before and written:
            return continued
    return alone


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return text
