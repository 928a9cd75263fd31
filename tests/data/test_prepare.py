import json

import pytest

from lorasweep.data.prepare import prepare_data, sequence_length
from lorasweep.errors import DataError, SpecError
from lorasweep.model.base import BaseReader
from lorasweep.spec.sweep import DataSpec, ModelSpec

VOCABULARY = 300


@pytest.fixture
def data(tmp_path):
    def write(rows, name="data.jsonl", **fields):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return DataSpec(path=str(path), **fields)

    return write


def pair(prompt: int, response: int) -> dict[str, str]:
    return {"prompt": "p" * prompt, "response": "r" * response}


@pytest.mark.parametrize(
    ("asked", "positions", "given"),
    [(None, 128, 128), (None, 8192, 1024), (96, 128, 96), (128, 128, 128), (4096, 8192, 4096)],
)
def test_a_sequence_is_as_long_as_asked_or_as_the_model_takes(asked, positions, given):
    assert sequence_length(DataSpec(seq_len=asked), positions) == given


def test_a_sequence_longer_than_the_positions_is_refused():
    with pytest.raises(SpecError) as caught:
        sequence_length(DataSpec(seq_len=129), 128)
    assert caught.value.problems == (
        "data.seq_len: must be at most the model's 128 positions, got 129",
    )


def test_pairs_become_training_and_held_out_tokens(pairs_file, plain):
    prepared = prepare_data(DataSpec(path=str(pairs_file)), plain, 128, VOCABULARY)
    assert prepared.kind == "instruction"
    assert prepared.seq_len == 128
    assert (len(prepared.train), len(prepared.heldout)) == (108, 12)
    assert prepared.notes == ()


def test_documents_become_full_sequences(data, plain):
    spec = data([{"text": "a" * 40}] * 20, seq_len=16)
    prepared = prepare_data(spec, plain, 128, VOCABULARY)
    assert prepared.kind == "documents"
    assert prepared.train.lengths_N.sum() + prepared.heldout.lengths_N.sum() == 20 * 41
    assert max(len(prepared.train.example(i)[0]) for i in range(len(prepared.train))) == 16


def test_the_same_data_are_prepared_to_the_same_tokens_and_other_data_are_not(data, plain):
    rows = [pair(3, n) for n in range(1, 21)]
    first = prepare_data(data(rows), plain, 64, VOCABULARY).fingerprint
    assert prepare_data(data(rows), plain, 64, VOCABULARY).fingerprint == first
    assert prepare_data(data(rows, seq_len=8), plain, 64, VOCABULARY).fingerprint != first


def test_what_was_cut_or_left_out_is_said(data, plain):
    rows = [pair(20, 2)] * 3 + [pair(2, 20)] * 5 + [pair(2, 2)] * 12
    apart = data([pair(2, 3), pair(21, 2)], "apart.jsonl").path
    prepared = prepare_data(data(rows, seq_len=16, heldout=apart), plain, 64, VOCABULARY)
    assert prepared.notes == (
        "5 of 20 responses were cut at 16 tokens",
        "3 of 20 examples were left out, because their prompt fills the 16 tokens of a sequence "
        "(rows 1, 2 and 3)",
        "1 of 2 held-out examples was left out, because their prompt fills the 16 tokens of a "
        "sequence (row 2)",
    )
    assert len(prepared.train) == 17


def test_data_of_which_no_example_fits_are_refused(data, plain):
    spec = data([pair(20, 2)] * 20, seq_len=16)
    with pytest.raises(DataError, match="no training example fits into 16 tokens"):
        prepare_data(spec, plain, 64, VOCABULARY)


def test_a_tokenizer_of_another_model_is_refused(data, plain):
    spec = data([pair(2, 2)] * 20)
    with pytest.raises(DataError, match="the model embeds only 20; they do not belong together"):
        prepare_data(spec, plain, 64, 20)


@pytest.mark.parametrize(
    ("fields", "fingerprint"),
    [
        ({"seq_len": 96}, "a6d5e1d945a044e6c2cac0b7f7e1b99f"),
        ({"path": "testbed-code", "seq_len": 128}, "e1b1123cf7270f255515ed068a48ab63"),
        ({"kind": "documents", "seq_len": 96}, "fff28061645fa2523e14d29eda92e3be"),
        (
            {"path": "testbed-code", "kind": "documents", "seq_len": 128},
            "ffe3f1d378f501c1846fadc8ad60a1ae",
        ),
        (
            {"kind": "documents", "seq_len": 96, "streaming": True},
            "d44a3373d8a0edf0e38947ba3b541cc3",
        ),
    ],
)
def test_the_embedded_data_have_the_tokens_that_earlier_sweeps_trained_on(fields, fingerprint):
    base = BaseReader(ModelSpec())
    facts = base.facts
    data = prepare_data(DataSpec(**fields), base.tokenizer, facts.positions, facts.vocabulary)
    assert data.fingerprint == fingerprint
    assert not any("left out" in note for note in data.notes)
