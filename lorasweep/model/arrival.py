"""Whether plain PEFT takes a sweep's adapters back, found out on an empty model before training.

An adapter that was measured is worth nothing if what is kept of it is another one. So the
configuration that would be saved is written and read again by PEFT alone, with tensors that have
names and shapes but no memory.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lorasweep.errors import ModelError, in_a_line
from lorasweep.model.base import empty_base, quiet_deepspeed
from lorasweep.model.lora import AdapterLayer, save_config, saved_config
from lorasweep.model.shape import FAMILIES
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.targets import TARGET_SETS
from lorasweep.spec.trial import LoraHyperparameters


@dataclass(frozen=True)
class Arrival:
    """What plain PEFT makes of an adapter's folder.

    saved: tensors in it; arrived: those of them that find their place.
    others: tensors of adapters that PEFT makes where none was trained.
    by_weight: layers that have to be named by their weight, to which PEFT then adds their update.
    error: why PEFT refuses the folder as a whole.
    """

    saved: int
    arrived: int
    others: int = 0
    by_weight: int = 0
    error: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the adapter that PEFT loads is the one that was saved."""
        return self.arrived == self.saved and not self.others and self.error is None

    def __str__(self) -> str:
        """Phrase what arrives, as half a sentence."""
        others = f" and makes {self.others} that nobody trained" if self.others else ""
        error = f" ({self.error})" if self.error else ""
        return (
            f"plain PEFT {version('peft')} takes back {self.arrived} of its {self.saved} tensors"
            f"{others}{error}"
        )


def arrival(
    empty: Any, layers: tuple[AdapterLayer, ...], hyperparameters: LoraHyperparameters
) -> Arrival:
    """Let PEFT read an adapter's configuration and names back into an empty model, and count.

    Args:
        empty: the base on the meta device; PEFT changes it.
    """
    import torch

    quiet_deepspeed()
    from peft import (
        PeftConfig,
        get_peft_model,
        get_peft_model_state_dict,
        set_peft_model_state_dict,
    )

    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        shapes |= layer.shapes(hyperparameters)
    by_weight = sum(layer.by_weight for layer in layers)
    with tempfile.TemporaryDirectory(prefix="lorasweep-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PEFT warns of is counted here
        save_config(Path(folder), saved_config(layers, hyperparameters, "base"))
        try:
            config = PeftConfig.from_pretrained(folder)
            model = get_peft_model(empty, config, low_cpu_mem_usage=True)
            made = {name: tuple(t.shape) for name, t in get_peft_model_state_dict(model).items()}
            tensors = {name: torch.empty(s, device="meta") for name, s in shapes.items()}
            loaded = set_peft_model_state_dict(model, tensors, low_cpu_mem_usage=True)
        except (ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
            return Arrival(len(shapes), 0, by_weight=by_weight, error=in_a_line(error, 200))
    arrived = sum(made.get(name) == shape for name, shape in shapes.items())
    if loaded.unexpected_keys:  # PEFT has renamed them on the way
        arrived = min(arrived, len(shapes) - len(loaded.unexpected_keys))
    return Arrival(len(shapes), arrived, len(made.keys() - shapes.keys()), by_weight)


def check_targets(study: SweepSpec, family: str) -> dict[str, Arrival]:
    """Check that PEFT takes back adapters of a study's targets.

    Args:
        family: model type of the base.

    Returns:
        What was found out about each set of targets; nothing for those that tests vouch for.

    Raises:
        ModelError: it does not, or the base has none of their layers.
    """
    if study.method != "lora":
        return {}
    levels = [str(level) for level in study.levels_of("targets")]
    if family in FAMILIES:
        return {}  # no need to load torch and PEFT to find out
    found = {targets: _arrival_of(study, targets) for targets in levels}
    for targets, one in found.items():
        if not one.is_whole:
            raise ModelError(
                f"space.targets: an adapter of {targets!r} cannot be kept, since of this model "
                f"{one}; {_instead(study, found)}"
            )
    if study.model.dtype == "bf16":
        check_precision(study, found)
    return found


def check_precision(study: SweepSpec, found: Mapping[str, Arrival]) -> None:
    """Check that a base in bf16 lets plain PEFT compute what was trained.

    An update that PEFT adds to a weight is rounded as the weight is: in bf16, a model of 135M
    parameters lost a seventh of what it had learned.

    Raises:
        ModelError: it does not.
    """
    for targets, one in found.items():
        if one.by_weight:
            raise ModelError(
                f"space.targets: an adapter of {targets!r} cannot be kept of a base in bf16, since "
                f"plain PEFT {version('peft')} takes {one.by_weight} of its {one.saved // 2} "
                "layers for experts unless they are named by their weight, and adds an update "
                "then to the weight itself, where bf16 rounds it away; "
                f"{_instead(study, found, exact=True)}, or set model.dtype=fp32"
            )


def _arrival_of(study: SweepSpec, targets: str) -> Arrival:
    from lorasweep.model.targets import adapter_layers

    # PEFT treats all ranks alike, so the smallest stands for those that the study searches.
    ranks = [rank for rank in study.levels_of("rank") if isinstance(rank, int)]
    hyperparameters = study.hyperparameters
    assert isinstance(hyperparameters, LoraHyperparameters)
    one = hyperparameters.model_copy(update={"targets": targets, "rank": min(ranks)})
    empty = empty_base(study.model)
    return arrival(empty, adapter_layers(empty, targets, study.targets), one)


def _instead(study: SweepSpec, found: Mapping[str, Arrival], *, exact: bool = False) -> str:
    """Name the sets of targets that arrive whole.

    Args:
        exact: leave out those with layers that are named by their weight.
    """
    whole = []
    for name in dict.fromkeys((*found, *TARGET_SETS)):
        try:
            one = found[name] if name in found else _arrival_of(study, name)
        except ModelError:  # the model has no such layers
            continue
        if one.is_whole and not (exact and one.by_weight):
            whole.append(name)
    if not whole:
        return "PEFT takes back none of the named sets as it is, so choose another model"
    return f"use {' or '.join(whole)}, all of whose tensors arrive"
