"""Read the forms in which people store conversations: turns, pairs, columns of turns, JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorasweep.errors import DataError, in_a_line

Turn = dict[str, Any]  # as a chat template takes it: role, content, and further fields

_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "observation": "tool",
}
_KNOWN_ROLES = frozenset({*_ROLES, *_ROLES.values(), "system", "developer"})
_LOSS_FIELDS = ("weight", "train")  # of OpenAI's format, and of axolotl's
ASSISTANT = "assistant"


@dataclass(frozen=True)
class Conversation:
    """One conversation, as a chat template takes it.

    turns: with the fields that have a value.
    tools: JSON schemas of the functions that the assistant may call.
    weighted: whether each turn may carry loss, which a turn's `weight: 0` denies.
    row: in its file, from 1.
    """

    turns: list[Turn]
    tools: list[Any] | None
    weighted: tuple[bool, ...]
    row: int

    @property
    def roles(self) -> list[str]:
        """Role of each turn."""
        return [turn["role"] for turn in self.turns]


def read_conversation(value: Any, tools: Any, column: str, row: int) -> Conversation | None:
    """Read a cell that holds a conversation; None if it is empty.

    Args:
        value: a list of turns (role and content, or ShareGPT's from and value), of pairs (user and
            assistant, or role and content), the same as JSON text, or lists by field.
        tools: a list of schemas, or the same as JSON text.

    Raises:
        DataError: it is none of these, or a turn lacks its role or its text.
    """
    where = f"data.messages: row {row} of {column!r}"
    turns = _listed(_parsed(value, where), where)
    if not turns:
        return None
    read = [_turn(turn, f"{where}, turn {number}") for number, turn in enumerate(turns, 1)]
    return Conversation(
        [turn for turn, _ in read], _tools(tools, row), tuple(loss for _, loss in read), row
    )


def _parsed(value: Any, where: str) -> Any:
    """Parse a conversation that was stored as JSON text."""
    if not isinstance(value, str) or not value.strip():
        return value or None
    try:
        return json.loads(value)
    except ValueError as error:
        raise DataError(
            f"{where} must hold a list of turns, got text that is not JSON ({in_a_line(error)}): "
            f"{_shortened(value)}"
        ) from None


def _listed(value: Any, where: str) -> list[Any]:
    """List the turns of any form."""
    if isinstance(value, Mapping):
        return _of_fields(value, where)
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise DataError(
            f"{where} must hold a list of turns, got a {type(value).__name__}: {_shortened(value)}"
        )
    if all(isinstance(turn, list | tuple) and len(turn) == 2 for turn in value):
        return _of_pairs(value)
    return list(value)


def _of_fields(fields: Mapping[str, Any], where: str) -> list[Any]:
    """Turn lists by field, as `datasets` stores a sequence of turns, into turns."""
    columns = {name: values for name, values in fields.items() if values is not None}
    lists = all(isinstance(values, list | tuple) for values in columns.values())
    if not lists or len({len(values) for values in columns.values()}) > 1:
        raise DataError(
            f"{where} must hold turns, or one list for each field, all of one length, got "
            f"{_shortened(dict(fields))}"
        )
    count = max((len(values) for values in columns.values()), default=0)
    return [{name: values[index] for name, values in columns.items()} for index in range(count)]


def _of_pairs(pairs: Sequence[Any]) -> list[Any]:
    """Turn pairs into turns: of role and content if every pair begins with a role."""
    if all(isinstance(first, str) and first in _KNOWN_ROLES for first, _ in pairs):
        return [{"role": role, "content": content} for role, content in pairs]
    roles = ("user", ASSISTANT)
    return [
        {"role": role, "content": content}
        for pair in pairs
        for role, content in zip(roles, pair, strict=True)
        if not (role == "user" and content is None)  # how chat interfaces store a greeting
    ]


def _turn(turn: Any, where: str) -> tuple[Turn, bool]:
    """Normalise a turn, and read whether it may carry loss."""
    if not isinstance(turn, Mapping):
        raise DataError(
            f"{where} must be a turn with role and content, got {_shortened(turn)}; repair or "
            "remove it"
        )
    fields = {name: value for name, value in turn.items() if value is not None}
    role = fields.pop("role", None) or fields.pop("from", None)
    if not isinstance(role, str):
        raise DataError(f"{where} must have a role (or 'from'), got {_shortened(dict(turn))}")
    content = fields.pop("content") if "content" in fields else fields.pop("value", None)
    content = _joined(content)
    if content is not None and not isinstance(content, str):
        raise DataError(
            f"{where}: every turn must hold its content as text, got a {type(content).__name__}: "
            f"{_shortened(content)}"
        )
    role = _ROLES.get(role, role)
    loss = _loss(fields, role, where)
    named: Turn = {"role": role}
    if content is not None or not fields:
        named["content"] = content or ""
    return {**named, **fields}, loss


def _joined(content: Any) -> Any:
    """Join content that is stored in parts of text, as OpenAI does; parts of other kinds stay."""
    if not isinstance(content, list | tuple) or not content:
        return content
    found = [
        part.get("text")
        if isinstance(part, Mapping) and part.get("type", "text") == "text"
        else None
        for part in content
    ]
    texts = [text for text in found if isinstance(text, str)]
    return "".join(texts) if len(texts) == len(found) else content


def _loss(fields: Turn, role: str, where: str) -> bool:
    """Remove the fields that say whether a turn carries loss, and read them."""
    given = {name: fields.pop(name) for name in _LOSS_FIELDS if name in fields}
    for name, value in given.items():
        if value not in (0, 1):
            raise DataError(f"{where}: {name} must be 0 or 1, got {value!r}")
        if value and role != ASSISTANT:
            raise DataError(
                f"{where}: {name} must be 0 or left out for a {role} turn, since loss is on "
                f"assistant turns only, got {value!r}"
            )
    return role == ASSISTANT and all(given.values())


def _tools(tools: Any, row: int) -> list[Any] | None:
    """Read the functions of a row; None if there are none."""
    where = f"data.messages: row {row} of 'tools'"
    tools = _parsed(tools, where)
    if not tools:
        return None
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, Mapping) for tool in tools):
        raise DataError(
            f"{where} must hold a list of functions as JSON schemas, got {_shortened(tools)}"
        )
    return list(tools)


def parsed_arguments(turns: Sequence[Turn]) -> list[Turn]:
    """Parse the arguments of tool calls that were stored as JSON text, as OpenAI does.

    Most templates write the arguments as JSON themselves, which would quote such text once more.
    """
    return [
        {**turn, "tool_calls": [_parsed_call(call) for call in turn["tool_calls"]]}
        if isinstance(turn.get("tool_calls"), list | tuple)
        else turn
        for turn in turns
    ]


def _parsed_call(call: Any) -> Any:
    if not isinstance(call, Mapping):
        return call
    function = call.get("function")
    if isinstance(function, Mapping):
        return {**call, "function": _parsed_call(function)}
    arguments = call.get("arguments")
    if not isinstance(arguments, str):
        return call
    try:
        parsed = json.loads(arguments)
    except ValueError:
        return call  # no JSON, so it is text that the template writes as it is
    return {**call, "arguments": parsed} if isinstance(parsed, dict) else call


def written_arguments(turns: Sequence[Turn]) -> list[str]:
    """List the arguments of tool calls that are stored as JSON text."""
    calls = [call for turn in turns for call in turn.get("tool_calls") or () if call]
    functions = [call.get("function", call) if isinstance(call, Mapping) else {} for call in calls]
    return [
        function["arguments"]
        for function in functions
        if isinstance(function, Mapping) and isinstance(function.get("arguments"), str)
    ]


def _shortened(value: Any) -> str:
    return in_a_line(repr(value), 120)
