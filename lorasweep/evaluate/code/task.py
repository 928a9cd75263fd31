"""Task files of code tasks, whose answers are programs, and their problems.

lm-eval never sees such a task, and reading one needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from jinja2 import Environment, StrictUndefined, TemplateError, meta
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from lorasweep.errors import SpecError, in_a_line
from lorasweep.spec.trial import Frozen

Positive = Annotated[int, Field(ge=1)]

CODE = "code"
COLUMNS = ("task_id", "test", "entry_point")  # of HumanEval; the template names the others


def is_code(content: Mapping[str, Any]) -> bool:
    """Whether a task file is one of a code task."""
    return content.get("output_type") == CODE


class CodeTask(Frozen):
    """Content of a code task's file.

    dataset_path: `json`, or another format or name that datasets knows.
    dataset_name: configuration of a data set that has several.
    doc_to_text: jinja2 template of a row: what the model continues, and how its program begins.
    samples: completions of each problem.
    temperature: 0 takes the likeliest token.
    top_p: probability mass of the nucleus.
    pass_at: each k for which pass@k is estimated; pass@1 is the task's score.
    max_gen_toks: tokens of a completion at most.
    until: stop texts; a completion is cut before the first of them.
    """

    model_config = ConfigDict(strict=True)

    task: str
    output_type: Literal["code"]
    dataset_path: str
    dataset_name: str | None = None
    dataset_kwargs: dict[str, Any] = {}
    test_split: str = "test"
    doc_to_text: str = "{{prompt}}"
    samples: Positive
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    pass_at: tuple[Positive, ...] = (1,)
    max_gen_toks: Positive
    until: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    metadata: dict[str, Any] = {}

    @field_validator("pass_at")
    @classmethod
    def _with_its_score(cls, pass_at: tuple[int, ...]) -> tuple[int, ...]:
        if 1 not in pass_at:
            raise ValueError(f"must hold 1, since pass@1 is the score, got {list(pass_at)}")
        return pass_at

    @field_validator("doc_to_text")
    @classmethod
    def _template(cls, text: str) -> str:
        try:
            _environment().parse(text)
        except TemplateError as error:
            raise ValueError(f"must be a jinja2 template, got {text!r} ({error})") from None
        return text

    @model_validator(mode="after")
    def _enough_samples(self) -> Self:
        if max(self.pass_at) > self.samples:
            raise ValueError(
                f"pass_at: no k may be above samples = {self.samples}, got {max(self.pass_at)}"
            )
        if self.temperature == 0 and self.samples > 1:
            raise ValueError(
                f"samples: must be 1 at temperature 0, where all are alike, got {self.samples}"
            )
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the data must have."""
        rendered = meta.find_undeclared_variables(_environment().parse(self.doc_to_text))
        return tuple(dict.fromkeys((*COLUMNS, *sorted(rendered))))

    @property
    def origin(self) -> str:
        """Where the problems come from: the files, or the data set."""
        files = self.dataset_kwargs.get("data_files")
        chosen = files.get(self.test_split, files) if isinstance(files, dict) else files
        return self.dataset_path if chosen is None else str(chosen)

    @property
    def is_local(self) -> bool:
        """Whether the data are files, which can be checked without loading them."""
        return "data_files" in self.dataset_kwargs


def _environment() -> Environment:
    return Environment(undefined=StrictUndefined, keep_trailing_newline=True)


def read_code_task(content: Mapping[str, Any], where: str) -> CodeTask:
    """Check a task file's content.

    Args:
        where: the file's name in error messages.

    Raises:
        SpecError: with one sentence for each mistake, naming the file and the field.
    """
    try:
        # In JSON mode, strict pydantic accepts lists as tuples, but still no string as a number.
        return CodeTask.model_validate_json(json.dumps(dict(content), default=str))
    except ValidationError as error:
        raise SpecError(
            [f"evaluate.tasks: {where}: {_mistake(dict(part))}" for part in error.errors()]
        ) from None


def _mistake(error: dict[str, Any]) -> str:
    """Phrase one of pydantic's errors as field, rule and value."""
    field = ".".join(map(str, error["loc"]))
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if error["type"] == "extra_forbidden":
        return f"{field}: no such field; check its spelling"
    if error["type"] == "missing":
        return f"{field}: must be given"
    said = f"{field}: {message}" if field else message
    return said if "got " in message else f"{said}, got {error['input']!r}"


@dataclass(frozen=True)
class Problem:
    """One problem of a code task.

    number: its position in the data, which seeds its random numbers.
    prompt: what the model continues.
    test: code that is run after the completion.
    """

    number: int
    id: str
    prompt: str
    test: str

    def program(self, completion: str) -> str:
        """Assemble the program to run, as HumanEval does (Chen et al. 2021, section 2.2)."""
        return f"{self.prompt}{completion}\n{self.test}"


def load_problems(task: CodeTask, limit: int | None = None) -> list[Problem]:
    """Load a task's problems, the first `limit` of them.

    Raises:
        SpecError: the data cannot be loaded, are empty, or lack a column.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = (
        False  # otherwise reading a local file contacts the hub
    )
    try:
        rows = datasets.load_dataset(
            task.dataset_path, task.dataset_name, split=task.test_split, **task.dataset_kwargs
        )
    except Exception as error:  # datasets raises nearly every kind; the user needs one sentence
        reason = in_a_line(error, 200)
        raise SpecError(
            [
                f"evaluate: the data of task {task.task!r} cannot be loaded "
                f"({type(error).__name__}: {reason})"
            ]
        ) from error
    missing = [column for column in task.columns if column not in rows.column_names]
    if missing:
        raise SpecError(
            [
                f"evaluate: the data of task {task.task!r} must have the columns "
                f"{', '.join(task.columns)}; {task.origin} lacks {', '.join(missing)}"
            ]
        )
    if limit is not None:
        rows = rows.select(range(min(limit, len(rows))))
    if not len(rows):
        raise SpecError(
            [f"evaluate: task {task.task!r} must have at least one problem, got none in "
             f"{task.origin}"]
        )  # fmt: skip
    template = _environment().from_string(task.doc_to_text)
    return [
        Problem(
            number,
            str(row["task_id"]),
            template.render(row),
            f"{row['test']}\ncheck({row['entry_point']})\n",
        )
        for number, row in enumerate(rows)
    ]
