"""Turn what Tune reports into journal records, gauges and the live view."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.tune import Callback

from lorasweep.spec.studies import study_name
from lorasweep.spec.trial import TrialSpec
from lorasweep.store.best import Best, find_best
from lorasweep.store.configurations import configurations
from lorasweep.store.journal import Journal
from lorasweep.store.records import (
    BaseMeasured,
    FinalStatus,
    Scores,
    SpectrumMeasured,
    TrialFinished,
    TrialStarted,
)
from lorasweep.store.results import TrialResult, last_states, trial_result
from lorasweep.tune.interrupt import Interrupt
from lorasweep.tune.metrics import Gauges
from lorasweep.tune.search import OrderedSearch
from lorasweep.tune.sequence import Outcome


@dataclass
class Running:
    """Hold what the live view shows of one running trial."""

    trial: TrialSpec
    began: float
    latest: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Board:
    """Hold the sweep's state as a person follows it.

    study: trials by status that have ended in this study and session.
    method, domain: of the study under way.
    results: the trials that have ended, by study.
    tokens_per_s: sum over the running trials.
    """

    planned: int
    began: float = field(default_factory=time.time)
    statuses: Counter[str] = field(default_factory=Counter)
    running: dict[str, Running] = field(default_factory=dict)
    recent: list[TrialFinished] = field(default_factory=list)
    ended_here: int = 0
    study: Counter[str] = field(default_factory=Counter)
    method: str = "lora"
    domain: str = ""
    results: dict[str, list[TrialResult]] = field(default_factory=dict)
    _best: dict[str, Best | None] = field(default_factory=dict)

    def enter(self, method: str, domain: str) -> None:
        """Turn to another study."""
        self.study.clear()
        self.method, self.domain = method, domain

    @property
    def best(self) -> Best | None:
        """Best configuration of the study under way, by the rule of the report."""
        name = study_name(self.method, self.domain)
        if name not in self._best:  # the live view asks several times a second
            found = find_best(configurations(self.results.get(name, ())))
            self._best[name] = found[0] if found else None
        return self._best[name]

    @property
    def ended(self) -> int:
        """Count the trials that have ended, in this session and before."""
        return sum(count for status, count in self.statuses.items() if status != "RUNNING")

    @property
    def hopeless(self) -> bool:
        """Tell whether at least three trials of the study have ended and all of them failed."""
        return self.study["FAILED"] >= 3 and self.study["FAILED"] == self.study.total()

    @property
    def seconds_left(self) -> float | None:
        """Expect the rest to go at the pace of this session so far."""
        if not self.ended_here:
            return None
        pace = (time.time() - self.began) / self.ended_here
        return pace * max(0, self.planned - self.ended)

    @property
    def tokens_per_s(self) -> float:
        """Add up the speed of the running trials."""
        return sum(float(r.latest.get("tokens_per_s") or 0.0) for r in self.running.values())

    def finish(self, record: TrialFinished, *, here: bool) -> None:
        """Take a trial's final record."""
        self.statuses[record.status] += 1
        self.study[record.status] += here
        self.recent.append(record)
        self.ended_here += here
        name = study_name(record.configuration.method, record.domain)
        self.results.setdefault(name, []).append(trial_result(record))
        self._best.pop(name, None)


class Recorder(Callback):  # type: ignore[misc]
    """Write every change of a trial's state to the journal, and show it."""

    def __init__(
        self,
        journal: Journal,
        search: OrderedSearch,
        board: Board,
        gauges: Gauges,
        base: Scores | None,
        *,
        domain: str = "",
        interrupt: Interrupt,
        announce: Callable[[TrialFinished], None],
        drop: Callable[[str], None] | None = None,
    ) -> None:
        """Take what is written to.

        Args:
            base: the base's scores; None where the first trial that ends will bring them.
            domain: of the study.
            interrupt: whether the session is being ended, in which case a trial that stops has not
                ended but only been cut off.
            announce: told of every trial that has ended.
            drop: frees the slot of a trial that was stopped early, since Tune keeps the stopped
                trial's actor for the next one and does not clean it up.
        """
        self._journal, self._search, self._board, self._gauges = journal, search, board, gauges
        self._base, self._interrupt, self._announce = base, interrupt, announce
        self._drop, self._domain = drop, domain

    def __getstate__(self) -> dict[str, Any]:
        """Pickle nothing: Tune saves its callbacks, and all of ours can be rebuilt."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Journal a start."""
        spec = TrialSpec.model_validate(trial.config["trial"])
        self._board.running[trial.trial_id] = Running(spec, time.time())
        self._journal.append(
            TrialStarted(
                trial=spec.id,
                number=trial.config["number"],
                stage=spec.stage,
                seed=spec.seed,
                configuration=spec.hyperparameters,
                domain=self._domain,
                time=time.time(),
            )
        )
        self._publish()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Show progress."""
        running = self._board.running.get(trial.trial_id)
        if running is not None:
            running.latest = {**running.latest, **result}
            self._gauges.trial(running.trial.id, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Journal the end of a trial that reported its scores, or that the scheduler stopped."""
        result = trial.last_result or {}
        if "status" in result:
            self._end(trial, result["status"], result, result.get("error"))
        elif not self._interrupt.ending:
            # Tune marks both as terminated; a trial that ended by itself has always a status.
            self._end(trial, "PRUNED", self._board.running[trial.trial_id].latest, None)
            if self._drop is not None:
                self._drop(trial.config["trial"]["id"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Journal a trial that raised, with the sentence that says why."""
        if not self._interrupt.ending:
            self._end(trial, "FAILED", trial.last_result or {}, reason(trial))

    def _end(
        self, trial: Any, status: FinalStatus, result: Mapping[str, Any], error: str | None
    ) -> None:
        if self._base is None and result.get("base") is not None:
            self._base = Scores.model_validate(result["base"])
            self._journal.append(BaseMeasured(scores=self._base, domain=self._domain))
        running = self._board.running.pop(trial.trial_id)
        entry = self._search.entry(trial.trial_id)
        scores = Scores.model_validate({k: result[k] for k in Scores.model_fields if k in result})
        source = scores.source_accuracy
        base = None if self._base is None else self._base.source_accuracy
        record = TrialFinished(
            trial=running.trial.id,
            status=status,
            number=trial.config["number"],
            stage=running.trial.stage,
            seed=running.trial.seed,
            configuration=running.trial.hyperparameters,
            domain=self._domain,
            learning=scores.learning,
            source_accuracy=source,
            forgetting=None if source is None or base is None else base - source,
            response_loss=scores.response_loss,
            train_loss=result.get("train_loss"),
            tasks=scores.tasks,
            code=scores.code,
            rungs=tuple(entry.rungs),
            steps=result.get("step", 0),
            tokens=result.get("tokens", 0),
            wall_s=round(result.get("wall_s") or time.time() - running.began, 3),
            train_s=round(result.get("train_s", 0.0), 3),
            evaluate_s=round(result.get("evaluate_s", 0.0), 3),
            trainable=result.get("trainable", 0),
            peak_memory_bytes=result.get("peak_memory_bytes"),
            error=error,
            time=time.time(),
        )
        if (spectrum := result.get("spectrum")) is not None:
            measured = {"trial": record.trial, **spectrum}
            self._journal.append(SpectrumMeasured.model_validate(measured))
        self._journal.append(record)
        self._search.finish(trial.trial_id, Outcome(status, scores.learning))
        self._board.finish(record, here=True)
        self._gauges.trial(record.trial, record.model_dump(include={"learning", "forgetting"}))
        self._announce(record)
        self._publish()
        # What has failed every time will go on failing, and each attempt costs its start-up.
        self._interrupt.given_up |= self._board.hopeless

    def _publish(self) -> None:
        statuses = Counter(self._board.statuses)
        statuses["RUNNING"] = len(self._board.running)
        best = self._board.best
        self._gauges.sweep(statuses, best.winner.learning if best else None)


def count_known(board: Board, journal: Journal) -> None:
    """Fill a board with the trials that ended in earlier sessions."""
    for record in last_states(journal.records).values():
        if isinstance(record, TrialFinished) and record.status != "FAILED":
            board.finish(record, here=False)


def reason(trial: Any) -> str:
    """Give the line of a failed trial's traceback in which the cause of the failure stands."""
    file = Path(trial.error_file)
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in text.splitlines()]
    # Ray tells of a worker's exception below those of the controller and the trial, each of which
    # begins with its dotted name.
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt)\b.*: ", line)]
    return (raised or lines or ["the trial's process ended without an error"])[-1][:500]
