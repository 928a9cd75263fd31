"""Build a sweep from a file or the built-in default, command-line options, then `--set`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from lorasweep.errors import SpecError
from lorasweep.service.options import SweepOptions
from lorasweep.spec.file import override, read_yaml
from lorasweep.spec.presets import default_sweep
from lorasweep.spec.space import parse_space
from lorasweep.spec.studies import for_method, in_order
from lorasweep.spec.sweep import SweepSpec, parse_sweep
from lorasweep.spec.trial import OF_METHOD, axes_of

Content = dict[str, Any]


def build_sweep(options: SweepOptions) -> SweepSpec:
    """Build a sweep; a later source overrides an earlier one.

    Raises:
        SpecError: with all mistakes at once.
    """
    model, data, slots = options.model, options.data, options.slots
    content = read_yaml(options.sweep) if options.sweep else default_sweep(model, data)
    problems: list[str] = []

    def change(how: Callable[..., None], *arguments: Any) -> None:
        """Apply a change and collect its mistakes, so that all are reported at once."""
        try:
            how(content, *arguments)
        except SpecError as error:
            problems.extend(error.problems)

    if model is not None:
        _set_path(content, "model", model)
    if data is not None:
        change(_name_data, data)
    if slots is not None:
        content["slots"] = int(slots) if slots.isdecimal() else slots
    if options.seed is not None:
        content["seed"] = options.seed
    if options.trials is not None:
        _set_everywhere(content, "search", "trials", options.trials)
    if options.allow_code_execution:
        _set_everywhere(content, "evaluate", "allow_code_execution", True)
    if options.method is not None:
        change(choose_methods, options.method)
    if options.space is not None:
        change(choose_axes, options.space)
    change(override, options.assignments or ())
    try:
        spec = parse_sweep(content)
    except SpecError as error:
        raise SpecError([*problems, *error.problems]) from None
    if problems:
        raise SpecError(problems)
    return spec


def _name_data(content: Content, data: str) -> None:
    """Replace the data, in place.

    Raises:
        SpecError: domains have data of their own, and it is unclear whose to replace.
    """
    _set_path(content, "data", data)
    for name, sections in _mapping(content.get("domains")).items():
        if "path" in _mapping(_mapping(sections).get("data")):
            raise SpecError(
                [
                    f"--data: must not be given where domains.{name} names its own data; use "
                    f"--set domains.{name}.data.path={data}"
                ]
            )


def _set_path(content: Content, section: str, path: str) -> None:
    """Set a model's or data set's path to the text as it stands, never parsed as YAML."""
    content[section] = {**_mapping(content.get(section)), "path": path}


def _mapping(value: Any) -> Content:
    """Take a value as a section; anything else counts as empty, and the spec refuses it later."""
    return value if isinstance(value, dict) else {}


def _own(content: Content, part: str) -> Iterator[tuple[str, Content]]:
    """Iterate over the sections of each entry of `methods` or `domains`, by name."""
    for name, sections in _mapping(content.get(part)).items():
        yield name, _mapping(sections)


def _keep_axes(sections: Content, axes: Collection[str]) -> None:
    """Drop all axes but these from the space of a method or a domain."""
    own = _mapping(sections.pop("space", None))
    if kept := {axis: own[axis] for axis in own if axis in axes}:
        sections["space"] = kept


def _set_everywhere(content: Content, section: str, field: str, value: Any) -> None:
    """Set a field for all studies, dropping what a method or a domain has for it."""
    fields = _mapping(content.get(section))
    content[section] = {**fields, field: value}
    for part in ("methods", "domains"):
        for _, own in _own(content, part):
            _mapping(own.get(section)).pop(field, None)


def methods_of(content: Content) -> list[str]:
    """List the methods that a sweep is written for; its top-level sections are the first one's."""
    named = in_order(_mapping(content.get("methods")))
    return named or [str(_mapping(content.get("hyperparameters")).get("method", "lora"))]


def choose_methods(content: Content, text: str) -> None:
    """Select the methods that run, in place; those that remain keep their own sections.

    If the method that the content is written for is not selected, the content is converted:
    learning rates are scaled, and what the other method lacks is left out.

    Raises:
        SpecError: a method is unknown.
    """
    wanted = in_order(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in wanted if name not in OF_METHOD]:
        raise SpecError([f"--method: must be one of {', '.join(OF_METHOD)}, got {unknown[0]!r}"])
    written = methods_of(content)
    if wanted == written and "methods" not in content:
        return
    first = written[0]
    if wanted[0] != first and first in OF_METHOD:
        content.update(for_method(content, wanted[0], first))
        for name, sections in _mapping(content.get("domains")).items():
            content["domains"][name] = for_method(_mapping(sections), wanted[0], first)
    own = _mapping(content.get("methods"))
    content["methods"] = {name: own.get(name) or {} for name in wanted}


def choose_axes(content: Content, text: str) -> None:
    """Select the axes to search, in place.

    An axis that is named without a range keeps its range in the content, separately for each method
    and domain. `METHOD.AXIS` is for one method; an axis that the first method lacks is for those
    that have it.

    Raises:
        SpecError: an axis is unknown, named twice, or for a method that does not run.
    """
    # Ranges belong to one method or to all; what was given on the command line must win over what a
    # method or a domain has of its own, but only for the methods that it was given for.
    methods = methods_of(content)
    named: dict[str, list[str]] = {}
    given: dict[str, set[str]] = {}  # axes with a range, by method; "" for all
    for part in text.split(","):
        name, equals, _ = (piece.strip() for piece in part.partition("="))
        owner, dot, axis = name.partition(".")
        rest = part.partition(".")[2] if dot else part
        for method in [owner] if dot else _owners(methods, name):
            named.setdefault(method, []).append(rest)
        if equals:
            given.setdefault(owner if dot else "", set()).add(axis if dot else name)
    problems = [
        f"space.{method}: must be a method of the sweep, {', '.join(methods)}, got {method!r}; "
        "--method names those that run"
        for method in named
        if method not in methods
    ]
    spaces: dict[str, Content] = {}  # the selected axes, by method
    for method, parts in named.items():
        try:
            spaces[method] = parse_space(",".join(parts), _ranges_of(content, method).get)
        except SpecError as error:
            problems += error.problems
    searched = {axis for space in spaces.values() for axis in space}
    for method, own in _own(content, "methods"):
        _keep_axes(own, searched - given.get("", set()) - given.get(method, set()))
    for domain, own in _own(content, "domains"):
        # A domain's axis is for all its methods, so a range for one method alone cannot replace it.
        problems += [
            f"space.{method}.{axis}: must not be given where domains.{domain}.space.{axis} is, "
            f"which is for all methods; use --set domains.{domain}.space.{axis}=RANGE"
            for method in methods[1:]
            for axis in sorted(given.get(method, set()) & set(_mapping(own.get("space"))))
        ]
        _keep_axes(own, searched - given.get("", set()) - given.get(methods[0], set()))
    if problems:
        content["space"] = {"lr": True}  # so that the spec reports no follow-up mistakes
        raise SpecError(problems)
    content["space"] = spaces.pop(methods[0], {})
    for method, axes in spaces.items():
        sections = content["methods"][method] = {**_mapping(content["methods"][method])}
        sections["space"] = {**axes, **_mapping(sections.get("space"))}


def _owners(methods: list[str], axis: str) -> list[str]:
    """Find the methods of an axis: the first, which others share, or those that have it."""
    first, *others = methods
    if first not in OF_METHOD or axis in axes_of(first):
        return [first]
    return [other for other in others if other in OF_METHOD and axis in axes_of(other)] or [first]


def _ranges_of(content: Content, method: str) -> Content:
    """Collect the axes that a method has: its own, over those it shares with the first."""
    first, shared = methods_of(content)[0], {"space": _mapping(content.get("space"))}
    if {first, method} <= set(OF_METHOD):  # the spec refuses any other
        shared = for_method(shared, method, first)
    own = _mapping(_mapping(content.get("methods")).get(method)).get("space")
    return {**shared["space"], **_mapping(own)}
