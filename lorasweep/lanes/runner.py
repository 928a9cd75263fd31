"""Run trials in an engine: train, judge at rungs, measure at the end, and say so in reports.

A lane holds many trials in one runner; a Ray Train job of its own holds one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from lorasweep.data.shard import Shard
from lorasweep.data.tokens import TrainingData
from lorasweep.errors import LorasweepError, OutOfMemoryError
from lorasweep.evaluate.agreement import BaseSamples, sample_base
from lorasweep.evaluate.code.suite import Completion
from lorasweep.evaluate.measure import Measurement
from lorasweep.evaluate.spectra.spectrum import BaseSpectra, spectrum_of_update
from lorasweep.evaluate.spectra.weights import base_folder
from lorasweep.lanes.assignment import assign, width_of
from lorasweep.lanes.engines import open_engine
from lorasweep.lanes.trunks import Trunks
from lorasweep.model.base import load_tokenizer, read_facts
from lorasweep.model.served import Served
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import TrialSpec
from lorasweep.store.paths import SweepPaths, TrialPaths, write_atomically
from lorasweep.store.records import Rung, Scores
from lorasweep.train.broadcast import broadcast
from lorasweep.train.checkpoint import drop_state
from lorasweep.train.device import CatchOutOfMemory, free_cache
from lorasweep.train.engine import Slot
from lorasweep.train.progress import Progress

REPORTS = 5  # progress reports of a trial besides its rungs

Report = dict[str, Any]
Value = TypeVar("Value")


@dataclass
class _Story:
    """Hold what a trial has lived through besides its training.

    tokens, began: tokens trained on before it was admitted here, and when that was.
    """

    paths: TrialPaths
    tokens: int
    began: float
    rungs: list[Rung]
    evaluate_s: float

    def notes(self) -> dict[str, Any]:
        """Give what a saved state keeps of it."""
        rungs = [rung.model_dump() for rung in self.rungs]
        return {"rungs": rungs, "evaluate_s": self.evaluate_s}


class Runner:
    """Hold an engine with everything that its trials need.

    engine: whose slots the trials stand in.
    base_bytes: memory that the base takes.
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
        """Load the base and make ready to measure.

        Args:
            spec: the study, its suites resolved.
            root: the sweep's results folder.
            samples: the base's own; drawn when a suite needs them, where none are given.
            trial: the only one to come, where DeepSpeed spreads it over the workers.

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
        self.tokenizer = load_tokenizer(spec.model)
        self.engine = open_engine(spec, shard, device, trial)
        self.base_bytes = self.engine.base_bytes
        # Asks the model, which nobody else is using yet.
        self._width = width_of(spec, data, self.engine, shard.workers)
        self.measurement = Measurement(
            spec.evaluate,
            self.tokenizer,
            data.heldout,
            self._sample_base if samples is None else lambda: samples,
            Shard() if self.engine.lockstep else shard,
            device,
        )
        self._stories: dict[str, _Story] = {}
        self._trunks = Trunks(spec, self.paths)
        self._spectra = BaseSpectra()
        self._too_large: dict[str, str] = {}  # sentences on what memory did not hold in this step

    def _sample_base(self) -> BaseSamples:
        facts, first = read_facts(self.spec.model), self.tokenizer.bos_token_id
        known = first is not None and first < facts.vocabulary
        with self.engine.serving_base() as served, served.together() as model:
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
        """Make a trial ready for a slot, from its saved state where it has one.

        Touches nothing that trains, so it may run in another thread.

        Raises:
            LorasweepError: the trial does not fit the model, or the state does not fit the trial.
        """
        told = assign(
            trial,
            self.spec,
            self.data,
            workers=self.shard.workers,
            pad=self.tokenizer.pad_token_id,
            width=self._width,
            shared=self.engine.shares_rows,
        )
        own = self.paths.trial(trial.id).state
        trunk = self._trunks.before(trial, told.steps)
        branches = trunk is not None and not own.is_dir()
        slot = self.engine.prepare(told, trunk if branches else own)
        if branches:
            # The time that the trunk took is the shorter trial's.
            slot.position = replace(slot.position, train_s=0.0)
        return slot

    def admit(self, slot: Slot) -> list[Report]:
        """Let a trial train from the next step on.

        Returns:
            Reports of the rungs it passed before, since a scheduler that has not seen this trial
            must judge it again.

        Raises:
            OutOfMemoryError: memory does not hold it beside the others.
        """
        self.engine.admit(slot)
        trial = slot.trial.id
        rungs = [Rung.model_validate(rung) for rung in slot.notes.get("rungs", [])]
        self._stories[trial] = _Story(
            self.paths.trial(trial),
            slot.position.tokens,
            time.perf_counter(),
            rungs,
            float(slot.notes.get("evaluate_s", 0.0)),
        )
        return [{"trial": trial, **rung.model_dump()} for rung in rungs]

    def release(self, trial: str, *, save: bool = False) -> None:
        """Free a trial's slot before its end; it can go on from its state where one is saved."""
        story = self._stories.pop(trial)
        slot = self.engine.retire(trial)
        if save:
            slot.save_state(story.paths.state, story.notes())

    def save(self, trial: str) -> None:
        """Write a trial's state; it trains on."""
        story = self._stories[trial]
        self.engine.slots[trial].save_state(story.paths.state, story.notes())

    def step(self, resting: Collection[str] = ()) -> list[Report]:
        """Train all but the resting trials by one step, and report on those that have news.

        Raises:
            OutOfMemoryError: the step does not fit into memory; no trial has moved.
        """
        made = self.engine.step(resting)
        self._too_large.clear()
        self._trunks.leave([p for p in made if p.diverged is None], self.engine.slots)
        ended = [p.trial for p in made if p.diverged is None and self._percent(p) == 100]
        rungs = {p.trial: self._rung(p) for p in made if p.diverged is None}
        self._pass_rungs({t: percent for t, percent in rungs.items() if percent and t not in ended})
        reports = [
            self._progress(progress, rungs[progress.trial])
            for progress in made
            if progress.diverged is None
            and progress.trial not in self._too_large
            and (rungs[progress.trial] or progress.position.step % self._pulse(progress) == 0)
        ]
        measured = self._measured(ended, self._scores)
        over = [p for p in made if p.diverged is not None or p.trial in measured]
        reports += [self._finish(p, *measured.get(p.trial, (Scores(), []))) for p in over]
        return reports + [self._fail(*failed) for failed in self._too_large.items()]

    def _scores(self, served: Served) -> list[tuple[Scores, list[Completion]]]:
        """Measure everything of each copy, and give what it wrote in answer to code tasks."""
        scores = self.measurement.scores(served)
        written = self.measurement.completions or [[] for _ in scores]
        return list(zip(scores, written, strict=True))

    def _fail(self, trial: str, error: str) -> Report:
        """Free the slot of a trial that memory does not hold; the others train on."""
        self.release(trial)
        return {"trial": trial, "status": "FAILED", "error": error}

    def _percent(self, progress: Progress) -> int:
        steps = self.engine.slots[progress.trial].trial.steps
        return 100 * progress.position.step // steps

    def _rung(self, progress: Progress) -> int | None:
        """Give the percentage at which a scheduler judges the trial after this step, if any."""
        steps = self.engine.slots[progress.trial].trial.steps
        at = {math.ceil(steps * percent / 100): percent for percent in self.spec.search.rungs}
        return at.get(progress.position.step)

    def _pulse(self, progress: Progress) -> int:
        return max(1, self.engine.slots[progress.trial].trial.steps // REPORTS)

    def _pass_rungs(self, rungs: dict[str, int]) -> None:
        """Save trials at their rungs, and measure their response loss where a scheduler judges it.

        Args:
            rungs: percentage of each trial that stands at one.
        """
        judged = self.spec.search.scheduler != "none"
        losses = self._measured(list(rungs) if judged else [], self.measurement.response_losses)
        for trial, percent in rungs.items():
            if trial in losses:
                step = self.engine.slots[trial].position.step
                rung = Rung(percent=percent, step=step, response_loss=losses[trial])
                self._stories[trial].rungs.append(rung)
            if trial not in self._too_large:
                self.save(trial)

    def _measured(
        self, trials: list[str], measure: Callable[[Served], list[Value]]
    ) -> dict[str, Value]:
        """Measure trials side by side, or one by one where memory does not hold them all.

        Returns:
            What each trial has, but for those that memory does not hold even alone.
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
                # Others may have had room, and would wait for this one.
                raise OutOfMemoryError(f"{self._misfit()} ({caught.message})")
            if len(trials) == 1:
                self._too_large[trials[0]] = self._misfit()
            else:
                for trial in trials:
                    values |= self._measured([trial], measure)
            return values
        for trial in trials:
            self._stories[trial].evaluate_s += (time.perf_counter() - began) / len(trials)
        return values

    def _misfit(self) -> str:
        """Say that memory does not hold what is measured at a time."""
        return (
            "evaluate.batch_size: what is measured at a time must fit into the memory of "
            f"{self.engine.device}, and {self.spec.evaluate.batch_size} texts do not; lower it"
        )

    def _progress(self, progress: Progress, percent: int | None) -> Report:
        story, position = self._stories[progress.trial], progress.position
        report = self._standing(progress) | {
            "percent": percent or self._percent(progress),
            "grad_norm": progress.grad_norm,
            "lr": progress.lr,
            "time": time.time(),
        }
        if story.rungs and story.rungs[-1].step == position.step:
            report["response_loss"] = story.rungs[-1].response_loss
        if self.shard.worker == 0:
            story.paths.root.mkdir(parents=True, exist_ok=True)
            with story.paths.progress.open("a", encoding="utf-8") as file:
                file.write(json.dumps(report) + "\n")
        return report

    def _standing(self, progress: Progress) -> Report:
        """Say how far a trial is and what that took."""
        story, position = self._stories[progress.trial], progress.position
        return {
            "trial": progress.trial,
            "step": position.step,
            "percent": self._percent(progress),
            "train_loss": position.train_loss,
            "tokens": position.tokens,
            "tokens_per_s": self._speed(progress),
            "train_s": position.train_s,
            "evaluate_s": story.evaluate_s,
        }

    def _speed(self, progress: Progress) -> float:
        """Give the trial's own tokens per second since it was admitted."""
        story = self._stories[progress.trial]
        seconds = time.perf_counter() - story.began
        return (progress.position.tokens - story.tokens) / seconds

    def _finish(self, progress: Progress, scores: Scores, completions: list[Completion]) -> Report:
        """Keep what a trial has trained, free its slot, and report its end."""
        trial, slot = progress.trial, self.engine.slots[progress.trial]
        story, standing = self._stories[trial], self._standing(progress)
        spectrum = None
        if completions and self.shard.worker == 0:
            lines = [json.dumps(asdict(completion)) + "\n" for completion in completions]
            write_atomically(story.paths.completions, "".join(lines))
        if progress.diverged is None:
            folder = slot.save_trained(story.paths, self.tokenizer)
            if self.spec.evaluate.spectrum:
                spectrum = self._spectrum(folder)
        if self.shard.worker == 0:
            drop_state(story.paths.state)
        self.release(trial)
        device = self.engine.device
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        return standing | {
            "status": "COMPLETE" if progress.diverged is None else "DIVERGED",
            "error": progress.diverged,
            "wall_s": time.perf_counter() - story.began,
            "trainable": slot.trainable,
            "peak_memory_bytes": peak,
            "spectrum": spectrum,
            **scores.model_dump(),
        }

    def _spectrum(self, folder: Path) -> dict[str, Any]:
        """Measure what was added to the base, from what was just saved, on all workers."""
        began = time.perf_counter()
        matrices = spectrum_of_update(
            base_folder(self.spec.model),
            broadcast(folder, self.shard),  # and so not before the first worker has written it
            device=self.engine.device,
            spectra=self._spectra,
            shard=self.shard,
        )
        plain = [matrix.model_dump() for matrix in matrices]
        return {"matrices": plain, "wall_s": round(time.perf_counter() - began, 3)}

    def make_room(self, shortage: str) -> Report:
        """Free the slot of the trial that came last, after memory ran out.

        Its state is saved, so that it can go on elsewhere or later; where it is the only one, it
        fails.
        """
        free_cache(self.engine.device)
        *others, last = self.engine.slots
        if others:
            self.release(last, save=True)
            return {"trial": last, "requeue": shortage}
        return self._fail(
            last,
            f"trial {last}: one micro-batch must fit into the memory of {self.engine.device}, and "
            "does not even alone; lower train.micro_batch or data.seq_len, or set train.recompute",
        )
