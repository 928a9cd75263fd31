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

from lorasweep.spec.space import Axis, Level, Range
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import DURATIONS, TrialSpec
from lorasweep.store.records import TrialFinished
from lorasweep.tune.sequence import Entry, Outcome, TrialSequence

METRIC = "learning"


def distribution(axis: Axis) -> BaseDistribution:
    """Give Optuna's distribution of an axis."""
    if isinstance(axis, Range):
        return FloatDistribution(axis.low, axis.high, log=axis.log)
    return CategoricalDistribution(axis.values)


class GridSearch(Searcher):  # type: ignore[misc]
    """Suggest the full factorial, a combination at a time."""

    def __init__(self, points: Iterable[dict[str, Level]]) -> None:
        """Take the combinations in the order in which they are to run."""
        super().__init__(metric=METRIC, mode="max")
        self._points = list(points)  # not an iterator, since Tune pickles its searcher

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Give the next combination, or say that there is none."""
        return self._points.pop(0) if self._points else Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn nothing, since a grid does not adapt."""


def build_search(spec: SweepSpec, first_points: list[dict[str, Level]]) -> Searcher:
    """Make the searcher that the sweep asks for, seeded by the sweep."""
    search = spec.search
    if search.algorithm == "grid":
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


def grid_points(spec: SweepSpec) -> list[dict[str, Level]]:
    """Give the configurations of a grid: the full factorial, or the points that are asked for.

    Those that share a trunk come by their duration, since the shorter one leaves it to the longer.
    """
    search = spec.search
    whole = list(spec.space.grid(search.grid_points))
    if search.points:
        whole = [
            point
            for point in whole
            if any(given.items() <= point.items() for given in search.points)
        ]
    if (axis := trunk_axis(spec)) is not None:
        whole.sort(key=lambda point: float(point[axis]))
    return whole


def trunk_axis(spec: SweepSpec) -> str | None:
    """Name the axis along which trials share a trunk, if they do."""
    axes = [axis for axis in DURATIONS if axis in spec.space.axes]
    return axes[0] if spec.has_trunk and axes else None


def planned_trials(spec: SweepSpec) -> int:
    """Count the suggestions of a search, confirmations left out."""
    return len(grid_points(spec)) if spec.search.algorithm == "grid" else spec.search.trials


def first_trials(
    spec: SweepSpec, first_points: list[dict[str, Level]], count: int
) -> list[TrialSpec]:
    """Give the trials that a sweep begins with, before any has ended; repetitions only once."""
    search = build_search(spec, first_points)
    suggested = (search.suggest(str(n)) for n in range(min(count, planned_trials(spec))))
    trials = [spec.trial(values) for values in suggested if isinstance(values, dict)]
    return list({trial.id: trial for trial in trials}.values())


def _recall(entry: Entry, record: TrialFinished) -> None:
    """Fill in what the journal says of a trial."""
    entry.rungs = list(record.rungs)
    entry.outcome = Outcome(record.status, record.learning)


class OrderedSearch(Searcher):  # type: ignore[misc]
    """Ask a searcher for trials in a fixed order, then confirm the best on further seeds.

    Every trial is told to the inner searcher in the order of suggestion (see `sequence.py`). A
    trial whose outcome the journal knows is told and not run, so a resumed sweep goes through
    the same suggestions as one that was never interrupted. That holds for a failed trial too:
    what came after it was chosen in the light of its failure, so it runs again once the search
    is over, and its new outcome decides only what is confirmed.
    """

    def __init__(
        self,
        inner: Searcher,
        spec: SweepSpec,
        order: TrialSequence,
        known: Mapping[str, Sequence[TrialFinished]],
    ) -> None:
        """Wrap a searcher.

        Args:
            inner: OptunaSearch or a grid, unmodified.
            spec: of the sweep.
            order: shared with the scheduler.
            known: final records of earlier sessions by trial, the oldest first; where a trial has
                several, all but the last say that it failed.
        """
        # Without a metric of its own, since Tune would demand it of every report, and a trial's
        # learning is only known at its end.
        super().__init__()
        self._inner, self._spec, self._order, self._known = inner, spec, order, known
        self._planned = planned_trials(spec)
        self._told = 0
        self._retries: list[Entry] | None = None
        self._confirmations: list[Entry] | None = None
        self._running: dict[str, Entry] = {}
        self._held: list[Entry] = []
        self._at_first: int | None = None

    def hold(self, at_first: int) -> None:
        """Give only so many trials until one has reported: the others would not find a slot yet.

        Each that begins is a process that starts while the lanes come up.
        """
        self._at_first = at_first

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Give as many trials as Tune asks for, now that one trains."""
        self._at_first = None

    def suggest(self, trial_id: str) -> Any:
        """Give the next trial that has to run, None if it must wait, FINISHED after the last."""
        if self._at_first is not None and len(self._running) >= self._at_first:
            return None
        entry = self._next_search() or self._next_after_search()
        if isinstance(entry, Entry):
            self._running[trial_id] = entry
            return self._config(entry)
        return entry

    def _next_search(self) -> Entry | None:
        """Give the next trial of the search, None if it must wait or all were suggested."""
        released = next((entry for entry in self._held if not self._waits(entry)), None)
        if released is not None:
            self._held.remove(released)
            return released
        while (entry := self._suggested()) is not None:
            if entry.outcome is not None or self._runs(entry):
                continue  # known, or suggested before
            if not self._waits(entry):
                return entry
            self._held.append(entry)
        return None

    def _suggested(self) -> Entry | None:
        """Ask the inner searcher, once all that the next trial may know of has been told."""
        number = len(self._order.entries)
        if number >= self._planned or not self._order.ready(number):
            return None
        for index in range(self._told, len(self._order.visible(number))):
            self._tell(index, self._order.entries[index])
        self._told = max(self._told, len(self._order.visible(number)))
        values = self._inner.suggest(str(number))
        if values is None or values == Searcher.FINISHED:
            self._planned = number
            return None
        trial = self._spec.trial(values)
        is_grid = self._spec.search.algorithm == "grid"  # in which the shorter trial comes first
        entry = self._order.add(trial, self._spec.trunk(trial) if is_grid else None)
        if trial.id in self._known:
            _recall(entry, self._known[trial.id][0])
        return entry

    def _runs(self, entry: Entry) -> bool:
        return entry in self._running.values()

    def _waits(self, entry: Entry) -> bool:
        """Tell whether a trial of the search is to go on from one that has not ended."""
        return entry.waits(self._order.entries[: self._order.number(entry.trial.id)])

    def _tell(self, number: int, entry: Entry) -> None:
        """Tell one outcome to the inner searcher.

        A trial without a score (stopped early, diverged) is told as pruned, which the samplers rank
        below every completed one; as failed it would be ignored, and its region tried again.
        """
        assert entry.outcome is not None
        score = entry.outcome.learning if entry.outcome.status == "COMPLETE" else None
        self._inner.on_trial_complete(
            str(number),
            result=None if score is None else {METRIC: score},
            error=entry.outcome.status == "FAILED",
        )

    def _next_after_search(self) -> Any:
        """Give the next trial that failed in an earlier session, or repetition of a best one."""
        if len(self._order.entries) < self._planned or not self._order.ended:
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
        """Give the first of these trials that can begin, None if the others have to wait."""
        if len(self._running) >= self._order.window:
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
        for entry in dict.fromkeys(self._order.entries):
            finals = self._known.get(entry.trial.id, ())
            if finals and finals[0].status == "FAILED":
                entry.again = Entry(entry.trial, entry.trunk)
                if finals[-1].status != "FAILED":
                    _recall(entry.again, finals[-1])
                retries.append(entry.again)
        return retries

    def _repetitions(self) -> list[Entry]:
        """List the best configurations on each further seed, the best first.

        Those that share a trunk come by their duration, as in a grid.
        """
        spec, confirmed = self._spec, self._spec.search.confirm
        complete = [
            (entry.trial, entry.latest.outcome.learning or 0.0)
            for entry in dict.fromkeys(self._order.entries)
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
                _recall(entry, finals[-1])
        return entries

    def _config(self, entry: Entry) -> dict[str, Any]:
        return {"trial": entry.trial.model_dump(mode="json"), "number": self._number(entry)}

    def _number(self, entry: Entry) -> int:
        if self._confirmations and entry in self._confirmations:
            return len(self._order.entries) + self._confirmations.index(entry)
        return self._order.number(entry.trial.id)

    def finish(self, trial_id: str, outcome: Outcome) -> None:
        """Take a trial's outcome from the driver, which knows why the trial ended."""
        self._running.pop(trial_id).outcome = outcome
        self._at_first = None

    def entry(self, trial_id: str) -> Entry:
        """Give the entry that runs as one of Tune's trials."""
        return self._running[trial_id]

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Leave outcomes to `finish`: Tune cannot tell a stopped trial from a completed one."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the journal holds all that is needed to go on."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing, as nothing is saved."""
