"""The Tune trial of a study that trains in lanes: it leases a slot and passes on the reports."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import ray
from ray import tune

from lorasweep.errors import LorasweepError
from lorasweep.lanes.messages import LeaseLost, TrialFailed, from_config, is_final, to_tune
from lorasweep.spec.trial import TrialSpec
from lorasweep.store.paths import SweepPaths, TrialPaths


class SlotClient(tune.Trainable):  # type: ignore[misc]
    """One trial as Tune sees it; a lane does the training, so it reserves no CPU."""

    def setup(self, config: dict[str, Any], broker: Any = None, root: str = "") -> None:
        """Request a slot."""
        self._broker, self._root = broker, root
        self._client = uuid.uuid4().hex
        self._lease(from_config(config).trial)

    def _lease(self, trial: TrialSpec) -> None:
        self._trial, self._number = trial, 0
        ray.get(self._broker.lease.remote(self._trial, self._client))

    def step(self) -> dict[str, Any]:
        """Wait for the trial's next report.

        Raises:
            LorasweepError: the trial has failed.
        """
        report = None
        while report is None:
            report = ray.get(
                self._broker.next_report.remote(self._trial.id, self._client, self._number)
            )
            if isinstance(report, LeaseLost):
                self._lease(self._trial)
                report = None
        self._number += 1
        if isinstance(report, TrialFailed):
            raise LorasweepError(report.error)
        return {**to_tune(report), "done": is_final(report)}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial, since a new process would take a second of CPU time to start."""
        self.cleanup()
        self._lease(from_config(new_config).trial)
        return True

    def cleanup(self) -> None:
        """Release the slot; it is free at its lane's next step."""
        ray.get(self._broker.release.remote(self._trial.id, self._client))

    @property
    def _paths(self) -> TrialPaths:
        return SweepPaths(Path(self._root)).trial(self._trial.id)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Copy the trial's state, saved now if it is in a slot, into a checkpoint."""
        ray.get(self._broker.save.remote(self._trial.id))
        if self._paths.state.is_dir():
            shutil.copytree(self._paths.state, checkpoint_dir, dirs_exist_ok=True)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Continue from a checkpoint, in any slot of any lane."""
        ray.get(self._broker.end_lease.remote(self._trial.id))
        shutil.copytree(checkpoint_dir, self._paths.state, dirs_exist_ok=True)
        self._lease(self._trial)
