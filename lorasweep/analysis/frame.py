"""The configurations of one method as columns, and regressions on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lorasweep.analysis.intervals import Estimate, Floats, t_interval
from lorasweep.spec.space import Level
from lorasweep.spec.trial import DURATIONS as IN_A_SPACE
from lorasweep.store.configurations import Configuration, mean

Codes = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Mask = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
DURATIONS = (*IN_A_SPACE, "duration", "steps")
# More levels than this are an interval to be described by a curve, more still are names alone.
_MOST_LEVELS = 5
_MOST_NAMES = 30
# Fewer degrees of freedom than this give no standard deviation to rely on.
FEWEST_FREE = 3
# Places along a curve at which its top is looked for.
_PLACES = 41


@dataclass(frozen=True, slots=True)
class Case:
    """Hold one configuration with the means over its seeds.

    levels: its hyperparameters, alpha by its rule where one rule fits all trials.
    learning, cost: None where no seed completed; cost is forgetting, or source accuracy with its
        sign turned where the base is unknown.
    n: seeds behind learning; diverged: trials that were lost to divergence.
    """

    configuration: Configuration
    levels: Mapping[str, Level]
    learning: float | None
    cost: float | None
    n: int
    diverged: int
    trainable: int


def make_cases(grouped: Iterable[Configuration], *, by_forgetting: bool) -> tuple[Case, ...]:
    """Average each configuration over its seeds."""
    grouped = tuple(grouped)
    ratio = _alpha_ratio(grouped)
    cases = []
    for configuration in grouped:
        levels = dict(configuration.hyperparameters)
        if ratio is not None and not isinstance(levels.get("alpha", "2r"), str):
            levels["alpha"] = f"{ratio:g}r"
        scored = configuration.scored
        costs = [
            t.forgetting if by_forgetting else None if t.source_accuracy is None
            else -t.source_accuracy
            for t in scored
        ]  # fmt: skip
        cases.append(
            Case(
                configuration,
                levels,
                mean(trial.learning for trial in scored),
                mean(costs),
                len({trial.seed for trial in scored}),
                sum(trial.status == "DIVERGED" for trial in configuration.trials),
                max(trial.trainable for trial in configuration.trials),
            )
        )
    return tuple(cases)


def _alpha_ratio(grouped: Sequence[Configuration]) -> float | None:
    """Give alpha / rank where alpha is a number in several ranks and always the same multiple."""
    pairs = {
        (float(alpha), float(rank))
        for c in grouped
        if not isinstance(alpha := c.hyperparameters.get("alpha"), str | None)
        and not isinstance(rank := c.hyperparameters.get("rank"), str | None)
        and float(rank) > 0
    }
    ratios = {alpha / rank for alpha, rank in pairs}
    return ratios.pop() if len(ratios) == 1 and len(pairs) > 1 else None


@dataclass(frozen=True, slots=True)
class Column:
    """Hold one hyperparameter over the cases.

    levels: those that occur, numbers in order; codes: index of each case's level.
    places: log10 of a positive number that spans a factor of ten or is a learning rate, else the
        number; None for text and where some cases lack it. is_log: they are logarithms.
    """

    levels: tuple[Level, ...]
    codes: Codes
    places: Floats | None
    is_log: bool = False


def _column(name: str, values: Sequence[Level | None]) -> Column:
    texts = any(isinstance(value, str) or value is None for value in values)
    known: list[Level] = ["none" if value is None else value for value in values]
    if texts:
        levels = tuple(sorted(dict.fromkeys(known), key=str))
    else:
        levels = tuple(sorted(dict.fromkeys(known), key=float))
    index = {level: i for i, level in enumerate(levels)}
    codes = np.array([index[value] for value in known], dtype=np.int64)
    places, log = None, False
    if not texts:
        numbers = np.array([float(value) for value in known])
        low, high = numbers.min(), numbers.max()
        log = low > 0 and (name in {"lr", "rank", "trainable", *DURATIONS} or high / low >= 10)
        places = np.log10(numbers) if log else numbers
    return Column(levels, codes, places, log)


@dataclass(frozen=True)
class Frame:
    """Hold the cases of one method as columns; NaN stands for what was not measured."""

    cases: tuple[Case, ...]

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        """Give the hyperparameters that differ between the cases."""
        names = dict.fromkeys(name for case in self.cases for name in case.levels)
        found = {}
        for name in names:
            values = [case.levels.get(name) for case in self.cases]
            if any(value != values[0] for value in values):
                found[name] = _column(name, values)
        return found

    @cached_property
    def learning(self) -> Floats:
        """Give learning of each case."""
        return np.array([math.nan if c.learning is None else c.learning for c in self.cases])

    @cached_property
    def cost(self) -> Floats:
        """Give the forgetting of each case, as `Case` says."""
        return np.array([math.nan if c.cost is None else c.cost for c in self.cases])

    def outcome(self, name: str) -> Floats:
        """Give `learning` or `cost`."""
        return self.learning if name == "learning" else self.cost

    def where(self, keep: Callable[[Case], bool]) -> Frame:
        """Keep some of the cases."""
        return Frame(tuple(case for case in self.cases if keep(case)))

    def at(self, axis: str, level: Level) -> Frame:
        """Keep the cases at one level of a hyperparameter."""
        return self.where(lambda case: case.levels.get(axis) == level)

    def above_zero(self, axis: str) -> Frame:
        """Keep the cases in which a hyperparameter is a number above zero."""
        return self.where(
            lambda case: not isinstance(value := case.levels.get(axis), str | None) and value > 0
        )

    @cached_property
    def scored(self) -> Frame:
        """Keep the cases with a learning score."""
        return self.where(lambda case: case.learning is not None)

    @cached_property
    def measured(self) -> Frame:
        """Keep the cases with a learning score and a forgetting score."""
        return self.where(lambda case: case.learning is not None and case.cost is not None)

    def duration(self) -> str | None:
        """Name the hyperparameter that says how long a trial is, where it differs."""
        return next((name for name in DURATIONS if name in self.columns), None)

    def levels_of(self, name: str) -> tuple[Level, ...]:
        """Give the levels of a hyperparameter that occur, whether or not they differ."""
        if name in self.columns:
            return self.columns[name].levels
        return tuple({case.levels[name]: None for case in self.cases if name in case.levels})

    def coded(self) -> Mapping[str, Floats]:
        """Give how `fit` codes each hyperparameter by itself, (cases, coefficients)."""
        return {name: _features(column, None) for name, column in self.columns.items()}

    def fit(
        self, outcome: str, focus: str | None = None, shape: str = "levels", line: str = ""
    ) -> Fit | None:
        """Regress an outcome on all hyperparameters, each by itself.

        Args:
            outcome: `learning` or `cost`; every case must have it.
            focus: the hyperparameter in question; None where it is the fit alone.
            shape: of the focus: `levels`, or `line` on its own scale.
            line: another hyperparameter that is taken as a line.

        Returns:
            None where fewer than three degrees of freedom are left.
        """
        blocks: list[Floats] = [np.ones((len(self.cases), 1))]
        own = slice(0, 0)
        for name, column in self.columns.items():
            other = "line" if name == line else None
            block = _features(column, shape if name == focus else other)
            if name == focus:
                start = sum(part.shape[1] for part in blocks)
                own = slice(start, start + block.shape[1])
            blocks.append(block)
        design = np.hstack(blocks)
        return fit_design(design, self.outcome(outcome), own)


def _is_curve(column: Column) -> bool:
    return column.places is not None and len(column.levels) > _MOST_LEVELS


def settings_of(column: Column) -> tuple[tuple[Level, ...], Floats]:
    """Give settings of a hyperparameter, (settings,), and how `Frame.fit` codes them by itself.

    They are its levels, or places along the curve that it is taken for; none where it is left out.
    """
    if not _is_curve(column):
        if len(column.levels) > _MOST_NAMES:
            return (), np.zeros((0, 0))
        return column.levels, np.eye(len(column.levels))
    assert column.places is not None  # a curve has places
    places = np.linspace(column.places.min(), column.places.max(), _PLACES)
    z = places - column.places.mean()
    levels = tuple(float(x) for x in (10**places if column.is_log else places))
    return levels, np.stack([z, z**2], axis=1)


def _features(column: Column, shape: str | None) -> Floats:
    """Code a hyperparameter: in its shape, else as levels where they are few and as a curve."""
    if shape is None:
        shape = "curve" if _is_curve(column) else "levels"
        if shape == "levels" and len(column.levels) > _MOST_NAMES:
            return np.zeros((len(column.codes), 0))
    if shape == "levels":
        return np.eye(len(column.levels))[column.codes]
    assert column.places is not None  # lines and curves are asked of numbers only
    z = column.places - column.places.mean()
    return np.stack([z] if shape == "line" else [z, z**2], axis=1)


@dataclass(frozen=True, slots=True)
class Fit:
    """Hold a least-squares fit of least norm.

    own: where the coefficients of the hyperparameter in question stand.
    error: standard deviation of the residuals, with `df` degrees of freedom.
    """

    beta: Floats
    spread: Floats
    space: Floats
    own: slice
    error: float
    df: int
    n: int
    fitted: Floats
    leverage: Floats

    def contrast(self, weights: Floats, basis: str) -> Estimate | None:
        """Give a weighted sum of the own coefficients; None where the trials cannot tell it apart.

        They cannot where another hyperparameter changed along with it.
        """
        whole = np.zeros(len(self.beta))
        whole[self.own] = weights
        if np.abs(whole - self.space @ whole).max() > 1e-6 * np.abs(whole).max():
            return None
        error = self.error * math.sqrt(max(0.0, float(whole @ self.spread @ whole)))
        effect = float(whole @ self.beta)
        return t_interval(effect, error, self.df, n=self.n, of="configurations", basis=basis)

    def draws(self, number: int, rng: np.random.Generator) -> Floats:
        """Draw the own coefficients from what they may be."""
        own = self.spread[self.own, self.own]
        values, vectors = np.linalg.eigh((own + own.T) / 2)
        root = vectors * np.sqrt(np.clip(values, 0, None))
        noise = rng.standard_normal((number, len(values))) @ root.T
        scale = np.sqrt(self.df / rng.chisquare(self.df, size=(number, 1)))
        drawn: Floats = self.beta[self.own] + self.error * scale * noise
        return drawn


def fit_design(design: Floats, outcome: Floats, own: slice) -> Fit | None:
    """Fit by least squares; None where fewer than three degrees of freedom are left."""
    n = len(outcome)
    if n <= FEWEST_FREE:
        return None
    inverse: Floats = np.asarray(
        np.linalg.pinv(design.T @ design, hermitian=True, rcond=1e-10), dtype=np.float64
    )
    beta = inverse @ design.T @ outcome
    space = inverse @ (design.T @ design)
    df = n - round(float(np.trace(space)))
    if df < FEWEST_FREE:
        return None
    fitted = design @ beta
    error = math.sqrt(float(np.sum((outcome - fitted) ** 2)) / df)
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    return Fit(beta, inverse, space, own, error, df, n, fitted, leverage)
