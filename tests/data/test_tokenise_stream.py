import errno
import itertools
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lorasweep.data import tokenise_stream as module
from lorasweep.data.cpt import pack_documents
from lorasweep.data.example import Example
from lorasweep.data.left_out import LeftOutRows
from lorasweep.data.prepare import recipe_of
from lorasweep.data.stored import Manifest, TokenFolder, read_stored
from lorasweep.data.stream import split_documents
from lorasweep.data.tokenise_stream import StreamProgress, tokenise_stream
from lorasweep.errors import DataError
from lorasweep.spec.sweep import DataSpec

VOCABULARY = 300
documents = st.lists(
    st.text(st.characters(codec="ascii", exclude_characters="<"), min_size=1, max_size=30),
    min_size=2,
    max_size=12,
)


def ignore_progress(_progress: StreamProgress) -> None:
    """Ignore progress."""


@pytest.fixture(scope="module")
def from_texts(plain, tmp_path_factory):
    """Make a function that stores tokens of texts, the first of them held out."""

    def make(texts, sequences=None, seq_len=8, on_progress=ignore_progress, vocabulary=VOCABULARY):
        def split(_spec, _tokenizer, _left_out):
            for index, text in enumerate(texts):
                yield index == 0, Example.document(text)

        spec = DataSpec(path="documents", streaming=True, heldout_examples=1, seq_len=seq_len)
        recipe = recipe_of(spec, plain, 128, vocabulary, sequences)
        root = tmp_path_factory.mktemp("stored")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "split_documents", split)
            tokenise_stream(root, recipe, plain, on_progress)
        return read_stored(root, recipe)

    return make


def sequences_of(tokens):
    return [tokens.example(i)[0].tolist() for i in range(len(tokens))]


@settings(deadline=None, max_examples=50)
@given(documents, st.integers(8, 24), st.integers(1, 40))
def test_stored_documents_are_the_sequences_of_packed_ones(from_texts, plain, texts, seq_len, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH", size)
        data = from_texts(texts, seq_len=seq_len)
    packed = pack_documents([Example.document(text) for text in texts[1:]], plain, seq_len)
    assert sequences_of(data.train) == sequences_of(packed)
    assert data.train.loss_tokens_N.tolist() == packed.loss_tokens_N.tolist()
    heldout = pack_documents([Example.document(texts[0])], plain, seq_len)
    assert sequences_of(data.heldout) == sequences_of(heldout)


@settings(deadline=None, max_examples=30)
@given(documents, st.integers(1, 6))
def test_reading_ends_with_the_sequences_of_the_longest_run(from_texts, plain, texts, sequences):
    assume(texts[0] not in texts[1:])  # it is held out
    data = from_texts(texts, sequences)
    packed = pack_documents([Example.document(text) for text in texts[1:]], plain, 8)
    if packed.starts_N1[-1] >= 8 * sequences:
        full = packed.ids_S[: 8 * sequences].reshape(sequences, 8).tolist()
        assert sequences_of(data.train) == full
        assert data.notes == ()
    else:
        assert sequences_of(data.train) == sequences_of(packed)
        assert data.notes[0].endswith(f"{8 * sequences / packed.starts_N1[-1]:.2f} times")


def test_a_stream_is_left_once_there_is_enough_of_it(from_texts):
    texts = itertools.chain(["held out"], itertools.repeat("a" * 100))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH", 500)
        assert len(from_texts(texts, sequences=20).train) == 20


@pytest.mark.parametrize(("vocabulary", "dtype"), [(2**16, "uint16"), (2**16 + 1, "int32")])
def test_tokens_are_as_narrow_as_the_vocabulary_allows(from_texts, vocabulary, dtype):
    data = from_texts(["a", "b" * 9], vocabulary=vocabulary)
    assert data.train.dtype == dtype
    assert data.train.example(0)[0].dtype == dtype


def test_the_manifest_knows_the_tokens(from_texts, plain):
    first, again = from_texts(["a", "bcz"]), from_texts(["a", "bcz"])
    assert first.fingerprint == again.fingerprint
    assert from_texts(["a", "bcy"]).fingerprint != first.fingerprint
    assert from_texts(["a", "bcz"], seq_len=9).fingerprint != first.fingerprint
    folder = TokenFolder(Path(first.train.path).parent)
    manifest = Manifest.model_validate_json(folder.manifest.read_text())
    assert (manifest.documents, manifest.tokens) == (1, 4)
    assert manifest.highest == max(plain("bcz")["input_ids"])


def test_progress_is_told_after_each_batch(from_texts, monkeypatch):
    told: list[StreamProgress] = []
    monkeypatch.setattr(module, "BATCH", 20)
    from_texts(["a"] * 101, on_progress=told.append)
    assert [filled.documents for filled in told] == [20, 40, 60, 80, 100]
    assert [filled.tokens for filled in told] == [40, 80, 120, 160, 200]
    assert told[0].wanted is None


def test_memory_does_not_grow_with_the_documents(from_texts, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 2000)
    from_texts(["a" * 50] * 10)  # warms up caches that stay

    def peak(count):
        tracemalloc.start()
        from_texts("a" * 50 for _ in range(count))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(3000) < 1.5 * peak(300)


@pytest.mark.parametrize("texts", [["held out"], []])
def test_a_stream_that_leaves_nothing_to_train_on_is_refused(from_texts, texts):
    with pytest.raises(DataError, match="must hold at least one training document"):
        from_texts(texts)


def test_a_tokenizer_of_another_model_is_found_out_at_once(from_texts, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 1)
    texts = itertools.chain(["held out"], itertools.repeat("abc"))
    with pytest.raises(DataError, match="embeds only 20; they do not belong together"):
        from_texts(texts, vocabulary=20)


@pytest.fixture
def stored(tmp_path, plain):
    """A file of documents, the recipe of its tokens, and the folder for them."""
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(40)))
    spec = DataSpec(path=str(path), streaming=True)
    return path, recipe_of(spec, plain, 16, VOCABULARY, None), tmp_path / "tokens"


def test_a_stream_that_breaks_off_leaves_nothing_that_counts(stored, plain):
    path, recipe, root = stored
    tokenise_stream(root, recipe, plain, ignore_progress)
    path.write_text(path.read_text() + '{"text": "ha')
    with pytest.raises(DataError, match=r"row 41 of .* is not valid JSON"):
        tokenise_stream(root, recipe, plain, ignore_progress)
    assert read_stored(root, recipe) is None
    assert not TokenFolder(root).train.exists()


def test_a_full_disk_is_one_sentence(stored, plain, monkeypatch):
    _, recipe, root = stored

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError) as caught:
        tokenise_stream(root, recipe, plain, ignore_progress)
    assert str(caught.value) == (
        "--out: the results folder must hold all tokens of 2 bytes each, and after 278 of them "
        f"{root} takes no more (No space left on device); make room, choose another --out, or set "
        "data.limit"
    )
    assert read_stored(root, recipe) is None


def test_an_interrupted_reading_is_never_taken_for_a_whole_one(stored, plain, monkeypatch):
    _, recipe, root = stored
    tokenise_stream(root, recipe, plain, ignore_progress)

    def interrupt(_progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "BATCH", 1)
    with pytest.raises(KeyboardInterrupt):
        tokenise_stream(root, recipe, plain, interrupt)
    assert read_stored(root, recipe) is None


def test_the_same_source_gives_the_same_tokens(stored, plain):
    _, recipe, root = stored
    contents = []
    for _ in range(2):
        tokenise_stream(root, recipe, plain, ignore_progress)
        contents.append(np.fromfile(TokenFolder(root).train, dtype=recipe.dtype).tolist())
    assert contents[0] == contents[1]


def test_what_was_left_out_and_what_is_in_both_parts_is_kept_with_the_tokens(tmp_path, plain):
    path = tmp_path / "data.jsonl"
    # Shuffled, so that every text stands twice: some of the held-out ones come first, some last.
    texts = ["", *(f"text {i}" for i in range(40)), *(f"text {i}" for i in range(40))]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    recipe = recipe_of(DataSpec(path=str(path), streaming=True), plain, 16, VOCABULARY, None)
    tokenise_stream(tmp_path / "tokens", recipe, plain, ignore_progress)
    data = read_stored(tmp_path / "tokens", recipe)
    assert data is not None
    left_out, both = data.notes
    assert left_out == "1 of 81 rows was left out, because their text is empty (row 1)"
    heldout = [
        document.text
        for held, document in split_documents(recipe.data, plain, LeftOutRows())
        if held
    ]
    shared = [text for text in heldout if heldout.count(text) == 1]
    assert len(heldout) == 8
    assert both.startswith(f"{len(shared)} of 8 held-out examples are in the training data")


def test_a_manifest_of_before_has_no_notes(stored, plain):
    _, recipe, root = stored
    tokenise_stream(root, recipe, plain, ignore_progress)
    manifest = TokenFolder(root).manifest
    content = json.loads(manifest.read_text())
    del content["notes"], content["recipe"]["data"]["heldout_split"]
    manifest.write_text(json.dumps(content))
    data = read_stored(root, recipe)
    assert data is not None
    assert data.notes == ()
