"""Least squares on blocks of columns: effects, their errors, and what they leave unexplained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lorasweep.analysis.design import Block
from lorasweep.analysis.intervals import Estimate, Floats, t_interval

# Fewer degrees of freedom than this give no standard deviation of residuals to rely on.
FEWEST_DF = 3


@dataclass(frozen=True, slots=True)
class Fit:
    """Least-squares fit, of least norm where the configurations leave coefficients open.

    coefficients: the constant first, then block by block.
    inverse: of the design's cross products; covariance: of the coefficients.
    identified: projects coefficients on the combinations that the configurations determine.
    variance: of one score beside the effects, noise and further interactions, measured on `df`
        degrees of freedom; 0 where none are left.
    unmodelled: variance of the interactions that no block models, with the degrees of freedom that
        it was measured on; None where it cannot be separated from noise.
    """

    blocks: tuple[Block, ...]
    design: Floats
    coefficients: Floats
    inverse: Floats
    identified: Floats
    covariance: Floats
    variance: float
    df: int
    fitted: Floats
    residuals: Floats
    leverage: Floats
    unmodelled: tuple[float, int] | None = None

    @property
    def error(self) -> float:
        """Standard deviation of one score beside the effects."""
        return math.sqrt(self.variance)

    @property
    def spans(self) -> tuple[slice, ...]:
        """Where the coefficients of each block are."""
        ends = np.cumsum([1, *(block.columns.shape[1] for block in self.blocks)])
        return tuple(slice(int(a), int(b)) for a, b in itertools.pairwise(ends))

    @property
    def weights(self) -> tuple[Floats, ...]:
        """Coefficients of each block."""
        return tuple(self.coefficients[span] for span in self.spans)

    @property
    def covariances(self) -> tuple[Floats, ...]:
        """Covariance of each block's coefficients."""
        return tuple(self.covariance[span, span] for span in self.spans)

    @property
    def variances(self) -> Floats:
        """Variance that each block explains as fitted, noise and all, for orthonormal blocks."""
        return np.array([float(w @ w) for w in self.weights])

    def span(self, name: str) -> slice:
        """Find the coefficients of one hyperparameter."""
        return self.spans[next(i for i, b in enumerate(self.blocks) if b.names == (name,))]

    def contrast(self, name: str, weights: Floats, basis: str) -> Estimate | None:
        """Estimate a weighted sum of one hyperparameter's coefficients.

        Returns:
            None where another hyperparameter changed along with it, so that the configurations
            do not determine the sum.
        """
        whole = np.zeros(len(self.coefficients))
        whole[self.span(name)] = weights
        # It is estimable only as a combination of rows of the design (Scheffe 1959).
        if np.abs(whole - self.identified @ whole).max() > 1e-6 * np.abs(whole).max():
            return None
        error = self.error * math.sqrt(max(0.0, float(whole @ self.inverse @ whole)))
        effect, n = float(whole @ self.coefficients), len(self.fitted)
        return t_interval(effect, error, self.df, n=n, of="configurations", basis=basis)

    def draws(self, name: str, number: int, rng: np.random.Generator) -> Floats:
        """Draw one hyperparameter's coefficients within their errors (Student's t)."""
        own = self.inverse[self.span(name), self.span(name)]
        root = covariance_root((own + own.T) / 2)
        noise = rng.standard_normal((number, len(root))) @ root
        scale = np.sqrt(self.df / rng.chisquare(self.df, size=(number, 1)))
        drawn: Floats = self.coefficients[self.span(name)] + self.error * scale * noise
        return drawn


def least_squares(blocks: Sequence[Block], outcome: Floats, *, is_orthonormal: bool = False) -> Fit:
    """Fit a constant and blocks of columns.

    Args:
        is_orthonormal: every column has mean 0 and mean square 1 and is orthogonal to the others,
            as contrasts are in a full factorial. Their cross products then are n times the identity
            exactly, which keeps rounding out of the directions that are drawn later.
    """
    n = len(outcome)
    design = np.hstack([np.ones((n, 1)), *(block.columns for block in blocks)])
    cross = design.T @ design
    if is_orthonormal:
        inverse = np.eye(design.shape[1]) / n
    else:
        inverse = np.asarray(np.linalg.pinv(cross, rcond=1e-10, hermitian=True), dtype=np.float64)
    coefficients = inverse @ (design.T @ outcome)
    fitted = design @ coefficients
    # Without this, the rounding errors of an exact fit would count as noise.
    left = outcome - fitted
    residuals = np.where(np.abs(left) > 1e-11 * np.abs(outcome).max(), left, 0.0)
    identified = inverse @ cross
    # The trace of a projection is its rank: the number of coefficients that were determined.
    df = n - round(float(np.trace(identified)))
    variance = float(residuals @ residuals) / df if df > 0 else 0.0
    return Fit(
        blocks=tuple(blocks),
        design=design,
        coefficients=coefficients,
        inverse=inverse,
        identified=identified,
        covariance=inverse * variance,
        variance=variance,
        df=df,
        fitted=fitted,
        residuals=residuals,
        leverage=np.einsum("ni,ij,nj->n", design, inverse, design, optimize=True),
    )


def with_variance(
    fit: Fit, variance: float, df: int, unmodelled: tuple[float, int] | None = None
) -> Fit:
    """Replace the residual variance by one measured elsewhere, such as on repeated seeds."""
    covariance = fit.inverse * variance
    return replace(fit, variance=variance, df=df, covariance=covariance, unmodelled=unmodelled)


def with_jackknife_errors(fit: Fit) -> Fit:
    """Replace the covariance by that of the jackknife over configurations.

    What the blocks leave out is larger in some regions than in others, and the jackknife allows for
    that. Its closed form is HC3 of MacKinnon and White (1985), "Some
    heteroskedasticity-consistent covariance matrix estimators with improved finite sample
    properties".
    """
    # Near a leverage of 1 a configuration decides its own fitted value, and its error explodes.
    scaled = fit.residuals / np.maximum(1 - fit.leverage, 0.05)
    spread = (fit.design * scaled[:, None]) @ fit.inverse
    return replace(fit, covariance=spread.T @ spread)


def covariance_root(covariance: Floats) -> Floats:
    """Factor a covariance, so that standard normal draws times the factor have it."""
    # Not by Cholesky: a fit of least norm has a singular covariance.
    values, turn = np.linalg.eigh(covariance)
    root: Floats = (turn * np.sqrt(np.maximum(values, 0.0))).T
    return root
