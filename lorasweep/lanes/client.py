"""A Tune trial that trains in a lane: it leases a slot, hands on its reports, and gives it back."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import ray
from ray import tune

from lorasweep.errors import LorasweepError
from lorasweep.lanes.broker import LOST
from lorasweep.store.paths import SweepPaths, TrialPaths


class SlotClient(tune.Trainable):  # type: ignore[misc]
    """Stand for one trial towards Tune; it trains nothing itself and needs no CPU of its own."""

    def setup(self, config: dict[str, Any], broker: Any = None, root: str = "") -> None:
        """Ask for a slot.

        Args:
            config: `trial`, as plain values, and `number`.
            broker: the actor that the lanes ask for trials.
            root: the sweep's results folder.
        """
        self._desk, self._root = broker, root
        self._client = uuid.uuid4().hex
        self._lease(config)

    def _lease(self, config: dict[str, Any]) -> None:
        self._config, self._trial = config, config["trial"]["id"]
        self._number = 0
        ray.get(self._desk.lease.remote(config["trial"], self._client))

    def step(self) -> dict[str, Any]:
        """Give the trial's next report.

        Raises:
            LorasweepError: the trial has failed.
        """
        report = None
        while report is None:
            report = ray.get(self._desk.report.remote(self._trial, self._client, self._number))
            if report == LOST:
                self._lease(self._config)
                report = None
        self._number += 1
        if report.get("status") == "FAILED":
            raise LorasweepError(report["error"])
        return {**report, "done": "status" in report}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial, so that its process need not start anew."""
        self.cleanup()
        self._lease(new_config)
        return True

    def cleanup(self) -> None:
        """Give the slot back; it is free at its lane's next step."""
        ray.get(self._desk.release.remote(self._trial, self._client))

    @property
    def _paths(self) -> TrialPaths:
        return SweepPaths(Path(self._root)).trial(self._trial)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save the trial where it stands; one that has no slot yet saves its last state, if any."""
        ray.get(self._desk.save.remote(self._trial))
        if self._paths.state.is_dir():
            shutil.copytree(self._paths.state, checkpoint_dir, dirs_exist_ok=True)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from a saved trial, in any slot of any lane."""
        ray.get(self._desk.drop.remote(self._trial))
        shutil.copytree(checkpoint_dir, self._paths.state, dirs_exist_ok=True)
        self._lease(self._config)
