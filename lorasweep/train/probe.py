"""Measure how many slots a lane should have, on the first steps of real trials, wasting none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NEARLY_BEST = 0.95  # share of the best speed that is enough
PACKING_PAYS = 1.10  # speed over that of one slot from which packing is worth its memory
CYCLES = 3  # the first one warms up


@dataclass(frozen=True)
class SlotChoice:
    """The number of slots of a lane, and the reason for it.

    tokens_per_s: measured speed by the number of slots; empty if nothing was measured.
    """

    slots: int
    tokens_per_s: Mapping[int, float]
    reason: str


def choose_slots(tokens_per_s: Mapping[int, float]) -> SlotChoice:
    """Choose the fewest slots within 5% of the best speed; one if packing gains under 10%."""
    alone, best = tokens_per_s[1], max(tokens_per_s.values())
    gain = best / alone
    if gain < PACKING_PAYS:
        return SlotChoice(1, tokens_per_s, f"packing gains {gain - 1:.0%} at most, under 10%")
    slots = min(n for n, speed in tokens_per_s.items() if speed >= NEARLY_BEST * best)
    return SlotChoice(
        slots,
        tokens_per_s,
        f"{slots} slots train {tokens_per_s[slots] / alone:.2f} times as many tokens a second as 1",
    )


@dataclass
class SlotProbe:
    """Chooses the trials of each step until the speeds of all numbers of slots are known.

    In a round every trial trains one step, in groups of one size, so that all sizes are measured on
    the same trials. A cycle is a round of every size: 1, 2, 4 and so on. The first cycle warms up,
    as kernels are loaded and chosen then; of the others a size keeps its fastest round, since
    whatever else starts up on the machine can only slow a round down. Trials compute the same in
    any group, so every measured step counts as training.

    max_slots: largest group to measure.
    """

    trials: Sequence[str]
    max_slots: int
    choice: SlotChoice | None = None
    _groups: list[list[str]] = field(default_factory=list)
    _size: int = 1
    _cycle: int = 0
    _tokens: int = 0
    _seconds: float = 0.0
    _warming: dict[int, float] = field(default_factory=dict)
    _speeds: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Choose at once if there is nothing to compare."""
        self._begin_round()
        if min(self.max_slots, len(self.trials)) < 2:
            self.choice = SlotChoice(1, {}, "too few trials at once to share a base")

    def _begin_round(self) -> None:
        step = range(0, len(self.trials), self._size)
        self._groups = [list(self.trials[first : first + self._size]) for first in step]
        self._tokens, self._seconds = 0, 0.0

    @property
    def group(self) -> Sequence[str]:
        """The trials to train in the next step."""
        return self._groups[0]

    def record(self, tokens: int, seconds: float) -> None:
        """Record the speed of the group's step, and move on to the next group."""
        self._tokens += tokens
        self._seconds += seconds
        self._groups.pop(0)
        if self._groups:
            return
        if self._tokens:
            kept = self._speeds if self._cycle else self._warming
            kept[self._size] = max(self._tokens / self._seconds, kept.get(self._size, 0.0))
        self._size *= 2
        if self._size > min(self.max_slots, len(self.trials)):
            self._size, self._cycle = 1, self._cycle + 1
        if self._cycle == CYCLES:
            self._choose(self._speeds)
        else:
            self._begin_round()

    def stop(self) -> None:
        """Choose among the sizes below the current one, which does not fit into memory."""
        speeds = self._warming | self._speeds
        self._choose({size: speed for size, speed in speeds.items() if size < self._size})

    def _choose(self, speeds: dict[int, float]) -> None:
        if 1 in speeds:
            self.choice = choose_slots(speeds)
        else:
            self.choice = SlotChoice(1, {}, "memory holds one trial at a time")
