import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lorasweep.data.tokens import TrainingData, token_ids
from tests.examples import pack, prompted

EOS, BOS = 1, 0
examples = st.lists(
    st.tuples(st.lists(st.integers(0, 999), min_size=2, max_size=9), st.integers(0, 9)).map(
        lambda pair: (pair[0], min(pair[1], len(pair[0]) - 1))
    ),
    min_size=1,
    max_size=8,
)


@settings(deadline=None)
@given(examples)
def test_packing_keeps_every_example_as_it_is(examples):
    tokens = pack(examples)
    assert len(tokens) == len(examples)
    for index, (ids, prompt) in enumerate(examples):
        found, found_prompt = prompted(tokens, index)
        assert (found.tolist(), found_prompt) == (ids, prompt)


@settings(deadline=None)
@given(examples)
def test_targets_are_what_follows_the_prompt_and_never_the_first_token(examples):
    targets = pack(examples).loss_tokens_N.tolist()
    assert targets == [len(ids) - max(prompt, 1) for ids, prompt in examples]


@settings(deadline=None)
@given(examples, examples)
def test_the_fingerprint_tells_different_examples_apart(left, right):
    same = pack(left).fingerprint == pack(right).fingerprint
    assert same == (left == right)


def test_the_fingerprint_notices_where_an_example_ends_and_a_prompt_too():
    base = pack([([1, 2, 3], 1), ([4, 5], 1)])
    assert pack([([1, 2], 1), ([3, 4, 5], 1)]).fingerprint != base.fingerprint
    assert pack([([1, 2, 3], 2), ([4, 5], 1)]).fingerprint != base.fingerprint


def test_the_fingerprint_of_the_data_notices_either_part():
    left, right = pack([([1, 2], 0)]), pack([([3, 4], 0)])
    data = TrainingData("documents", left, right, 8)
    assert dataclasses.replace(data, train=right).fingerprint != data.fingerprint
    assert dataclasses.replace(data, heldout=left).fingerprint != data.fingerprint
    assert dataclasses.replace(data, notes=("cut",)).fingerprint == data.fingerprint


def test_no_examples_are_packed_to_nothing():
    tokens = pack([])
    assert len(tokens) == 0
    assert tokens.starts_N1.tolist() == [0]
    assert tokens.ids_S.dtype == np.int32


@settings(deadline=None)
@given(st.lists(st.text(max_size=8), max_size=4))
def test_a_text_is_tokenised_bare_or_with_what_stands_before_it_and_no_end(plain, framing, texts):
    bare = token_ids(plain, texts, special=False)
    assert token_ids(framing, texts, special=False) == bare
    assert token_ids(plain, texts, special=True) == bare
    assert token_ids(framing, texts, special=True) == [[BOS, *row] for row in bare]


def test_an_end_that_stands_in_the_text_itself_is_kept(plain, framing):
    (bare,) = token_ids(plain, ["a</s>"], special=True)
    assert bare[-1] == EOS
    assert token_ids(framing, ["a</s>"], special=True) == [[BOS, *bare]]
