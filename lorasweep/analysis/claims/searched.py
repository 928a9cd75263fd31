"""What a search may still gain beyond the best that it has found.

Methods are compared at the best of each, and so are levels of a hyperparameter that few trials
tried. After as many trials, a search over many hyperparameters is further from its best than one
over few, and would be called behind for that alone; so would a level that was hardly tried. So the
interval of a difference is widened by what each side may still gain. A regression on all
hyperparameters says what the best setting within the searched space may score: response surface
methodology (Box and Wilson 1951, "On the experimental attainment of optimum conditions"). Its top
is redrawn within the regression's error, since the top of a noisy surface is further off than the
surface itself says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lorasweep.analysis.claims.best_lr import are_rates
from lorasweep.analysis.design import Codes
from lorasweep.analysis.evidence import Evidence
from lorasweep.analysis.intervals import (
    SEED,
    TAIL,
    AsFound,
    Estimate,
    Floats,
    Unfinished,
    t_quantile,
)
from lorasweep.analysis.regression import Fit
from lorasweep.analysis.scale import was_drawn
from lorasweep.analysis.sensitivity.anova import is_factorial
from lorasweep.analysis.table import Row, Score, Table
from lorasweep.spec.space import Level

DRAWS = 1000
# Many trials leave little to gain, and fewer draws are enough to say so.
_MANY, _FEW_DRAWS = 1000, 200
# Decades around the best learning rate that the surface is fitted to: the fewest that hold enough
# trials, since a parabola fits a peak better than its far sides.
_WINDOWS = (0.25, 0.5, 1.0)
_ENOUGH, _EACH = 12, 2


@dataclass(frozen=True, slots=True)
class PossibleGain:
    """What a search may still gain beyond the best that it found.

    draws: (draws,), of learning none below 0, or of what forgetting changes by.
    top: the setting that the regression expects to learn most, as text.
    """

    draws: Floats
    top: str


@dataclass(frozen=True, slots=True)
class Group:
    """Configurations that are compared with others: of one method, or of one level.

    best: the best of them at each setting of what is held equal.
    name: what they are, in a sentence.
    is_searched: something of it was tuned by a search, and not laid out by hand.
    """

    table: Table
    best: tuple[Row, ...]
    name: str
    is_searched: bool


def allow_for_search(
    evidence: Evidence,
    found: Estimate,
    df: float,
    groups: tuple[Group, Group],
    outcome: Score,
    held: Sequence[str],
) -> Estimate:
    """Widen the interval of one group's best minus another's by what searches may still gain.

    The lower bound allows for a gain of the other group alone, the upper one for a gain of this
    one. Forgetting may move either way, as it does from the best found to the best there is.

    Args:
        found: with Student's interval on `df` degrees of freedom.
        held: hyperparameters at which the groups are compared, which are not theirs to tune.
    """
    if found.low is None or found.high is None:
        return found
    gains = [_gain(evidence, group, outcome, held, i) for i, group in enumerate(groups)]
    if all(gain is not None and not gain.draws.any() for gain in gains):
        return found
    # Back from the interval to the standard error, to draw the difference and both gains together.
    error = (found.high - found.low) / 2 / t_quantile(df)
    chance = found.effect + error * np.random.default_rng(SEED).standard_t(df, DRAWS)
    # Where fewer were drawn (`_FEW_DRAWS`), they are repeated.
    own, other = (None if gain is None else np.resize(gain.draws, DRAWS) for gain in gains)
    none = np.zeros(DRAWS)
    # Learning of either can only rise; forgetting of both may move either way.
    down = (none if outcome == "learning" else own, other)
    up = (own, none if outcome == "learning" else other)
    low = _bound(chance, down, TAIL)
    high = _bound(chance, up, 1 - TAIL)
    unfinished = [
        _unfinished(group, gain, outcome) for group, gain in zip(groups, gains, strict=True)
    ]
    as_found = AsFound(
        low=found.low,
        high=found.high,
        lower=unfinished[1] or unfinished[0],
        upper=unfinished[0] or unfinished[1],
    )
    return Estimate(
        effect=found.effect,
        low=None if low is None else min(low, found.low),
        high=None if high is None else max(high, found.high),
        n=found.n,
        n_of=found.n_of,
        basis=f"{found.basis}; allowing for what further search may find",
        as_found=as_found,
    )


def _bound(
    chance: Floats, moved: tuple[Floats | None, Floats | None], probability: float
) -> float | None:
    own, other = moved
    if own is None or other is None:
        return None
    return float(np.quantile(chance + own - other, probability))


def _gain(
    evidence: Evidence, group: Group, outcome: Score, held: Sequence[str], number: int
) -> PossibleGain | None:
    if not group.is_searched:
        return PossibleGain(np.zeros(DRAWS), "")
    table = group.table.with_score(outcome)
    return possible_gain(table, group.best, outcome, held, evidence.margin, stream=number)


def _unfinished(group: Group, gain: PossibleGain | None, outcome: Score) -> Unfinished | None:
    """Explain what the search of a group leaves open, and what to run."""
    if gain is None:
        return Unfinished(
            reason=f"the trials of {group.name} are too few to tell what its search may still gain",
            to_run=f"Run more trials of {group.name}, or what was searched as a grid.",
        )
    if not gain.draws.any():
        return None
    if outcome == "forgetting":
        why = f"further search of {group.name} may learn more where it forgets more or less"
    else:
        most = float(np.quantile(gain.draws, 1 - TAIL))
        why = (
            f"the search of {group.name} may still gain up to {most:.2g} of learning, by a "
            "regression on its trials"
        )
    return Unfinished(
        reason=why,
        to_run=f"Search {group.name} further, first around {gain.top}, where the regression "
        "expects it to learn most.",
    )


def is_chosen(evidence: Evidence, method: str, table: Table, held: Sequence[str]) -> bool:
    """Check whether the levels that differ were chosen by hand and crossed, and none searched.

    Args:
        held: hyperparameters at which methods are compared, which are not theirs to tune.
    """
    tuned = [name for name in table.columns if name not in held]
    if not tuned or evidence.results.has_factorial(method):
        return True
    for name in tuned:
        values = [level for row in table.rows if (level := row.levels.get(name)) is not None]
        if was_drawn(evidence.results, method, name, values):
            return False
    return is_factorial(np.stack([column.codes for column in table.columns.values()], axis=1))


def possible_gain(
    table: Table,
    best: Sequence[Row],
    outcome: Score,
    held: Sequence[str],
    margin: float,
    *,
    stream: int = 0,
) -> PossibleGain | None:
    """Draw what the best setting may gain over the best that were found, averaged over these.

    Args:
        table: the configurations of one group that have the outcome.
        best: the best row at each setting of what is held.
        outcome: `learning`, or `forgetting` for its change at the setting that learns most.
        margin: a smaller gain of learning does not matter, and leaves forgetting as it was found.
        stream: of random numbers, one for each group.

    Returns:
        None where the trials are too few to tell.
    """
    near = _near(table, best)
    surface = _surface(near, "learning", held, stream)
    forgetting = _surface(near, "forgetting", held, stream) if outcome == "forgetting" else None
    if surface is None or (outcome == "forgetting" and forgetting is None):
        return None
    draws = np.zeros(len(surface.drawn))
    for row in best:
        index = next(i for i, own in enumerate(near.rows) if own is row)
        # The rise is along the surface, and not from the score as found: where the surface is too
        # flat, the top has been underestimated by as much as the best has.
        gain, tops = surface.climb(index)
        if forgetting is not None:
            gain = np.where(gain > margin, forgetting.change(index, tops), 0.0)
        draws += gain / len(best)
    return PossibleGain(draws, surface.top)


def _near(table: Table, best: Sequence[Row]) -> Table:
    """Select the configurations near the best learning rates, where there are enough of them."""
    if "lr" not in table.columns or not are_rates(table):
        return table
    rates = np.log10([float(row.levels["lr"]) for row in table.rows])
    wanted = np.log10([float(row.levels["lr"]) for row in best])
    off = np.abs(rates[:, None] - wanted).min(axis=1)
    enough = max(_ENOUGH, _EACH * (1 + sum(b.columns.shape[1] for b in table.blocks())))
    reach = next((w for w in _WINDOWS if int((off <= w).sum()) >= enough), None)
    if reach is None:
        return table
    return Table(tuple(c for c, own in zip(table.rows, off, strict=True) if own <= reach))


@dataclass(frozen=True, slots=True)
class _TunedAxis:
    """One tuned hyperparameter: its settings, their codes, and where its coefficients are."""

    levels: tuple[Level, ...]
    rows: Floats
    own: slice


@dataclass(frozen=True, slots=True)
class _Surface:
    """Response surface: a regression whose coefficients are redrawn, (draws, coefficients)."""

    fit: Fit
    drawn: Floats
    axes: Mapping[str, _TunedAxis]

    def climb(self, index: int) -> tuple[Floats, dict[str, Codes]]:
        """Compute the rise from a row to the top, draw by draw, and which settings are the top."""
        rise, tops = np.zeros(len(self.drawn)), {}
        for name, axis in self.axes.items():
            heights = self.drawn[:, axis.own] @ axis.rows.T
            here = self.drawn[:, axis.own] @ self.fit.design[index, axis.own]
            tops[name] = heights.argmax(axis=1)
            rise += np.maximum(heights.max(axis=1) - here, 0.0)
        return rise, tops

    def change(self, index: int, tops: Mapping[str, Codes]) -> Floats:
        """Compute the change from a row to those settings, draw by draw."""
        moved = np.zeros(len(self.drawn))
        for name, axis in self.axes.items():
            step = axis.rows[tops[name]] - self.fit.design[index, axis.own]
            moved += np.einsum("nd,nd->n", self.drawn[:, axis.own], step)
        return moved

    @property
    def top(self) -> str:
        """Settings at the top of the surface as it was fitted, as text."""
        settings = []
        for name, axis in self.axes.items():
            level = axis.levels[int((axis.rows @ self.fit.coefficients[axis.own]).argmax())]
            settings.append(f"{name} {level if isinstance(level, str) else f'{float(level):.3g}'}")
        return ", ".join(settings)


def _surface(table: Table, outcome: Score, held: Sequence[str], stream: int) -> _Surface | None:
    fit = table.fit(outcome)
    if fit is None:
        return None
    axes = {}
    for (name, column), own in zip(table.columns.items(), fit.spans, strict=True):
        levels, rows = column.settings()
        if levels and name not in held:
            axes[name] = _TunedAxis(levels, rows, own)
    rng = np.random.default_rng([SEED, stream, int(outcome == "forgetting")])
    return _Surface(fit, _redrawn(table, fit, rng), axes)


def _redrawn(table: Table, fit: Fit, rng: np.random.Generator) -> Floats:
    """Redraw the coefficients within their errors (Student's t), whatever the order of the rows."""
    n = len(table.rows)
    draws = DRAWS if n <= _MANY else _FEW_DRAWS
    noise = np.empty((draws, n))
    # Noise belongs to a score and not to a coefficient, so it can be sorted by content.
    noise[:, np.lexsort((table.forgetting, table.learning))] = rng.standard_normal((draws, n))
    scale = fit.error * np.sqrt(fit.df / rng.chisquare(fit.df, size=(draws, 1)))
    drawn: Floats = fit.coefficients + scale * ((noise @ fit.design) @ fit.inverse)
    return drawn
