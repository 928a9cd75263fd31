from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lorasweep.evaluate.transcript import Transcript
from tests.evaluate.taught import load

PROMPT = "def river():"
WRITTEN = "\n  return stone\nclass light:\n# winter"


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load(tiny_model)[1]


def _read(tokenizer: Any, until: tuple[str, ...] = (), text: str = WRITTEN) -> tuple[str, bool]:
    ends = frozenset({tokenizer.eos_token_id})
    transcript = Transcript(tokenizer, [[], tokenizer(PROMPT)["input_ids"]], ends, until)
    return transcript.read(1, tokenizer(text)["input_ids"])


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
    transcript = Transcript(wrapped, [prompt], frozenset(), ())
    assert transcript.read(0, written) == ("    return", False)
