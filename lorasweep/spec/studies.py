"""The studies of a sweep: each of its methods in each of its domains, with a space and a search.

A sweep of several methods or domains says what they share, and in `methods` and `domains` what
differs. A study is the sweep narrowed to one of each: the sections of its method are laid over
those of the sweep, and those of its domain over both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lorasweep.spec.space import AXES, DEFAULT_AXES
from lorasweep.spec.trial import METHODS, OF_METHOD

# The best learning rate of LoRA is ten times that of full finetuning and more (Biderman et al.
# 2024, v2, appendix B: 10 and 20 times; Schulman et al. 2025, "LoRA Without Regret": 9.8 times).
LR_OF_METHOD = {"lora": 1.0, "full": 0.1}
SECTIONS = frozenset(
    {"data", "hyperparameters", "space", "train", "search", "evaluate", "resources", "deepspeed"}
)
Content = dict[str, Any]


def study_name(method: str, domain: str = "") -> str:
    """Name a study: `domain/method`, or the method alone where there is one domain."""
    return f"{domain}/{method}" if domain else method


def in_order(methods: Iterable[str]) -> list[str]:
    """Put methods in their fixed order, LoRA first; unknown names follow.

    What stands above the studies is written for the first. The order in which a file names them
    must not matter, since YAML gives none.
    """
    named = list(methods)
    return [*(name for name in METHODS if name in named), *(n for n in named if n not in METHODS)]


def axes_of(method: str) -> tuple[str, ...]:
    """Name the axes that a method has."""
    return tuple(axis for axis in AXES if axis in OF_METHOD[method].model_fields)


def has_no(method: str, axis: str) -> str:
    """Say that a method lacks a hyperparameter."""
    kind = "full finetuning" if method == "full" else "LoRA"
    return f"{kind} has no {axis}; it has {', '.join(axes_of(method))}"


def for_method(content: Mapping[str, Any], method: str, other: str) -> Content:
    """Give a sweep's content as it reads for a method, where it was written for another one.

    What both have is shared; the learning rate is scaled, and the rest is left out.
    """
    if method == other:
        return dict(content)
    scale = LR_OF_METHOD[method] / LR_OF_METHOD[other]
    changed = dict(content)
    fixed = content.get("hyperparameters")
    if isinstance(fixed, Mapping):
        # What no method has stays, so that it is refused; as an axis does below.
        kept = {k: v for k, v in fixed.items() if k in axes_of(method) or k not in AXES}
        if "lr" in kept:
            kept["lr"] = _scaled(kept["lr"], scale)
        changed["hyperparameters"] = {**kept, "method": method}
    space = content.get("space")
    if isinstance(space, Mapping):
        axes = {k: v for k, v in space.items() if k in axes_of(method)}
        axes |= {k: v for k, v in space.items() if k not in AXES}
        if "lr" in axes:
            axes["lr"] = _scaled_axis(axes["lr"], scale)
        changed["space"] = axes
    search = content.get("search")
    if isinstance(search, Mapping) and search.get("points"):
        points = [_point(point, method, scale) for point in search["points"]]
        once = [point for i, point in enumerate(points) if point and point not in points[:i]]
        changed["search"] = {**search, "points": once}
    return changed


def _point(point: Mapping[str, Any], method: str, scale: float) -> Content:
    """Give what a point of a grid is to another method."""
    return {
        axis: _scaled(level, scale) if axis == "lr" else level
        for axis, level in point.items()
        if axis in axes_of(method)
    }


def with_own_range(space: Mapping[str, Any], method: str) -> Content:
    """Put a method's own range in the place of a learning rate that is named without one."""
    if _is_default(space.get("lr")):
        default = DEFAULT_AXES["lr"].model_dump()
        return {**space, "lr": _scaled_axis(default, LR_OF_METHOD[method])}
    return dict(space)


def _is_default(axis: Any) -> bool:
    """Tell whether an axis is named without a range."""
    return axis is True or axis == "default"


def _scaled_axis(axis: Any, scale: float) -> Any:
    """Scale an axis of learning rates in any form in which a sweep may hold it.

    One without a range stays so, since each method has a default of its own.
    """
    if _is_default(axis):
        return axis
    if isinstance(axis, str) and ".." in axis:
        low, _, high = axis.partition("..")
        axis = {"low": low, "high": high}
    elif isinstance(axis, str):
        axis = axis.split("|")
    if isinstance(axis, Mapping) and "values" in axis:
        return {**axis, "values": _scaled_axis(axis["values"], scale)}
    if isinstance(axis, Mapping):
        return {k: _scaled(v, scale) if k in {"low", "high"} else v for k, v in axis.items()}
    if isinstance(axis, list | tuple):
        return [_scaled(level, scale) for level in axis]
    return _scaled(axis, scale)


def _scaled(value: Any, scale: float) -> Any:
    """Scale a number; anything else is left for the spec to refuse."""
    try:
        return float(f"{float(value) * scale:.6g}")
    except (TypeError, ValueError):
        return value


def overlay(content: Mapping[str, Any], over: Mapping[str, Any]) -> Content:
    """Lay sections over those of a sweep; an axis or a field that is named replaces the other."""
    merged = dict(content)
    for section, values in over.items():
        below = merged.get(section)
        both = isinstance(below, Mapping) and isinstance(values, Mapping)
        merged[section] = {**below, **values} if both else values  # type: ignore[dict-item]
    return merged


def narrow(content: Mapping[str, Any], method: str, domain: str) -> Content:
    """Give the content of one study.

    Args:
        content: of a sweep, checked section by section.
        domain: empty where the sweep has only one.
    """
    methods, domains = content.get("methods") or {}, content.get("domains") or {}
    shared = {k: v for k, v in content.items() if k not in {"methods", "domains"}}
    first = in_order(methods or [method])[0]
    study = for_method(shared, method, first)
    # A domain's sections are for all methods, and so written for the first, as those above are.
    of_domain = for_method(domains.get(domain) or {}, method, first)
    for sections in (methods.get(method) or {}, of_domain):
        space = sections.get("space")
        own = {"space": with_own_range(space, method)} if isinstance(space, Mapping) else {}
        study = overlay(study, {**sections, **own})
    study["hyperparameters"] = {**(study.get("hyperparameters") or {}), "method": method}
    return study | {"domain": domain}
