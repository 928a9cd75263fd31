"""Find prompts and responses, conversations or documents in the columns of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from lorasweep.data.cells import text_of
from lorasweep.data.chat import Conversations
from lorasweep.data.example import Example, LeftOut
from lorasweep.errors import DataError
from lorasweep.spec.sweep import DataSpec

Kind = Literal["instruction", "documents"]
Row = Mapping[str, Any]


class Reader(Protocol):
    """Reads the rows of a data set as examples.

    columns: that it reads.
    """

    @property
    def kind(self) -> Kind:
        """`instruction`, or `documents`, which are joined end to end."""

    @property
    def columns(self) -> str:
        """Names of the columns that are read."""

    def read(self, row: Row, number: int) -> Example | LeftOut:
        """Read a row; it is left out where nothing in it can be trained on.

        Args:
            number: of the row, from 1.

        Raises:
            DataError: the row cannot be read.
        """

    def notes(self) -> Sequence[str]:
        """List what a user must know of the rows that were read."""


@dataclass(frozen=True)
class TextColumns:
    """Columns of text, one of which may be a prompt; a `Reader`."""

    kind: Kind
    columns: str
    example: Callable[[Row, int], Example]

    def read(self, row: Row, number: int) -> Example | LeftOut:
        """Read a row as it is."""
        return self.example(row, number)

    def notes(self) -> Sequence[str]:
        """Nothing is lost of a column of text."""
        return ()


def _text(row: Row, column: str, number: int) -> str:
    return text_of(row.get(column), column, number)


def _verbatim(prompt: str, response: str) -> Callable[[Row, int], Example]:
    return lambda row, number: Example.pair(
        _text(row, prompt, number), _text(row, response, number), number
    )


def _instruction(prompt: str, response: str, context: str | None) -> Callable[[Row, int], Example]:
    """Format instructions in the Alpaca template without its preamble."""

    def example(row: Row, number: int) -> Example:
        given = _text(row, context, number) if context else ""
        middle = f"### Input:\n{given}\n\n" if given else ""
        frame = f"### Instruction:\n{_text(row, prompt, number)}\n\n{middle}### Response:\n"
        return Example.pair(frame, _text(row, response, number), number)

    return example


def _question(question: str, answer: str) -> Callable[[Row, int], Example]:
    """Format questions as lm-eval's gsm8k does, so that training and evaluation agree."""
    return lambda row, number: Example.pair(
        f"Question: {_text(row, question, number)}\nAnswer:",
        f" {_text(row, answer, number)}",
        number,
    )


def choose_reader(spec: DataSpec, columns: list[str], tokenizer: Any) -> Reader:
    """Choose the columns to read: those named in the sweep, else the first known format present.

    Raises:
        DataError: a named column is missing, no known format fits, or it cannot be streamed.
    """
    named = {
        field: column
        for field in ("messages", "prompt", "response", "text")
        if (column := getattr(spec, field))
    }
    for field, column in named.items():
        if column not in columns:
            raise DataError(f"data.{field}: must be one of {', '.join(columns)}, got {column!r}")
    if ("prompt" in named) != ("response" in named):
        raise DataError("data.prompt and data.response: must be given together, got one of them")

    messages = spec.messages or next((c for c in ("messages", "conversations") if c in columns), "")
    pairs: list[tuple[str, str, Callable[[Row, int], Example]]] = [
        ("prompt", "response", _verbatim("prompt", "response")),
        ("prompt", "completion", _verbatim("prompt", "completion")),
        ("question", "answer", _question("question", "answer")),
    ]
    context = "input" if "input" in columns else None
    for prompt in ("instruction", "query"):
        for response in ("output", "response"):
            pairs.append((prompt, response, _instruction(prompt, response, context)))
    if spec.prompt and spec.response:
        pairs = [(spec.prompt, spec.response, _verbatim(spec.prompt, spec.response))]
    text = spec.text or next((c for c in ("text", "content") if c in columns), "")

    explicit_text = spec.kind == "documents" or bool(spec.text and "prompt" not in named)
    if not explicit_text:
        if messages and "prompt" not in named:
            _refuse_streamed(spec, messages)
            return Conversations(messages, tokenizer, spec.loss)
        for prompt, response, example in pairs:
            if prompt in columns and response in columns:
                _refuse_streamed(spec, f"{prompt}, {response}")
                return TextColumns("instruction", f"{prompt}, {response}", example)
    if text and spec.kind != "instruction":
        return TextColumns(
            "documents",
            text,
            lambda row, number: Example.document(_text(row, text, number), number),
        )
    wanted = {
        "instruction": "messages, prompt/response, instruction/output or question/answer",
        "documents": "text or content",
        "auto": "messages, prompt/response, instruction/output, question/answer or text",
    }[spec.kind]
    raise DataError(
        f"data: the columns must include {wanted}, got {', '.join(columns)}; name yours with "
        "data.prompt and data.response, data.messages, or data.text"
    )


def _refuse_streamed(spec: DataSpec, columns: str) -> None:
    if spec.streaming:
        raise DataError(
            f"data.streaming: must be false for instructions, and the columns {columns} of "
            f"{spec.path!r} are read as such; for a column of text, set data.kind=documents"
        )
