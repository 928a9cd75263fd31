"""The sweeps that come built in, and the published recipes that a search tries first."""

from __future__ import annotations

import copy
import math
from typing import Any

from lorasweep.spec.space import Axis, Level, Range
from lorasweep.spec.studies import factor
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.targets import UNGATED

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

# What the embedded data sets teach, and how long a sequence they need.
EMBEDDED: dict[str, dict[str, Any]] = {
    "testbed": {"seq_len": 96, "learning": ["testbed_math"]},
    "testbed-code": {"seq_len": 128, "learning": ["testbed_code"]},
}

# Any other model or data: the published space, and tasks that every model and data can be given.
PUBLISHED: dict[str, Any] = {
    "name": "sweep",
    "question": "Which of these hyperparameters matter, and what should I use?",
    "space": {"lr": True, "targets": True, "rank": True},
}


def default_sweep(model: str | None, data: str | None) -> dict[str, Any]:
    """Build the default sweep for a model and data, as content that may still be overridden.

    The testbed's ranges and tasks only make sense on its own model and data, so each part is
    replaced once the user names another model or other data.
    """
    embedded = EMBEDDED.get(data or "testbed")
    sweep = copy.deepcopy(TESTBED if model in {None, "testbed"} else PUBLISHED)
    sweep["model"] = {"path": model or "testbed"}
    if embedded is not None:
        sweep["data"] = {"path": data or "testbed", "seq_len": embedded["seq_len"]}
        sweep.setdefault("evaluate", {})["learning"] = list(embedded["learning"])
    else:
        sweep["data"] = {"path": data}
        sweep.setdefault("evaluate", {})["learning"] = ["response_accuracy"]
        sweep["train"] = {}
    if embedded is not EMBEDDED["testbed"]:
        sweep["name"] = "sweep"
        sweep["question"] = PUBLISHED["question"]
    return sweep


def published_lr(
    recipe: str, rank: int, hidden_size: int, model_type: str, *, code: bool = False
) -> float:
    """Look up a recipe's learning rate for LoRA.

    Args:
        recipe: `biderman-v2`: 2e-4 for ranks 16 and 64, 1e-4 for 256 (Biderman et al. 2024, v2,
            appendix A, code instruction finetuning). `biderman-v1`: 5e-4 for code and 2e-4 for
            math, the best of its learning-rate figure (appendix B). `thinking-machines`: ten
            times 5e-5, times (2000 / hidden size) to a power fitted for each family (Schulman et
            al. 2025, "LoRA Without Regret", and its cookbook: 0.781 for Llama, 0.0775 for Qwen; 0
            elsewhere).
        code: whether instructions for code are learned.
    """
    if recipe == "biderman-v2":
        return 2e-4 if rank < 128 else 1e-4
    if recipe == "biderman-v1":
        return 5e-4 if code else 2e-4
    power = next((p for f, p in (("llama", 0.781), ("qwen", 0.0775)) if f in model_type), 0.0)
    return 5e-4 * math.pow(2000 / hidden_size, power)


def published_full_lr(recipe: str, hidden_size: int, model_type: str, *, code: bool) -> float:
    """Look up a recipe's learning rate for full finetuning.

    Args:
        recipe: `biderman-v2` and `biderman-v1`: 5e-5 for code instruction finetuning (v2, appendix
            B, and the name of the released checkpoint), 1e-5 for math and for continued pretraining
            (appendix A). `thinking-machines`: a tenth of LoRA's, as its formula was fitted.
        code: whether instructions for code are learned.
    """
    if recipe.startswith("biderman"):
        return 5e-5 if code else 1e-5
    return factor("lr", "full") * published_lr(recipe, 0, hidden_size, model_type)


def learns_code(spec: SweepSpec) -> bool:
    """Check whether a study learns code from instructions, by its data's kind and its tasks."""
    tasks = " ".join(spec.evaluate.learning)
    names_code = any(name in tasks for name in ("humaneval", "mbpp", "code"))
    return names_code and spec.data.kind != "documents"


def _nearest_level(axis: Axis, wanted: Level | None) -> Level | None:
    """Find the level of an axis nearest to a wanted one; None if it lies outside.

    Numbers are compared by their ratio, text only with itself; a list without the text gives its
    first level, as it does where nothing is advised.
    """
    if isinstance(axis, Range):
        return wanted if wanted is not None and axis.low <= float(wanted) <= axis.high else None
    if wanted in axis.values:
        return wanted
    numbers = [level for level in axis.values if not isinstance(level, str) and level > 0]
    if wanted is None or isinstance(wanted, str) or wanted <= 0 or not numbers:
        return axis.values[0]
    return min(numbers, key=lambda level: abs(math.log(level / wanted)))


# Biderman advises all linear layers with alpha = 2r at rank 256, memory allowing; version 1 advised
# rank 16 with a fixed alpha of 32, and left the gate out; Thinking Machines a fixed alpha of 32 at
# a high rank. Full finetuning has none of these, and no regularisation in any recipe.
_ADVICE: dict[str, dict[str, Level]] = {
    "biderman-v2": {"rank": 256, "alpha": "2r", "dropout": 0.05, "warmup": 0.1},
    "biderman-v1": {"rank": 16, "alpha": 32.0, "dropout": 0.05, "warmup": 0.1, "targets": UNGATED},
    "thinking-machines": {"rank": 256, "alpha": 32.0, "dropout": 0.0, "warmup": 0.0},
}
_ADVISED_ALWAYS: dict[str, Level] = {
    "targets": "all",
    "weight_decay": 0.0,
    "attention_dropout": 0.0,
}


def first_points(spec: SweepSpec, hidden_size: int, model_type: str) -> list[dict[str, Level]]:
    """Place the published recipes in a study's space, leaving out those that do not lie in it.

    The rank is the searched level nearest to the advised one, so that the recipe's other values
    are tried even where the rank is out of reach.
    """
    fixed = spec.hyperparameters.model_dump()
    points: list[dict[str, Level]] = []
    for recipe in spec.search.first_points:
        values = {**fixed, **_ADVISED_ALWAYS, **_ADVICE[recipe]}
        code = learns_code(spec)
        if spec.method == "full":
            values["lr"] = published_full_lr(recipe, hidden_size, model_type, code=code)
        else:
            searched = spec.space.axes.get("rank")
            nearest = None if searched is None else _nearest_level(searched, values["rank"])
            values["rank"] = fixed["rank"] if nearest is None else nearest
            rank = int(values["rank"])
            values["lr"] = published_lr(recipe, rank, hidden_size, model_type, code=code)
        placed = {
            name: _nearest_level(axis, values[name]) for name, axis in spec.space.axes.items()
        }
        point = {name: level for name, level in placed.items() if level is not None}
        if len(point) == len(placed) and point not in points:
            points.append(point)
    return points
