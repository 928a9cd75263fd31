"""Where turns begin and end in what a chat template renders."""

import pytest

from lorasweep.data.conversation import read_conversation
from lorasweep.data.rendered import Rendered
from lorasweep.errors import DataError
from tests.data import templates


@pytest.fixture
def rendered(chat_tokenizer):
    def render(template, *contents):
        roles = ("user", "assistant") * len(contents)
        turns = [list(pair) for pair in zip(roles, contents, strict=False)]
        talk = read_conversation(turns, None, "messages", 1)
        assert talk is not None
        return Rendered.of(talk, chat_tokenizer(template))

    return render


def answers(rendered) -> list[str]:
    found = [rendered.span(index) for index in range(1, len(rendered.talk.turns), 2)]
    return [rendered.whole[start:end] for start, end in found]


def test_a_turn_ends_before_what_the_next_one_begins_with(rendered):
    talk = rendered(templates.TWO_ENDS, "hi", "hello", "more", "bye")
    assert answers(talk) == ["hello<|im_end|>\n", "bye<|im_end|>\n<|endoftext|>"]


@pytest.mark.parametrize("content", ["ok", "<", "\ue000", "\U000f0000", "\U000f0001"])
def test_turns_are_found_whatever_they_hold(rendered, content):
    talk = rendered(templates.THINKING, content, content, content, content)
    assert answers(talk) == [
        f"{content}<|im_end|>\n",
        f"<think>\n\n</think>\n\n{content}<|im_end|>\n",
    ]
    assert not talk.lost()


def test_an_answer_of_which_nothing_is_rendered_is_refused(rendered):
    template = "{% for m in messages %}<|im_start|>{{ m.role }}<|im_end|>\n{% endfor %}"
    with pytest.raises(DataError, match="turn 2 of row 1 must be found"):
        rendered(template, "hi", "hello").has_text(1)
