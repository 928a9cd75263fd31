"""One example of the training data as text, with the parts of it that carry loss."""

from __future__ import annotations

from dataclasses import dataclass, field

Span = tuple[int, int]


@dataclass(frozen=True)
class Example:
    """One example as text.

    spans: where loss is, as first character and the one after the last, in order and apart.
    rendered: whether a chat template wrote the text, which then has its own BOS.
    ends: whether the text ends with an end token of its own, so that no EOS is appended.
    row, file: where it stands; equal examples may stand in different rows.
    """

    text: str
    spans: tuple[Span, ...]
    rendered: bool = False
    ends: bool = False
    row: int = field(default=0, compare=False)
    file: str = field(default="", compare=False)

    @classmethod
    def pair(cls, prompt: str, response: str, row: int = 0) -> Example:
        """Join a prompt and a response, which alone carries loss."""
        text = prompt + response
        return cls(text, ((len(prompt), len(text)),), row=row)

    @classmethod
    def document(cls, text: str, row: int = 0) -> Example:
        """Make a text that carries loss as a whole."""
        return cls(text, ((0, len(text)),), row=row)

    @property
    def prompt(self) -> str:
        """The text before the first part that carries loss."""
        return self.text[: self.spans[0][0]]

    @property
    def response(self) -> str:
        """The text that carries loss, its parts joined."""
        return "".join(self.text[start:end] for start, end in self.spans)

    @property
    def is_pair(self) -> bool:
        """Whether loss is on all that follows a prompt."""
        return len(self.spans) == 1 and self.spans[0][1] == len(self.text)


@dataclass(frozen=True)
class LeftOut:
    """A row that is not trained on.

    reason: completes "N rows were left out, because".
    row: in its file, from 1.
    """

    reason: str
    row: int


EMPTY_RESPONSE = "their response is empty"
EMPTY_TEXT = "their text is empty"
