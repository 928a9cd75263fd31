"""The sweeps that come built in, and the published recipes that a search tries first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lorasweep.spec.space import Axis, Level, Range
from lorasweep.spec.sweep import SweepSpec

# The embedded testbed on two cores: under half a minute of training a trial. The learning rates
# span no learning to divergence for a model of width 128, far above those of a 7B model.
TESTBED: dict[str, Any] = {
    "name": "default",
    "question": "On the embedded testbed, which matters most: learning rate, targets or rank?",
    "model": {"path": "testbed"},
    "data": {"path": "testbed", "seq_len": 96},
    "space": {
        "lr": {"low": 3e-4, "high": 3e-2, "log": True},
        "targets": ["attention", "mlp", "all"],
        "rank": [2, 8, 32],
    },
    # Half of the batch at a time: rows of like length share one, so that less is padding.
    "train": {"steps": 160, "micro_batch": 8},
    "search": {"trials": 16, "confirm": 2, "seeds": 2},
    "evaluate": {
        "learning": ["testbed_math"],
        "source": ["testbed_hellaswag", "testbed_arc", "testbed_winogrande"],
        "batch_size": 64,
    },
}

# Any other model or data: the published space, and tasks that every model and data can be given.
PUBLISHED: dict[str, Any] = {
    "name": "sweep",
    "question": "Which of these hyperparameters matter, and what should I use?",
    "space": {"lr": True, "targets": True, "rank": True},
}


def default_sweep(model: str | None, data: str | None) -> dict[str, Any]:
    """Give the built-in sweep for a model and data, as content that may still be overridden.

    The testbed's ranges and tasks only mean something on the testbed's own model and data, so each
    part gives way once the user brings another.
    """
    on_testbed_model = model in {None, "testbed"}
    on_testbed_data = data in {None, "testbed"}
    sweep = _copy(TESTBED if on_testbed_model else PUBLISHED)
    sweep["model"] = {"path": model or "testbed"}
    if on_testbed_data:
        sweep["data"] = _copy(TESTBED["data"])
        sweep.setdefault("evaluate", {})["learning"] = list(TESTBED["evaluate"]["learning"])
    else:
        sweep["data"] = {"path": data}
        sweep.setdefault("evaluate", {})["learning"] = ["response_accuracy"]
        sweep["train"] = {}
        sweep["name"] = "sweep"
        sweep["question"] = PUBLISHED["question"]
    return sweep


def _copy(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _copy(value) if isinstance(value, Mapping) else value for key, value in content.items()
    }


def published_lr(recipe: str, rank: int, hidden_size: int, model_type: str) -> float:
    """Give a recipe's learning rate for LoRA.

    Args:
        recipe: `biderman-v2`: 2e-4 for ranks 16 and 64, 1e-4 for 256 (Biderman et al. 2024, v2,
            appendix A, code instruction finetuning). `thinking-machines`: ten times 5e-5, times
            (2000 / hidden size) to a power fitted for each family (Schulman et al. 2025, "LoRA
            Without Regret", and its cookbook: 0.781 for Llama, 0.0775 for Qwen; 0 elsewhere).
    """
    if recipe == "biderman-v2":
        return 2e-4 if rank < 128 else 1e-4
    power = next((p for f, p in (("llama", 0.781), ("qwen", 0.0775)) if f in model_type), 0.0)
    return 5e-4 * math.pow(2000 / hidden_size, power)


def _placed(axis: Axis, wanted: Level) -> Level | None:
    """Give the level of an axis that comes nearest to a wanted one, None if it lies outside.

    Numbers are compared by their ratio, text only with itself; a list without the text gives its
    first level.
    """
    if isinstance(axis, Range):
        return wanted if axis.low <= float(wanted) <= axis.high else None
    if wanted in axis.values:
        return wanted
    numbers = [level for level in axis.values if not isinstance(level, str) and level > 0]
    if isinstance(wanted, str) or wanted <= 0 or not numbers:
        return axis.values[0]
    return min(numbers, key=lambda level: abs(math.log(level / wanted)))


def first_points(spec: SweepSpec, hidden_size: int, model_type: str) -> list[dict[str, Level]]:
    """Place the published recipes in a sweep's space, leaving out those that do not lie in it.

    Both advise all linear layers; Biderman alpha = 2r at rank 256 (memory allowing), the other a
    fixed alpha of 32. The rank is the searched level nearest to the advised one, so that the
    recipe's other values are tried even where the rank is out of reach.
    """
    advice: dict[str, dict[str, Level]] = {
        "biderman-v2": {"rank": 256, "alpha": "2r", "dropout": 0.05, "warmup": 0.1},
        "thinking-machines": {"rank": 256, "alpha": 32.0, "dropout": 0.0, "warmup": 0.0},
    }
    fixed = spec.hyperparameters.model_dump()
    points: list[dict[str, Level]] = []
    for recipe in spec.search.first_points:
        values = {**fixed, **advice[recipe], "targets": "all", "weight_decay": 0.0}
        if spec.space.rank is None:
            values["rank"] = fixed["rank"]
        else:
            values["rank"] = _placed(spec.space.rank, values["rank"])
        values["lr"] = published_lr(recipe, int(values["rank"]), hidden_size, model_type)
        placed = {name: _placed(axis, values[name]) for name, axis in spec.space.axes.items()}
        point = {name: level for name, level in placed.items() if level is not None}
        if len(point) == len(placed) and point not in points:
            points.append(point)
    return points
