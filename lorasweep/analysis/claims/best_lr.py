"""The best learning rate of a method, with its error, and whether it was searched far enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lorasweep.analysis.evidence import Evidence
from lorasweep.analysis.intervals import SEED, TAIL, Estimate, Floats
from lorasweep.analysis.regression import FEWEST_DF
from lorasweep.analysis.scale import was_drawn
from lorasweep.analysis.table import Row, Table

DRAWS = 1000
FEWEST_LRS = 4
_GRID = 12  # more learning rates than this are a sample of an interval
_NEAR = 1.0  # decades on each side of the best that a curve is fitted to
_BEYOND = 0.5  # decades beyond what was tried at which its top may lie
_PLACES = 201
_OWN = 3  # coefficients of the curve: its top, and how fast it falls on each side


@dataclass(frozen=True, slots=True)
class Peak:
    """Where learning is highest over the learning rate.

    draws: log10 of the best rate, redrawn within the noise.
    below, above: share of the draws in which it is the lowest or the highest rate tried, so that
        the best may lie beyond; where trials diverged at or above the highest, `above` is 0.
    """

    draws: Floats
    below: float
    above: float
    n: int
    basis: str


def find_peak(evidence: Evidence, table: Table) -> Peak | None:
    """Find the best learning rate with the others' levels held equal; None where it cannot be."""
    scored = table.scored
    column = scored.columns.get("lr")
    if column is None or len(column.levels) < FEWEST_LRS or not are_rates(scored):
        return None
    rng = np.random.default_rng(SEED)
    many = len(column.levels) > _GRID
    method = scored.rows[0].configuration.method
    tried = [row.levels["lr"] for row in scored.rows]
    if many or was_drawn(evidence.results, method, "lr", tried):
        found = _on_a_curve(table, rng)
        if found or many:
            return found
    rates = np.log10([float(level) for level in column.levels])
    fit = scored.fit("learning", levels_of="lr")
    if fit is not None:
        drawn, basis = fit.draws("lr", DRAWS, rng), "regression on all hyperparameters"
    else:
        noise = evidence.noise["learning"]
        if noise.basis != "seeds" or not set(scored.columns) <= {"lr"}:
            return _on_a_curve(table, rng)
        seeds = np.array([row.seeds for row in scored.rows])
        scale = np.sqrt(noise.df / rng.chisquare(noise.df, size=(DRAWS, 1)))
        steps = rng.standard_normal((DRAWS, len(seeds))) * (noise.sd or 0.0) / np.sqrt(seeds)
        drawn, basis = (scored.learning + scale * steps)[:, np.argsort(column.codes)], "seeds"
    top = np.argmax(drawn, axis=1)
    lost = _lost_above(table, float(column.levels[-1]))
    return Peak(
        _between(rates, drawn, top, rng),
        float(np.mean(top == 0)),
        0.0 if lost else float(np.mean(top == len(rates) - 1)),
        len(scored.rows),
        f"best of {len(rates)} rates, by {basis}",
    )


def are_rates(table: Table) -> bool:
    """Check whether every configuration has a learning rate above 0."""
    rates = (row.levels.get("lr") for row in table.rows)
    return all(not isinstance(rate, str | None) and rate > 0 for rate in rates)


def _lost_above(table: Table, rate: float) -> bool:
    return any(
        row.diverged and float(row.levels["lr"]) >= rate for row in table.rows if "lr" in row.levels
    )


def _between(rates: Floats, drawn: Floats, top: Floats, rng: np.random.Generator) -> Floats:
    """Find the top of a parabola through the best rate and its neighbours, draw by draw.

    Three points do not say how learning bends between them: the top may be off by a quarter of the
    step to either side, which is drawn too.
    """
    index = top.astype(np.int64)
    left, right = np.maximum(index - 1, 0), np.minimum(index + 1, len(rates) - 1)
    rows = np.arange(len(index))
    low, mid, high = drawn[rows, left], drawn[rows, index], drawn[rows, right]
    x0, x1, x2 = rates[left], rates[index], rates[right]
    inner = (left < index) & (index < right)
    one, two = np.where(inner, x1 - x0, 1.0), np.where(inner, x2 - x1, 1.0)
    rise, fall = (mid - low) / one, (mid - high) / two
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = 0.5 * (rise * two - fall * one) / (rise + fall)
    shift = np.where(inner & np.isfinite(shift), np.clip(shift, -one / 2, two / 2), 0.0)
    jitter = rng.uniform(-0.25, 0.25, len(index))
    step = np.where(jitter < 0, x1 - x0, x2 - x1)
    found: Floats = x1 + shift + jitter * step
    return found


def _on_a_curve(table: Table, rng: np.random.Generator) -> Peak | None:
    """Fit a parabola on each side of the top around the best of many rates; None for too few.

    Learning falls off more steeply above the best rate than below it, so that the top of a single
    parabola lies too low. For each place that the top may have, everything else is a regression;
    what that leaves unexplained says how likely the place is (by the density of Student's t, with a
    flat prior on the place).
    """
    scored = table.scored
    best = max(scored.rows, key=lambda row: row.learning or 0.0)
    centre = math.log10(float(best.levels["lr"]))
    near = scored.where(lambda c: abs(math.log10(float(c.levels["lr"])) - centre) <= _NEAR)
    kept = near if len(near.rows) >= max(10, 2 * len(near.columns) + 6) else scored
    column = kept.columns.get("lr")
    if column is None or column.places is None:
        return None
    n = len(kept.rows)
    others = [block.columns for block in kept.blocks() if block.names != ("lr",)]
    basis, sizes, _ = np.linalg.svd(np.hstack([np.ones((n, 1)), *others]), full_matrices=False)
    basis = basis[:, sizes > 1e-9 * sizes[0]]
    df = n - basis.shape[1] - _OWN
    if df < FEWEST_DF:
        return None

    def alone(values: Floats) -> Floats:
        """Subtract from each row what the other hyperparameters explain."""
        rest: Floats = values - (values @ basis) @ basis.T
        return rest

    low, high = float(column.places.min()), float(column.places.max())
    tops, step = np.linspace(low - _BEYOND, high + _BEYOND, _PLACES, retstep=True)
    below = alone(-(np.clip(tops[:, None] - column.places, 0.0, None) ** 2))
    above = alone(-(np.clip(column.places - tops[:, None], 0.0, None) ** 2))
    learning = alone(kept.learning)
    total = float(learning @ learning)
    left = np.maximum(total - _explained(below, above, learning), 1e-12 * total)
    weights = np.exp(-(df + 1) / 2 * np.log(left / left.min())) if total > 0 else np.ones(_PLACES)
    drawn = rng.choice(tops, DRAWS, p=weights / weights.sum())
    drawn = drawn + rng.uniform(-0.5, 0.5, DRAWS) * step
    return Peak(
        drawn,
        float(np.mean(drawn < low)),
        0.0 if _lost_above(table, 10**high) else float(np.mean(drawn > high)),
        n,
        "top of a curve with two sides, by regression on all hyperparameters",
    )


def _explained(below: Floats, above: Floats, learning: Floats) -> Floats:
    """Compute the sum of squares that the two sides explain, (tops,), neither of them rising.

    Args:
        below, above: (tops, rows), how far a row lies off the top on that side, squared.
    """
    ll, rr, lr = (
        np.einsum("tn,tn->t", a, b) for a, b in ((below, below), (above, above), (below, above))
    )
    ly, ry = below @ learning, above @ learning
    tiny = 1e-12 * max(float(ll.max()), float(rr.max()))
    # One side alone, where the other would have to rise towards its end.
    one = np.where((ll > tiny) & (ly > 0), ly**2 / np.maximum(ll, tiny), 0.0)
    other = np.where((rr > tiny) & (ry > 0), ry**2 / np.maximum(rr, tiny), 0.0)
    apart = ll * rr - lr**2
    known = apart > 1e-9 * ll * rr
    safe = np.where(known, apart, 1.0)
    first, second = (ly * rr - ry * lr) / safe, (ry * ll - ly * lr) / safe
    both = np.where(known & (first > 0) & (second > 0), first * ly + second * ry, 0.0)
    found: Floats = np.maximum(np.maximum(one, other), both)
    return found


def ratio_of(left: Peak, right: Peak) -> Estimate:
    """Divide the best rate of one by that of another; open where a best may lie beyond."""
    gaps = left.draws - right.draws
    low, mid, high = np.quantile(gaps, [TAIL, 0.5, 1 - TAIL])
    open_low = left.below > TAIL or right.above > TAIL
    open_high = left.above > TAIL or right.below > TAIL
    return Estimate(
        effect=float(10**mid),
        low=None if open_low else float(10**low),
        high=None if open_high else float(10**high),
        n=left.n + right.n,
        n_of="configurations",
        basis=left.basis,
    )


def rate_of(peak: Peak) -> Estimate:
    """Estimate the best rate itself; open where it may lie beyond what was tried."""
    return ratio_of(peak, Peak(np.zeros(DRAWS), 0.0, 0.0, 0, ""))


def best_lr_at_end(table: Table, who: str) -> str | None:
    """Explain that a method may learn more beyond the learning rates tried; None where it may not.

    Methods are compared at their best. One whose best rate is the lowest or the highest tried has
    not been searched to its best, so its being behind shows nothing. Rates of trials that were
    stopped early or diverged count as tried; a few rates, set by hand, count as chosen.
    """
    scored = [row for row in table.rows if row.learning is not None]
    if not scored or not are_rates(table):
        return None
    tried = sorted({_rate(row) for row in table.rows})
    if len(tried) < FEWEST_LRS:
        return None
    best = _rate(max(scored, key=lambda row: row.learning or 0.0))
    ends = {tried[0]: "lowest", tried[-1]: "highest"}
    if best not in ends:
        return None
    return (
        f"{who} learns most at lr {best:.3g}, the {ends[best]} that was tried, and may learn more "
        "beyond"
    )


def _rate(row: Row) -> float:
    return float(row.levels["lr"])
