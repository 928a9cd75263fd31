"""Conversations in the forms in which people store them, and templates as models have them."""

import csv
import json

import pytest

from lorasweep.data.chat import Conversations
from lorasweep.data.example import Example, LeftOut
from lorasweep.data.sources import read_source
from lorasweep.errors import DataError
from lorasweep.spec.sweep import DataSpec
from tests.data import templates

TEMPLATES = {name: text for name, text in vars(templates).items() if name.isupper()}
HELLO = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
TWO = [*HELLO, {"role": "user", "content": "more"}, {"role": "assistant", "content": "bye"}]
SYSTEM = [{"role": "system", "content": "Be brief."}, *HELLO]
ARGUMENTS = '{"city":"Paris", "days":1.50}'
CALL = {"type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
ASKED = [
    {"role": "user", "content": "weather?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "18", "tool_call_id": "c"},
    {"role": "assistant", "content": "It is 18."},
]


@pytest.fixture
def reader(chat_tokenizer):
    def make(template, loss="all"):
        return Conversations("messages", chat_tokenizer(template), loss)

    return make


def marked(example: Example | LeftOut) -> str:
    """The text of an example, with what carries loss in brackets."""
    assert isinstance(example, Example)
    text, last = "", 0
    for start, end in example.spans:
        text += f"{example.text[last:start]}⟦{example.text[start:end]}⟧"
        last = end
    return text + example.text[last:]


def refusal(reader, row, number=1) -> str:
    with pytest.raises(DataError) as caught:
        reader.read(row, number)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_answer_carries_loss_and_nothing_else_that_people_wrote(reader, name):
    conversations = reader(TEMPLATES[name])
    example = conversations.read({"messages": TWO}, 1)
    tokenizer = conversations.tokenizer
    assert example.text == tokenizer.apply_chat_template(TWO, tokenize=False)
    first, second = (example.text[start:end] for start, end in example.spans)
    assert ("hello" in first, "bye" in second) == (True, True)
    rest = marked(example).replace(f"⟦{first}⟧", "").replace(f"⟦{second}⟧", "")
    assert "hi" in rest
    assert "more" in rest
    assert "hello" not in rest
    only = reader(TEMPLATES[name], loss="last").read({"messages": TWO}, 1)
    assert only.spans == example.spans[1:]


@pytest.mark.parametrize(
    ("template", "turns", "expected"),
    [
        (
            templates.CHATML,
            SYSTEM,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
            "<|im_start|>assistant\n⟦hello<|im_end|>\n⟧",
        ),
        (templates.SYSTEM_AT_THE_END, SYSTEM, "<s>[INST] hi[/INST]⟦ hello</s>⟧"),
        (templates.STRIPPING, HELLO, "<s>[INST] hi [/INST]⟦ hello </s>⟧"),
        (templates.ENDLESS, HELLO, "USER: hi\nASSISTANT:⟦ hello\n⟧"),
        (
            templates.THINKING,
            TWO,
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦hello<|im_end|>\n⟧"
            "<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n"
            "⟦<think>\n\n</think>\n\nbye<|im_end|>\n⟧",
        ),
        (
            templates.MARKED,
            HELLO,
            "<|im_start|>user\nhi<|im_end|><|im_start|>assistant\n⟦hello<|im_end|>⟧",
        ),
    ],
)
def test_an_answer_begins_where_the_template_asks_for_it_and_ends_with_its_turn(
    reader, template, turns, expected
):
    assert marked(reader(template).read({"messages": turns}, 1)) == expected


def test_a_user_turn_never_carries_loss_though_the_template_moves_the_system_prompt(reader):
    conversations = reader(templates.SYSTEM_AT_THE_END)
    example = conversations.read({"messages": SYSTEM}, 4)
    assert example.response == " hello</s>"
    (note,) = conversations.notes()
    assert note.startswith(
        "the chat template does not render the system turn as it is written, in 1 of 1"
    )
    assert "(row 4 is rendered as '<s>[INST] hi[/INST] hello</s>')" in note


FORMS = {
    "turns": HELLO,
    "ShareGPT": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}],
    "JSON text": json.dumps(HELLO),
    "pairs": [["hi", "hello"]],
    "pairs with roles": [["user", "hi"], ["assistant", "hello"]],
    "columns": {"role": ["user", "assistant"], "content": ["hi", "hello"]},
    "ShareGPT's columns": {"from": ["human", "gpt"], "value": ["hi", "hello"]},
    "parts": [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in HELLO],
    "two parts": [HELLO[0], {**HELLO[1], "content": [{"text": "hel"}, {"text": "lo"}]}],
    "filled with nulls": [{**turn, "name": None, "tool_calls": None} for turn in HELLO],
    "with weights": [HELLO[0], {**HELLO[1], "weight": 1}],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_conversation_is_read_as_the_same_turns(reader, form):
    conversations = reader(templates.CHATML)
    expected = conversations.read({"messages": HELLO}, 1)
    assert conversations.read({"messages": FORMS[form]}, 1) == expected
    assert conversations.notes() == []


@pytest.mark.parametrize("empty", [None, [], "", "[]", "null", {"role": [], "content": []}])
def test_a_row_without_a_conversation_is_left_out(reader, empty):
    left_out = reader(templates.CHATML).read({"messages": empty}, 3)
    assert left_out == LeftOut("their conversation is empty", 3)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("hi there", "row 7 of 'messages' must hold a list of turns, got text that is not JSON"),
        (5, "row 7 of 'messages' must hold a list of turns, got a int: 5"),
        ([HELLO[0], None], "row 7 of 'messages', turn 2 must be a turn with role and content"),
        ([{"content": "hi"}, HELLO[1]], "turn 1 must have a role (or 'from'), got {'content'"),
        ({"role": ["user"], "content": ["hi", "x"]}, "one list for each field, all of one length"),
        ([HELLO[0], {**HELLO[1], "content": ["a"]}], "every turn must hold its content as text"),
        ([HELLO[0], {**HELLO[1], "weight": 0.5}], "turn 2: weight must be 0 or 1, got 0.5"),
        ([{**HELLO[0], "weight": 1}, HELLO[1]], "weight must be 0 or left out for a user turn"),
        (TWO[:3], "must end with an assistant turn that answers another, got roles"),
        (HELLO[1:], "must end with an assistant turn that answers another, got roles"),
    ],
)
def test_what_is_no_conversation_is_refused_with_its_row(reader, value, words):
    sentence = refusal(reader(templates.CHATML), {"messages": value}, 7)
    assert words in sentence
    assert "row 7" in sentence


def test_a_weight_of_zero_takes_the_loss_off_a_turn(reader):
    conversations = reader(templates.CHATML)
    turns = [TWO[0], {**TWO[1], "weight": 0}, TWO[2], {**TWO[3], "weight": 1}]
    assert conversations.read({"messages": turns}, 1).response == "bye<|im_end|>\n"
    muted = [{**turn, "train": False} for turn in TWO]
    assert conversations.read({"messages": muted}, 2) == LeftOut(
        "weight 0 is on all of their turns", 2
    )
    ending = reader(templates.ENDLESS)
    turns = [TWO[0], TWO[1], TWO[2], {**TWO[3], "weight": 0}]
    assert ending.read({"messages": turns}, 1).ends  # no EOS is trained after such a turn


def test_an_empty_answer_carries_no_loss_and_a_row_of_nothing_else_is_left_out(reader):
    conversations = reader(templates.CHATML)
    turns = [TWO[0], {**TWO[1], "content": " "}, *TWO[2:]]
    assert conversations.read({"messages": turns}, 4).response == "bye<|im_end|>\n"
    assert conversations.read({"messages": turns[:2]}, 5) == LeftOut("their response is empty", 5)
    assert conversations.notes() == [
        "an assistant turn is empty and carries no loss, in 1 of 2 conversations (the first is row "
        "4)"
    ]


@pytest.mark.parametrize("template", [templates.THINKING, templates.CALLING])
@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS)])
def test_tools_and_their_calls_are_rendered_and_the_calls_carry_loss(reader, template, tools):
    conversations = reader(template)
    example = conversations.read({"messages": ASKED, "tools": tools}, 1)
    assert json.dumps(TOOLS[0]) in example.prompt
    first, second = (example.text[start:end] for start, end in example.spans)
    assert "It is 18." in second
    assert "18<|im_end|>" not in first + second.replace("It is 18.", "")
    # Arguments stay as they are written where the template takes text, and are JSON in both.
    arguments = ARGUMENTS if template == templates.THINKING else '{"city": "Paris", "days": 1.5}'
    assert f"<call>weather {arguments}</call><|im_end|>" in first
    (note,) = conversations.notes()
    assert "does not render 'tool_call_id' of tool turns, in 1 of 1 conversations" in note


def test_what_the_template_does_not_render_is_named(reader):
    conversations = reader(templates.CHATML)
    thoughts = [HELLO[0], {**HELLO[1], "reasoning_content": "I think."}]
    for number in range(1, 4):
        row = {"messages": thoughts if number > 1 else HELLO, "tools": TOOLS}
        conversations.read(row, number)
    notes = conversations.notes()
    assert len(notes) == 2
    assert "does not render 'tools', in 3 of 3 conversations (row 1 is rendered as" in notes[0]
    assert "'reasoning_content' of assistant turns, in 2 of 3 conversations (row 2" in notes[1]


def test_a_turn_of_which_nothing_is_rendered_is_refused_with_what_was(reader):
    sentence = refusal(reader(templates.CHATML), {"messages": ASKED[:2]}, 5)
    assert "turn 2 of row 5 holds only tool_calls, which the chat template does not" in sentence
    assert "<|im_start|>assistant\\n<|im_end|>" in sentence


def test_thoughts_that_earlier_turns_lose_are_named(reader):
    conversations = reader(templates.THINKING)
    turns = [{**turn, "reasoning_content": f"thought {i}"} for i, turn in enumerate(TWO) if i % 2]
    row = {"messages": [TWO[0], turns[0], TWO[2], turns[1]]}
    example = conversations.read(row, 1)
    assert "thought 3" in example.response
    assert "thought 1" not in example.text
    assert "'reasoning_content' of assistant turns, in 1 of 1" in conversations.notes()[0]


def test_missing_ends_are_added_or_named(reader):
    endless, without = reader(templates.ENDLESS), reader(templates.MARKED_WITHOUT_END)
    assert not endless.read({"messages": HELLO}, 1).ends
    assert "no end token after the last turn, so '</s>' was added" in endless.notes()[0]
    assert without.read({"messages": HELLO}, 1).ends
    assert "without the end token after it, so no end is trained" in without.notes()[0]


def test_marks_that_leave_an_answer_out_are_refused(reader):
    template = templates.MARKED.replace(
        "m.role == 'assistant' %}{% gen", "m.role == 'assistant' and loop.last %}{% gen"
    )
    sentence = refusal(reader(template), {"messages": TWO})
    assert "it marks 1 of 2 in row 1" in sentence


def test_a_turn_may_have_several_marks(reader):
    template = templates.MARKED.replace(
        "{{ m.content }}<|im_end|>{% endgeneration %}",
        "{{ m.content }}{% endgeneration %}\n{% generation %}<|im_end|>{% endgeneration %}",
    )
    for loss, count in (("all", 2), ("last", 1)):
        example = reader(template, loss).read({"messages": TWO}, 1)
        parts = [example.text[start:end] for start, end in example.spans]
        assert parts == ["hello", "<|im_end|>", "bye", "<|im_end|>"][-2 * count :]
    blank = [TWO[0], {"role": "assistant", "content": " "}, *TWO[2:]]
    assert marked(reader(template).read({"messages": blank}, 1)).count("⟦") == 2


def test_an_answer_that_cannot_be_found_is_refused_with_what_was_rendered(reader):
    template = "{{ messages | length }} turns"
    sentence = refusal(reader(template), {"messages": HELLO}, 9)
    assert "turn 2 of row 9 must be found in what the chat template renders" in sentence
    assert "'2 turns'" in sentence


def test_conversations_are_the_same_in_every_form_of_file(tmp_path, reader):
    """Arrow fills the fields of other turns and tools with nulls, which are no text."""
    import datasets

    other = [{"type": "function", "function": {"name": "add", "parameters": {"x": "number"}}}]
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
    asked = [ASKED[0], {"role": "assistant", "tool_calls": [call]}, *ASKED[2:]]
    rows = [{"messages": asked, "tools": TOOLS}, {"messages": TWO, "tools": other}] * 6
    table = datasets.Dataset.from_list(rows)
    table.to_parquet(tmp_path / "data.parquet")
    table.save_to_disk(tmp_path / "saved")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "data.jsonl").write_text(lines, encoding="utf-8")
    with (tmp_path / "data.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["messages", "tools"])
        writer.writerows([json.dumps(cell) for cell in row.values()] for row in rows)
    tokenizer = reader(templates.THINKING).tokenizer
    read = [
        read_source(DataSpec(path=str(tmp_path / name)), tokenizer)
        for name in ("data.jsonl", "data.parquet", "saved", "data.csv")
    ]
    assert read[0].train[0].text.startswith(f"<|im_start|>system\n{json.dumps(TOOLS[0])}")
    assert read[1] == read[2] == read[3] == read[0]
