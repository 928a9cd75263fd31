"""States that runs of several durations share, trained once.

A trapezoidal schedule with a fixed warm-up is flat until it decays. A longer run therefore resumes
from the state that a shorter one left where its decay began (Biderman et al. 2024, v2, section 3:
one run of 20 billion tokens, from which each shorter duration branches off with a cooldown over its
last fifth). A trial that finds no such state trains from its first step, to the same result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import TrialSpec
from lorasweep.store.paths import SweepPaths
from lorasweep.train.engine import Slot
from lorasweep.train.optim import decay_start
from lorasweep.train.progress import Progress, TrialNotes


class Trunks:
    """Shared states of a study's trials, in the results folder."""

    def __init__(self, spec: SweepSpec, paths: SweepPaths) -> None:
        """Start without any trial."""
        self._spec, self._paths = spec, paths
        self._leave_at: dict[str, Path] = {}  # where a trial leaves its state, named by the step

    def before(self, trial: TrialSpec, steps: int) -> Path | None:
        """Find the latest state from which a trial of this many steps can continue."""
        key = self._spec.trunk(trial)
        if key is None:
            return None
        self._leave_at[trial.id] = self._paths.trunk(key, decay_start(steps))
        folder = self._leave_at[trial.id].parent
        if not folder.is_dir():
            return None
        # Beyond its own decay_start the trial's learning rate would differ from the trunk's.
        passed = [int(state.name) for state in folder.iterdir() if state.name.isdigit()]
        last = max((step for step in passed if step <= decay_start(steps)), default=None)
        return None if last is None else self._paths.trunk(key, last)

    def leave(self, made: Iterable[Progress], slots: Mapping[str, Slot]) -> None:
        """Save the trials whose decay begins at the next step; every worker must call it."""
        for progress in made:
            state = self._leave_at.get(progress.trial)
            if state is not None and int(state.name) == progress.position.step:
                del self._leave_at[progress.trial]
                slots[progress.trial].save_state(state, TrialNotes())
