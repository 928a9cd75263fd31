"""The whole study as one frozen value, read from YAML with every mistake reported at once."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from lorasweep.errors import SpecError
from lorasweep.spec.space import Space
from lorasweep.spec.trial import Frozen, LoraHyperparameters, TrialSpec, content_hash

Positive = Annotated[int, Field(ge=1)]

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


class ModelSpec(Frozen):
    """Name the base model.

    path: `testbed` (the embedded one), a hub name, or a local Hugging Face folder.
    revision: branch, tag or commit on the hub.
    dtype: `auto` is bf16 on a GPU that computes in it, else fp32.
    attention: transformers' name of the attention implementation.
    trust_remote_code: run Python that comes with the model; needs a pinned revision on the hub.
    """

    path: str = "testbed"
    revision: str | None = None
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.trust_remote_code and self.revision is None and not Path(self.path).is_dir():
            raise ValueError("trust_remote_code needs a pinned model.revision, got none")
        return self


class DataSpec(Frozen):
    """Name the training data and how to read it.

    path: `testbed`, a hub name, or a local JSONL, JSON, Parquet or CSV file, or a saved folder.
    subset: the hub's configuration name.
    kind: `instruction` (loss on the response only), `documents` (EOS-separated packing), or `auto`.
    prompt, response, text, messages: column names, where the usual ones do not fit.
    heldout: a file or folder of further examples; without one, examples are held out of the data.
    heldout_examples: how many examples the response loss is measured on.
    seq_len: tokens per sequence; None is the model's positions, at most 1024.
    limit: read this many examples at most.
    """

    path: str = "testbed"
    subset: str | None = None
    split: str = "train"
    kind: Literal["auto", "instruction", "documents"] = "auto"
    prompt: str | None = None
    response: str | None = None
    text: str | None = None
    messages: str | None = None
    heldout: str | None = None
    heldout_examples: Positive = 256
    seq_len: Annotated[int, Field(ge=8)] | None = None
    limit: Positive | None = None


class TrainSpec(Frozen):
    """Hold what all trials share in training.

    steps: optimizer steps of every trial; None lets `epochs` decide.
    micro_batch: sequences in one forward pass on one worker; None is batch_size / workers.
        Dropout is drawn per micro-batch, so with it several workers need the number given.
    betas: of AdamW or of Lion; None takes (0.9, 0.999) and (0.9, 0.95).
    schedule: cosine to 1% of the peak, constant, or trapezoidal (linear to 0 over the last 20%).
    clip: largest norm of the gradient over all adapters; None leaves it alone.
    recompute: recompute activations in the backward pass, which saves memory for time.
    """

    steps: Positive | None = None
    micro_batch: Positive | None = None
    optimizer: Literal["adamw", "lion"] = "adamw"
    betas: tuple[float, float] | None = None
    schedule: Literal["cosine", "constant", "trapezoidal"] = "cosine"
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    recompute: bool = False

    @field_validator("betas")
    @classmethod
    def _decays(cls, betas: tuple[float, float] | None) -> tuple[float, float] | None:
        if betas is not None and not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"both must lie in [0, 1), got {list(betas)}")
        return betas


class SearchSpec(Frozen):
    """Say how trials are chosen and which of them are stopped early.

    trials: how many configurations the search suggests.
    startup_trials: random suggestions before the sampler models the results.
    first_points: published recipes tried first, where they lie in the space.
    grid_points: levels that a grid makes of a range.
    grace: share of a trial's steps before the scheduler may stop it; half of them, since a ranking
        of hyperparameters needs trials that complete.
    reduction: ASHA keeps the best 1/reduction at each rung, and spaces the rungs by it.
    confirm: how many of the best configurations are repeated on further seeds.
    seeds: seeds that each of them has in the end, the first one included.
    """

    algorithm: Literal["tpe", "gp", "random", "grid"] = "tpe"
    scheduler: Literal["asha", "median", "none"] = "asha"
    trials: Positive = 20
    startup_trials: Positive = 8
    first_points: tuple[Literal["biderman-v2", "thinking-machines"], ...] = (
        "biderman-v2",
        "thinking-machines",
    )
    grid_points: Annotated[int, Field(ge=2)] = 4
    grace: Annotated[float, Field(gt=0, lt=1)] = 0.5
    reduction: Annotated[float, Field(gt=1)] = 2.0
    confirm: Annotated[int, Field(ge=0)] = 2
    seeds: Positive = 2

    @property
    def rungs(self) -> tuple[int, ...]:
        """Give the percentages of a trial's steps at which it is judged, as ASHA spaces them."""
        percents, percent = [], float(max(1, round(100 * self.grace)))
        while percent < 100:
            percents.append(int(percent))
            percent *= self.reduction
        return tuple(dict.fromkeys(percents))


class EvaluateSpec(Frozen):
    """Name the tasks of the two suites.

    learning: lm-eval tasks of the target domain, or `response_accuracy` (share of held-out
        response tokens that the model would predict right), which needs no task.
    source: lm-eval tasks of the source domain, or `base_agreement` (share of positions in the
        base's own samples where the tuned model predicts what the base predicts). `auto` is the
        paper's hellaswag, arc_challenge and winogrande, or base_agreement where those cannot be
        had.
    A task is written NAME or NAME@SHOTS.
    tasks: a folder with further lm-eval task files.
    limit: problems per task at most.
    batch_size: sequences in one evaluation batch on one worker.
    """

    learning: tuple[str, ...] = ("response_accuracy",)
    source: tuple[str, ...] = ("auto",)
    tasks: str | None = None
    limit: Positive | None = None
    batch_size: Positive = 16

    @field_validator("learning", "source")
    @classmethod
    def _well_formed(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        for task in tasks:
            name, at, shots = task.partition("@")
            if not name or (at and not shots.isdigit()):
                raise ValueError(f"a task must be written NAME or NAME@SHOTS, got {task!r}")
        return tasks

    @model_validator(mode="after")
    def _measured(self) -> Self:
        if not self.learning:
            raise ValueError("learning must name at least one task, got none")
        return self


class ResourcesSpec(Frozen):
    """Say what one trial takes of the cluster; nothing here may change a result.

    workers: data-parallel Ray Train workers per trial.
    gpus: GPUs per worker; `auto` is 1 where the cluster has GPUs, else 0.
    cpus: CPUs per worker, which computes with so many threads where it has no GPU; several lanes of
        one are faster than one lane of several, as threads wait for one another.
    max_concurrent: trials at a time; `auto` fills the cluster.
    """

    workers: Positive = 1
    gpus: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    cpus: Annotated[float, Field(gt=0)] = 1.0
    max_concurrent: Positive | Literal["auto"] = "auto"


class SweepSpec(Frozen):
    """Hold a whole study.

    question: what the sweep is to answer, in one sentence; the report opens with it.
    hyperparameters: the value of every hyperparameter that is not searched.
    slots: trials that share one base at most; `auto` measures how many pay, 1 gives every trial a
        Ray Train job of its own.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "default"
    question: str = "Which of these hyperparameters matter, and what should I use?"
    model: ModelSpec = ModelSpec()
    data: DataSpec = DataSpec()
    hyperparameters: LoraHyperparameters = LoraHyperparameters()
    space: Space
    train: TrainSpec = TrainSpec()
    search: SearchSpec = SearchSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    resources: ResourcesSpec = ResourcesSpec()
    slots: Positive | Literal["auto"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @field_validator("slots", mode="before")
    @classmethod
    def _known_slots(cls, value: Any) -> Any:
        if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(f"must be auto or a number of at least 1, got {value!r}")
        return value

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        problems = []
        if self.train.steps is not None and self.space.epochs is not None:
            problems.append(
                f"train.steps: must be null where space.epochs sets the duration, got "
                f"{self.train.steps}"
            )
        parts = self.resources.workers * (self.train.micro_batch or 1)
        searched = self.space.levels(2).get("batch_size")
        path = "hyperparameters.batch_size" if searched is None else "space.batch_size"
        for size in searched or (self.hyperparameters.batch_size,):
            if int(size) % parts:
                problems.append(
                    f"{path}: must divide by resources.workers x train.micro_batch = {parts}, "
                    f"got {size}"
                )
        dropouts = self.space.levels(2).get("dropout") or (self.hyperparameters.dropout,)
        if any(dropouts) and self.resources.workers > 1 and self.train.micro_batch is None:
            problems.append(
                "train.micro_batch: must be given with dropout and several workers, since dropout "
                "is drawn per micro-batch and null lets its size depend on the workers, got null"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """Give everything that changes the result of a trial besides its own configuration."""
        sections = {"model", "data", "train", "evaluate"}
        content = self.model_dump(mode="json", include=sections)
        content["rungs"] = self.search.rungs
        return content

    @property
    def search_identity(self) -> str:
        """Hash everything that decides which trials run; a longer search keeps its first trials."""
        search = self.search.model_dump(mode="json", exclude={"trials", "confirm", "seeds"})
        space = self.space.model_dump(mode="json")
        fixed = self.hyperparameters.model_dump(mode="json")
        return content_hash([self.identity, search, space, fixed, self.seed])

    def trial(
        self,
        values: Mapping[str, Any],
        *,
        seed: int | None = None,
        stage: Literal["search", "confirm"] = "search",
    ) -> TrialSpec:
        """Name the trial that has these values on the searched axes and this seed."""
        given = {**self.hyperparameters.model_dump(), **values}
        hyperparameters = LoraHyperparameters.model_validate(given)
        seed = self.seed if seed is None else seed
        content = hyperparameters.model_dump(mode="json")
        if self.train.steps is not None:
            content.pop("epochs")
        trial = content_hash([self.identity, content, seed])
        return TrialSpec(id=trial, hyperparameters=hyperparameters, seed=seed, stage=stage)

    @property
    def is_grid(self) -> bool:
        """Tell whether the trials are a full factorial, which the analysis may rely on."""
        return self.search.algorithm == "grid"


def _sentence(path: str, kind: str, message: str, value: Any) -> str:
    """Phrase one of pydantic's findings as where, rule and value."""
    if kind == "extra_forbidden":
        return f"{path}: no such field; check its spelling"
    if kind == "missing":
        return f"{path}: must be given"
    message = message.removeprefix("Value error, ").replace("Input should be", "must be")
    shown = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:77]}..."
    got = "" if "got " in message or kind == "value_error" else f", got {shown}"
    if kind == "string_pattern_mismatch":
        message = "must be letters, digits, '.', '_' or '-', 64 at most"
    return f"{path}: {message}{got}" if path else f"{message}{got}"


def _path(location: Sequence[int | str]) -> str:
    """Join a location, leaving out the names pydantic gives to the members of a union."""
    parts = [
        str(part) for part in location if not str(part).startswith(("literal[", "constrained-"))
    ]
    return ".".join(part for part in parts if part not in {"int", "float", "str"})


def parse_sweep(content: Mapping[str, Any]) -> SweepSpec:
    """Check a sweep's content; what sections say of each other once each of them is right.

    Raises:
        SpecError: with one sentence for each mistake, each beginning with its YAML path.
    """
    try:
        return SweepSpec.model_validate(content)
    except ValidationError as error:
        sentences = [
            sentence
            for e in error.errors()
            for sentence in _sentence(_path(e["loc"]), e["type"], e["msg"], e["input"]).splitlines()
        ]
        raise SpecError(list(dict.fromkeys(sentences))) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a sweep file into plain values.

    Raises:
        SpecError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([f"{path}: the sweep file cannot be read ({error})"]) from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise SpecError([f"{path}: the sweep file is not valid YAML ({problem})"]) from None
    if not isinstance(content, dict):
        raise SpecError([f"{path}: a sweep file must be a mapping, got {type(content).__name__}"])
    return content


def override(content: dict[str, Any], assignments: Sequence[str]) -> None:
    """Apply `key.path=value` assignments in place; values are read as YAML.

    Raises:
        SpecError: an assignment has no `=`, or goes through a value that is no mapping.
    """
    problems = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        *parents, leaf = key.strip().split(".")
        if not equals or not leaf:
            problems.append(f"--set: must be KEY.PATH=VALUE, got {assignment!r}")
            continue
        section: Any = content
        for parent in parents:
            section = section.setdefault(parent, {}) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            problems.append(
                f"--set: {'.'.join(parents)} is a value, not a section, in {assignment!r}"
            )
            continue
        try:
            section[leaf] = _value(text)
        except yaml.YAMLError:
            problems.append(f"--set: the value is not valid YAML in {assignment!r}")
    if problems:
        raise SpecError(problems)


def _value(text: str) -> Any:
    """Read YAML, and 1e-4 as a number, which YAML 1.1 takes for text because it has no dot.

    Quoted text stays text, so that a commit such as '12345e6' can be named.
    """
    value = yaml.safe_load(text)
    if isinstance(value, str) and _EXPONENT.fullmatch(text.strip()):
        number = float(value)
        return number if math.isfinite(number) else value
    return value


def dump_sweep(spec: SweepSpec) -> str:
    """Write a sweep as YAML that `parse_sweep` reads back to the same value."""
    return yaml.safe_dump(spec.model_dump(mode="json", exclude_none=False), sort_keys=False)
