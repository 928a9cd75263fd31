"""A LoRA adapter as PEFT defines it: its tensors, their start, the update they make, its files.

A variant of LoRA is declared here: training, counting, saving and measuring of adapters follow it.
Only the forward and backward pass of many adapters at once are elsewhere, in `packed.py`.

Shape legend: O outputs and I inputs of a layer, R rank of its adapter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorasweep.errors import LorasweepError
from lorasweep.spec.trial import LoraHyperparameters

if TYPE_CHECKING:  # `lorasweep plan` counts parameters without loading torch
    from torch import Tensor

# What PEFT's files call the tensors of a layer's adapter, after the layer's own name.
A = "lora_A.weight"
B = "lora_B.weight"
_PREFIX = "base_model.model."
# Files of a PEFT folder.
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def tensor_shapes(
    hyperparameters: LoraHyperparameters, inputs: int, outputs: int
) -> dict[str, tuple[int, ...]]:
    """Shape the trained tensors of one layer's adapter, in the order that `Adapter` keeps them."""
    return {A: (hyperparameters.rank, inputs), B: (outputs, hyperparameters.rank)}


def parameters_per_layer(hyperparameters: LoraHyperparameters, inputs: int, outputs: int) -> int:
    """Count the trained parameters of one layer's adapter."""
    return sum(map(math.prod, tensor_shapes(hyperparameters, inputs, outputs).values()))


@dataclass(frozen=True)
class AdapterLayer:
    """A linear layer with an adapter.

    name: in the model.
    inputs, outputs: its features.
    transposed: whether its weight is inputs x outputs, as in GPT-2.
    by_weight: whether PEFT's files have to name its weight instead of the layer itself, whose name
        PEFT would take for that of experts (`peft_names.py`).
    """

    name: str
    inputs: int
    outputs: int
    transposed: bool = False
    by_weight: bool = False

    @classmethod
    def of(cls, name: str, linear: Any, *, by_weight: bool = False) -> AdapterLayer:
        """Read the shape of a model's layer."""
        rows, columns = linear.weight.shape
        if stores_transposed(linear):
            return cls(name, rows, columns, transposed=True, by_weight=by_weight)
        return cls(name, columns, rows, by_weight=by_weight)

    def shapes(self, hyperparameters: LoraHyperparameters) -> dict[str, tuple[int, ...]]:
        """Shape its adapter's tensors, by the names that PEFT saves them under."""
        shapes = tensor_shapes(hyperparameters, self.inputs, self.outputs)
        return {saved_name(self.name, tensor): shape for tensor, shape in shapes.items()}


def stores_transposed(linear: Any) -> bool:
    """Check whether a layer's weight is inputs x outputs, as in GPT-2."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(linear, Conv1D)


def saved_name(layer: str, tensor: str) -> str:
    """Name a layer's tensor as PEFT's files do."""
    return f"{_PREFIX}{layer}.{tensor}"


def saved_name_of(parameter: str) -> str:
    """Convert a parameter's name among PEFT's inserted layers to the one in its files."""
    return _PREFIX + parameter.replace(".default.", ".")


def adapted_layers(saved: Iterable[str]) -> list[str]:
    """List the names of the layers that a saved adapter has tensors of."""
    ending = f".{A}"
    found = (name for name in saved if name.endswith(ending))
    return [name.removeprefix(_PREFIX).removesuffix(ending) for name in found]


def initial_adapter(
    layers: tuple[AdapterLayer, ...], hyperparameters: LoraHyperparameters, seed: int
) -> dict[str, Tensor]:
    """Draw the adapter that PEFT would draw after `torch.manual_seed(seed)`; B is zero.

    PEFT creates both matrices as linear layers, which initialise themselves, and then draws A
    again, from a uniform distribution of variance 1 / (3 inputs) (Kaiming with a = sqrt(5)). All
    draws are repeated here in that order, from a generator of the trial's own instead of the global
    one, so that an adapter can be made while others train.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...]) -> Tensor:
        empty = torch.empty(shape)
        return torch.nn.init.kaiming_uniform_(empty, a=math.sqrt(5), generator=generator)

    adapter = {}
    for layer in layers:
        (a, a_shape), (b, b_shape) = layer.shapes(hyperparameters).items()
        draw(a_shape)
        draw(b_shape)
        adapter[a] = draw(a_shape)
        adapter[b] = torch.zeros(b_shape)
    return adapter


def peft_fields(
    layers: tuple[AdapterLayer, ...], hyperparameters: LoraHyperparameters
) -> dict[str, Any]:
    """Convert hyperparameters to the fields of PEFT's LoraConfig that differ from its defaults."""
    alpha, rslora = hyperparameters.resolved_alpha
    return {
        "task_type": "CAUSAL_LM",
        "r": hyperparameters.rank,
        "lora_alpha": alpha,
        "use_rslora": rslora,
        "lora_dropout": hyperparameters.dropout,
        "target_modules": sorted(layer.name for layer in layers),
        "fan_in_fan_out": layers[0].transposed,
    }


def saved_config(
    layers: tuple[AdapterLayer, ...], hyperparameters: LoraHyperparameters, base_name: str
) -> dict[str, Any]:
    """Build the content of `adapter_config.json`, by which PEFT takes an adapter back."""
    # Written by hand: importing peft for its LoraConfig takes longer than a short trial.
    config = {
        **peft_fields(layers, hyperparameters),
        "peft_type": "LORA",
        "base_model_name_or_path": base_name,
        "bias": "none",
        "inference_mode": True,
    }
    by_weight = sorted(layer.name for layer in layers if layer.by_weight)
    if by_weight:
        config["target_modules"] = sorted(layer.name for layer in layers if not layer.by_weight)
        config["target_parameters"] = [f"{name}.weight" for name in by_weight]
        # PEFT adds such an update to the weight itself, where no input is left to drop, and refuses
        # a probability other than 0. It would only matter if somebody trained the adapter further.
        config["lora_dropout"] = 0.0
    return config


def save_adapter(
    folder: Path,
    adapter: Mapping[str, Tensor],
    layers: tuple[AdapterLayer, ...],
    hyperparameters: LoraHyperparameters,
    base_name: str,
) -> None:
    """Save an adapter as a PEFT folder that names its base."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in adapter.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    save_config(folder, saved_config(layers, hyperparameters, base_name))


def save_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write `adapter_config.json` into a PEFT folder."""
    content = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG).write_text(content, encoding="utf-8")


@dataclass(frozen=True)
class SavedAdapter:
    """What the configuration in a PEFT folder says of the adapter, which others may have trained.

    tensors: that each of its layers has.
    transposed: whether the base's weights are inputs x outputs.
    """

    alpha: float
    uses_rslora: bool
    transposed: bool
    tensors: tuple[str, ...] = (A, B)

    @classmethod
    def of(cls, config: Mapping[str, object], path: Path) -> SavedAdapter:
        """Read the content of an `adapter_config.json`.

        Raises:
            LorasweepError: it describes another adapter than this module can compute.
        """
        odd = [key for key in ("use_dora", "alpha_pattern") if config.get(key)]
        alpha = config.get("lora_alpha")
        if config.get("peft_type") != "LORA" or not isinstance(alpha, int | float) or odd:
            raise LorasweepError(
                f"{str(path)!r}: must describe plain LoRA with one lora_alpha, got peft_type "
                f"{config.get('peft_type')!r} with lora_alpha {alpha!r}"
                + "".join(f" and {key}" for key in odd)
            )
        uses_rslora, transposed = config.get("use_rslora"), config.get("fan_in_fan_out")
        return cls(float(alpha), bool(uses_rslora), bool(transposed))

    def weight_shape(self, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
        """Shape of the base's weight that a layer's tensors update."""
        outputs, inputs = tensors[B].shape[0], tensors[A].shape[1]
        return (inputs, outputs) if self.transposed else (outputs, inputs)

    def merge(
        self, base_OI: Tensor, tensors: Mapping[str, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Add a layer's update to its weight.

        Returns:
            The tuned weight, and two matrices whose product is the update: O x R and R x I.
        """
        a_RI, b_OR = tensors[A], tensors[B]
        rank = a_RI.shape[0]  # of this layer, which `rank_pattern` may set
        b_OR = b_OR * self.alpha / (math.sqrt(rank) if self.uses_rslora else rank)
        return base_OI + b_OR @ a_RI, (b_OR, a_RI)
