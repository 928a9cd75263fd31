"""How many slots pay: found out from the first steps of real trials, so that nothing is wasted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NEARLY_BEST = 0.95  # the fewest slots within 5% of the best speed
PACKING_PAYS = 1.10  # and one slot alone where the best gains less than 10%
CYCLES = 3  # of which the first warms up


@dataclass(frozen=True)
class SlotChoice:
    """Hold how many slots a lane has, and why.

    tokens_per_s: measured, by the number of slots; empty where the number was given.
    """

    slots: int
    tokens_per_s: Mapping[int, float]
    reason: str


def choose_slots(tokens_per_s: Mapping[int, float]) -> SlotChoice:
    """Choose the fewest slots that are nearly as fast as the best number, or one."""
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
    """Say which trials train in the coming step, until the speeds are known.

    In a round every trial trains one step, in groups of one size, so each size is measured on the
    same trials. A cycle is a round of every size, and each size has the speed of its fastest round:
    what else the machine does while a lane comes up slows some rounds, and must not decide. What a
    trial computes does not depend on its group.

    most: slots at most.
    """

    trials: Sequence[str]
    most: int
    choice: SlotChoice | None = None
    _groups: list[list[str]] = field(default_factory=list)
    _size: int = 1
    _cycle: int = 0
    _tokens: int = 0
    _seconds: float = 0.0
    _warming: dict[int, float] = field(default_factory=dict)
    _speeds: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Settle at once where there is nothing to compare."""
        self._begin_round()
        if min(self.most, len(self.trials)) < 2:
            self.choice = SlotChoice(1, {}, "there is no second trial to share with")

    def _begin_round(self) -> None:
        step = range(0, len(self.trials), self._size)
        self._groups = [list(self.trials[first : first + self._size]) for first in step]
        self._tokens, self._seconds = 0, 0.0

    @property
    def group(self) -> Sequence[str]:
        """Name the trials that train in the coming step."""
        return self._groups[0]

    def take(self, tokens: int, seconds: float) -> None:
        """Take what the step of the group measured, and go on to the next."""
        self._tokens += tokens
        self._seconds += seconds
        self._groups.pop(0)
        if self._groups:
            return
        if self._tokens:
            kept = self._speeds if self._cycle else self._warming
            kept[self._size] = max(self._tokens / self._seconds, kept.get(self._size, 0.0))
        self._size *= 2
        if self._size > min(self.most, len(self.trials)):
            self._size, self._cycle = 1, self._cycle + 1
        if self._cycle == CYCLES:
            self._choose(self._speeds)
        else:
            self._begin_round()

    def stop(self) -> None:
        """Choose among the sizes below the present one, for which there is no memory."""
        speeds = self._warming | self._speeds
        self._choose({size: speed for size, speed in speeds.items() if size < self._size})

    def _choose(self, speeds: dict[int, float]) -> None:
        if 1 in speeds:
            self.choice = choose_slots(speeds)
        else:
            self.choice = SlotChoice(1, {}, "memory holds one trial at a time")
