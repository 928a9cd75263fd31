from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorasweep.data.batches import IGNORED, collate
from lorasweep.data.example import Example
from lorasweep.data.ift import tokenise_instructions
from lorasweep.data.tokens import Tokens
from tests.examples import prompted

BOS, EOS = 0, 1
texts = st.text(st.characters(codec="ascii", exclude_characters="<"), max_size=20)
responses = texts.filter(bool)
pairs = st.lists(st.builds(Example.pair, texts, responses), min_size=1, max_size=6)


def labels_of(tokens: Tokens, index: int) -> list[int]:
    import numpy as np

    length = len(tokens.example(index)[0])
    batch = collate(tokens, np.asarray([index]), 0, EOS, length, shared=False)
    labels = [IGNORED] * length
    for place, label in zip(batch.logit_indices_K.tolist(), batch.labels_K.tolist(), strict=True):
        if label != IGNORED:
            labels[place + 1] = label
    return labels


@settings(deadline=None)
@given(pairs)
def test_labels_are_ignored_exactly_on_the_prompt_and_the_end_carries_loss(framing, examples):
    made = tokenise_instructions(examples, framing, 64)
    tokens = made.tokens
    assert (made.cut, made.too_long) == (0, [])
    for index, example in enumerate(examples):
        ids, prompt = prompted(tokens, index)
        assert framing.decode(ids) == f"<s>{example.prompt}{example.response}</s>"
        assert framing.decode(ids[:prompt]) == f"<s>{example.prompt}"
        labels = labels_of(tokens, index)
        assert labels == [IGNORED] * prompt + ids[prompt:].tolist()
        assert labels[-1] == EOS


@settings(deadline=None)
@given(pairs, st.integers(8, 24))
def test_an_example_is_kept_while_one_token_of_its_response_fits(plain, examples, seq_len):
    made = tokenise_instructions(examples, plain, seq_len)
    tokens = made.tokens
    kept = [e for e in examples if len(e.prompt) < seq_len]
    assert len(made.too_long) == len(examples) - len(kept)
    assert made.cut == sum(len(e.prompt + e.response) + 1 > seq_len for e in kept)
    assert len(tokens) == len(kept)
    for index, example in enumerate(kept):
        ids, prompt = prompted(tokens, index)
        whole = f"{example.prompt}{example.response}</s>"
        assert plain.decode(ids) == plain.decode(plain(whole)["input_ids"][:seq_len])
        assert prompt == len(example.prompt)
        assert all(tokens.loss_tokens_N > 0)


def test_no_token_spans_prompt_and_response(tiny_model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokens = tokenise_instructions([Example.pair("river st", "one light")], tokenizer, 64).tokens
    ids, prompt = prompted(tokens, 0)
    assert tokenizer.decode(ids[:prompt]) == "river st"
    assert tokenizer.decode(ids[prompt:]) == "one light<|end|>"


def test_a_conversation_gets_no_second_begin_and_no_second_end(framing):
    prompt, response = "<s><user>hi</s><assistant>", "hello</s>"
    turn = replace(Example.pair(prompt, response), rendered=True, ends=True)
    pair = Example.pair("hi", "hello")
    tokens = tokenise_instructions([turn, pair], framing, 64).tokens
    assert framing.decode(tokens.example(0)[0]) == turn.prompt + turn.response
    ids, length = prompted(tokens, 0)
    assert framing.decode(ids[:length]) == turn.prompt
    assert framing.decode(tokens.example(1)[0]) == "<s>hihello</s>"


@pytest.mark.parametrize("prompt", ["", "p"])
def test_an_empty_prompt_still_leaves_the_first_token_without_loss(plain, prompt):
    tokens = tokenise_instructions([Example.pair(prompt, "abc")], plain, 64).tokens
    assert tokens.loss_tokens_N.tolist() == [len("abc") + 1 - (not prompt)]


def test_nothing_is_made_of_nothing(plain):
    made = tokenise_instructions([], plain, 64)
    assert (len(made.tokens), made.cut, made.too_long) == (0, 0, [])
