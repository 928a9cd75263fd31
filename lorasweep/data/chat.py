"""Conversations as training examples, with loss on what the assistant writes in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lorasweep.data.conversation import ASSISTANT, read_conversation
from lorasweep.data.example import EMPTY_RESPONSE, Example, LeftOut, Span
from lorasweep.data.rendered import Rendered, quoted
from lorasweep.errors import DataError


@dataclass
class Conversations:
    """Reads conversations, each as its template renders it whole; a `Reader` of one column.

    loss: on `all` assistant turns, or on the `last` one.
    """

    columns: str
    tokenizer: Any
    loss: Literal["all", "last"]
    _lost: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    _empty: list[int] = field(default_factory=list)
    _unended: list[int] = field(default_factory=list)
    _unlearned: list[int] = field(default_factory=list)
    _read: int = 0

    kind: Literal["instruction"] = "instruction"

    def __post_init__(self) -> None:
        """Check that there is a template.

        Raises:
            DataError: the tokenizer has none.
        """
        if not self.tokenizer.chat_template:
            raise DataError(
                f"data.messages: column {self.columns!r} holds conversations, but the model's "
                "tokenizer has no chat template; use a chat model's tokenizer, or prompt and "
                "response columns"
            )

    def read(self, row: Any, number: int) -> Example | LeftOut:
        """Render a row's conversation, with loss on what the assistant writes in it.

        Raises:
            DataError: it is not a conversation, does not suit the template, or does not end with
                an assistant turn; or an assistant turn cannot be found in what was rendered.
        """
        talk = read_conversation(row.get(self.columns), row.get("tools"), self.columns, number)
        if talk is None:
            return LeftOut("their conversation is empty", number)
        if len(talk.turns) < 2 or talk.roles[-1] != ASSISTANT:
            raise DataError(
                f"data.messages: every conversation in {self.columns!r} must end with an assistant "
                f"turn that answers another, got roles {talk.roles} in row {number}"
            )
        self._read += 1
        rendered = Rendered.of(talk, self.tokenizer)
        for what in rendered.lost():
            self._lost.setdefault(what, []).append((number, rendered.whole))
        spans = self._with_loss(rendered)
        if not spans:
            every = not any(talk.weighted)
            return LeftOut("weight 0 is on all of their turns" if every else EMPTY_RESPONSE, number)
        ends = self._ends(rendered, spans[-1])
        return Example(rendered.whole, tuple(spans), rendered=True, ends=ends, row=number)

    def _ends(self, rendered: Rendered, last: Span) -> bool:
        """Check whether the template ends the last turn, so that no EOS is to be added."""
        after = rendered.whole[last[1] :].lstrip()
        if not rendered.talk.weighted[-1] or rendered.has_end(rendered.whole[slice(*last)]):
            return True
        if any(after.startswith(token) for token in rendered.special):
            self._unlearned.append(rendered.talk.row)  # ended, but outside of what is trained
            return True
        self._unended.append(rendered.talk.row)
        return False

    def _with_loss(self, rendered: Rendered) -> list[Span]:
        """Find the parts of the assistant's turns that are trained on."""
        talk = rendered.talk
        answers = [index for index, role in enumerate(talk.roles) if role == ASSISTANT]
        asked = answers if self.loss == "all" else answers[-1:]
        weighted = [index for index in asked if talk.weighted[index]]
        wanted = [index for index in weighted if rendered.has_text(index)]
        if not wanted:
            return []
        if len(wanted) < len(weighted):
            self._empty.append(talk.row)
        marked = rendered.marked()
        if marked is None:
            return [rendered.span(index) for index in wanted]
        if len(marked) == len(answers):
            return [marked[answers.index(index)] for index in wanted]
        own = self._by_turn(rendered, marked, answers)
        found = sum(1 for spans in own.values() if spans)
        if not all(own[index] for index in wanted):
            raise DataError(
                f"data.messages: the chat template must mark each assistant turn with "
                f"{{% generation %}}, and it marks {found} of {len(answers)} in row "
                f"{talk.row}; rendered: {quoted(rendered.whole)}"
            )
        return [span for index in wanted for span in own[index]]

    def _by_turn(
        self, rendered: Rendered, marked: Sequence[Span], answers: Sequence[int]
    ) -> dict[int, list[Span]]:
        """Share out marks among turns, some of which have several: thoughts, calls, the end."""
        own: dict[int, list[Span]] = {index: [] for index in answers}
        starts = [(rendered.span(index)[0], index) for index in answers]
        for start, end in marked:
            if start < end:
                before = [index for begins, index in starts if begins < end]
                own[before[-1] if before else starts[0][1]].append((start, end))
        return own

    def notes(self) -> Sequence[str]:
        """Name what the template does not render, and missing ends."""
        notes = [
            f"the chat template does not render {what}, in {len(rows):,} of {self._read:,} "
            f"conversations (row {rows[0][0]} is rendered as {quoted(rows[0][1])})"
            for what, rows in self._lost.items()
        ]
        if self._empty:
            notes.append(
                "an assistant turn is empty and carries no loss, in "
                f"{len(self._empty):,} of {self._read:,} conversations (the first is row "
                f"{self._empty[0]:,})"
            )
        if self._unended:
            notes.append(
                "the chat template puts no end token after the last turn, so "
                f"{self.tokenizer.eos_token!r} was added and is trained, in "
                f"{len(self._unended):,} of {self._read:,} conversations"
            )
        if self._unlearned:
            notes.append(
                "the chat template marks assistant text without the end token after it, so no end "
                f"is trained, in {len(self._unlearned):,} of {self._read:,} conversations"
            )
        return notes
