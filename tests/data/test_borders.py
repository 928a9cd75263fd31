"""Tokens of a text of which parts carry loss, for the kinds of tokenizers that models have."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorasweep.data.borders import tokenise_parts
from lorasweep.data.example import Example
from tests.data.tokenizers import trained_tokenizer

KINDS = ("byte-level", "legacy", "metaspace", "bare", "unigram", "wordpiece")
EXACT = ("byte-level", "legacy", "bare")  # these decode every text to itself
PIECES = [
    "yes", "no", " ", "  ", "\n", "\n\n", "2", " 2", "02134", "a", "é", "日本", "😀", ":",
    "Answer:", "def f(x):", "    return", "\t", "x", "؟", "'s", ".", " the", "NA", "\r\n",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
responses = texts.filter(bool)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(kind: str) -> Any:
    return trained_tokenizer(kind)


def decoded(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return text


def with_loss(ids: list[int], loss: list[bool]) -> list[int]:
    return [token for token, one in zip(ids, loss, strict=True) if one]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(pairs=st.lists(st.tuples(texts, responses), min_size=1, max_size=8))
def test_a_pair_is_tokenised_to_its_own_text(kind, tokenizer, pairs):
    examples = [Example.pair(*pair) for pair in pairs]
    for example, (ids, loss) in zip(examples, tokenise_parts(examples, tokenizer), strict=True):
        assert decoded(tokenizer, ids) == decoded(tokenizer, tokenizer(example.text)["input_ids"])
        prompt = loss.count(False)
        assert loss == [i >= prompt for i in range(len(ids))]
        if kind in EXACT:
            assert decoded(tokenizer, ids) == example.text
            assert decoded(tokenizer, ids[:prompt]) == example.prompt
            assert ids[:prompt] == tokenizer(example.prompt)["input_ids"]  # as at inference


parts = st.lists(st.tuples(responses, st.booleans()), min_size=2, max_size=6)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(parts=parts)
def test_loss_of_a_rendered_text_is_on_its_parts_alone(kind, tokenizer, parts):
    """Of several parts with loss, as of the turns of a conversation."""
    text = ""
    spans: list[tuple[int, int]] = []
    for part, has_loss in parts:
        if has_loss and spans and spans[-1][1] == len(text):
            spans[-1] = (spans[-1][0], len(text) + len(part))
        elif has_loss:
            spans.append((len(text), len(text) + len(part)))
        text += part
    if not spans:
        return
    carry = "".join(text[start:end] for start, end in spans)
    example = Example(text, tuple(spans), rendered=True)
    ((ids, loss),) = tokenise_parts([example], tokenizer)
    assert decoded(tokenizer, ids) == decoded(tokenizer, tokenizer(text)["input_ids"])
    if kind == "byte-level":  # every run of tokens decodes on its own
        assert decoded(tokenizer, with_loss(ids, loss)) == carry
    if kind in EXACT:
        assert decoded(tokenizer, ids) == text


@pytest.mark.parametrize("kind", ["legacy"], indirect=True)
def test_a_response_gets_no_blank_that_was_not_written(tokenizer):
    for prompt, response in [("Answer:", " 2"), ("a b 0\n", "yes no"), ("Answer: ", "2")]:
        ((ids, loss),) = tokenise_parts([Example.pair(prompt, response)], tokenizer)
        assert decoded(tokenizer, ids) == prompt + response
        begun = tokenizer(prompt)["input_ids"]
        assert loss == [False] * len(begun) + [True] * (len(ids) - len(begun))
        apart = begun + tokenizer(response, add_special_tokens=False)["input_ids"]
        assert decoded(tokenizer, apart) == f"{prompt} {response}"


@pytest.mark.parametrize("kind", ["byte-level"], indirect=True)
def test_a_token_over_the_border_is_cut_in_two_there(tokenizer):
    """The prompt ends with a line break and the response begins with blanks, as in HumanEval."""
    prompt, response = "def f(x):\n", "    return x"
    ((ids, loss),) = tokenise_parts([Example.pair(prompt, response)], tokenizer)
    assert decoded(tokenizer, with_loss(ids, loss)) == response
    assert ids == tokenizer(prompt)["input_ids"] + tokenizer(response)["input_ids"]


@pytest.mark.parametrize("kind", ["byte-level"], indirect=True)
def test_a_tokenizer_without_offsets_finds_the_same_borders(tokenizer, monkeypatch):
    example = Example("yes no yes no", ((3, 6), (10, 13)), rendered=True)
    expected = tokenise_parts([example], tokenizer)
    assert with_loss(*expected[0]) == tokenizer(" no no")["input_ids"]
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    assert tokenise_parts([example], tokenizer) == expected
