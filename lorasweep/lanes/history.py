"""A trial's rungs and times in a runner, and the reports built from them and its progress."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from lorasweep.evaluate.code.suite import Completion
from lorasweep.lanes.messages import TrialEnded, TrialProgress
from lorasweep.store.paths import TrialPaths, write_atomically
from lorasweep.store.records import Rung, SpectrumMeasured
from lorasweep.store.scores import Scores
from lorasweep.train.engine import Slot
from lorasweep.train.progress import Progress, TrialNotes

REPORTS = 5  # progress reports of a trial, besides its rungs


@dataclass
class TrialHistory:
    """What a runner knows of an admitted trial beyond the engine's slot.

    steps: to its end.
    began: when it was admitted, by time.perf_counter; tokens: trained before that.
    rungs: passed so far, if a scheduler judges them.
    evaluate_s: seconds spent on measuring it.
    """

    trial: str
    paths: TrialPaths
    steps: int
    tokens: int
    rungs: list[Rung]
    evaluate_s: float
    began: float = field(default_factory=time.perf_counter)

    @classmethod
    def restore(cls, slot: Slot, paths: TrialPaths) -> TrialHistory:
        """Begin the history of an admitted trial, from the notes of its saved state."""
        return cls(
            slot.trial.id,
            paths,
            slot.trial.steps,
            slot.position.tokens,
            list(slot.notes.rungs),
            slot.notes.evaluate_s,
        )

    def notes(self) -> TrialNotes:
        """What a checkpoint keeps of the history."""
        return TrialNotes(rungs=tuple(self.rungs), evaluate_s=self.evaluate_s)

    def percent(self, step: int) -> int:
        """Share of the trial's steps done, in percent, rounded down."""
        return 100 * step // self.steps

    def rung_at(self, step: int, rungs: tuple[int, ...]) -> int | None:
        """Find the rung, in percent, that a trial reaches with a step.

        Args:
            rungs: of the search, in percent.
        """
        at = {math.ceil(self.steps * percent / 100): percent for percent in rungs}
        return at.get(step)

    def is_report_due(self, step: int) -> bool:
        """Whether progress is reported after this step, be it a rung or not."""
        return step % max(1, self.steps // REPORTS) == 0

    def _training(self, progress: Progress, percent: int) -> dict[str, Any]:
        """Fields that reports of progress and of the end have in common."""
        position = progress.position
        seconds = time.perf_counter() - self.began  # here, so tokens from before do not count
        return {
            "trial": self.trial,
            "step": position.step,
            "percent": percent,
            "train_loss": position.train_loss,
            "tokens": position.tokens,
            "tokens_per_s": (position.tokens - self.tokens) / seconds,
            "train_s": position.train_s,
            "evaluate_s": self.evaluate_s,
        }

    def report_progress(self, progress: Progress, rung: int | None) -> TrialProgress:
        """Report a step.

        Args:
            rung: in percent, if the step reached one. The percentage of its step may be smaller,
                since steps are whole; a scheduler compares trials at equal percentages.
        """
        step = progress.position.step
        judged = self.rungs[-1] if self.rungs and self.rungs[-1].step == step else None
        return TrialProgress(
            **self._training(progress, rung or self.percent(step)),
            time=time.time(),
            lr=progress.lr,
            grad_norm=progress.grad_norm,
            rung=judged,
        )

    def report_end(
        self,
        progress: Progress,
        scores: Scores,
        spectrum: SpectrumMeasured | None,
        *,
        trainable: int,
        peak_memory_bytes: int | None,
    ) -> TrialEnded:
        """Report the end of a trial, completed or diverged."""
        return TrialEnded(
            **self._training(progress, self.percent(progress.position.step)),
            status="COMPLETE" if progress.diverged is None else "DIVERGED",
            error=progress.diverged,
            scores=scores,
            spectrum=spectrum,
            wall_s=time.perf_counter() - self.began,
            trainable=trainable,
            peak_memory_bytes=peak_memory_bytes,
        )

    def log_progress(self, report: TrialProgress) -> None:
        """Append a report to the trial's progress.jsonl."""
        line = report.model_dump(exclude={"rung"})
        if report.rung is not None:
            line["response_loss"] = report.rung.response_loss
        self.paths.root.mkdir(parents=True, exist_ok=True)
        with self.paths.progress.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def write_completions(self, completions: list[Completion]) -> None:
        """Write what the trial generated for code tasks."""
        lines = [json.dumps(asdict(completion)) + "\n" for completion in completions]
        write_atomically(self.paths.completions, "".join(lines))
