from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lorasweep.evaluate.generation.stopping import CompletionDecoder, eos_tokens
from tests.evaluate.taught import load

PROMPT = "def river():"
WRITTEN = "\n  return stone\nclass light:\n# winter"


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load(tiny_model)[1]


def _read(tokenizer: Any, until: tuple[str, ...] = (), text: str = WRITTEN) -> tuple[str, bool]:
    ends = frozenset({tokenizer.eos_token_id})
    decoder = CompletionDecoder(tokenizer, [[], tokenizer(PROMPT)["input_ids"]], ends, until)
    return decoder.decode(1, tokenizer(text)["input_ids"])


@pytest.mark.parametrize(
    ("until", "text"),
    [
        ((), WRITTEN),
        (("\n#", "\nclass"), "\n  return stone"),
        (("\nclass", "\n#"), "\n  return stone"),
        (("\n#",), "\n  return stone\nclass light:"),
        (("\n",), ""),
        (("meadow",), WRITTEN),
    ],
)
def test_a_text_is_cut_before_the_first_of_its_stops(
    tokenizer: Any, until: tuple[str, ...], text: str
):
    assert _read(tokenizer, until) == (text, text != WRITTEN)


def test_the_end_token_ends_a_text_and_what_follows_does_not_matter(tokenizer: Any):
    assert _read(tokenizer, ("light",), " stone<|end|> light") == (" stone", True)


def test_other_marks_stay_in_the_text_and_may_be_stops(tokenizer: Any):
    assert _read(tokenizer, (), "a<|user|>b") == ("a<|user|>b", False)
    assert _read(tokenizer, ("<|user|>",), "a<|user|>b") == ("a", True)


def test_letters_of_several_bytes_survive(tokenizer: Any):
    text = "  # schön, 數\n"
    assert _read(tokenizer, (), text) == (text, False)


def test_blanks_at_the_beginning_stay_where_a_tokenizer_drops_those_of_a_text():
    pieces = ["<unk>", "▁", "▁def", "▁▁▁", "▁return", "\n"]
    tokenizer = Tokenizer(
        models.WordLevel({piece: n for n, piece in enumerate(pieces)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    # As Llama 2's, it drops the blank before a text.
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    prompt, written = [2, 5], [3, 4]
    assert wrapped.decode(written) == "   return"
    decoder = CompletionDecoder(wrapped, [prompt], frozenset(), ())
    assert decoder.decode(0, written) == ("    return", False)


@pytest.mark.parametrize(
    ("of_model", "of_tokenizer", "ends"),
    [
        ([7, 8], 9, {7, 8, 9}),
        ([7, 9], 9, {7, 9}),
        (7, 9, {7, 9}),
        (None, 9, {9}),
        (None, None, set()),
    ],
)
def test_a_model_may_have_several_end_tokens(
    of_model: list[int] | int | None, of_tokenizer: int | None, ends: set[int]
):
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=of_model))
    assert eos_tokens(model, SimpleNamespace(eos_token_id=of_tokenizer)) == ends
    assert eos_tokens(SimpleNamespace(), SimpleNamespace(eos_token_id=9)) == {9}
