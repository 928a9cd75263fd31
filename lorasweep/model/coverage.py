"""What share of a model's linear weights each set of targets adapts, and what none of them has.

The share is of the weights of the blocks of the language model: linear layers and experts. The
output head, embeddings, and towers of other modalities do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from lorasweep.errors import ModelError
from lorasweep.model.layers import (
    Layer,
    LeftOut,
    ModelLayers,
    is_value,
    layers_of_set,
    left_out_of,
)
from lorasweep.spec.targets import (
    ATTENTION,
    BUILT_IN,
    QV,
    UNGATED,
    Definition,
    OwnSets,
    definition_text,
)
from lorasweep.spec.trial import Frozen

_SMALL = 0.0005  # shares below are not written out


class SetCoverage(Frozen):
    """What a set of targets adapts.

    layers: how many; blocks: that they are in, by number, such as `0, 24-31`.
    share: of the linear weights.
    of_section: share of the weights that its name or definition stands for, experts included; None
        for `qv`.
    blocks_without_value: for `qv`, blocks with attention that has no layer for values alone.
    """

    layers: int
    blocks: str
    share: float
    of_section: float | None
    blocks_without_value: int = 0


class InNoSet(Frozen):
    """Layers that no built-in set has.

    name: within a block.
    share: of the linear weights.
    why: in a few words.
    """

    name: str
    share: float
    why: str


class Coverage(Frozen):
    """What sets of targets adapt of a model.

    weights: linear weights of the blocks of the language model, experts included.
    sets: by name; without those that the model has no layers for.
    in_no_set: layers and parameters of the blocks that no built-in set has, largest first.
    """

    weights: int
    sets: dict[str, SetCoverage]
    in_no_set: tuple[InNoSet, ...]


def coverage(found: ModelLayers, own: OwnSets, sets: Iterable[str] = ()) -> Coverage:
    """Measure what sets of targets adapt.

    Args:
        own: the sets that the sweep defines.
        sets: those to measure; without any, all built-in ones that the model has layers for.

    Raises:
        ModelError: the model has no layers for one of the sets that are named.
    """
    named = tuple(sets)
    measured = {}
    for name in named or BUILT_IN:
        try:
            measured[name] = _measure(found, name, own)
        except ModelError:
            if named:
                raise
    return Coverage(weights=found.weights, sets=measured, in_no_set=tuple(_in_no_set(found)))


def _measure(found: ModelLayers, name: str, own: OwnSets) -> SetCoverage:
    chosen = layers_of_set(found, name, own)
    weights = sum(0 if la.repeats else la.inputs * la.outputs for la in chosen.values())
    whole = weights + sum(out.weights for out in left_out_of(found, name, own))
    blocks = {_block(layer) for la in found.layers if la.section == ATTENTION for layer in la.names}
    lacking = blocks - {_block(layer) for layer, la in chosen.items() if is_value(la)}
    return SetCoverage(
        layers=len(chosen),
        blocks=_ranges(chosen),
        share=weights / max(1, found.weights),
        of_section=None if name == QV else weights / max(1, whole),
        blocks_without_value=len(lacking) if name == QV else 0,
    )


def _in_no_set(found: ModelLayers) -> Iterator[InNoSet]:
    """Sum up what no set has, by name within a block, the largest first."""
    sums: dict[tuple[str, str], int] = {}
    parts: list[Layer | LeftOut] = [layer for layer in found.layers if not layer.section]
    parts += [out for out in found.left_out if out.in_blocks]
    for part in parts:
        key = _in_block(part.name), part.why
        sums[key] = sums.get(key, 0) + part.weights
    for (name, why), weights in sorted(sums.items(), key=lambda item: -item[1]):
        yield InNoSet(name=name, share=weights / max(1, found.weights), why=why)


def _block(name: str) -> str:
    """Full name of the block that a layer is in."""
    found = re.match(r".*?\.\d+(?=\.)", name)
    return found.group() if found else ""


def _ranges(names: Iterable[str]) -> str:
    """List the numbers of layers' blocks, runs of them by their ends."""
    found = (re.search(r"\.(\d+)\.", name) for name in names)
    numbers = sorted({int(match.group(1)) for match in found if match})
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _in_block(name: str) -> str:
    """Name a layer within its block, with `*` for further numbers."""
    inside = re.sub(r"^.*?\.(\d+|\*)\.", "", name)
    return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", inside)


def coverage_notes(covered: Coverage, own: OwnSets) -> list[str]:
    """Write what a reader of the results must know; nothing where all sets are what they seem."""
    written = []
    for name, of in covered.sets.items():
        if name in own:
            written.append(_own_sentence(name, own[name], of))
        elif of.of_section is not None and of.of_section < 1 - _SMALL:
            what = "linear" if name in {"all", UNGATED} else name
            written.append(
                f"{name!r} is {_percent(of.of_section)} of the model's {what} weights, since the "
                "rest cannot have adapters"
            )
        elif of.blocks_without_value:
            written.append(
                f"{name!r} finds no layer for values alone in {of.blocks_without_value} of the "
                "blocks with attention"
            )
    left = [part for part in covered.in_no_set if part.share >= _SMALL]
    for why in dict.fromkeys(part.why for part in left):
        parts = [f"{part.name} ({_percent(part.share)})" for part in left if part.why == why]
        written.append(
            f"in no set of targets: {' and '.join(parts)} of the linear weights, since {why}"
        )
    return written


def _own_sentence(name: str, definition: Definition, of: SetCoverage) -> str:
    layers = "1 layer" if of.layers == 1 else f"{of.layers} layers"
    if of.blocks:
        layers += f" in block{'' if of.blocks.isdigit() else 's'} {of.blocks}"
    sentence = (
        f"{name!r} is the set {definition_text(definition)}: {layers}, {_percent(of.share)} of the "
        "linear weights"
    )
    if of.of_section is not None and of.of_section < 1 - _SMALL:
        sentence += (
            f", and {_percent(of.of_section)} of what it names, since the rest cannot have adapters"
        )
    return sentence


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
