"""Columns of a design, and least squares on them."""

import numpy as np
import pytest

from lorasweep.analysis.design import broken_line, contrasts, level_blocks, make_column
from lorasweep.analysis.regression import least_squares, with_jackknife_errors

CODES = np.array([[i, j] for i in range(3) for j in range(4)])


def test_contrasts_and_broken_lines_are_orthonormal_under_even_weight():
    columns = contrasts(np.arange(5))
    assert columns.T @ columns / 5 == pytest.approx(np.eye(4))
    assert columns.sum(axis=0) == pytest.approx(np.zeros(4))
    grid = np.linspace(-5, -3, 200)
    line = broken_line(grid, grid, 6)
    assert line.T @ line / 200 == pytest.approx(np.eye(6))


def test_a_full_factorial_needs_no_inverse():
    mains = level_blocks(("a", "b"), CODES)
    scores = np.random.default_rng(0).normal(size=12)
    plain, exact = least_squares(mains, scores), least_squares(mains, scores, is_orthonormal=True)
    assert plain.coefficients == pytest.approx(exact.coefficients)
    assert plain.df == exact.df == 12 - 1 - 2 - 3
    assert plain.covariance == pytest.approx(exact.covariance)


def test_levels_that_changed_together_are_not_told_apart():
    values = ["x", "x", "y", "y", "z", "z"]
    one, two = make_column("one", values), make_column("two", values)
    fit = least_squares((one.indicators(), two.indicators()), np.arange(6.0))
    assert fit.contrast("one", np.array([1.0, -1.0, 0.0]), "") is None
    alone = least_squares((one.indicators(),), np.arange(6.0))
    found = alone.contrast("one", np.array([-1.0, 1.0, 0.0]), "")
    assert found is not None
    assert found.effect == pytest.approx(2)
    assert alone.df == 3


def test_the_jackknife_is_that_of_leaving_one_configuration_out():
    rng = np.random.default_rng(1)
    column = make_column("lr", list(10 ** rng.uniform(-5, -3, 20)))
    scores = rng.normal(size=20)
    fit = with_jackknife_errors(least_squares((column.line(),), scores))
    left_out = []
    for i in range(20):
        keep = np.arange(20) != i
        left_out.append(np.linalg.lstsq(fit.design[keep], scores[keep], rcond=None)[0])
    off = np.array(left_out) - fit.coefficients
    assert fit.covariance == pytest.approx(off.T @ off)


def test_numbers_are_curves_on_their_own_scale_and_few_are_levels():
    rates = make_column("lr", [10.0**-i for i in range(2, 9)])
    assert rates.is_curve
    assert rates.is_log
    levels, rows = rates.settings()
    assert len(levels) == len(rows) == 41
    ranks = make_column("rank", [4, 16, 64, 4])
    assert ranks.settings()[0] == (4, 16, 64)
    assert make_column("targets", ["mlp", None]).levels == ("mlp", "none")
