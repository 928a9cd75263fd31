"""Merge several sweeps into one: every trial once, scores compared only on the same tasks.

Domains are pooled where model, data and tasks are the same (`comparable.py`); others stay apart,
named after their sweeps. A trial keeps the forgetting that its own sweep counted against its base.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from lorasweep.errors import UsageError
from lorasweep.spec.space import AXES
from lorasweep.store.comparable import Group, Settings, differing, groups, settings
from lorasweep.store.results import SweepResults, TrialResult
from lorasweep.store.scores import SCORES, Scores

# From the status that says least about a trial to the one that says most.
_STATUS_ORDER = ("PENDING", "RUNNING", "FAILED", "PRUNED", "DIVERGED", "COMPLETE")
_MEASURED = ("DIVERGED", "COMPLETE")
# Not forgetting, which depends on how each sweep measured its base, nor the training loss, which
# depends on when the trial last reported it.
_COMPARED = tuple(name for name in SCORES if name in Scores.model_fields)
# Another kind of machine may round sums differently.
_ROUNDING = 1e-4
_STATES = ("failed", "started", "interrupted", "complete")


def merge(sweeps: Sequence[SweepResults]) -> SweepResults:
    """Merge several sweeps.

    Raises:
        UsageError: two of them have the same trial with different results.
    """
    if len(sweeps) == 1:
        return sweeps[0]
    found = groups(sweeps)
    offsets = _offsets(sweeps)
    pool = _Pool()
    notes: list[str] = []
    for group in found:
        given = _settings(group)
        notes += _remarks(group, given.values())
        for number, piece in enumerate(group.pieces):
            for trial in piece.trials:
                settings_of = given.get((number, trial.method))
                changes: dict[str, object] = {
                    "domain": group.name,
                    "number": trial.number + offsets[piece.sweep.origin],
                }
                if settings_of is not None:
                    changes["hyperparameters"] = settings_of.of(trial)
                pool.add(trial.model_copy(update=changes), piece.sweep.origin)
    trials = _ordered(pool.trials.values(), [group.name for group in found])
    named = {axis for sweep in sweeps for axis in sweep.axes} | _varied(trials)
    extra = dict.fromkeys(name for trial in trials for name in trial.hyperparameters)
    bases = {group.name: base for group in found if (base := _base(group)) is not None}
    planned = [sweep.trials_planned for sweep in sweeps]
    known = [count for count in planned if count is not None]
    states = [sweep.state for sweep in sweeps]
    return SweepResults(
        name=" + ".join(dict.fromkeys(sweep.name for sweep in sweeps)),
        question=" ".join(dict.fromkeys(sweep.question for sweep in sweeps)),
        axes=tuple(axis for axis in dict.fromkeys((*AXES, *extra)) if axis in named),
        trials=trials,
        origin=" ".join(sweep.origin for sweep in sweeps),
        is_factorial=all(sweep.is_factorial for sweep in sweeps),
        base=bases.get(""),
        bases=bases,
        state=next((state for state in _STATES if state in states), None),
        trials_planned=sum(known) - pool.repeats.total() if len(known) == len(planned) else None,
        started=min((s.started for s in sweeps if s.started is not None), default=None),
        notes=tuple(dict.fromkeys([*_counts(sweeps, pool), *_apart(found), *notes, *_own(sweeps)])),
        kept={trial: check for sweep in sweeps for trial, check in sweep.kept.items()},
        sweeps=tuple(sweeps),
    )


class _Pool:
    """Trials without repeats, each with the sweep in which it came first."""

    def __init__(self) -> None:
        self.trials: dict[str, TrialResult] = {}
        self.repeats: Counter[str] = Counter()
        self._origins: dict[str, str] = {}

    def add(self, trial: TrialResult, origin: str) -> None:
        """Add a trial, or merge it with the equal one that is there.

        Raises:
            UsageError: it has other results than the equal one.
        """
        name = trial.trial
        if (other := self.trials.get(name)) is None:
            self.trials[name], self._origins[name] = trial, origin
            return
        if (difference := _difference(other, trial)) is not None:
            what, left, right = difference
            raise UsageError(
                f"{origin}: trial {name} has another {what} than in {self._origins[name]} "
                f"({right} and {left}); a trial's name stands for its content, so name only one of "
                "the folders"
            )
        self.repeats[origin] += 1
        first, second = other, trial
        if _STATUS_ORDER.index(trial.status) > _STATUS_ORDER.index(other.status):
            first, second = trial.model_copy(update={"number": other.number}), other
        more = {"code": first.code or second.code, "spectrum": first.spectrum or second.spectrum}
        self.trials[name] = first.model_copy(update=more)


def _difference(left: TrialResult, right: TrialResult) -> tuple[str, object, object] | None:
    """Find a difference that two trials of one name may not have, with both values."""
    for what in ("domain", "method", "seed"):
        if getattr(left, what) != getattr(right, what):
            return what, getattr(left, what), getattr(right, what)
    levels = left.hyperparameters, right.hyperparameters
    for name in dict.fromkeys((*levels[0], *levels[1])):
        if levels[0].get(name) != levels[1].get(name):
            return name, levels[0].get(name), levels[1].get(name)
    if left.status in _MEASURED and right.status in _MEASURED:
        if left.status != right.status:
            return "status", left.status, right.status
        for what in _COMPARED:
            scores = getattr(left, what), getattr(right, what)
            if not _agree(*scores):
                return what.replace("_", " "), *scores
    return None


def _agree(left: float | None, right: float | None) -> bool:
    if left is None or right is None:  # one sweep did not measure it
        return True
    return math.isclose(left, right, rel_tol=_ROUNDING, abs_tol=_ROUNDING)


def _settings(group: Group) -> dict[tuple[int, str], Settings]:
    """Find the settings that set trials apart, by a piece's number and method."""
    methods = dict.fromkeys(method for piece in group.pieces for method in piece.studies)
    given: dict[tuple[int, str], Settings] = {}
    for method in methods:
        own = {n: p.studies[method] for n, p in enumerate(group.pieces) if method in p.studies}
        found = settings(list(own.values()))
        given |= {(n, method): one for n, one in zip(own, found, strict=True)}
    return given


def _offsets(sweeps: Sequence[SweepResults]) -> dict[str, int]:
    """Offset each sweep's trial numbers past those of the sweeps before it."""
    offsets, following = {}, 0
    for sweep in sweeps:
        offsets[sweep.origin] = following
        following += max((trial.number for trial in sweep.trials), default=-1) + 1
    return offsets


def _ordered(trials: Iterable[TrialResult], domains: Sequence[str]) -> tuple[TrialResult, ...]:
    return tuple(
        sorted(
            trials,
            key=lambda t: (
                *(domains.index(t.domain), t.method != "lora", t.stage != "search"),
                *(t.number, t.seed),
            ),
        )
    )


def _varied(trials: Iterable[TrialResult]) -> set[str]:
    """Collect the hyperparameters that differ, even if only between sweeps."""
    levels: dict[tuple[str, str, str], set[object]] = {}
    for trial in trials:
        for name, level in trial.hyperparameters.items():
            levels.setdefault((trial.domain, trial.method, name), set()).add(level)
    return {name for (_, _, name), own in levels.items() if len(own) > 1}


def _base(group: Group) -> Scores | None:
    """Scores of the base from the first sweep that measured it."""
    return next((piece.base for piece in group.pieces if piece.base is not None), None)


def _counts(sweeps: Sequence[SweepResults], pool: _Pool) -> Iterator[str]:
    for sweep in sweeps:
        repeats = pool.repeats[sweep.origin]
        again = f", {repeats} of which were counted before" if repeats else ""
        trials = "1 trial" if len(sweep.trials) == 1 else f"{len(sweep.trials)} trials"
        yield f"{sweep.origin}: {trials} of the sweep {sweep.name}{again}"


def _apart(found: Sequence[Group]) -> Iterator[str]:
    """Explain why scores are not compared."""
    if len(found) > 1:
        yield (
            f"Learning is not compared between {', '.join(group.name for group in found)}, which "
            f"differ in {', '.join(differing(found))}"
        )


def _remarks(group: Group, given: Collection[Settings]) -> Iterator[str]:
    """List what the sweeps of a group do not share."""
    of = f"{group.name}: " if group.name else ""
    added = dict.fromkeys(
        name for one in given for name in (*one.added, *(("duration",) if one.lasting else ()))
    )
    if added:
        verb = "differs" if len(added) == 1 else "differ"
        counts = "counts as a hyperparameter" if len(added) == 1 else "count as hyperparameters"
        yield f"{of}{', '.join(added)} {verb} between the sweeps and so {counts}"
    if renamed := sorted({name for one in given for name in one.renamed}):
        yield (
            f"{of}targets {', '.join(renamed)} are defined differently in the sweeps, and so are "
            "told apart by their definitions"
        )
    sources = {
        piece.sweep.origin: base.source_accuracy
        for piece in group.pieces
        if (base := piece.base) is not None and base.source_accuracy is not None
    }
    if max(sources.values(), default=0.0) - min(sources.values(), default=0.0) > _ROUNDING:
        each = ", ".join(f"{score:.3f} in {origin}" for origin, score in sources.items())
        yield (
            f"{of}the base's source accuracy was measured as {each}, and each sweep counts "
            "forgetting against its own"
        )


def _own(sweeps: Sequence[SweepResults]) -> Iterator[str]:
    for sweep in sweeps:
        yield from (f"{sweep.origin}: {note}" for note in sweep.notes)
