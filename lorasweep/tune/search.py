"""How trials are suggested: Optuna's samplers or a grid, in an order that repeats exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from lorasweep.lanes.messages import Suggestion, to_config
from lorasweep.spec.grid import grid_points, planned_trials, trunk_axis
from lorasweep.spec.space import Axis, Level, Range
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import TrialSpec
from lorasweep.store.records import TrialFinished
from lorasweep.tune.sequence import Entry, Outcome, TrialSequence

METRIC = "learning"


def distribution(axis: Axis) -> BaseDistribution:
    """Convert an axis to Optuna's distribution."""
    if isinstance(axis, Range):
        return FloatDistribution(axis.low, axis.high, log=axis.log)
    return CategoricalDistribution(axis.values)


class GridSearch(Searcher):  # type: ignore[misc]
    """Search that suggests given configurations one by one."""

    def __init__(self, points: Iterable[dict[str, Level]]) -> None:
        """Start with all configurations, in the order in which they are to run."""
        super().__init__(metric=METRIC, mode="max")
        self._points = list(points)  # not an iterator, since Tune pickles its searcher

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Suggest the next configuration; FINISHED after the last."""
        return self._points.pop(0) if self._points else Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Ignore outcomes, since a grid does not adapt."""


def build_search(spec: SweepSpec, first_points: list[dict[str, Level]]) -> Searcher:
    """Build the searcher that a study configures, seeded by the sweep.

    Args:
        first_points: configurations that Optuna suggests first.
    """
    search = spec.search
    if search.is_grid:
        return GridSearch(grid_points(spec))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler: optuna.samplers.BaseSampler
    match search.algorithm:
        case "tpe":
            sampler = optuna.samplers.TPESampler(
                seed=spec.seed, n_startup_trials=search.startup_trials
            )
        case "gp":
            sampler = optuna.samplers.GPSampler(
                seed=spec.seed,
                n_startup_trials=search.startup_trials,
                deterministic_objective=False,
            )
        case "random":
            sampler = optuna.samplers.RandomSampler(seed=spec.seed)
    return OptunaSearch(
        space={name: distribution(axis) for name, axis in spec.space.axes.items()},
        metric=METRIC,
        mode="max",
        points_to_evaluate=first_points,
        sampler=sampler,
    )


def first_trials(
    spec: SweepSpec, first_points: list[dict[str, Level]], count: int
) -> list[TrialSpec]:
    """List the trials that a study begins with, before any has ended; repetitions only once."""
    search = build_search(spec, first_points)
    suggested = (search.suggest(str(n)) for n in range(min(count, planned_trials(spec))))
    trials = [spec.trial(values) for values in suggested if isinstance(values, dict)]
    return list({trial.id: trial for trial in trials}.values())


def _restore(entry: Entry, record: TrialFinished) -> None:
    """Fill in what the journal knows of a trial."""
    entry.rungs = list(record.rungs)
    entry.outcome = Outcome(record.status, record.learning)


class OrderedSearch(Searcher):  # type: ignore[misc]
    """Search in a fixed order, which then confirms the best configurations on further seeds.

    Every outcome is passed to the inner searcher in the order of suggestion (see `sequence.py`). A
    trial whose outcome the journal knows does not run, so a resumed sweep goes through the same
    suggestions as one that was never interrupted. That holds for a failed trial too: what came
    after it was suggested in the light of its failure. It runs again once the search is over, and
    its new outcome decides only what is confirmed.
    """

    def __init__(
        self,
        inner: Searcher,
        spec: SweepSpec,
        sequence: TrialSequence,
        known: Mapping[str, Sequence[TrialFinished]],
    ) -> None:
        """Wrap a searcher.

        Args:
            inner: OptunaSearch or a grid, unmodified.
            sequence: of its trials, shared with the scheduler.
            known: final records of earlier sessions by trial, oldest first; of several, all but
                the last are failures.
        """
        # Without a metric of its own: Tune would demand it in every result, and the learning of a
        # trial is known only at its end.
        super().__init__()
        self._inner, self._spec, self._sequence, self._known = inner, spec, sequence, known
        self._planned = planned_trials(spec)
        self._passed_on = 0  # outcomes that the inner searcher knows
        self._retries: list[Entry] | None = None
        self._confirmations: list[Entry] | None = None
        self._running: dict[str, Entry] = {}
        self._waiting: list[Entry] = []  # suggested, and waiting for the trunk of another trial
        self._at_first: int | None = None

    def limit_at_first(self, count: int) -> None:
        """Start only this many trials until one has reported.

        The others would not find a slot yet, and each is a process that takes CPU time to start
        while the lanes load.
        """
        self._at_first = count

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Lift the limit on the first trials, now that one of them trains."""
        self._at_first = None

    def suggest(self, trial_id: str) -> Any:
        """Suggest the next trial to run; None if it has to wait, FINISHED after the last."""
        if self._at_first is not None and len(self._running) >= self._at_first:
            return None
        entry = self._next_of_search() or self._next_after_search()
        if isinstance(entry, Entry):
            self._running[trial_id] = entry
            return to_config(Suggestion(entry.trial, self._number(entry)))
        return entry

    def _next_of_search(self) -> Entry | None:
        """Find the next trial of the search; None if it has to wait or all were suggested."""
        released = next((entry for entry in self._waiting if not self._waits(entry)), None)
        if released is not None:
            self._waiting.remove(released)
            return released
        while (entry := self._suggested()) is not None:
            if entry.outcome is not None or self._runs(entry):
                continue  # known, or suggested before
            if not self._waits(entry):
                return entry
            self._waiting.append(entry)
        return None

    def _suggested(self) -> Entry | None:
        """Ask the inner searcher for the next trial, once all outcomes that it may use are there.

        The inner searcher gets exactly the visible outcomes, in the order of suggestion, so its
        suggestion does not depend on timing.
        """
        number = len(self._sequence.entries)
        if number >= self._planned or not self._sequence.ready(number):
            return None
        visible = self._sequence.visible(number)
        for index in range(self._passed_on, len(visible)):
            self._pass_on(index, visible[index])
        self._passed_on = max(self._passed_on, len(visible))
        values = self._inner.suggest(str(number))
        if values is None or values == Searcher.FINISHED:
            self._planned = number
            return None
        trial = self._spec.trial(values)
        # Only a grid is sorted by duration, so that the trial that leaves a trunk comes first.
        is_grid = self._spec.search.is_grid
        entry = self._sequence.add(trial, self._spec.trunk(trial) if is_grid else None)
        if trial.id in self._known:
            _restore(entry, self._known[trial.id][0])
        return entry

    def _runs(self, entry: Entry) -> bool:
        return entry in self._running.values()

    def _waits(self, entry: Entry) -> bool:
        """Whether a trial of the search is to continue from one that has not ended."""
        return entry.waits(self._sequence.entries[: self._sequence.number(entry.trial.id)])

    def _pass_on(self, number: int, entry: Entry) -> None:
        """Pass one outcome to the inner searcher.

        A trial without a score (stopped early, diverged) is passed as pruned, which the samplers
        rank below every completed one. As failed it would be ignored, and its region tried again.
        """
        assert entry.outcome is not None
        score = entry.outcome.learning if entry.outcome.status == "COMPLETE" else None
        self._inner.on_trial_complete(
            str(number),
            result=None if score is None else {METRIC: score},
            error=entry.outcome.status == "FAILED",
        )

    def _next_after_search(self) -> Any:
        """Find the next retry of a trial that failed before, then the next confirmation."""
        if len(self._sequence.entries) < self._planned or not self._sequence.ended:
            return None
        if self._retries is None:
            self._retries = self._failed_before()
        if any(entry.outcome is None for entry in self._retries):
            return self._next_of(self._retries)
        if self._confirmations is None:
            self._confirmations = self._repetitions()
        if all(entry.outcome is not None or self._runs(entry) for entry in self._confirmations):
            return Searcher.FINISHED
        return self._next_of(self._confirmations)

    def _next_of(self, entries: Sequence[Entry]) -> Entry | None:
        """Find the first of these trials that can start; None if all have to wait."""
        if len(self._running) >= self._sequence.window:
            return None
        return next(
            (
                entry
                for number, entry in enumerate(entries)
                if entry.outcome is None
                and not self._runs(entry)
                and not entry.waits(entries[:number])
            ),
            None,
        )

    def _failed_before(self) -> list[Entry]:
        """List another attempt at each trial of the search that an earlier session saw fail."""
        retries = []
        for entry in dict.fromkeys(self._sequence.entries):
            finals = self._known.get(entry.trial.id, ())
            if finals and finals[0].status == "FAILED":
                entry.again = Entry(entry.trial, entry.trunk)
                if finals[-1].status != "FAILED":
                    _restore(entry.again, finals[-1])
                retries.append(entry.again)
        return retries

    def _repetitions(self) -> list[Entry]:
        """List the best configurations on each further seed, the best first.

        Those that share a trunk come by their duration, as in a grid.
        """
        spec, confirmed = self._spec, self._spec.search.confirm
        complete = [
            (entry.trial, entry.latest.outcome.learning or 0.0)
            for entry in dict.fromkeys(self._sequence.entries)
            if entry.latest.outcome is not None and entry.latest.outcome.status == "COMPLETE"
        ]
        # Not quite the rule of `store/best.py`: each has one seed here, and equal scores keep the
        # order of suggestion, so that a sweep resumes to the confirmations that it began with.
        complete.sort(key=lambda scored: -scored[1])
        trials = [
            spec.trial(best.hyperparameters.model_dump(), seed=spec.seed + i, stage="confirm")
            for best, _ in (complete if confirmed == "all" else complete[:confirmed])
            for i in range(1, spec.search.seeds)
        ]
        if (axis := trunk_axis(spec)) is not None:
            trials.sort(key=lambda t: (t.seed, float(getattr(t.hyperparameters, axis))))
        entries = [Entry(trial, spec.trunk(trial)) for trial in trials]
        for entry in entries:
            finals = self._known.get(entry.trial.id, ())
            if finals and finals[-1].status != "FAILED":
                _restore(entry, finals[-1])
        return entries

    def _number(self, entry: Entry) -> int:
        if self._confirmations and entry in self._confirmations:
            return len(self._sequence.entries) + self._confirmations.index(entry)
        return self._sequence.number(entry.trial.id)

    def finish(self, trial_id: str, outcome: Outcome) -> None:
        """Record a trial's outcome; only the driver knows why the trial ended."""
        self._running.pop(trial_id).outcome = outcome
        self._at_first = None

    def entry(self, trial_id: str) -> Entry:
        """Get the entry that runs as one of Tune's trials."""
        return self._running[trial_id]

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Leave outcomes to `finish`: Tune cannot tell a stopped trial from a completed one."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the journal holds all that is needed to resume."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing, as nothing is saved."""
