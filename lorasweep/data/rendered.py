"""A conversation as its chat template renders it, and where in it each turn is.

A template is a program: it may leave fields out, move the system prompt, or write earlier turns in
another way once others follow. So nothing is assumed of it. A part with loss begins where the
template asks for the assistant's answer, and ends where the turn does; both are found by rendering
the conversation up to there, and checked against the whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from jinja2 import TemplateError

from lorasweep.data.conversation import Conversation, Turn, parsed_arguments, written_arguments
from lorasweep.data.example import Span
from lorasweep.errors import DataError, in_a_line

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # transformers' mark of assistant text
# Characters of a private-use area, which stand for contents while a template is looked into.
_MARKS = range(0xF0000, 0xFFFFE)
SHOWN = 160  # characters of a rendered text that a note quotes


@dataclass(frozen=True)
class Rendered:
    """A conversation as rendered, and the same with something changed.

    talk: with the turns as the template takes them.
    whole: the text.
    """

    talk: Conversation
    tokenizer: Any
    whole: str

    @classmethod
    def of(cls, talk: Conversation, tokenizer: Any) -> Rendered:
        """Render a conversation in the form that the template can render.

        Raises:
            DataError: it can render none.
        """
        rendered, turns = cls(talk, tokenizer, ""), talk.turns
        texts = [text for text in written_arguments(turns) if '"' in text]
        try:
            whole = rendered.render(turns)
        except _RENDERING:
            # A turn of tool calls has no content; some templates only take an empty one.
            turns = [{"content": "", **turn} for turn in turns]
            whole = rendered.render_or_refuse(turns)
        if written_arguments(turns) and not (texts and all(text in whole for text in texts)):
            turns = parsed_arguments(turns)
            whole = rendered.render_or_refuse(turns)
        return cls(Conversation(turns, talk.tools, talk.weighted, talk.row), tokenizer, whole)

    def render(self, turns: Sequence[Turn], *, asks: bool = False, tools: bool = True) -> str:
        """Render turns.

        Args:
            asks: add what asks for the assistant's answer.
            tools: pass the conversation's tools on.
        """
        text: str = self.tokenizer.apply_chat_template(
            list(turns),
            tools=self.talk.tools if tools else None,
            tokenize=False,
            add_generation_prompt=asks,
        )
        return text

    def render_or_refuse(self, turns: Sequence[Turn]) -> str:
        """Render all turns.

        Raises:
            DataError: the template refuses them.
        """
        try:
            return self.render(turns)
        except _RENDERING as error:
            raise DataError(
                "data.messages: every conversation must suit the tokenizer's chat template, which "
                f"says {in_a_line(error)!r} of roles {self.talk.roles} in row {self.talk.row}"
            ) from error

    def _attempt(self, turns: Sequence[Turn], *, asks: bool = False) -> str | None:
        """Render a part of the conversation; None where the template takes wholes only."""
        try:
            return self.render(turns, asks=asks)
        except _RENDERING:
            return None

    def _content_at(
        self, turns: Sequence[Turn], index: int, whole: str, *, asks: bool = False
    ) -> Span | None:
        """Find a turn's content in what was rendered, by rendering another content there."""
        mark = self._marks[0]
        changed = [*turns]
        changed[index] = {**turns[index], "content": mark}
        other = self._attempt(changed, asks=asks)
        if other is None or mark not in other:
            return None
        start = _shared_prefix(whole, other)
        end = len(whole) - _shared_prefix(whole[::-1], other[::-1])
        return start, max(start, end)

    def span(self, index: int) -> Span:
        """Find the part of the whole that the assistant writes in a turn, its end included.

        Raises:
            DataError: it cannot be found.
        """
        turns = self.talk.turns
        is_last = index == len(turns) - 1
        before = self._attempt(turns[:index], asks=True) if index else None
        through = self.whole if is_last else self._attempt(turns[: index + 1])
        start = end = None
        if before and self.whole.startswith(before):
            start = len(before)
        if through and self.whole.startswith(through):
            end = len(through)
        if start is None or end is None:
            content = self._content_at(turns, index, self.whole)
            if content is not None and start is None:
                start = self._start(index, content[0], before)
            if content is not None and end is None:
                end = self._end(index, content[1], through)
        if start is None or end is None or not start < end:
            raise self._not_found(index)
        return start, end

    def _not_found(self, index: int) -> DataError:
        return DataError(
            f"data.messages: turn {index + 1} of row {self.talk.row} must be found in what the "
            f"chat template renders, and is not: {quoted(self.whole)}; use a tokenizer whose "
            "template renders every assistant turn, or prompt and response columns"
        )

    def _start(self, index: int, content: int, before: str | None) -> int:
        """Find where an answer begins whose context is rendered differently on its own.

        That is after what asks for the answer on its own, if the same follows the turn before in
        the whole; else at the content.
        """
        turns = self.talk.turns
        previous = self._content_at(turns, index - 1, self.whole) if index else None
        if before is None or previous is None:
            return content
        own = self._content_at(turns[:index], index - 1, before, asks=True)
        asking = before[own[1] :] if own else ""  # all that follows the turn before
        if asking and self.whole[previous[1] : content].startswith(asking):
            return previous[1] + len(asking)
        return max(previous[1], content)

    def _end(self, index: int, content: int, through: str | None) -> int:
        """Find where a turn ends that is rendered differently before other turns."""
        if through is None:
            return content
        turns = self.talk.turns[: index + 1]
        own = self._content_at(turns, index, through)
        if own is None:
            return content
        alone, followed = through[own[1] :], self.whole[content:]
        shared = _shared_prefix(alone, followed)
        if shared < len(alone):
            # What follows differs, and may begin alike: `<|` of the next turn is none of this one.
            ends = [match.end() for match in self._borders.finditer(followed)]
            shared = max((end for end in ends if end <= shared), default=0)
        return content + shared

    @cached_property
    def _borders(self) -> re.Pattern[str]:
        """Special tokens and blanks, after which one part of a rendered text may end."""
        tokens = sorted(self.special, key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, tokens), r"\s"]))

    @cached_property
    def _marks(self) -> list[str]:
        """A character for each turn that the conversation does not hold."""
        held = set(self.whole).union(*(turn.get("content") or "" for turn in self.talk.turns))
        free = (mark for mark in map(chr, _MARKS) if mark not in held)
        return list(islice(free, len(self.talk.turns)))

    def marked(self) -> list[Span] | None:
        """List the parts that the template marks itself; None if it marks nothing."""
        template = self.tokenizer.get_chat_template(tools=self.talk.tools)
        if not _GENERATION.search(template):
            return None
        from transformers.utils.chat_template_utils import render_jinja_template

        _, spans = render_jinja_template(
            conversations=[self.talk.turns],
            tools=self.talk.tools,
            chat_template=template,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        return [(start, end) for start, end in spans[0]]

    def has_text(self, index: int) -> bool:
        """Check whether there is anything to learn in a turn.

        Raises:
            DataError: the template renders nothing of what it holds.
        """
        turn = self.talk.turns[index]
        if content := (turn.get("content") or "").strip():
            if (
                content not in self.whole
                and self._content_at(self.talk.turns, index, self.whole) is None
            ):
                raise self._not_found(index)
            return True
        fields = [name for name in turn if name not in ("role", "content")]
        if not fields:
            return False
        if all(self._ignores(index, name) for name in fields):
            raise DataError(
                f"data.messages: turn {index + 1} of row {self.talk.row} holds only "
                f"{' and '.join(fields)}, which the chat template does not render: "
                f"{quoted(self.whole)}; use a tokenizer whose template renders it, or write it "
                "into the content"
            )
        return True

    def _ignores(self, index: int, name: str) -> bool:
        """Check whether a field of a turn has no place in the rendered text."""
        turns = [*self.talk.turns]
        turns[index] = {key: value for key, value in turns[index].items() if key != name}
        return self._attempt(turns) == self.whole

    def lost(self) -> list[str]:
        """Name everything in the conversation that was not rendered, each once."""
        lost: dict[str, None] = {}
        marked = [
            {**turn, "content": mark} if turn.get("content") else turn
            for mark, turn in zip(self._marks, self.talk.turns, strict=True)
        ]
        sketch = self._attempt(marked)
        for index, turn in enumerate(self.talk.turns):
            content = (turn.get("content") or "").strip()
            if content and not self._shows(index, content, sketch):
                lost[f"the {turn['role']} turn as it is written"] = None
            for name in turn:
                if name not in ("role", "content") and self._ignores(index, name):
                    lost[f"{name!r} of {turn['role']} turns"] = None
        if self.talk.tools and self.render(self.talk.turns, tools=False) == self.whole:
            lost["'tools'"] = None
        return list(lost)

    def _shows(self, index: int, content: str, sketch: str | None) -> bool:
        """Check whether a turn's content is in the rendered text, from end to end."""
        if content not in self.whole:
            return False
        if sketch is not None and self._marks[index] in sketch:
            return True
        return self._content_at(self.talk.turns, index, self.whole) is not None

    @property
    def special(self) -> set[str]:
        """The tokenizer's special tokens, one of which ends a turn in most templates."""
        added = self.tokenizer.added_tokens_decoder.values()
        return {str(token) for token in added} | set(self.tokenizer.all_special_tokens)

    def has_end(self, text: str) -> bool:
        """Check whether a text ends with a special token."""
        return text.rstrip().endswith(tuple(self.special))


# What a template raises of turns that it does not take.
_RENDERING = (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError)


def _shared_prefix(left: str, right: str) -> int:
    """Measure the length of the prefix that two texts share."""
    return next(
        (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b),
        min(len(left), len(right)),
    )


def quoted(text: str) -> str:
    """Quote a rendered text, its middle left out where it is long."""
    if len(text) > SHOWN:
        text = f"{text[: SHOWN // 2]} … {text[-SHOWN // 2 :]}"
    return repr(text)
