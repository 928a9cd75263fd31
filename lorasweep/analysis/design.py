"""How hyperparameters become columns of a design matrix.

Levels are coded in one of two ways. *Indicators*, one column a level, suit questions about named
levels: a difference of two coefficients is the difference of the levels, and the solution of least
norm answers even where some combinations are missing. *Contrasts*, one column fewer, are
orthonormal under even weight on all levels, so the squared length of their coefficients is the
variance that the hyperparameter explains. Numbers with more than a few levels are curves: a
parabola where their best value is asked for, a broken line where their share of the variance is.
The parabola is the second-order model of response surfaces (Box and Wilson 1951), the broken line a
linear spline in its basis of hat functions (de Boor 1978, "A Practical Guide to Splines").
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lorasweep.analysis.intervals import Floats
from lorasweep.analysis.scale import is_logarithmic
from lorasweep.spec.space import Level

Codes = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
# More numbers than this are a curve, and more names are left out: each would cost a coefficient.
_MOST_LEVELS = 5
_MOST_NAMES = 30
# Settings along a curve among which its top is looked for.
_STEPS = 41


@dataclass(frozen=True, slots=True)
class Block:
    """Columns of one effect: of one hyperparameter, or of the interaction of two."""

    names: tuple[str, ...]
    columns: Floats


@dataclass(frozen=True)
class Column:
    """One hyperparameter over the configurations of a method.

    levels: those that occur, numbers in order; codes: index of each configuration's level.
    places: the number, or its log10 where `is_log`; None for text, and where a value is missing.
    """

    name: str
    levels: tuple[Level, ...]
    codes: Codes
    places: Floats | None
    is_log: bool = False

    @cached_property
    def is_curve(self) -> bool:
        """Whether it has an order and too many levels for a coefficient each."""
        return self.places is not None and len(self.levels) > _MOST_LEVELS

    def indicators(self) -> Block:
        """Code each level by a column of its own."""
        return Block((self.name,), np.eye(len(self.levels))[self.codes])

    def line(self) -> Block:
        """Code a number by its distance from the mean."""
        assert self.places is not None  # lines are asked of numbers only
        return Block((self.name,), (self.places - self.places.mean())[:, None])

    def block(self) -> Block:
        """Code it by itself: many numbers as a parabola, many names not at all, else by levels."""
        if self.is_curve:
            assert self.places is not None  # a curve has places
            return Block((self.name,), _parabola(self.places, self.places))
        if len(self.levels) > _MOST_NAMES:
            return Block((self.name,), np.zeros((len(self.codes), 0)))
        return self.indicators()

    def settings(self) -> tuple[tuple[Level, ...], Floats]:
        """List settings to choose from, each with its row of `block`.

        They are its levels, or steps along its curve; none where it is left out.
        """
        if not self.is_curve:
            if len(self.levels) > _MOST_NAMES:
                return (), np.zeros((0, 0))
            return self.levels, np.eye(len(self.levels))
        assert self.places is not None  # a curve has places
        places = np.linspace(self.places.min(), self.places.max(), _STEPS)
        levels = tuple(float(x) for x in (10**places if self.is_log else places))
        return levels, _parabola(places, self.places)


def _parabola(at: Floats, places: Floats) -> Floats:
    # Centred, so that the two columns are hardly correlated and rounding stays small.
    z = at - places.mean()
    return np.stack([z, z**2], axis=1)


def make_column(name: str, values: Sequence[Level | None]) -> Column:
    """Index the values of one hyperparameter, one for each configuration."""
    is_text = any(isinstance(value, str) or value is None for value in values)
    known: list[Level] = ["none" if value is None else value for value in values]
    levels = tuple(sorted(dict.fromkeys(known), key=str if is_text else float))
    index = {level: i for i, level in enumerate(levels)}
    codes = np.array([index[value] for value in known], dtype=np.int64)
    if is_text:
        return Column(name, levels, codes, None)
    numbers = np.array([float(value) for value in known])
    is_log = is_logarithmic(name, float(numbers.min()), float(numbers.max()))
    return Column(name, levels, codes, np.log10(numbers) if is_log else numbers, is_log)


def level_blocks(names: Sequence[str], codes: Codes) -> tuple[Block, ...]:
    """Code each column of level indices by contrasts."""
    return tuple(
        Block((name,), contrasts(column)) for name, column in zip(names, codes.T, strict=True)
    )


def pair_blocks(mains: Sequence[Block]) -> tuple[Block, ...]:
    """Code the interaction of each pair by the products of their columns."""
    return tuple(
        Block(
            (*left.names, *right.names),
            np.einsum("ni,nj->nij", left.columns, right.columns).reshape(len(left.columns), -1),
        )
        for left, right in itertools.combinations(mains, 2)
    )


def contrasts(column: Codes) -> Floats:
    """Code levels by Helmert contrasts: each level against the mean of those before it."""
    levels, codes = np.unique(column, return_inverse=True)
    k = len(levels)
    coding = np.zeros((k, k - 1))
    for j in range(1, k):
        coding[:j, j - 1] = -1.0
        coding[j, j - 1] = j
        # Orthonormal under even weight: the mean square of each column over the levels is 1.
        coding[:, j - 1] *= np.sqrt(k / (j * (j + 1)))
    own: Floats = coding[codes]
    return own


def broken_line(column: Floats, grid: Floats, pieces: int) -> Floats:
    """Code a number by a broken line with evenly spread bends, orthonormal over the grid."""

    def hats(x: Floats) -> Floats:
        place = (x - grid[0]) / (grid[-1] - grid[0]) * pieces
        near: Floats = np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(pieces + 1)))
        return near

    even = hats(grid)
    centre = even.mean(axis=0)
    _, scale, turn = np.linalg.svd((even - centre) / np.sqrt(len(grid)), full_matrices=False)
    # The hats add up to one, so one of their directions is constant and is left out.
    columns: Floats = (hats(np.clip(column, grid[0], grid[-1])) - centre) @ (
        turn[:pieces].T / scale[:pieces]
    )
    return columns
