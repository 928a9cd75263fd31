"""The linear layers of a model, by section of its blocks, and those that a set of targets names.

Known from a configuration alone for some families (`shape.py`), else found in an empty model
(`targets.py`). Needs no torch, so that `lorasweep plan` answers at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lorasweep.errors import ModelError
from lorasweep.spec.targets import (
    ATTENTION,
    GATE,
    MLP,
    QV,
    TARGET_SECTIONS,
    UNGATED,
    Definition,
    OwnSets,
    ends_with,
    names_layer,
)

HEAD = "the output head"
# A layer for queries alone, or for values alone, by the last component of its name.
_QUERY = re.compile(r"(q|query|Wq|project_q)(_proj|_lin)?")
_VALUE = re.compile(r"(v|value|Wv|project_v)(_proj(_\w+)?|_lin)?")


@dataclass(frozen=True)
class Layer:
    """Linear layers of one size that can have adapters.

    name: full name in the model; `*` stands for the numbers of `count` blocks.
    section: of a block, `attention`, `mlp` or `gate`; empty where no built-in set has it.
    why: no built-in set has it.
    repeats: whether the weight is that of an earlier layer.
    """

    name: str
    section: str
    inputs: int
    outputs: int
    count: int = 1
    why: str = ""
    repeats: bool = False

    @property
    def weights(self) -> int:
        """Number of weights in all of them, biases and those counted before left out."""
        return 0 if self.repeats else self.inputs * self.outputs * self.count

    @property
    def names(self) -> list[str]:
        """Full names of all of them."""
        if "*" not in self.name:
            return [self.name]
        return [self.name.replace("*", str(number)) for number in range(self.count)]


@dataclass(frozen=True)
class LeftOut:
    """A layer or parameter that cannot have an adapter, or may not.

    section: that it belongs to, if any.
    weights: 0 outside of the language model's blocks.
    why: in a few words.
    in_blocks: whether it is part of the language model's blocks.
    active: share of the weights that a token is multiplied with.
    """

    name: str
    section: str
    weights: int
    why: str
    in_blocks: bool = True
    active: float = 1.0


@dataclass(frozen=True)
class ModelLayers:
    """The layers of a model's language model, in the order of the model."""

    layers: tuple[Layer, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def weights(self) -> int:
        """Weights of all linear layers and experts of the blocks, each once."""
        layers = sum(layer.weights for layer in self.layers)
        return layers + sum(out.weights for out in self.left_out)


def leaf(name: str) -> str:
    """Last component of a layer's name."""
    return name.rpartition(".")[2]


def layers_of_set(found: ModelLayers, targets: str, own: OwnSets) -> dict[str, Layer]:
    """List the layers of a set of targets by their full names, in the order of the model.

    Args:
        targets: a built-in set, or one of `own`.
        own: the sets that the sweep defines.

    Raises:
        ModelError: the model has none of them, or not all that the name stands for.
    """
    if targets in own:
        return _of_definition(found, targets, own[targets])
    if targets == QV:
        return _queries_and_values(found)
    wanted = TARGET_SECTIONS[targets]
    there = {layer.section for layer in found.layers}
    if GATE in there:
        there.add(MLP)
    # `all` with one half missing would be the other half under a wrong name.
    if missing := [section for section in wanted if section not in {*there, GATE}]:
        raise ModelError(_missing(found, targets, missing, there))
    if targets == UNGATED and GATE not in there:
        raise ModelError(
            f"space.targets: {UNGATED!r} leaves out the layers called gate_proj (version 1 of "
            "Biderman et al.), and this model has none; use 'all'"
        )
    return _named(layer for layer in found.layers if layer.section in wanted)


def _named(layers: Iterable[Layer]) -> dict[str, Layer]:
    return {name: layer for layer in layers for name in layer.names}


def _missing(found: ModelLayers, targets: str, missing: list[str], there: set[str]) -> str:
    """Phrase that a set finds nothing of a section, and what there is instead."""
    lacks = " or ".join(missing)
    for out in found.left_out:
        if out.in_blocks and out.section == missing[0]:
            lacks += f" layer in this model that can have an adapter, since {out.why}"
            break
    else:
        lacks += " layer in this model"
    names = sorted({leaf(layer.name) for layer in found.layers}) or ["none"]
    usable = [name for name, parts in TARGET_SECTIONS.items() if {*parts} - {GATE} <= there]
    use = f"; use {usable[0]!r}" if usable else ""
    return (
        f"space.targets: {targets!r} finds no {lacks}; its linear layers are "
        f"{', '.join(names)}{use}"
    )


def is_value(layer: Layer) -> bool:
    """Check whether an attention layer makes values alone."""
    return layer.section == ATTENTION and _VALUE.fullmatch(leaf(layer.name)) is not None


def is_query(layer: Layer) -> bool:
    """Check whether an attention layer makes queries alone."""
    return layer.section == ATTENTION and _QUERY.fullmatch(leaf(layer.name)) is not None


def _queries_and_values(found: ModelLayers) -> dict[str, Layer]:
    if not any(map(is_query, found.layers)) or not any(map(is_value, found.layers)):
        attention = dict.fromkeys(leaf(la.name) for la in found.layers if la.section == ATTENTION)
        raise ModelError(
            f"space.targets: {QV!r} is the layers of queries and values, and this model has none "
            f"of their own for both, but {', '.join(attention) or 'no attention layer'}; use "
            "'attention', or define a set under targets"
        )
    return _named(layer for layer in found.layers if is_query(layer) or is_value(layer))


def _of_definition(found: ModelLayers, name: str, definition: Definition) -> dict[str, Layer]:
    """Find the layers of a set that the sweep defines."""
    there = _named(found.layers)
    chosen = {full: layer for full, layer in there.items() if names_layer(definition, full)}
    if isinstance(definition, str):
        # A name in a list means the language model's layers; a regular expression that reaches
        # beyond them does not say what it means.
        beyond = [out for out in found.left_out if names_layer(definition, out.name)]
        beyond = [out for out in beyond if not out.in_blocks or not chosen]
        if beyond:
            raise ModelError(
                f"targets.{name}: {definition!r} matches {beyond[0].name}, which gets no adapter: "
                f"{beyond[0].why}; narrow it to the layers of the language model"
            )
        absent = [] if chosen else [definition]
    else:
        absent = [part for part in definition if not any(ends_with(full, part) for full in there)]
        for part in absent:
            for out in found.left_out:
                if ends_with(out.name, part):
                    raise ModelError(
                        f"targets.{name}: {part!r} is {out.name}, which gets no adapter: {out.why}"
                    )
    if absent:
        leaves = ", ".join(sorted({leaf(full) for full in there})) or "none"
        raise ModelError(
            f"targets.{name}: {absent[0]!r} names no layer of this model's blocks; they end in "
            f"{leaves}, as in {next(iter(there), 'none')}"
        )
    return chosen


def left_out_of(found: ModelLayers, targets: str, own: Mapping[str, Definition]) -> list[LeftOut]:
    """List what a set would hold if it could have adapters: experts of an `mlp`, for one."""
    inside = [out for out in found.left_out if out.in_blocks]
    if targets in own:
        return [out for out in inside if names_layer(own[targets], out.name)]
    return [out for out in inside if out.section in TARGET_SECTIONS.get(targets, ())]
