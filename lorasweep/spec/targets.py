"""Named sets of layers that get adapters: the built-in ones, and those that a sweep defines."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

ATTENTION, MLP = "attention", "mlp"
GATE = "gate"
# What version 1 of Biderman et al. (May 2024) called all: q, k, v, o, up and down, not the gate.
UNGATED = "ungated"
# The layers of queries and values, which the first paper on LoRA adapts (Hu et al. 2021).
QV = "qv"
# The sections of a transformer block that each named set of targets adapts (Biderman et al. 2024,
# v2, section 4.4 and appendix A). A gate is a section of its own, since `ungated` adapts the rest
# of the MLP without it.
TARGET_SECTIONS: dict[str, tuple[str, ...]] = {
    "attention": (ATTENTION,),
    "mlp": (MLP, GATE),
    "all": (ATTENTION, MLP, GATE),
    UNGATED: (ATTENTION, MLP),
}
BUILT_IN = (*TARGET_SECTIONS, QV)
TARGET_SETS = ("attention", "mlp", "all")  # the default axis

# Layers of a set that a sweep defines: names, or a regular expression.
Definition = str | tuple[str, ...]
OwnSets = Mapping[str, Definition]

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_AS_BUILT_IN = {QV: {"q_proj", "v_proj"}}  # a definition that says what the name means anyway


def check_name(name: str, own: Collection[str] | None) -> None:
    """Check the name of a set.

    Args:
        own: the sets that the sweep defines; None where they are unknown, and any name is legal.

    Raises:
        ValueError: there is no such set.
    """
    known = name in BUILT_IN or (_NAME.fullmatch(name) if own is None else name in own)
    if not known:
        more = "" if own is not None else ", or a name such as 'upper' that the sweep defines"
        raise ValueError(
            f"must be one of {', '.join((*BUILT_IN, *(own or ())))}{more}, got {name!r}"
        )


def read_own_sets(value: Any) -> dict[str, Definition]:
    """Read the sets that a sweep defines; one that repeats a built-in one is left out.

    Raises:
        ValueError: a name or a definition breaks its rule; a line for each, with a dot and its
            name first.
    """
    if not isinstance(value, Mapping):
        raise ValueError(
            "must map names to layers, such as {upper: [up_proj]}, got " + _shown(value)
        )
    own, problems = {}, []
    for name, layers in value.items():
        try:
            definition = _read_definition(str(name), layers)
        except ValueError as error:
            problems.append(f".{name}: {error}")
            continue
        if name in BUILT_IN and _AS_BUILT_IN.get(name) == {*definition}:
            continue  # so that its trials are those of the built-in set
        if name in BUILT_IN:
            problems.append(f".{name}: is built in and cannot be defined again; use another name")
        else:
            own[str(name)] = definition
    if problems:
        raise ValueError("\n".join(problems))
    return own


def _read_definition(name: str, layers: Any) -> Definition:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"a name must have lower-case letters, digits, '_' or '-', a letter first, got {name!r}"
        )
    if isinstance(layers, str) and layers:
        try:
            re.compile(layers)
        except re.error as error:
            raise ValueError(f"must be a regular expression, got {layers!r} ({error})") from None
        return layers
    if not isinstance(layers, list | tuple) or not layers:
        raise ValueError(
            "must be a list of layer names or a regular expression for their full names, got "
            + _shown(layers)
        )
    if wrong := [each for each in layers if not (isinstance(each, str) and each.strip("."))]:
        raise ValueError(f"must list names of layers, such as q_proj, got {wrong[0]!r}")
    return tuple(dict.fromkeys(layers))


def _shown(value: Any) -> str:
    return repr(value) if len(repr(value)) < 80 else f"{repr(value)[:77]}..."


def with_own_sets(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Move sets that a sweep file defines on the axis itself to its `targets` section.

    `space: {targets: {attention: , upper: [up_proj]}}` is short for the section and a list of
    levels; a level without a definition is a set that is defined elsewhere.

    Raises:
        ValueError: a set is defined twice.
    """
    space, own = content.get("space"), content.get("targets")
    axis = space.get("targets") if isinstance(space, Mapping) else None
    if not isinstance(space, Mapping) or not isinstance(axis, Mapping) or "values" in axis:
        return content
    moved = {name: layers for name, layers in axis.items() if layers is not None}
    own = own or {}
    if not isinstance(own, Mapping):
        return content  # which is refused for that
    if twice := sorted(str(name) for name in moved if own.get(name, moved[name]) != moved[name]):
        raise ValueError(
            f"targets.{twice[0]}: must be defined once, and space.targets defines it again"
        )
    return {**content, "space": {**space, "targets": [*axis]}, "targets": {**own, **moved}}


def names_of(content: Mapping[str, Any]) -> frozenset[str]:
    """List the names of the sets that a sweep file defines, right or wrong."""
    space = content.get("space")
    axis = space.get("targets") if isinstance(space, Mapping) else None
    defined = (part for part in (content.get("targets"), axis) if isinstance(part, Mapping))
    return frozenset(str(name) for part in defined for name in part)


def names_layer(definition: Definition, layer: str) -> bool:
    """Check whether a definition names a layer, by the layer's full name in the model.

    A name in a list is the end of a full name, of one component or several; a regular expression
    must match somewhere within a full name.
    """
    if isinstance(definition, str):
        return re.search(definition, layer) is not None
    return any(ends_with(layer, name) for name in definition)


def ends_with(layer: str, name: str) -> bool:
    """Check whether a layer's full name is a name or ends with it, in whole components."""
    return layer == name or layer.endswith(f".{name}")


def definition_text(definition: Definition) -> str:
    """Write a definition in a line."""
    return definition if isinstance(definition, str) else ", ".join(definition)
