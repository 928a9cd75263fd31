"""Every file of a results folder is a property here; nothing else joins a path."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SweepPaths:
    """Files of one sweep's results folder."""

    root: Path

    @property
    def sweep(self) -> Path:
        """The sweep as it was started, all defaults written out."""
        return self.root / "sweep.yaml"

    @property
    def environment(self) -> Path:
        """Versions and hardware of the machine that started it."""
        return self.root / "environment.json"

    @property
    def journal(self) -> Path:
        """The only record of what happened."""
        return self.root / "journal.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the one driver that may write the journal."""
        return self.root / "driver.lock"

    @property
    def log(self) -> Path:
        """Log of the libraries."""
        return self.root / "driver.log"

    @property
    def trials(self) -> Path:
        """One folder per trial."""
        return self.root / "trials"

    @property
    def trunks(self) -> Path:
        """States that trials of several durations share; removed once the sweep ends."""
        return self.root / "trunks"

    def trunk(self, key: str, step: int) -> Path:
        """State of one such trunk at a step."""
        return self.trunks / key / str(step)

    def tokens(self, key: str) -> Path:
        """Folder of the tokens of streamed documents."""
        return self.root / "tokens" / key

    @property
    def ray(self) -> Path:
        """What Ray writes for itself; a cache that may be deleted."""
        return self.root / "ray"

    @property
    def base_measured(self) -> Path:
        """Scores of the base, on their way from the worker to the driver."""
        return self.ray / "base.npz"

    @property
    def report(self) -> Path:
        """Markdown, figures and machine-readable analysis."""
        return self.root / "report"

    def best(self, method: str, domain: str = "") -> Path:
        """Best weights of a method, an ordinary PEFT or transformers folder."""
        return self.root / "best" / domain / method

    def best_trial(self, method: str, domain: str = "") -> Path:
        """File that names the trial whose weights those are."""
        return self.best(method, domain) / "trial.txt"

    def merged(self, domain: str = "") -> Path:
        """The base with the best adapter merged into it, an ordinary transformers folder."""
        return self.root / "best" / domain / "lora-merged"

    def merged_trial(self, domain: str = "") -> Path:
        """File that names the trial whose adapter that is."""
        return self.merged(domain) / "trial.txt"

    def trial(self, trial: str) -> TrialPaths:
        """Files of one trial."""
        return TrialPaths(self.trials / trial)


@dataclass(frozen=True)
class TrialPaths:
    """Files of one trial."""

    root: Path

    @property
    def adapter(self) -> Path:
        """The tuned adapter, an ordinary PEFT folder."""
        return self.root / "adapter"

    @property
    def state(self) -> Path:
        """Adapter, optimizer and position at the last rung, from which a trial resumes."""
        return self.root / "state"

    @property
    def model(self) -> Path:
        """The tuned model of full finetuning, an ordinary transformers folder."""
        return self.root / "model"

    @property
    def completions(self) -> Path:
        """Programs that the model wrote and how each was judged, a line each."""
        return self.root / "completions.jsonl"

    @property
    def progress(self) -> Path:
        """Training loss, learning rate and speed, a line every few steps."""
        return self.root / "progress.jsonl"


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all, also when the machine stops in the middle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp gives 0600, too strict for a folder that a team shares
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
