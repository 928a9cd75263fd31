"""Variance shares of a sampled design by functional ANOVA, through Optuna's random forest.

References:
    Hutter, Hoos and Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance",
    ICML 2014.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from lorasweep.analysis.intervals import Floats
from lorasweep.analysis.scale import Scale


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Optuna, which announces each study in memory and warns where the best scores tie."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Target and region quantiles select the same set")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def order_levels(column: Floats, scores: Floats) -> Floats:
    """Number levels that have no order of their own by their mean score.

    A tree then needs one cut to part good levels from bad, and the numbers do not depend on the
    levels' names. On planted effects this came closer to the true shares than one column a level
    (0.085 against 0.075 of 0.12, 200 trials), and it gives each level the same weight.
    """
    levels, codes = np.unique(column, return_inverse=True)
    means = [(scores[codes == code].mean(), code) for code in range(len(levels))]
    place = np.empty(len(levels))
    place[[code for _, code in sorted(means)]] = np.arange(len(levels))
    placed: Floats = place[codes]
    return placed


def functional_shares(
    points: Floats,
    scores: Floats,
    scales: Sequence[Scale],
    *,
    trees: int,
    depth: int,
    seed: int,
) -> Floats:
    """Compute each main effect's share of the variance over the region that was tried.

    Args:
        points: coordinates as `Scale.coordinate` gives them; log values are logarithms already,
            since Optuna's evaluator weighs a log distribution's raw values evenly.
    """
    import optuna
    from optuna.distributions import FloatDistribution

    shares = np.zeros(points.shape[1])
    columns: dict[str, Floats] = {}
    spaces: dict[str, optuna.distributions.BaseDistribution] = {}
    for index, scale in enumerate(scales):
        column = points[:, index]
        if np.ptp(column) == 0:
            continue
        if scale.kind == "text":
            column = order_levels(column, scores)
        # Half a step beyond the outer levels gives each level the same width.
        margin = 0.0 if scale.is_interval else 0.5
        spaces[str(index)] = FloatDistribution(column.min() - margin, column.max() + margin)
        columns[str(index)] = column
    if not columns or np.ptp(scores) == 0:
        return shares
    with quiet():
        study = optuna.create_study(direction="maximize")
        study.add_trials(
            optuna.trial.create_trial(
                params={name: float(column[row]) for name, column in columns.items()},
                distributions=spaces,
                value=float(score),
            )
            for row, score in enumerate(scores)
        )
        evaluator = optuna.importance.FanovaImportanceEvaluator(
            n_trees=trees, max_depth=depth, seed=seed
        )
        found = evaluator.evaluate(study, params=list(columns))
    for name, share in found.items():
        shares[int(name)] = share
    return np.clip(shares, 0.0, 1.0)
