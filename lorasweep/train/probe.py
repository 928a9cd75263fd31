"""How many slots pay: found out from the first steps of real trials, so that nothing is wasted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NEARLY_BEST = 0.95  # the fewest slots within 5% of the best speed
PACKING_PAYS = 1.10  # and one slot alone where the best gains less than 10%
ROUNDS = 3  # of which the first warms up


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

    In a round every trial trains one step, in groups of one size; then comes the next size. So each
    size is measured on the same trials. What a trial computes does not depend on its group.

    most: slots at most.
    """

    trials: Sequence[str]
    most: int
    choice: SlotChoice | None = None
    _groups: list[list[str]] = field(default_factory=list)
    _size: int = 1
    _round: int = 0
    _seconds: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    _tokens: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        """Settle at once where there is nothing to compare."""
        self._begin_round()
        if min(self.most, len(self.trials)) < 2:
            self.choice = SlotChoice(1, {}, "there is no second trial to share with")

    def _begin_round(self) -> None:
        step = range(0, len(self.trials), self._size)
        self._groups = [list(self.trials[first : first + self._size]) for first in step]

    @property
    def group(self) -> Sequence[str]:
        """Name the trials that train in the coming step."""
        return self._groups[0]

    def take(self, tokens: int, seconds: float) -> None:
        """Take what the step of the group measured, and go on to the next."""
        if self._round:
            self._tokens[self._size] += tokens
            self._seconds[self._size] += seconds
        self._groups.pop(0)
        if self._groups:
            return
        self._round += 1
        if self._round == ROUNDS:
            self._round, self._size = 0, 2 * self._size
        if self._size > min(self.most, len(self.trials)):
            self.stop()
        else:
            self._begin_round()

    def stop(self) -> None:
        """Choose among the sizes measured to their end, since no other is to be had."""
        ended = [n for n, s in self._seconds.items() if n < self._size and s and self._tokens[n]]
        speeds = {n: self._tokens[n] / self._seconds[n] for n in ended}
        if 1 in speeds:
            self.choice = choose_slots(speeds)
        else:
            self.choice = SlotChoice(1, {}, "memory holds one trial at a time")
