"""States that runs of several durations go through alike, so that the way there is trained once.

A trapezoidal schedule with a fixed warm-up is flat until it decays. So a longer run takes up the
state that a shorter one left where its decay began (Biderman et al. 2024, v2, section 3: one run of
20 billion tokens, from which each shorter duration branches off with a cooldown over its last
fifth). A trial that finds no such state trains from its beginning, to the same result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import TrialSpec
from lorasweep.store.paths import SweepPaths
from lorasweep.train.engine import Slot
from lorasweep.train.optim import decay_start
from lorasweep.train.progress import Progress


class Trunks:
    """Find such states for the trials of a study, and leave them."""

    def __init__(self, spec: SweepSpec, paths: SweepPaths) -> None:
        """Start without any trial."""
        self._spec, self._paths = spec, paths
        self._left_at: dict[str, Path] = {}

    def before(self, trial: TrialSpec, steps: int) -> Path | None:
        """Give the latest state that a trial of so many steps can go on from, if there is one."""
        key = self._spec.trunk(trial)
        if key is None:
            return None
        self._left_at[trial.id] = self._paths.trunk(key, decay_start(steps))
        folder = self._left_at[trial.id].parent
        if not folder.is_dir():
            return None
        passed = [int(state.name) for state in folder.iterdir() if state.name.isdigit()]
        last = max((step for step in passed if step <= decay_start(steps)), default=None)
        return None if last is None else self._paths.trunk(key, last)

    def leave(self, made: Iterable[Progress], slots: Mapping[str, Slot]) -> None:
        """Save the trials that stand where their decay begins; every worker must call it."""
        for progress in made:
            state = self._left_at.get(progress.trial)
            if state is not None and int(state.name) == progress.position.step:
                del self._left_at[progress.trial]
                slots[progress.trial].save_state(state, {})
