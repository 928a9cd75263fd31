"""The sections of a sweep file, each a frozen value with its own rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from lorasweep.spec.space import Level, read_level
from lorasweep.spec.trial import Frozen

Positive = Annotated[int, Field(ge=1)]


class ModelSpec(Frozen):
    """Base model and how it is loaded.

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
    """Training data and how they are read.

    path: `testbed` or `testbed-code`, a hub name, or a local JSONL, JSON, Parquet or CSV file, or a
        saved folder.
    subset: the hub's configuration name; data_dir: a folder of the hub's data set.
    kind: `instruction` (loss on the response only), `documents` (EOS-separated packing), or `auto`.
    prompt, response, text, messages: column names, where the usual ones do not fit.
    loss: of a conversation, on `all` assistant turns (those with `weight: 0` left out) or on the
        `last` one.
    split: of a folder, a hub data set or a saved one: `train`, `train[:10%]`, `train+test`.
    heldout: a file or folder of further examples; without one, examples are held out of the data.
    heldout_split: take held-out examples from this split, of `heldout` or else of `path`.
    heldout_examples: how many examples the response loss is measured on.
    seq_len: tokens per sequence; None is the model's positions, at most 1024.
    limit: read this many examples at most.
    streaming: read documents one by one, shuffled in a buffer, into a file of tokens in the results
        folder, for data that do not fit in memory.
    """

    path: str = "testbed"
    subset: str | None = None
    data_dir: str | None = None
    split: str = "train"
    kind: Literal["auto", "instruction", "documents"] = "auto"
    prompt: str | None = None
    response: str | None = None
    text: str | None = None
    messages: str | None = None
    loss: Literal["all", "last"] = "all"
    heldout: str | None = None
    heldout_split: str | None = None
    heldout_examples: Positive = 256
    seq_len: Annotated[int, Field(ge=8)] | None = None
    limit: Positive | None = None
    streaming: bool = False

    # Fields that came later: at their default they are no part of what names trials and tokens.
    _LATER: ClassVar[tuple[str, ...]] = ("data_dir", "streaming", "loss", "heldout_split")

    @property
    def identity(self) -> dict[str, Any]:
        """The fields that decide the tokens of the data."""
        content = self.model_dump(mode="json")
        for name in self._LATER:
            if content[name] == type(self).model_fields[name].default:
                content.pop(name)
        return content

    @property
    def is_held_out_apart(self) -> bool:
        """Whether held-out examples are other rows than those that `path` names for training."""
        return self.heldout is not None or self.heldout_split is not None

    @model_validator(mode="after")
    def _holds_out_another_split(self) -> Self:
        if self.heldout is None and self.heldout_split == self.split:
            raise ValueError(
                f"heldout_split must be another split than split, got {self.split!r} for both"
            )
        return self

    @model_validator(mode="after")
    def _streams_documents(self) -> Self:
        named = [name for name in ("prompt", "response", "messages") if getattr(self, name)]
        if self.streaming and (named or self.kind == "instruction"):
            got = f"{named[0]} {getattr(self, named[0])!r}" if named else f"kind {self.kind}"
            raise ValueError(
                f"streaming is for documents, which are a column of text, and not for "
                f"instructions, got {got}; leave one of the two out"
            )
        return self


class TrainSpec(Frozen):
    """Training settings that all trials share.

    steps: optimizer steps of every trial; None lets `epochs` decide.
    micro_batch: sequences in one forward pass on one worker; None is batch_size / workers.
        Dropout is drawn per micro-batch, so with it several workers need the number given.
    betas: of AdamW or of Lion; None takes (0.9, 0.999) and (0.9, 0.95).
    schedule: cosine to 1% of the peak, constant, or trapezoidal (linear to 0 over the last 20%).
    warmup_steps: steps over which the learning rate rises, instead of the share
        `hyperparameters.warmup`. Runs of several durations then begin alike; under a schedule that
        decays only at the end (trapezoidal), a longer run continues from the state that a shorter
        one had before its decay.
    clip: largest norm of the gradient over all that is trained; None leaves it alone.
    recompute: recompute activations in the backward pass, which saves memory for time.
    """

    steps: Positive | None = None
    micro_batch: Positive | None = None
    optimizer: Literal["adamw", "lion"] = "adamw"
    betas: tuple[float, float] | None = None
    schedule: Literal["cosine", "constant", "trapezoidal"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    recompute: bool = False

    @field_validator("betas")
    @classmethod
    def _decays(cls, betas: tuple[float, float] | None) -> tuple[float, float] | None:
        if betas is not None and not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"both must lie in [0, 1), got {list(betas)}")
        return betas


class SearchSpec(Frozen):
    """How trials are suggested and which are stopped early.

    trials: how many configurations the search suggests.
    startup_trials: random suggestions before the sampler models the results.
    first_points: published recipes tried first, where they lie in the space.
    grid_points: levels that a grid makes of a range.
    grace: share of a trial's steps before the scheduler may stop it; half of them, since a ranking
        of hyperparameters needs trials that complete.
    reduction: ASHA keeps the best 1/reduction at each rung, and spaces the rungs by it.
    points: configurations that a grid runs, each crossed with the levels of the axes that it leaves
        out; without any, the grid is the full factorial.
    confirm: how many of the best configurations are repeated on further seeds, or `all` of them,
        which makes the seed one more axis of a grid.
    seeds: seeds that each of them has in the end, the first one included.
    """

    algorithm: Literal["tpe", "gp", "random", "grid"] = "tpe"
    scheduler: Literal["asha", "median", "none"] = "asha"
    trials: Positive = 20
    startup_trials: Positive = 8
    first_points: tuple[Literal["biderman-v2", "biderman-v1", "thinking-machines"], ...] = (
        "biderman-v2",
        "thinking-machines",
    )
    grid_points: Annotated[int, Field(ge=2)] = 4
    points: tuple[dict[str, Level], ...] = ()
    grace: Annotated[float, Field(gt=0, lt=1)] = 0.5
    reduction: Annotated[float, Field(gt=1)] = 2.0
    confirm: Annotated[int, Field(ge=0)] | Literal["all"] = 2
    seeds: Positive = 2

    @field_validator("points", mode="before")
    @classmethod
    def _levels(cls, points: Any, info: ValidationInfo) -> Any:
        """Read levels as their axes do, so that `1e-4` is a number here too."""
        if not isinstance(points, list | tuple):
            return points
        return [
            {name: read_level(name, level, info.context) for name, level in point.items()}
            if isinstance(point, dict)
            else point
            for point in points
        ]

    @model_validator(mode="after")
    def _points_of_a_grid(self) -> Self:
        if self.points and not self.is_grid:
            raise ValueError(f"points need algorithm grid, got {self.algorithm}")
        return self

    @property
    def is_grid(self) -> bool:
        """Whether the trials are enumerated, so that none depends on the outcome of another."""
        return self.algorithm == "grid"

    @property
    def is_factorial(self) -> bool:
        """Whether every combination of levels runs, which an exact analysis of variance needs."""
        return self.is_grid and not self.points

    def repetitions(self, configurations: int) -> int:
        """Count the trials that repeat the best of this many configurations on further seeds."""
        repeated = configurations if self.confirm == "all" else self.confirm
        return min(repeated, configurations) * (self.seeds - 1)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Percentages of a trial's steps at which it is judged, spaced as ASHA does."""
        percents, percent = [], float(max(1, round(100 * self.grace)))
        while percent < 100:
            percents.append(int(percent))
            percent *= self.reduction
        return tuple(dict.fromkeys(percents))


class EvaluateSpec(Frozen):
    """Tasks of the learning and the source suite, and how they are measured.

    learning: lm-eval tasks of the target domain, or `response_accuracy` (share of held-out
        response tokens that the model would predict right), which needs no task.
    source: lm-eval tasks of the source domain, or `base_agreement` (share of positions in the
        base's own samples where the tuned model predicts what the base predicts). `auto` is the
        paper's hellaswag, arc_challenge and winogrande, or base_agreement where those cannot be
        had.
    A task is written NAME or NAME@SHOTS; those that are graded by running the model's programs,
        such as `humaneval`, take no shots and must be allowed.
    tasks: a folder with further lm-eval task files.
    limit: problems per task at most.
    batch_size: sequences in one evaluation batch on one worker.
    spectrum: measure the singular values of what each completed trial added to the base.
    allow_code_execution: let tasks that are graded by running the model's programs do so, in the
        sandbox, as `--allow-code-execution` does.
    """

    learning: tuple[str, ...] = ("response_accuracy",)
    source: tuple[str, ...] = ("auto",)
    tasks: str | None = None
    limit: Positive | None = None
    batch_size: Positive = 16
    spectrum: bool = False
    allow_code_execution: bool = False

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


class DeepSpeedSpec(Frozen):
    """How DeepSpeed shards one trial over its workers; results differ by rounding only.

    stage: of ZeRO: 1 shards optimizer state, 2 gradients too, 3 parameters too.
    offload: keep optimizer state, and under stage 3 parameters, in the memory of the host.
    """

    stage: Literal[0, 1, 2, 3] = 2
    offload: bool = False


class ResourcesSpec(Frozen):
    """What one trial uses of the cluster; nothing here may change a result.

    workers: data-parallel Ray Train workers per trial.
    gpus: GPUs per worker; `auto` is 1 where the cluster has GPUs, else 0.
    cpus: CPUs per worker, and its threads where it has no GPU. Several lanes of one CPU are faster
        than one lane of several, because threads wait for one another.
    max_concurrent: trials at a time; `auto` fills the cluster.
    """

    workers: Positive = 1
    gpus: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    cpus: Annotated[float, Field(gt=0)] = 1.0
    max_concurrent: Positive | Literal["auto"] = "auto"
