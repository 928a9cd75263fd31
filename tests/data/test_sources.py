import copy
import json
import socket
from dataclasses import replace

import pytest

from lorasweep import testbed
from lorasweep.data.example import Example
from lorasweep.data.sources import Source, check_local_files, read_source
from lorasweep.errors import DataError
from lorasweep.spec.sweep import DataSpec

PAIRS = [{"prompt": f"p{i}", "response": f"r{i}"} for i in range(30)]
FRAME = "### Instruction:\n{}\n\n### Response:\n"
FRAME_WITH_INPUT = "### Instruction:\n{}\n\n### Input:\n{}\n\n### Response:\n"


@pytest.fixture
def write(tmp_path):
    def write_jsonl(rows, name="data.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write_jsonl


@pytest.fixture
def network(monkeypatch):
    """The hosts that were looked up; there must be none."""
    asked = []

    def ask(host, *arguments, **fields):
        asked.append(host)
        raise OSError(f"no network for {host} ({arguments}, {fields})")

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    return asked


def everything(source: Source) -> list[Example]:
    """All examples in the order of the file, if its prompts or texts are sorted."""
    return sorted([*source.train, *source.heldout], key=lambda e: (e.prompt, e.response))


def refusal(spec, tokenizer):
    with pytest.raises(DataError) as caught:
        read_source(spec, tokenizer)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "example"),
    [
        ({"prompt": "Say a", "response": "a"}, Example.pair("Say a", "a")),
        ({"prompt": "Say a", "completion": "a"}, Example.pair("Say a", "a")),
        ({"instruction": "Say", "output": "a"}, Example.pair(FRAME.format("Say"), "a")),
        ({"instruction": "Say", "response": "a"}, Example.pair(FRAME.format("Say"), "a")),
        ({"query": "Say", "response": "a"}, Example.pair(FRAME.format("Say"), "a")),
        (
            {"instruction": "Say", "input": "a", "output": "b"},
            Example.pair(FRAME_WITH_INPUT.format("Say", "a"), "b"),
        ),
        (
            {"instruction": "Say", "input": None, "output": "b", "text": "all of it"},
            Example.pair(FRAME.format("Say"), "b"),
        ),
        ({"question": "Why?", "answer": "So."}, Example.pair("Question: Why?\nAnswer:", " So.")),
        ({"prompt": "One and one", "response": 2}, Example.pair("One and one", "2")),
    ],
)
def test_the_usual_columns_are_read_as_instructions(write, plain, row, example):
    source = read_source(DataSpec(path=write([row, row])), plain)
    assert source.kind == "instruction"
    assert everything(source) == [example, example]


CONVERSATION = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "bye"},
    {"role": "assistant", "content": "farewell"},
]
SHAREGPT = [
    {"from": {"user": "human", "assistant": "gpt"}.get(t["role"], t["role"]), "value": t["content"]}
    for t in CONVERSATION
]


@pytest.mark.parametrize(
    ("column", "turns"),
    [("messages", CONVERSATION), ("conversations", CONVERSATION), ("conversations", SHAREGPT)],
)
def test_the_last_assistant_turn_may_be_the_only_response(write, framing, column, turns):
    source = read_source(DataSpec(path=write([{column: turns}] * 2), loss="last"), framing)
    prompt = "<s><system>Be kind.</s><user>hi</s><assistant>hello</s><user>bye</s><assistant>"
    assert source.kind == "instruction"
    assert source.columns == column
    rendered = Example.pair(prompt, "farewell</s>")
    assert everything(source) == [replace(rendered, rendered=True, ends=True)] * 2


def test_a_template_that_renders_earlier_turns_anew_shares_what_is_common(write, plain):
    tokenizer = copy.deepcopy(plain)
    # As templates do that drop the thoughts of earlier turns: the last turn is marked.
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% if loop.last %}!{% endif %} {% endfor %}"
    )
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    source = read_source(DataSpec(path=write([{"messages": turns}] * 2)), tokenizer)
    example = replace(Example.pair("hi ", "hello! "), rendered=True)
    assert source.train == [example]
    assert "puts no end token after the last turn, so '</s>' was added" in source.notes[0]


@pytest.mark.parametrize(
    "turns", [CONVERSATION[:1], CONVERSATION[1:2], CONVERSATION[:2], CONVERSATION[2:3]]
)
def test_a_conversation_without_a_last_assistant_turn_is_refused(write, plain, turns):
    path = write([{"messages": CONVERSATION}, {"messages": turns}])
    assert "must end with an assistant turn" in refusal(DataSpec(path=path), plain)


def test_a_turn_with_a_part_that_is_no_text_is_refused(write, plain):
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "hello"}]},
    ]
    words = "every turn must hold its content as text, got a list"
    assert words in refusal(DataSpec(path=write([{"messages": turns}] * 2)), plain)


def test_conversations_need_a_chat_template_that_takes_them(write, plain):
    spec = DataSpec(path=write([{"messages": CONVERSATION}] * 2))
    bare = copy.deepcopy(plain)
    bare.chat_template = None
    assert "the model's tokenizer has no chat template" in refusal(spec, bare)
    strict = copy.deepcopy(plain)
    strict.chat_template = "{{ raise_exception('no system turn, please') }}"
    assert "no system turn, please" in refusal(spec, strict)


def test_text_alone_is_read_as_documents(write, plain):
    for column in ("text", "content"):
        source = read_source(DataSpec(path=write([{column: "a b"}, {column: "c"}])), plain)
        assert source.kind == "documents"
        assert everything(source) == [Example.document("a b"), Example.document("c")]


def test_the_kind_decides_where_a_file_can_be_read_both_ways(write, plain):
    path = write([{"instruction": "Say", "output": "a", "text": "whole"}] * 2)
    assert read_source(DataSpec(path=path), plain).kind == "instruction"
    documents = read_source(DataSpec(path=path, kind="documents"), plain)
    assert everything(documents) == [Example.document("whole")] * 2


def test_columns_named_in_the_sweep_go_before_the_usual_ones(write, plain):
    row = {"prompt": "p", "response": "r", "q": "Q", "a": "A", "body": "B", "talk": CONVERSATION}
    path = write([row, row])
    pairs = read_source(DataSpec(path=path, prompt="q", response="a"), plain)
    assert pairs.train == [Example.pair("Q", "A")]
    assert pairs.columns == "q, a"
    assert read_source(DataSpec(path=path, text="body"), plain).train == [Example.document("B")]
    talk = read_source(DataSpec(path=path, messages="talk"), plain)
    assert talk.train[0].response == "hello</s>farewell</s>"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": "q", "response": "b"}, "data.prompt: must be one of a, b, got 'q'"),
        ({"text": "c"}, "data.text: must be one of a, b, got 'c'"),
        ({"messages": "c"}, "data.messages: must be one of a, b, got 'c'"),
        ({"prompt": "a"}, "data.prompt and data.response: must be given together"),
        ({}, "must include messages, prompt/response, instruction/output, question/answer or text"),
        ({"kind": "instruction"}, "must include messages, prompt/response, instruction/output or"),
        ({"kind": "documents"}, "must include text or content, got a, b; name yours with"),
    ],
)
def test_a_missing_column_is_answered_with_the_columns_there_are(write, plain, fields, words):
    path = write([{"a": "x", "b": "y"}] * 2)
    assert words in refusal(DataSpec(path=path, **fields), plain)


def test_documents_do_not_become_instructions_because_text_was_asked_for(write, plain):
    path = write([{"text": "a"}, {"text": "b"}])
    assert "got text" in refusal(DataSpec(path=path, kind="instruction"), plain)


def test_nulls_and_blanks_are_read_as_nothing_and_examples_without_response_left_out(write, plain):
    rows = [
        {"prompt": None, "response": "r0"},
        {"prompt": "p1", "response": None},
        {"prompt": "p2", "response": "  \n"},
        {"prompt": "p3"},
        {"prompt": "p4", "response": "r4"},
    ]
    source = read_source(DataSpec(path=write(rows)), plain)
    assert everything(source) == [Example.pair("", "r0"), Example.pair("p4", "r4")]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("data.jsonl", "", "is empty; give a file with examples"),
        ("data.txt", "hello", "a file must end in .jsonl, .json, .parquet, .csv, got"),
        ("data.jsonl", "{", "row 1 of '{}' is not valid JSON (Expecting property name"),
        ("data.jsonl", '{"text": "a"}\n{"text": ["b"]}\n', "'text' must hold text, got a list"),
        ("data.jsonl", '{"prompt": [{"role": "user"}], "response": "a"}\n', "'prompt' must hold"),
        ("data.jsonl", '{"question": "a", "answer": {"b": 1}}\n', "'answer' must hold text, got"),
        ("data.jsonl", '{"text": ""}\n', "at least one training example with a response in it"),
        ("data.jsonl", '{"text": "a"}\n', "at least one training example with a response in it"),
        (
            "data.jsonl",
            '{"text": "a"}\n{"text": "b\n',
            "row 2 of '{}' is not valid JSON (Invalid control character at character 12)",
        ),
        (
            "data.parquet",
            "version https://git-lfs.github.com/spec/v1",
            "is a pointer of git LFS; run",
        ),
        ("data.csv", "prompt,response\n", "must hold at least one row, got none in"),
        ("data.jsonl", '{"prompt": "a", "response": " "}\n', "response is empty (row 1))"),
        ("data.parquet", "no parquet", "(ArrowInvalid: Parquet magic bytes not found in footer"),
    ],
)
def test_a_file_without_examples_is_refused_in_one_sentence(tmp_path, plain, name, content, words):
    path = tmp_path / name
    path.write_text(content)
    assert words.replace("{}", str(path)) in refusal(DataSpec(path=str(path)), plain)


@pytest.mark.parametrize("path", ["{}/nowhere", "~/no such folder", "./no/rows", "rows.jsonl"])
@pytest.mark.parametrize("key", ["path", "heldout"])
def test_files_that_are_not_there_are_missed_at_a_glance(tmp_path, key, path):
    spec = DataSpec(**{"path": "testbed", key: path.format(tmp_path)})
    with pytest.raises(DataError, match=rf"^data\.{key}: .* there is no such file; give the path"):
        check_local_files(spec)


def test_what_may_be_a_hub_name_or_is_there_passes_at_a_glance(tmp_path):
    for path in ("testbed", "org/name", "gsm8k", str(tmp_path)):
        check_local_files(DataSpec(path=path, heldout=path))


def test_a_place_where_nothing_is_is_refused_in_one_sentence(tmp_path, plain):
    words = refusal(DataSpec(path=str(tmp_path / "nowhere.jsonl")), plain)
    assert words.startswith("data.path: ")
    assert "nowhere.jsonl' cannot be read" in words


def saved_jsonl(folder, rows):
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def saved_json(folder, rows):
    path = folder / "data.json"
    path.write_text(json.dumps(rows))
    return path


def saved_csv(folder, rows):
    import pandas as pd

    pd.DataFrame(rows).to_csv(folder / "data.csv", index=False)
    return folder / "data.csv"


def saved_parquet(folder, rows):
    import pandas as pd

    pd.DataFrame(rows).to_parquet(folder / "data.parquet")
    return folder / "data.parquet"


def saved_dataset(folder, rows):
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(folder / "saved")
    return folder / "saved"


def saved_splits(folder, rows):
    import datasets

    train = datasets.Dataset.from_list(rows)
    other = datasets.Dataset.from_list(rows[:1])
    datasets.DatasetDict(train=train, test=other).save_to_disk(folder / "splits")
    return folder / "splits"


def saved_files(folder, rows):
    (folder / "files").mkdir()
    saved_jsonl(folder / "files", rows)
    return folder / "files"


@pytest.mark.parametrize(
    "save",
    [
        saved_jsonl,
        saved_json,
        saved_csv,
        saved_parquet,
        saved_dataset,
        saved_splits,
        saved_files,
    ],
)
def test_every_form_of_a_data_set_gives_the_same_examples(tmp_path, write, plain, save, network):
    spec = DataSpec(path=str(save(tmp_path, PAIRS)))
    expected = read_source(DataSpec(path=write(PAIRS, "expected.jsonl")), plain)
    assert len(everything(expected)) == len(PAIRS)
    assert read_source(spec, plain) == expected
    assert network == []


def test_a_name_with_signs_of_a_pattern_and_a_home_folder_are_read_as_they_stand(
    write, plain, monkeypatch, tmp_path
):
    write(PAIRS, "data[1]*.jsonl")
    monkeypatch.setenv("HOME", str(tmp_path))
    source = read_source(DataSpec(path="~/data[1]*.jsonl"), plain)
    assert len(everything(source)) == len(PAIRS)


def test_a_split_is_chosen_by_name_and_a_wrong_name_answered_with_the_right_ones(tmp_path, plain):
    path = str(saved_splits(tmp_path, PAIRS))
    assert "data.split: must be one of train, test, got 'validation'" in refusal(
        DataSpec(path=path, split="validation"), plain
    )
    spec = DataSpec(path=path, split="test", heldout=str(saved_jsonl(tmp_path, PAIRS)))
    assert read_source(spec, plain).train == [Example.pair("p0", "r0")]


def test_a_file_that_has_changed_is_read_anew(write, plain):
    first = read_source(DataSpec(path=write(PAIRS)), plain)
    second = read_source(DataSpec(path=write(PAIRS[:20])), plain)
    assert (len(everything(first)), len(everything(second))) == (30, 20)


@pytest.mark.parametrize("wanted", [1, 2, 3, 256])
def test_the_held_out_examples_are_disjoint_from_the_rest_and_nothing_is_lost(write, plain, wanted):
    source = read_source(DataSpec(path=write(PAIRS), heldout_examples=wanted), plain)
    assert len(source.heldout) == min(wanted, len(PAIRS) // 10)
    assert not set(source.heldout) & set(source.train)
    assert {e.prompt for e in everything(source)} == {row["prompt"] for row in PAIRS}
    in_order = [Example.pair(row["prompt"], row["response"]) for row in PAIRS]
    assert source.train == [example for example in in_order if example in source.train]


def test_the_held_out_examples_are_the_same_every_time(write, plain):
    spec = DataSpec(path=write(PAIRS))
    assert read_source(spec, plain) == read_source(spec, plain)


def test_a_held_out_file_leaves_the_training_data_whole(write, plain):
    apart = write([{"question": "Why?", "answer": "So."}] * 3, "apart.jsonl")
    spec = DataSpec(path=write(PAIRS), heldout=apart, heldout_examples=2)
    source = read_source(spec, plain)
    assert len(source.train) == len(PAIRS)
    assert source.heldout == [Example.pair("Question: Why?\nAnswer:", " So.")] * 2


def test_no_more_than_the_limit_is_read(write, plain):
    source = read_source(DataSpec(path=write(PAIRS), limit=5), plain)
    assert {e.prompt for e in everything(source)} == {"p0", "p1", "p2", "p3", "p4"}
    assert len(everything(read_source(DataSpec(path=write(PAIRS), limit=99), plain))) == 30


def test_the_embedded_data_are_held_out_by_their_own_file(plain, write):
    source = read_source(DataSpec(limit=50, heldout_examples=10), plain)
    assert (len(source.train), len(source.heldout)) == (50, 10)
    heldout = [json.loads(line) for line in testbed.HELDOUT.read_text().splitlines()[:10]]
    assert source.heldout == [Example.pair(row["prompt"], row["response"]) for row in heldout]
    own = read_source(DataSpec(limit=50, heldout=write(PAIRS)), plain)
    assert len(own.heldout) == len(PAIRS)


def test_the_embedded_code_is_instructions_with_their_own_held_out_file(plain):
    spec = DataSpec(path="testbed-code", limit=50, heldout_examples=10)
    check_local_files(spec)
    source = read_source(spec, plain)
    assert (source.kind, len(source.train), len(source.heldout)) == ("instruction", 50, 10)
    for examples, path in (
        (source.train, testbed.CODE_DATA),
        (source.heldout, testbed.CODE_HELDOUT),
    ):
        rows = [json.loads(line) for line in path.read_text().splitlines()[: len(examples)]]
        assert examples == [Example.pair(row["prompt"], row["response"]) for row in rows]


@pytest.mark.parametrize(
    ("name", "path"),
    [("testbed", testbed.DOCUMENTS), ("testbed-code", testbed.CODE_DOCUMENTS)],
)
def test_embedded_documents_are_read_where_documents_are_asked_for(plain, name, path):
    spec = DataSpec(path=name, kind="documents", limit=50)
    check_local_files(spec)
    source = read_source(spec, plain)
    texts = {json.loads(line)["text"] for line in path.read_text().splitlines()[:50]}
    assert source.kind == "documents"
    assert {example.text for example in everything(source)} == texts
    assert len(source.heldout) == 5


def test_held_out_examples_may_come_from_a_split(tmp_path, plain):
    train, test = tmp_path / "data", tmp_path / "other"
    for folder in (train, test):
        folder.mkdir()
        for split in ("train", "test"):
            rows = [{"prompt": f"{folder.name} {split} {i}", "response": "r"} for i in range(9)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_text(text)
    for heldout, name in ((None, "data"), (str(test), "other")):
        spec = DataSpec(path=str(train), heldout=heldout, heldout_split="test", heldout_examples=4)
        source = read_source(spec, plain)
        assert [e.prompt for e in source.train] == [f"data train {i}" for i in range(9)]
        assert [e.prompt for e in source.heldout] == [f"{name} test {i}" for i in range(4)]
    assert "data.heldout_split: must be one of train, test, got 'dev'" in refusal(
        DataSpec(path=str(train), heldout_split="dev"), plain
    )
    one_file = DataSpec(path=str(train / "train.jsonl"), heldout_split="test")
    assert refusal(one_file, plain).startswith(
        "data.heldout_split: must be left out where the data are one file"
    )
    assert "data.heldout_split: must be left out" in refusal(DataSpec(heldout_split="test"), plain)


def test_rows_that_are_left_out_are_counted_by_reason_in_both_parts(write, plain):
    rows = [{"prompt": f"p{i}", "response": "" if i in {3, 6} else "r"} for i in range(10)]
    source = read_source(DataSpec(path=write(rows)), plain)
    assert source.notes == (
        "2 of 10 rows were left out, because their response is empty (rows 4 and 7)",
    )
    empty = [{"text": " "}, {"text": "a"}]
    spec = DataSpec(path=write([{"text": "b"}]), heldout=write(empty, "apart.jsonl"))
    assert read_source(spec, plain).notes == (
        "1 of 2 held-out rows was left out, because their text is empty (row 1)",
    )


def test_held_out_examples_that_are_trained_on_are_counted(write, plain):
    apart = write([{"prompt": f"p{i}", "response": "r0"} for i in (5, 0, 6)], "apart.jsonl")
    source = read_source(DataSpec(path=write(PAIRS), heldout=apart), plain)
    assert source.notes == (
        "1 of 3 held-out examples is in the training data as well, so the loss on them is that of "
        "trained text (row 2)",
    )
    drawn = read_source(DataSpec(path=write(PAIRS[:1] * 20)), plain)
    assert drawn.notes[0].startswith("2 of 2 held-out examples are in the training data as well")
    assert read_source(DataSpec(path=write(PAIRS)), plain).notes == ()
