"""Read training data from the hub or local files, and find prompts and responses in its columns."""

from __future__ import annotations

import glob
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jinja2 import TemplateError

from lorasweep import testbed
from lorasweep.errors import DataError, in_a_line
from lorasweep.spec.sweep import DataSpec

_READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
# Name -> instructions, held-out instructions, documents.
_EMBEDDED = {
    "testbed": (testbed.DATA, testbed.HELDOUT, testbed.DOCUMENTS),
    "testbed-code": (testbed.CODE_DATA, testbed.CODE_HELDOUT, testbed.CODE_DOCUMENTS),
}
PARTS = 1024  # shards of a saved folder that is streamed

Kind = Literal["instruction", "documents"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """One example as text; a document has no prompt.

    ends: whether a chat template has already ended the text, so that no EOS is added.
    """

    prompt: str
    response: str
    ends: bool = False


@dataclass(frozen=True)
class Source:
    """Examples as text, for training and held out."""

    kind: Kind
    train: list[Example]
    heldout: list[Example]
    columns: str


def check_local_files(spec: DataSpec) -> None:
    """Check that the local files named in a sweep exist; the hub is not asked.

    Raises:
        DataError: one of them does not.
    """
    for key, path in (("path", data_paths(spec)[0]), ("heldout", spec.heldout)):
        if path is None or Path(path).expanduser().exists():
            continue
        if path.startswith((".", "/", "~")) or Path(path).suffix in _READERS:
            raise DataError(
                f"data.{key}: {path!r} cannot be read as a local file, a folder or a hub name: "
                "there is no such file; give the path of one"
            )


def data_paths(spec: DataSpec) -> tuple[str, str | None]:
    """Resolve the paths of a sweep's data and held-out data; embedded sets are in the package.

    Embedded documents have no held-out file; part of the documents is held out.
    """
    if spec.path not in _EMBEDDED:
        return spec.path, spec.heldout
    data, heldout, documents = _EMBEDDED[spec.path]
    if spec.kind == "documents":
        return str(documents), spec.heldout
    return str(data), str(heldout) if spec.heldout is None else spec.heldout


def open_dataset(path: str, spec: DataSpec) -> Any:
    """Open a data set with `datasets`; an iterable one if the sweep streams its data.

    Raises:
        DataError: the path cannot be read, or lacks the split.
    """
    import datasets
    from datasets.exceptions import DatasetGenerationError

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(logging.CRITICAL)  # its warnings come back as errors
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # local reads are not reported to the hub
    local = Path(path).expanduser()
    try:
        if local.is_file():
            if local.suffix not in _READERS:
                raise DataError(
                    f"data.path: a file must end in {', '.join(_READERS)}, got {path!r}"
                )
            if local.stat().st_size == 0:
                raise DataError(f"data.path: {path} is empty; give a file with examples")
            reader = _READERS[local.suffix]
            escaped = glob.escape(str(local))  # datasets reads file names as patterns
            return datasets.load_dataset(
                reader, data_files=escaped, split="train", streaming=spec.streaming
            )
        if (local / "state.json").is_file() or (local / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(str(local))
            if isinstance(loaded, datasets.DatasetDict):
                if spec.split not in loaded:
                    raise DataError(
                        f"data.split: must be one of {', '.join(loaded)}, got {spec.split!r}"
                    )
                loaded = loaded[spec.split]
            if spec.streaming:  # rows stay on disk, and shards are shuffled like files
                return loaded.to_iterable_dataset(num_shards=min(PARTS, max(1, len(loaded))))
            return loaded
        where = str(local) if local.exists() else path
        return datasets.load_dataset(
            where,
            spec.subset,
            data_dir=spec.data_dir,
            split=spec.split,
            streaming=spec.streaming,
        )
    except DataError:
        raise
    except Exception as error:  # datasets raises nearly every kind of error
        # "An error occurred while generating the dataset" wraps the error that says what and where.
        said = (error.__cause__ if isinstance(error, DatasetGenerationError) else None) or error
        reason = in_a_line(said) or "there is no row in it"
        raise DataError(
            f"data.path: {path!r} cannot be read as a local file, a folder or a hub name "
            f"({type(said).__name__}: {reason})"
        ) from error


def _text(row: Row, column: str) -> str:
    value = row[column]
    if isinstance(value, list | dict):
        raise DataError(
            f"data: column {column!r} must hold text, got a {type(value).__name__}; name another "
            "column with data.prompt and data.response, data.messages, or data.text"
        )
    return "" if value is None else str(value)


def _verbatim(prompt: str, response: str) -> Callable[[Row], Example]:
    return lambda row: Example(_text(row, prompt), _text(row, response))


def _instruction(prompt: str, response: str, context: str | None) -> Callable[[Row], Example]:
    """Format instructions in the Alpaca template without its preamble."""

    def example(row: Row) -> Example:
        given = _text(row, context) if context else ""
        middle = f"### Input:\n{given}\n\n" if given else ""
        frame = f"### Instruction:\n{_text(row, prompt)}\n\n{middle}### Response:\n"
        return Example(frame, _text(row, response))

    return example


def _question(question: str, answer: str) -> Callable[[Row], Example]:
    """Format questions as lm-eval's gsm8k does, so that training and evaluation agree."""
    return lambda row: Example(
        f"Question: {_text(row, question)}\nAnswer:", f" {_text(row, answer)}"
    )


def _chat(column: str, tokenizer: Any) -> Callable[[Row], Example]:
    """Render conversations with the chat template; the last assistant turn is the response.

    Raises:
        DataError: the tokenizer has no chat template, or a conversation does not fit it or does not
            end with an assistant turn.
    """
    if not tokenizer.chat_template:
        raise DataError(
            f"data.messages: column {column!r} holds conversations, but the model's tokenizer has "
            "no chat template; use a chat model's tokenizer, or prompt and response columns"
        )

    def example(row: Row) -> Example:
        turns = [_turn(turn) for turn in row[column] or ()]
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            raise DataError(
                f"data.messages: every conversation in {column!r} must end with an assistant turn, "
                f"got roles {[turn['role'] for turn in turns]}"
            )
        try:
            whole = tokenizer.apply_chat_template(turns, tokenize=False)
            prompt = tokenizer.apply_chat_template(
                turns[:-1], tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise DataError(
                "data.messages: every conversation must suit the tokenizer's chat template, which "
                f"says {str(error)!r} of roles {[turn['role'] for turn in turns]}"
            ) from error
        # Some templates render a turn differently once another follows; the common part is prompt.
        shared = len(prompt) if whole.startswith(prompt) else _common_prefix(whole, prompt)
        return Example(whole[:shared], whole[shared:], ends=True)

    return example


def _turn(turn: Mapping[str, Any]) -> dict[str, str]:
    """Normalise a turn from role/content or ShareGPT's from/value."""
    role = str(turn.get("role") or turn.get("from"))
    content = turn.get("content") or turn.get("value") or ""
    if not isinstance(content, str):
        raise DataError(
            f"data.messages: every turn must hold its content as text, got a "
            f"{type(content).__name__}"
        )
    return {"role": {"human": "user", "gpt": "assistant"}.get(role, role), "content": content}


def _common_prefix(left: str, right: str) -> int:
    """Measure the length of the prefix that two texts share."""
    return next(
        (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b),
        min(len(left), len(right)),
    )


def choose_reader(
    spec: DataSpec, columns: list[str], tokenizer: Any
) -> tuple[Kind, str, Callable[[Row], Example]]:
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
    pairs: list[tuple[str, str, Callable[[Row], Example]]] = [
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
            return "instruction", messages, _chat(messages, tokenizer)
        for prompt, response, read in pairs:
            if prompt in columns and response in columns:
                _refuse_streamed(spec, f"{prompt}, {response}")
                return "instruction", f"{prompt}, {response}", read
    if text and spec.kind != "instruction":
        return "documents", text, lambda row: Example("", _text(row, text))
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


def _examples(rows: Iterable[Row], read: Callable[[Row], Example]) -> list[Example]:
    return [example for row in rows if (example := read(row)).response.strip()]


def read_source(spec: DataSpec, tokenizer: Any) -> Source:
    """Read a sweep's data as text and split off the held-out examples.

    Without `data.heldout`, a tenth of the examples, `data.heldout_examples` at most, is drawn with
    a fixed seed, so that every trial of every seed is measured on the same examples.

    Raises:
        DataError: nothing can be read, a column is missing, or no example is left.
    """
    path, heldout = data_paths(spec)
    dataset = open_dataset(path, spec)
    if spec.limit is not None:
        dataset = dataset.select(range(min(spec.limit, len(dataset))))
    kind, columns, read = choose_reader(spec, list(dataset.column_names), tokenizer)
    train = _examples(dataset, read)
    if heldout is not None:
        apart = open_dataset(heldout, spec)
        _, _, read_apart = choose_reader(spec, list(apart.column_names), tokenizer)
        examples = _examples(apart, read_apart)[: spec.heldout_examples]
        return check_not_empty(Source(kind, train, examples, columns), spec)
    import numpy as np

    count = min(spec.heldout_examples, max(1, len(train) // 10))
    order = np.random.default_rng(0).permutation(len(train))
    chosen = set(order[:count].tolist())
    return check_not_empty(
        Source(
            kind,
            [example for i, example in enumerate(train) if i not in chosen],
            [example for i, example in enumerate(train) if i in chosen],
            columns,
        ),
        spec,
    )


def check_not_empty(source: Source, spec: DataSpec) -> Source:
    """Check that there are training and held-out examples.

    Raises:
        DataError: one part is empty.
    """
    for name, examples in (("training", source.train), ("held-out", source.heldout)):
        if not examples:
            raise DataError(
                f"data: must hold at least one {name} example with a response in it, got none in "
                f"{spec.path!r} (read as {source.kind} from {source.columns})"
            )
    return source
