import json
import pickle

import numpy as np
import pytest

from lorasweep.data.batches import Batches, row_width
from lorasweep.data.prepare import recipe_of
from lorasweep.data.shard import Shard
from lorasweep.data.stored import TokenFolder, hash_tokenizer, read_stored
from lorasweep.data.tokenise_stream import tokenise_stream
from lorasweep.data.tokens import StoredTokens
from lorasweep.spec.sweep import DataSpec
from tests.examples import pack


@pytest.fixture
def made(tmp_path, plain):
    """A folder of tokens, and their recipe."""
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(40)))
    spec = DataSpec(path=str(path), streaming=True, heldout_examples=2)
    recipe = recipe_of(spec, plain, 16, 300, None)
    tokenise_stream(tmp_path / "tokens", recipe, plain, print)
    return tmp_path / "tokens", recipe


def whole(root, recipe):
    """Read a folder, which must be complete."""
    data = read_stored(root, recipe)
    assert data is not None
    return data


def test_what_is_stored_is_read_without_its_source(made):
    root, recipe = made
    (root.parent / "data.jsonl").unlink()
    data = whole(root, recipe)
    assert (data.kind, data.seq_len) == ("documents", 16)


@pytest.mark.parametrize(
    "changed",
    [
        {"seq_len": 8},
        {"sequences": 3},
        {"tokenizer": "another"},
        {"vocabulary": 2**17},
        {"data": DataSpec(path="elsewhere", streaming=True)},
    ],
)
def test_tokens_of_another_recipe_are_not_taken(made, changed):
    root, recipe = made
    assert read_stored(root, recipe.model_copy(update=changed)) is None


@pytest.mark.parametrize("name", ["manifest", "train", "heldout"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_tokens_that_are_not_whole_are_not_taken(made, name, damage):
    root, recipe = made
    path = getattr(TokenFolder(root), name)
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    assert read_stored(root, recipe) is None


def test_an_empty_folder_holds_nothing(made, tmp_path):
    assert read_stored(tmp_path / "nothing", made[1]) is None


def test_stored_tokens_are_pickled_as_the_name_of_their_file(made):
    tokens = whole(*made).train
    before = len(pickle.dumps(tokens))
    widths = [len(tokens.example(i)[0]) for i in range(len(tokens))]  # which maps the file
    assert len(pickle.dumps(tokens)) == before < 500
    again = pickle.loads(pickle.dumps(tokens))
    assert again == tokens
    assert [len(again.example(i)[0]) for i in range(len(again))] == widths


def test_stored_tokens_are_mapped_and_never_written(made):
    ids, _ = whole(*made).train.example(0)
    base = ids
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 1


def test_a_file_is_opened_only_when_it_is_read(tmp_path):
    tokens = StoredTokens(str(tmp_path / "nowhere"), 100, 16, "uint16", "f")
    assert (len(tokens), tokens.lengths_N.tolist()) == (7, [16] * 6 + [4])


@pytest.mark.parametrize("size", [0, 1, 2, 15, 16, 17, 18, 31, 32, 33])
def test_sequences_begin_where_those_of_packed_documents_do(tmp_path, size):
    tokens = StoredTokens(str(tmp_path / "nowhere"), size, 16, "uint16", "f")
    lengths = [min(16, size - start) for start in range(0, size, 16)]
    if len(lengths) > 1 and lengths[-1] == 1:
        lengths[-2:] = [15, 2]
    assert tokens.lengths_N.tolist() == [length for length in lengths if length > 1]
    assert len(tokens) == len(tokens.lengths_N)


def test_batches_of_stored_tokens_are_those_of_the_same_tokens_in_memory(made):
    stored = whole(*made).train
    memory = pack([(stored.example(i)[0].tolist(), 0) for i in range(len(stored))])
    assert row_width(stored, 4, 0.01) == row_width(memory, 4, 0.01)
    both = [Batches(tokens, 4, 2, 0, 1, shared=True) for tokens in (stored, memory)]
    for step in (0, 1, 7):
        assert both[0].loss_tokens(step) == both[1].loss_tokens(step)
        for left, right in zip(*(b.for_worker(step, Shard()) for b in both), strict=True):
            assert left.ids_BT.equal(right.ids_BT)
            assert left.labels_K.equal(right.labels_K)


def test_a_tokenizer_is_known_by_what_it_does(plain, framing):
    before = hash_tokenizer(plain)
    plain("a", truncation=True, max_length=3)
    assert hash_tokenizer(plain) == before
    assert hash_tokenizer(framing) != before


def test_the_name_of_a_folder_is_that_of_earlier_sweeps(plain):
    for fields, key in (
        ({"path": "org/name", "streaming": True}, "24534b9258"),
        ({"kind": "documents", "seq_len": 96, "streaming": True}, "e95cbdc4b6"),
    ):
        assert recipe_of(DataSpec(**fields), plain, 128, 300, None).key == key
    other = DataSpec(path="org/name", streaming=True, heldout_split="test")
    assert recipe_of(other, plain, 128, 300, None).key != "24534b9258"
