"""Drive an engine: train trials, measure them at rungs and at their end, and report.

A lane holds many trials in one runner; a Ray Train job of its own holds one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from lorasweep.data.shard import Shard
from lorasweep.data.tokens import TrainingData
from lorasweep.errors import LorasweepError, OutOfMemoryError
from lorasweep.evaluate.agreement import BaseSamples, sample_base
from lorasweep.evaluate.code.suite import Completion
from lorasweep.evaluate.measure import Measurement
from lorasweep.evaluate.spectra.spectrum import BaseSpectra, spectrum_of_update
from lorasweep.evaluate.spectra.weights import base_folder
from lorasweep.lanes.assignment import assign, row_width_of
from lorasweep.lanes.engines import open_engine
from lorasweep.lanes.history import TrialHistory
from lorasweep.lanes.messages import (
    RungPassed,
    SweepJob,
    TrialEnded,
    TrialFailed,
    TrialReport,
    TrialRequeued,
)
from lorasweep.lanes.quiet import set_up_process
from lorasweep.lanes.trunks import Trunks
from lorasweep.model.base import BaseReader
from lorasweep.model.served import Served
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import TrialSpec
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import Rung, SpectrumMeasured
from lorasweep.store.scores import Scores
from lorasweep.train.checkpoint import drop_state
from lorasweep.train.device import CatchOutOfMemory, free_cache
from lorasweep.train.engine import Slot
from lorasweep.train.progress import Progress

Value = TypeVar("Value")


def open_runner(job: SweepJob, trial: TrialSpec | None = None) -> Runner:
    """Load base, data and tasks in a Ray Train worker, as one of its group.

    Args:
        trial: the only one to come, if DeepSpeed spreads it over the group.
    """
    set_up_process(job.cpus)
    import ray
    import ray.train.torch

    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    device = ray.train.torch.get_device()
    samples = None if job.samples is None else ray.get(job.samples)
    return Runner(job.spec, Path(job.root), ray.get(job.data), shard, device, samples, trial)


class Runner:
    """An engine with what its trials need besides: data, evaluation, checkpoints and reports.

    engine: trains the trials in its slots.
    base_bytes: memory of the base.
    """

    def __init__(
        self,
        spec: SweepSpec,
        root: Path,
        data: TrainingData,
        shard: Shard,
        device: torch.device,
        samples: BaseSamples | None = None,
        trial: TrialSpec | None = None,
    ) -> None:
        """Load the base and prepare to measure.

        Args:
            spec: the study, its suites resolved.
            samples: the base's own; drawn here if a suite needs them and none are given.
            trial: the only one to come, if DeepSpeed spreads it over the workers.

        Raises:
            LorasweepError: this process does not see the results folder.
        """
        self.spec, self.data, self.shard = spec, data, shard
        self.paths = SweepPaths(root)
        if not self.paths.sweep.is_file():
            raise LorasweepError(
                f"--out: every node must see the results folder, and this worker does not see "
                f"{root}; put it on storage that the nodes share"
            )
        self._base = BaseReader(spec.model)
        self.tokenizer = self._base.tokenizer
        self.engine = open_engine(spec, shard, device, trial)
        self.base_bytes = self.engine.base_bytes
        # Runs the model, which nothing else may use at the same time; so it comes first.
        self._width = row_width_of(spec, data, self.engine, shard.workers)
        self.measurement = Measurement(
            spec.evaluate,
            self.tokenizer,
            data.heldout,
            self._sample_base if samples is None else lambda: samples,
            Shard() if self.engine.lockstep else shard,
            device,
        )
        self._histories: dict[str, TrialHistory] = {}
        self._trunks = Trunks(spec, self.paths)
        self._spectra = BaseSpectra()
        self._too_large: dict[str, str] = {}  # why trials did not fit into memory in this step

    def _sample_base(self) -> BaseSamples:
        facts, first = self._base.facts, self.tokenizer.bos_token_id
        known = first is not None and first < facts.vocabulary
        with self.engine.serving_base() as served, served.all_copies() as model:
            return sample_base(
                model,
                first if known else self.tokenizer.eos_token_id,
                positions=facts.positions,
                batch_size=self.spec.evaluate.batch_size,
                device=self.engine.device,
            )

    def measure_base(self) -> Scores:
        """Measure the base without any adapter."""
        with self.engine.serving_base() as served:
            (scores,) = self.measurement.scores(served)
        return scores

    def prepare(self, trial: TrialSpec) -> Slot:
        """Build a trial's slot, from its saved state if it has one.

        Touches nothing that trains, so it may run in another thread.

        Raises:
            LorasweepError: the trial does not fit the model, or the state does not fit the trial.
        """
        assigned = assign(
            trial,
            self.spec,
            self.data,
            workers=self.shard.workers,
            pad=self.tokenizer.pad_token_id,
            width=self._width,
            shared=self.engine.shares_rows,
        )
        own = self.paths.trial(trial.id).state
        trunk = self._trunks.before(trial, assigned.steps)
        branches = trunk is not None and not own.is_dir()
        slot = self.engine.prepare(assigned, trunk if branches else own)
        if branches:  # the time that the trunk took was counted for the shorter trial
            slot.position = replace(slot.position, train_s=0.0)
        return slot

    def admit(self, slot: Slot) -> list[RungPassed]:
        """Train a prepared trial from the next step on.

        Returns:
            The rungs that it passed before, since a scheduler that has not seen them must judge
            the trial again.

        Raises:
            OutOfMemoryError: memory does not hold it beside the others.
        """
        self.engine.admit(slot)
        trial = slot.trial.id
        history = TrialHistory.restore(slot, self.paths.trial(trial))
        self._histories[trial] = history
        return [RungPassed(trial=trial, rung=rung) for rung in history.rungs]

    def release(self, trial: str, *, save: bool = False) -> None:
        """Free a trial's slot before its end; it can resume from its state if that is saved."""
        history = self._histories.pop(trial)
        slot = self.engine.retire(trial)
        if save:
            slot.save_state(history.paths.state, history.notes())

    def save(self, trial: str) -> None:
        """Write a trial's state; it keeps training."""
        history = self._histories[trial]
        self.engine.slots[trial].save_state(history.paths.state, history.notes())

    def step(self, resting: Collection[str] = ()) -> list[TrialReport]:
        """Train all but the resting trials by one step; measure and report those that are due.

        Raises:
            OutOfMemoryError: the step does not fit into memory; no trial has moved.
        """
        made = self.engine.step(resting)
        self._too_large.clear()
        sound = [progress for progress in made if progress.diverged is None]
        self._trunks.leave(sound, self.engine.slots)
        ended = [p.trial for p in sound if self._history(p).percent(p.position.step) == 100]
        rungs = {
            p.trial: self._history(p).rung_at(p.position.step, self.spec.search.rungs)
            for p in sound
        }
        # A trial at its end is measured anyway, its response loss included.
        self._pass_rungs({t: percent for t, percent in rungs.items() if percent and t not in ended})
        reports: list[TrialReport] = [
            self._progress(progress, rungs[progress.trial])
            for progress in sound
            if progress.trial not in self._too_large
            and (
                rungs[progress.trial]
                or self._history(progress).is_report_due(progress.position.step)
            )
        ]
        measured = self._measured(ended, self._scores)
        over = [p for p in made if p.diverged is not None or p.trial in measured]
        reports += [self._finish(p, *measured.get(p.trial, (Scores(), []))) for p in over]
        return reports + [self._fail(*failed) for failed in self._too_large.items()]

    def _history(self, progress: Progress) -> TrialHistory:
        return self._histories[progress.trial]

    def _scores(self, served: Served) -> list[tuple[Scores, list[Completion]]]:
        """Measure everything about each model, and collect its completions of code tasks."""
        scores = self.measurement.scores(served)
        completions = self.measurement.completions or [[] for _ in scores]
        return list(zip(scores, completions, strict=True))

    def _fail(self, trial: str, error: str) -> TrialFailed:
        """Free the slot of a trial that memory does not hold; the others keep training."""
        self.release(trial)
        return TrialFailed(trial=trial, error=error)

    def _pass_rungs(self, rungs: dict[str, int]) -> None:
        """Save trials at their rungs, and measure their response loss if a scheduler judges it.

        Args:
            rungs: in percent, by trial.
        """
        judged = self.spec.search.scheduler != "none"
        losses = self._measured(list(rungs) if judged else [], self.measurement.response_losses)
        for trial, percent in rungs.items():
            if trial in losses:
                step = self.engine.slots[trial].position.step
                rung = Rung(percent=percent, step=step, response_loss=losses[trial])
                self._histories[trial].rungs.append(rung)
            if trial not in self._too_large:
                self.save(trial)

    def _measured(
        self, trials: list[str], measure: Callable[[Served], list[Value]]
    ) -> dict[str, Value]:
        """Measure trials side by side, or one by one if memory does not hold them all.

        Returns:
            The measurement of each trial, without those that memory does not hold even alone.
        """
        if not trials:
            return {}
        began = time.perf_counter()
        values: dict[str, Value] = {}
        with CatchOutOfMemory() as caught, self.engine.serving(trials) as (served, order):
            values = dict(zip(order, measure(served), strict=True))
        if caught.message is not None:
            free_cache(self.engine.device)
            if self.shard.workers > 1:
                # Other workers may have had enough memory, and wait for this one's results.
                raise OutOfMemoryError(f"{self._misfit()} ({caught.message})")
            if len(trials) == 1:
                self._too_large[trials[0]] = self._misfit()
            else:
                for trial in trials:
                    values |= self._measured([trial], measure)
            return values
        for trial in trials:  # measured side by side, so they share the time
            self._histories[trial].evaluate_s += (time.perf_counter() - began) / len(trials)
        return values

    def _misfit(self) -> str:
        """Explain that memory does not hold a batch of the evaluation."""
        return (
            "evaluate.batch_size: what is measured at a time must fit into the memory of "
            f"{self.engine.device}, and {self.spec.evaluate.batch_size} texts do not; lower it"
        )

    def _progress(self, progress: Progress, rung: int | None) -> TrialReport:
        history = self._history(progress)
        report = history.report_progress(progress, rung)
        if self.shard.worker == 0:
            history.log_progress(report)
        return report

    def _finish(
        self, progress: Progress, scores: Scores, completions: list[Completion]
    ) -> TrialEnded:
        """Write what a trial has trained, free its slot, and report its end."""
        trial, slot = progress.trial, self.engine.slots[progress.trial]
        history, spectrum = self._histories[trial], None
        if completions and self.shard.worker == 0:
            history.write_completions(completions)
        if progress.diverged is None:
            folder = slot.save_trained(history.paths, self.tokenizer)
            if self.spec.evaluate.spectrum:
                spectrum = self._spectrum(trial, folder)
        if self.shard.worker == 0:
            drop_state(history.paths.state)
        self.release(trial)
        device = self.engine.device
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        return history.report_end(
            progress, scores, spectrum, trainable=slot.trainable, peak_memory_bytes=peak
        )

    def _spectrum(self, trial: str, folder: Path) -> SpectrumMeasured:
        """Measure the spectrum of the update just saved, the matrices shared among workers."""
        began = time.perf_counter()
        matrices = spectrum_of_update(
            base_folder(self.spec.model),
            self.shard.broadcast(folder),  # waits until rank 0 has written it
            device=self.engine.device,
            spectra=self._spectra,
            shard=self.shard,
        )
        wall_s = round(time.perf_counter() - began, 3)
        return SpectrumMeasured(trial=trial, matrices=tuple(matrices), wall_s=wall_s)

    def make_room(self, shortage: str) -> TrialRequeued | TrialFailed:
        """Free the slot of the trial that was admitted last, after memory ran out.

        Its state is saved, so that it can continue elsewhere or later; if it is the only one, it
        fails.
        """
        free_cache(self.engine.device)
        *others, last = self.engine.slots
        if others:
            self.release(last, save=True)
            return TrialRequeued(last, shortage)
        return self._fail(
            last,
            f"trial {last}: one micro-batch must fit into the memory of {self.engine.device}, and "
            "does not even alone; lower train.micro_batch or data.seq_len, or set train.recompute",
        )
