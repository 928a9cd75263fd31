"""Find the layers of a model's language model that sets of targets adapt, in an empty model.

Only its blocks are looked at; `sections.py` places each layer of them. Towers of other modalities,
projections between embeddings and blocks, and the output head are in no set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lorasweep.model.layers import HEAD, Layer, LeftOut, ModelLayers, layers_of_set
from lorasweep.model.lora import AdapterLayer, stores_transposed
from lorasweep.model.peft_names import taken_for_experts
from lorasweep.model.sections import Place, among_experts, in_tower, place_layer
from lorasweep.spec.targets import GATE, MLP, OwnSets

# Bare parameters that are no weights of a product: biases, state matrices, positions, scales.
_NO_PRODUCT = re.compile(r"bias|A_log|^D$|pos|scale|norm|embed|mask|conv|static_weight")

_EXPERTS = "the experts of a block are one parameter and no layers"
_ROUTED = "an expert sees only the tokens routed to it"
_OTHER_FORWARD = "it is no plain product with its weight"
_BARE = "it is a bare parameter and no layer"
_OUTSIDE = "it is outside of the blocks"
_TOWERS = "it is outside of the language model"


def find_layers(model: Any) -> ModelLayers:
    """Find the layers of a model's language model, and what cannot have an adapter."""
    return _Finder(model).found


def target_modules(model: Any, targets: str, own: OwnSets | None = None) -> list[str]:
    """List the full names of the linear layers in a named set, sorted.

    Args:
        model: the base model.
        targets: a built-in set, or one of `own`.
        own: the sets that the sweep defines.

    Raises:
        ModelError: the model has none of them, or not all that the name stands for.
    """
    return sorted(layers_of_set(find_layers(model), targets, own or {}))


def adapter_layers(
    model: Any, targets: str, own: OwnSets | None = None
) -> tuple[AdapterLayer, ...]:
    """List the layers of a named set in the order of the model, in which PEFT initialises them.

    Raises:
        ModelError: as `target_modules`.
    """
    return layers_to_adapt(model, find_layers(model), targets, own or {})


def layers_to_adapt(
    model: Any, found: ModelLayers, targets: str, own: OwnSets
) -> tuple[AdapterLayer, ...]:
    """List the layers of a named set among those that `find_layers` has found."""
    names = layers_of_set(found, targets, own)
    by_weight = taken_for_experts(model, names)
    return tuple(
        AdapterLayer.of(name, model.get_submodule(name), by_weight=name in by_weight)
        for name in names
    )


class _Finder:
    """Walks through a model once and places its layers."""

    def __init__(self, model: Any) -> None:
        self.modules: dict[str, Any] = dict(model.named_modules())
        self.linears = [name for name, module in self.modules.items() if _is_linear(module)]
        head = _call(model, "get_output_embeddings")
        self.heads = {name for name, module in self.modules.items() if module is head}
        self.numbered = any(map(self._block_of, self.linears))
        self.decoder = self._decoder(model)
        self.active = _active_share(model)
        self.seen: set[int] = set()
        self.layers: list[Layer] = []
        self.left_out: list[LeftOut] = []
        for name, module in self.modules.items():
            if _is_linear(module):
                self._place_layer(name, module)
            else:
                self._place_parameters(name, module)
        self.found = ModelLayers(tuple(self.layers), tuple(self.left_out))

    def _decoder(self, model: Any) -> str:
        """Full name of the language model, with a dot; empty where it is all of the model."""
        decoder = _call(model, "get_decoder")
        name = next((name for name, module in self.modules.items() if module is decoder), "")
        inside = any(n.startswith(f"{name}.") and self._block_of(n) for n in self.linears)
        return f"{name}." if name and inside else ""

    def _block_of(self, name: str) -> str:
        """Full name of the block that a layer is in; empty outside of all blocks."""
        parts = name.split(".")
        for number, part in enumerate(parts[:-1]):
            if part.isdigit():
                return ".".join(parts[: number + 1])
        return ""

    def _outside(self, name: str) -> str:
        """Reason why a layer is not in a block of the language model, if it is not."""
        if name in self.heads:
            return f"it is {HEAD}"
        parts = name.split(".")
        if in_tower(parts[:-1]) or not name.startswith(self.decoder):
            return _TOWERS if self._block_of(name) or not self.decoder else _OUTSIDE
        if self.numbered and not self._block_of(name):
            return _OUTSIDE
        return ""

    def _place(self, name: str) -> Place:
        """Place a layer by the modules around it, up to the list that its block is in."""
        return place_layer(name.rpartition(".")[2], list(self._around(name)))

    def _around(self, name: str) -> Iterator[tuple[str, Any]]:
        last = self._block_of(name).rpartition(".")[0]
        while name != last:
            name = name.rpartition(".")[0]
            yield name.rpartition(".")[2], self.modules[name]

    def _place_layer(self, name: str, linear: Any) -> None:
        rows, columns = linear.weight.shape
        weights = self._counted(linear.weight)
        if why := self._outside(name):
            self.left_out.append(LeftOut(name, "", 0, why, in_blocks=False))
            return
        place = self._place(name)
        if among_experts(name):
            place = Place(place.section or MLP, _ROUTED, adaptable=False)
        elif place.adaptable and not _maps_features(linear):
            place = replace(place, why=place.why or _OTHER_FORWARD, adaptable=False)
        if not place.adaptable:
            active = self.active if place.why == _ROUTED else 1.0
            left = LeftOut(name, place.section, weights, place.why, active=active)
            self.left_out.append(left)
            return
        inputs, outputs = (rows, columns) if stores_transposed(linear) else (columns, rows)
        self.layers.append(
            Layer(name, place.section, inputs, outputs, why=place.why, repeats=weights == 0)
        )

    def _place_parameters(self, name: str, module: Any) -> None:
        """Note the matrices that a module holds itself: experts above all."""
        if isinstance(module, nn.Embedding | nn.modules.conv._ConvNd):
            return
        for own, weight in module.named_parameters(recurse=False):
            full = f"{name}.{own}"
            wide = sum(size > 1 for size in weight.shape)
            if wide < 2 or _NO_PRODUCT.search(own) or self._outside(full):
                continue
            place = self._place(full)
            is_expert = "expert" in full or "Expert" in type(module).__name__
            why = _EXPERTS if is_expert else place.why or _BARE
            active = self.active if is_expert else 1.0
            shown = full.removesuffix(".weight")
            section = MLP if place.section == GATE else place.section
            left = LeftOut(shown, section, self._counted(weight), why, active=active)
            self.left_out.append(left)

    def _counted(self, weight: Any) -> int:
        """Number of weights, 0 where an earlier layer has the same."""
        if id(weight) in self.seen:
            return 0
        self.seen.add(id(weight))
        return int(weight.numel())


def _is_linear(module: Any) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def _call(model: Any, method: str) -> Any:
    """Ask a transformers model for one of its parts; None where it has no such method."""
    return getattr(model, method)() if hasattr(model, method) else None


def _maps_features(linear: Any) -> bool:
    """Check whether a layer is a product with its whole weight, as its class may change that."""
    from transformers.pytorch_utils import Conv1D

    if type(linear).forward in (nn.Linear.forward, Conv1D.forward):
        return True
    inputs, outputs = linear.in_features, linear.out_features
    x = linear.weight.new_zeros(1, 3, inputs)
    try:
        with torch.no_grad():
            y = linear(x)
    except (RuntimeError, ValueError, TypeError):
        return False
    return isinstance(y, torch.Tensor) and y.shape == (1, 3, outputs)


def _active_share(model: Any) -> float:
    """Share of a block's experts that a token passes, by the model's configuration."""
    config = getattr(model, "config", None)
    if config is None:
        return 1.0
    text = config.get_text_config()

    def first(*names: str) -> int:
        values = (getattr(text, name, None) for name in names)
        return next((value for value in values if isinstance(value, int) and value > 0), 1)

    chosen = first("num_experts_per_tok", "moe_topk", "moe_top_k", "top_k_experts")
    experts = first("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
    return min(1.0, chosen / experts)
