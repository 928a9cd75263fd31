"""The studies of a sweep: each of its methods in each of its domains, with a space and a search.

A sweep of several methods or domains says what they share, and in `methods` and `domains` what
differs. A study is the sweep narrowed to one of each: the sections of its method are laid over
those of the sweep, and those of its domain over both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lorasweep.spec.space import AXES, DEFAULT_AXES
from lorasweep.spec.trial import HYPERPARAMETERS, METHODS, axes_of

SECTIONS = frozenset(
    {"data", "hyperparameters", "space", "train", "search", "evaluate", "resources", "deepspeed"}
)
Content = dict[str, Any]


def study_name(method: str, domain: str = "") -> str:
    """Name a study: `domain/method`, or the method alone where there is one domain."""
    return f"{domain}/{method}" if domain else method


def in_order(methods: Iterable[str]) -> list[str]:
    """Sort methods into their fixed order, LoRA first; unknown names follow.

    The sections above the studies are written for the first one. The order in which a file names
    them must not matter, since YAML mappings have none.
    """
    named = list(methods)
    return [*(name for name in METHODS if name in named), *(n for n in named if n not in METHODS)]


def factor(axis: str, method: str, other: str = "lora") -> float:
    """Ratio of a method's values on an axis to another method's."""
    full = HYPERPARAMETERS[axis].full_factor
    return (full if method == "full" else 1.0) / (full if other == "full" else 1.0)


def has_no(method: str, axis: str) -> str:
    """Phrase that a method lacks a hyperparameter."""
    kind = "full finetuning" if method == "full" else "LoRA"
    return f"{kind} has no {axis}; it has {', '.join(axes_of(method))}"


def for_method(content: Mapping[str, Any], method: str, other: str) -> Content:
    """Convert a sweep's content from the method it was written for to another one.

    Hyperparameters of both are kept, scaled where declared so; the others are left out.
    """
    if method == other:
        return dict(content)
    changed = dict(content)
    fixed = content.get("hyperparameters")
    if isinstance(fixed, Mapping):
        # A field that no method has is kept for the spec to refuse, and so is an axis below.
        kept = {k: v for k, v in fixed.items() if k not in AXES}
        changed["hyperparameters"] = {**kept, **_point(fixed, method, other), "method": method}
    space = content.get("space")
    if isinstance(space, Mapping):
        axes = {
            axis: _scaled_axis(own, factor(axis, method, other))
            for axis, own in space.items()
            if axis in axes_of(method)
        }
        changed["space"] = {**axes, **{k: v for k, v in space.items() if k not in AXES}}
    search = content.get("search")
    if isinstance(search, Mapping) and search.get("points"):
        points = [_point(point, method, other) for point in search["points"]]
        once = [point for i, point in enumerate(points) if point and point not in points[:i]]
        changed["search"] = {**search, "points": once}
    return changed


def _point(point: Mapping[str, Any], method: str, other: str) -> Content:
    """Convert levels written for another method: scaled, or left out where it lacks the axis."""
    return {
        axis: _scaled(level, factor(axis, method, other))
        for axis, level in point.items()
        if axis in axes_of(method)
    }


def with_own_range(space: Mapping[str, Any], method: str) -> Content:
    """Fill in a method's own default range where an axis is named without one."""
    return {
        axis: _scaled_axis(DEFAULT_AXES[axis].model_dump(), factor(axis, method))
        if axis in AXES and _is_default(own) and factor(axis, method) != 1
        else own
        for axis, own in space.items()
    }


def _is_default(axis: Any) -> bool:
    """Check whether an axis is named without a range."""
    return axis is True or axis == "default"


def _scaled_axis(axis: Any, scale: float) -> Any:
    """Scale an axis in any form that a sweep file may write it in.

    One without a range stays so, since each method has a default of its own.
    """
    if _is_default(axis) or scale == 1:
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
    """Scale a number; the spec refuses anything else later."""
    if scale == 1:
        return value
    try:
        return float(f"{float(value) * scale:.6g}")
    except (TypeError, ValueError):
        return value


def overlay(content: Mapping[str, Any], over: Mapping[str, Any]) -> Content:
    """Merge sections into those of a sweep; a field that both name takes the new value."""
    merged = dict(content)
    for section, values in over.items():
        below = merged.get(section)
        both = isinstance(below, Mapping) and isinstance(values, Mapping)
        merged[section] = {**below, **values} if both else values  # type: ignore[dict-item]
    return merged


def narrow(content: Mapping[str, Any], method: str, domain: str) -> Content:
    """Reduce a sweep's content to one study.

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
