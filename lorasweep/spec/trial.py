"""Hyperparameters of each method, and the trial: one configuration with one seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from lorasweep.spec.alpha import FIXED, RSLORA, read_alpha
from lorasweep.spec.declare import Declaration, Level
from lorasweep.spec.targets import TARGET_SETS, check_name


class Frozen(BaseModel):
    """Base of models whose values never change and that refuse undeclared fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class _Shared(Frozen):
    """Hyperparameters of both methods.

    dropout_name: the hyperparameter that is the method's only dropout.
    """

    dropout_name: ClassVar[str]

    weight_decay: Annotated[
        float,
        Field(ge=0, allow_inf_nan=False),
        Declaration(
            help="AdamW multiplies a weight by 1 - lr x weight_decay at each step; decoupled Lion "
            "by 1 - (lr / peak lr) x weight_decay",
            levels=(0.0, 0.01, 0.1),
            scale="linear",
        ),
    ] = 0.0
    warmup: Annotated[
        float,
        Field(ge=0, lt=1),
        Declaration(
            help="share of the steps over which the learning rate rises linearly, unless "
            "`train.warmup_steps` sets their number",
            levels=(0.0, 0.03, 0.1),
            scale="linear",
            unit="share of steps",
        ),
    ] = 0.1
    batch_size: Annotated[
        int,
        Field(ge=1),
        Declaration(
            help="sequences in one optimizer step, over all workers",
            levels=(8, 16, 32),
            unit="sequences",
            changes_cost=True,
            held_equal=True,
        ),
    ] = 16
    epochs: Annotated[
        float,
        Field(gt=0, allow_inf_nan=False),
        Declaration(
            help="passes over the training data, unless `tokens` or `train.steps` is given",
            levels=(1.0, 2.0, 4.0),
            unit="passes",
            is_duration=True,
            changes_cost=True,
            held_equal=True,
        ),
    ] = 1.0
    tokens: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Declaration(
            help="tokens to train on, in full sequences of `data.seq_len`; for documents",
            levels=(250_000_000, 500_000_000, 1_000_000_000),
            unit="tokens",
            is_duration=True,
            changes_cost=True,
            held_equal=True,
        ),
    ] = None

    @property
    def drop_probability(self) -> float:
        """Probability of the method's dropout."""
        return float(getattr(self, self.dropout_name))

    @classmethod
    def default_of(cls, name: str) -> Level | None:
        """Value of a hyperparameter that is neither searched nor given."""
        default: Level | None = cls.model_fields[name].default
        return default


# LoRA's default axis is the interval that Biderman et al. (2024, v2, section 6) recommend to sweep,
# [1e-5, 5e-4], with a decade above it, since LoRA improves up to divergence. Its best learning rate
# is ten times that of full finetuning and more (appendix B: 10 and 20 times; Schulman et al. 2025,
# "LoRA Without Regret": 9.8 times).
_LearningRate = Annotated[
    float,
    Field(gt=0, le=10, allow_inf_nan=False),
    Declaration(help="peak learning rate", interval=(1e-5, 5e-3), scale="log", full_factor=0.1),
]


class LoraHyperparameters(_Shared):
    """Hyperparameters of one LoRA trial."""

    dropout_name: ClassVar[str] = "dropout"

    method: Literal["lora"] = "lora"
    lr: _LearningRate = 2e-4
    targets: Annotated[
        str,
        Declaration(
            help="layers that get adapters: `attention` (q, k, v, o), `mlp` (gate, up, down), "
            "`all`, `ungated` (all but the gate, as in version 1 of Biderman et al. 2024), `qv` "
            "(q and v, as in Hu et al. 2021), or a set of one's own, defined under `targets`",
            levels=TARGET_SETS,
            changes_cost=True,
        ),
    ] = "all"
    rank: Annotated[
        int,
        Field(ge=1, le=65536),
        Declaration(help="rank of every adapter", levels=(4, 16, 64), changes_cost=True),
    ] = 16
    alpha: Annotated[
        float | str,
        Declaration(
            help="`2r` (a multiple of the rank), a number (fixed), or `rslora:N` (divided by the "
            "root of the rank)",
            levels=("1r", "2r", 32.0, "rslora:16"),
        ),
    ] = "2r"
    dropout: Annotated[
        float,
        Field(ge=0, lt=1),
        Declaration(
            help="probability of dropping an input of the adapter",
            levels=(0.0, 0.05, 0.1),
            scale="linear",
            unit="probability",
        ),
    ] = 0.0

    @field_validator("targets")
    @classmethod
    def _known_targets(cls, value: str, info: ValidationInfo) -> str:
        check_name(value, info.context)
        return value

    @field_validator("alpha")
    @classmethod
    def _known_alpha(cls, value: float | str) -> float | str:
        alpha = read_alpha(value)
        return alpha.number if alpha.rule == FIXED else value

    @property
    def scaling(self) -> float:
        """Factor on the adapter's output."""
        return read_alpha(self.alpha).scaling(self.rank)

    @property
    def resolved_alpha(self) -> tuple[float, bool]:
        """Alpha as a number, and whether rsLoRA's root of the rank divides it."""
        alpha = read_alpha(self.alpha)
        return alpha.at(self.rank), alpha.rule == RSLORA


class FullHyperparameters(_Shared):
    """Hyperparameters of one trial of full finetuning, which has no adapter."""

    dropout_name: ClassVar[str] = "attention_dropout"

    method: Literal["full"] = "full"
    lr: _LearningRate = 2e-5
    attention_dropout: Annotated[
        float,
        Field(ge=0, lt=1),
        Declaration(
            help="probability of dropping an attention weight (Biderman et al. 2024, section 5.3)",
            levels=(0.0, 0.05, 0.1),
            scale="linear",
            unit="probability",
        ),
    ] = 0.0


METHODS = ("lora", "full")
Method = Literal["lora", "full"]
Hyperparameters = Annotated[
    LoraHyperparameters | FullHyperparameters, Field(discriminator="method")
]
OF_METHOD: dict[str, type[LoraHyperparameters | FullHyperparameters]] = {
    "lora": LoraHyperparameters,
    "full": FullHyperparameters,
}


def _declarations() -> Iterator[tuple[str, Declaration]]:
    """List each field's declaration: those of one method alone before those of both."""
    fields = {n: f for kind in OF_METHOD.values() for n, f in kind.model_fields.items()}
    for name in sorted(fields, key=lambda name: name in _Shared.model_fields):
        for declared in fields[name].metadata:
            if isinstance(declared, Declaration):
                yield name, declared


# In the order in which axes, columns and docs name them.
HYPERPARAMETERS = dict(_declarations())
DURATIONS = tuple(name for name, declared in HYPERPARAMETERS.items() if declared.is_duration)


def axes_of(method: str) -> tuple[str, ...]:
    """Names of a method's hyperparameters, each of which may be an axis."""
    return tuple(name for name in HYPERPARAMETERS if name in OF_METHOD[method].model_fields)


def kind_of(name: str) -> type:
    """Find the type of a hyperparameter's levels; `object` where they are numbers or text."""
    field = next(k.model_fields[name] for k in OF_METHOD.values() if name in k.model_fields)
    kinds = {float, int, str} & {*_leaves(field.annotation)}
    return kinds.pop() if len(kinds) == 1 else object


def _leaves(annotation: Any) -> Iterator[Any]:
    """List the types that a union or an annotated type is made of."""
    if parts := get_args(annotation):
        for part in parts:
            yield from _leaves(part)
    else:
        yield annotation


class TrialSpec(Frozen):
    """One configuration with one seed.

    id: short hash of everything that changes the result (`SweepSpec.trial`).
    stage: `search`, or `confirm` for a best configuration repeated on a further seed.
    """

    id: str
    hyperparameters: Hyperparameters
    seed: int
    stage: Literal["search", "confirm"] = "search"


# Made once: `json.dumps` would make one for every line of a journal.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_json(value: Any) -> str:
    """Serialise a value so that equal content gives equal text: sorted keys, no blanks, no NaN."""
    return _CANONICAL.encode(value)


def content_hash(value: Any, length: int = 10) -> str:
    """Hash a JSON value; ten hex digits keep 10,000 trials apart with odds of 20,000 to one."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]
