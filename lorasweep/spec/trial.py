"""One configuration with one seed: what a trial is, and the name its content gives it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

# The named module sets a search may choose from (Biderman et al. 2024, section 4.4 and appendix A).
TARGET_SETS = ("attention", "mlp", "all")
# What version 1 of the study (May 2024) called all: q, k, v, o, up and down, without the gate.
UNGATED = "ungated"

_ALPHA = re.compile(r"(?P<times>\d+(?:\.\d+)?)r|rslora:(?P<rslora>\d+(?:\.\d+)?)")


class Frozen(BaseModel):
    """Hold values that never change and refuse fields nobody declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class _Shared(Frozen):
    """Hold what a search may vary in a trial of any method."""

    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    batch_size: Annotated[int, Field(ge=1)] = 16
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    tokens: Annotated[int, Field(ge=1)] | None = None

    # Every field but the method, which must stay plain to tell one kind from the other.
    @field_validator(
        "lr",
        "targets",
        "rank",
        "alpha",
        "dropout",
        "attention_dropout",
        "weight_decay",
        "warmup",
        "batch_size",
        "epochs",
        "tokens",
        mode="before",
        check_fields=False,
    )
    @classmethod
    def _no_boolean(cls, value: Any) -> Any:
        if isinstance(value, bool):  # pydantic would read true as 1
            raise ValueError(f"must be a number or a name, got {value!r}")
        return value


class LoraHyperparameters(_Shared):
    """Hold what a search may vary in one LoRA trial.

    lr: peak learning rate.
    targets: a named set of modules, `attention` (q, k, v, o), `mlp` (gate, up, down), `all`,
        or `ungated` (all but the gate, as in version 1 of the study).
    rank: rank of every adapter.
    alpha: `2r` (a multiple of the rank), a number (fixed), or `rslora:N` (over the rank's root).
    dropout: probability of dropping an input of the adapter.
    weight_decay: AdamW multiplies a weight by 1 - lr x weight_decay at each step; decoupled Lion by
        1 - (lr / peak lr) x weight_decay.
    warmup: share of the steps over which the learning rate rises linearly, unless
        `train.warmup_steps` says how many.
    batch_size: sequences in one optimizer step, over all workers.
    epochs: passes over the training data, unless `tokens` or `train.steps` fixes the duration.
    tokens: tokens to train on, in full sequences of `data.seq_len`; for documents.
    """

    method: Literal["lora"] = "lora"
    lr: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 2e-4
    targets: str = "all"
    rank: Annotated[int, Field(ge=1, le=65536)] = 16
    alpha: float | str = "2r"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @field_validator("targets")
    @classmethod
    def _known_targets(cls, value: str) -> str:
        if value not in (*TARGET_SETS, UNGATED):
            known = ", ".join((*TARGET_SETS, UNGATED))
            raise ValueError(f"must be one of {known}, got {value!r}")
        return value

    @field_validator("alpha")
    @classmethod
    def _known_alpha(cls, value: float | str) -> float | str:
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                match = _ALPHA.fullmatch(str(value))
                if not match or float(match["times"] or match["rslora"]) == 0:
                    raise ValueError(
                        "must be a multiple of the rank such as '2r', a number, or 'rslora:N', "
                        f"each above 0, got {value!r}"
                    ) from None
                return value
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"must be above 0, got {value!r}")
        return value

    @property
    def scaling(self) -> float:
        """Give the factor on the adapter's output, alpha / r or, under rsLoRA, alpha / sqrt(r)."""
        alpha, rslora = self.resolved_alpha
        return alpha / math.sqrt(self.rank) if rslora else alpha / self.rank

    @property
    def resolved_alpha(self) -> tuple[float, bool]:
        """Give alpha as a number, and whether rsLoRA's root divides it (Kalajdzievski 2023)."""
        if isinstance(self.alpha, str):
            match = _ALPHA.fullmatch(self.alpha)
            assert match is not None  # the validator has seen to it
            if match["times"]:
                return float(match["times"]) * self.rank, False
            return float(match["rslora"]), True
        return self.alpha, False


class FullHyperparameters(_Shared):
    """Hold what a search may vary in one trial of full finetuning, which has no adapter.

    lr: peak learning rate, a tenth of LoRA's by default (Biderman et al. 2024, v2, appendix B).
    attention_dropout: probability of dropping an attention weight (section 5.3).
    The others are as for LoRA.
    """

    method: Literal["full"] = "full"
    lr: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 2e-5
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


METHODS = ("lora", "full")
Method = Literal["lora", "full"]
Hyperparameters = Annotated[
    LoraHyperparameters | FullHyperparameters, Field(discriminator="method")
]
OF_METHOD: dict[str, type[LoraHyperparameters | FullHyperparameters]] = {
    "lora": LoraHyperparameters,
    "full": FullHyperparameters,
}


class TrialSpec(Frozen):
    """Name one configuration with one seed.

    id: short hash of everything that changes the result (see `trial_id`).
    stage: `search`, or `confirm` for a best configuration repeated on a further seed.
    """

    id: str
    hyperparameters: Hyperparameters
    seed: int
    stage: Literal["search", "confirm"] = "search"


def canonical_json(value: Any) -> str:
    """Write a value so that equal content gives equal text: sorted keys, no blanks, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(value: Any, length: int = 10) -> str:
    """Hash a JSON value; ten hex digits keep 10,000 trials apart with odds of 20,000 to one."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]
