"""Read training data from a hub name or a local file, and find what is prompt and what response."""

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
PARTS = 1024  # of a saved folder that is streamed

Kind = Literal["instruction", "documents"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """Hold one example as text; a document has no prompt.

    ends: the text already ends the way its chat template ends a turn, so no EOS is added.
    """

    prompt: str
    response: str
    ends: bool = False


@dataclass(frozen=True)
class Source:
    """Hold examples as text, training and held-out ones apart."""

    kind: Kind
    train: list[Example]
    heldout: list[Example]
    columns: str


def find_source(spec: DataSpec) -> None:
    """Look whether the files that a sweep names are there; a hub name is not asked for.

    Raises:
        DataError: one of them is not.
    """
    for key, path in (("path", located(spec)[0]), ("heldout", spec.heldout)):
        if path is None or Path(path).expanduser().exists():
            continue
        if path.startswith((".", "/", "~")) or Path(path).suffix in _READERS:
            raise DataError(
                f"data.{key}: {path!r} cannot be read as a local file, a folder or a hub name: "
                "there is no such file; give the path of one"
            )


def located(spec: DataSpec) -> tuple[str, str | None]:
    """Give the paths of a sweep's data and held-out data; an embedded set's are in the package.

    Embedded documents have no held-out file: some of them are held out.
    """
    if spec.path not in _EMBEDDED:
        return spec.path, spec.heldout
    data, heldout, documents = _EMBEDDED[spec.path]
    if spec.kind == "documents":
        return str(documents), spec.heldout
    return str(data), str(heldout) if spec.heldout is None else spec.heldout


def open_dataset(path: str, spec: DataSpec) -> Any:
    """Open a data set, as an iterable of rows where the sweep streams its data.

    Raises:
        DataError: nothing readable is at the path, or the split is not there.
    """
    import datasets
    from datasets.exceptions import DatasetGenerationError

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(logging.CRITICAL)  # what it says comes back as errors
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # else reading a local file asks the network
    place = Path(path).expanduser()
    # Local data is read where it lies; a file of one's own changes between sweeps, and a cache of
    # it is keyed by its time stamp and size.
    try:
        if place.is_file():
            if place.suffix not in _READERS:
                raise DataError(
                    f"data.path: a file must end in {', '.join(_READERS)}, got {path!r}"
                )
            if place.stat().st_size == 0:
                raise DataError(f"data.path: {path} is empty; give a file with examples")
            reader = _READERS[place.suffix]
            escaped = glob.escape(str(place))  # datasets reads file names as patterns
            return datasets.load_dataset(
                reader, data_files=escaped, split="train", streaming=spec.streaming
            )
        if (place / "state.json").is_file() or (place / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(str(place))
            if isinstance(loaded, datasets.DatasetDict):
                if spec.split not in loaded:
                    raise DataError(
                        f"data.split: must be one of {', '.join(loaded)}, got {spec.split!r}"
                    )
                loaded = loaded[spec.split]
            if spec.streaming:  # its rows stay on the disk; parts of it are shuffled as files are
                return loaded.to_iterable_dataset(num_shards=min(PARTS, max(1, len(loaded))))
            return loaded
        where = str(place) if place.exists() else path
        return datasets.load_dataset(
            where,
            spec.subset,
            data_dir=spec.data_dir,
            split=spec.split,
            streaming=spec.streaming,
        )
    except DataError:
        raise
    except Exception as error:  # datasets raises nearly every kind; the user needs one sentence
        # "An error occurred while generating the dataset" wraps the error that says where.
        said = (error.__cause__ if isinstance(error, DatasetGenerationError) else None) or error
        reason = in_a_line(said) or "there is no row in it"
        where = "as a local file, a folder or a hub name"
        raise DataError(
            f"data.path: {path!r} cannot be read {where} ({type(said).__name__}: {reason})"
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
    """Set an instruction in the plain frame that base models are commonly tuned with."""

    def example(row: Row) -> Example:
        given = _text(row, context) if context else ""
        middle = f"### Input:\n{given}\n\n" if given else ""
        frame = f"### Instruction:\n{_text(row, prompt)}\n\n{middle}### Response:\n"
        return Example(frame, _text(row, response))

    return example


def _question(question: str, answer: str) -> Callable[[Row], Example]:
    """Set a question as lm-eval's gsm8k sets it, so that training and evaluation agree."""
    return lambda row: Example(
        f"Question: {_text(row, question)}\nAnswer:", f" {_text(row, answer)}"
    )


def _chat(column: str, tokenizer: Any) -> Callable[[Row], Example]:
    """Render a conversation with the tokenizer's template; the last assistant turn is the response.

    Raises:
        DataError: the tokenizer has no chat template, or a conversation does not suit it or does
            not end with an assistant turn.
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
        # Some templates render a turn differently once another follows; what both share is prompt.
        shared = len(prompt) if whole.startswith(prompt) else _common(whole, prompt)
        return Example(whole[:shared], whole[shared:], ends=True)

    return example


def _turn(turn: Mapping[str, Any]) -> dict[str, str]:
    """Read both spellings of a turn, role/content and ShareGPT's from/value."""
    role = str(turn.get("role") or turn.get("from"))
    content = turn.get("content") or turn.get("value") or ""
    if not isinstance(content, str):
        raise DataError(
            f"data.messages: every turn must hold its content as text, got a "
            f"{type(content).__name__}"
        )
    return {"role": {"human": "user", "gpt": "assistant"}.get(role, role), "content": content}


def _common(left: str, right: str) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b),
        min(len(left), len(right)),
    )


def choose_reader(
    spec: DataSpec, columns: list[str], tokenizer: Any
) -> tuple[Kind, str, Callable[[Row], Example]]:
    """Choose how to read a row: the columns named in the sweep, else the first known form present.

    Raises:
        DataError: a named column is missing, no known form fits, or it cannot be streamed.
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
    """Read a sweep's data as text and split off what the response loss is measured on.

    Without `data.heldout`, a tenth of the examples, `data.heldout_examples` at most, is drawn with
    a fixed seed, so that every trial of every seed is measured on the same examples.

    Raises:
        DataError: nothing can be read, a column is missing, or no example is left.
    """
    path, heldout = located(spec)
    dataset = open_dataset(path, spec)
    if spec.limit is not None:
        dataset = dataset.select(range(min(spec.limit, len(dataset))))
    kind, columns, read = choose_reader(spec, list(dataset.column_names), tokenizer)
    train = _examples(dataset, read)
    if heldout is not None:
        apart = open_dataset(heldout, spec)
        _, _, read_apart = choose_reader(spec, list(apart.column_names), tokenizer)
        examples = _examples(apart, read_apart)[: spec.heldout_examples]
        return checked(Source(kind, train, examples, columns), spec)
    import numpy as np

    count = min(spec.heldout_examples, max(1, len(train) // 10))
    order = np.random.default_rng(0).permutation(len(train))
    chosen = set(order[:count].tolist())
    return checked(
        Source(
            kind,
            [example for i, example in enumerate(train) if i not in chosen],
            [example for i, example in enumerate(train) if i in chosen],
            columns,
        ),
        spec,
    )


def checked(source: Source, spec: DataSpec) -> Source:
    """Give a source back if neither part of it is empty.

    Raises:
        DataError: one is.
    """
    for name, examples in (("training", source.train), ("held-out", source.heldout)):
        if not examples:
            raise DataError(
                f"data: must hold at least one {name} example with a response in it, got none in "
                f"{spec.path!r} (read as {source.kind} from {source.columns})"
            )
    return source
