"""The configurations of one method as a table, and regressions on its columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from lorasweep.analysis.design import Block, Column, make_column
from lorasweep.analysis.intervals import Floats
from lorasweep.analysis.regression import FEWEST_DF, Fit, least_squares
from lorasweep.analysis.scale import DURATIONS
from lorasweep.spec.alpha import common_multiple
from lorasweep.spec.space import Level
from lorasweep.store.configurations import Configuration, forgetting_of, mean

Score = Literal["learning", "forgetting"]


@dataclass(frozen=True, slots=True)
class Row:
    """One configuration with the means over its seeds.

    levels: its hyperparameters, alpha by its rule where one rule fits all trials.
    learning, forgetting: None where no seed completed; forgetting is source accuracy with its sign
        turned where the base is unknown.
    seeds: how many learning was averaged over; diverged: trials that diverged.
    """

    configuration: Configuration
    levels: Mapping[str, Level]
    learning: float | None
    forgetting: float | None
    seeds: int
    diverged: int
    trainable: int


def make_rows(grouped: Iterable[Configuration], *, by_forgetting: bool) -> tuple[Row, ...]:
    """Average each configuration over its seeds."""
    grouped = tuple(grouped)
    levels_of_all = [c.hyperparameters for c in grouped]
    ratio = common_multiple((own.get("alpha"), own.get("rank")) for own in levels_of_all)
    rows = []
    for configuration in grouped:
        levels = dict(configuration.hyperparameters)
        if ratio is not None and not isinstance(levels.get("alpha", "2r"), str):
            # One multiple at all ranks is a rule: as numbers, alpha would repeat what rank says.
            levels["alpha"] = f"{ratio:g}r"
        scored = configuration.scored
        rows.append(
            Row(
                configuration,
                levels,
                mean(trial.learning for trial in scored),
                mean(forgetting_of(t, by_forgetting=by_forgetting) for t in scored),
                len({trial.seed for trial in scored}),
                sum(trial.status == "DIVERGED" for trial in configuration.trials),
                max(trial.trainable for trial in configuration.trials),
            )
        )
    return tuple(rows)


@dataclass(frozen=True)
class Table:
    """Configurations of one method, one a row, those without a score too.

    Scores that were not measured are NaN in its arrays.
    """

    rows: tuple[Row, ...]

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        """Hyperparameters that differ between the rows."""
        names = dict.fromkeys(name for row in self.rows for name in row.levels)
        found = {}
        for name in names:
            values = [row.levels.get(name) for row in self.rows]
            if any(value != values[0] for value in values):
                found[name] = make_column(name, values)
        return found

    @cached_property
    def learning(self) -> Floats:
        """Learning, row by row."""
        return np.array([math.nan if r.learning is None else r.learning for r in self.rows])

    @cached_property
    def forgetting(self) -> Floats:
        """Forgetting as defined in `Row`, row by row."""
        return np.array([math.nan if r.forgetting is None else r.forgetting for r in self.rows])

    def where(self, keep: Callable[[Row], bool]) -> Table:
        """Select rows."""
        return Table(tuple(row for row in self.rows if keep(row)))

    def at(self, name: str, level: Level) -> Table:
        """Select the rows at one level of a hyperparameter."""
        return self.where(lambda row: row.levels.get(name) == level)

    def above_zero(self, name: str) -> Table:
        """Select the rows in which a hyperparameter is a number above zero."""
        return self.where(
            lambda row: not isinstance(value := row.levels.get(name), str | None) and value > 0
        )

    @cached_property
    def scored(self) -> Table:
        """Rows with a learning score."""
        return self.where(lambda row: row.learning is not None)

    @cached_property
    def measured(self) -> Table:
        """Rows with a learning score and a forgetting score."""
        return self.where(lambda row: row.learning is not None and row.forgetting is not None)

    def with_score(self, score: Score) -> Table:
        """Select the rows that a score can be compared on: all scored, or all measured."""
        return self.scored if score == "learning" else self.measured

    def duration(self) -> str | None:
        """Find the hyperparameter that sets how long a trial is, where it differs."""
        return next((name for name in DURATIONS if name in self.columns), None)

    def levels_of(self, name: str) -> tuple[Level, ...]:
        """List the levels of a hyperparameter that occur, whether or not they differ."""
        if name in self.columns:
            return self.columns[name].levels
        return tuple({row.levels[name]: None for row in self.rows if name in row.levels})

    def blocks(self) -> tuple[Block, ...]:
        """Code each hyperparameter by itself."""
        return tuple(column.block() for column in self.columns.values())

    def fit(
        self, score: Score, *, levels_of: str | None = None, lines: tuple[str, ...] = ()
    ) -> Fit | None:
        """Regress a score on all hyperparameters; every row must have it.

        Args:
            levels_of: a hyperparameter whose levels have a coefficient each, however many.
            lines: hyperparameters that are straight lines on their own scale.

        Returns:
            None where fewer than `FEWEST_DF` degrees of freedom are left.
        """
        if len(self.rows) <= FEWEST_DF:
            return None
        # A hyperparameter in question gets a coefficient for each level, so that any two of its
        # levels can be compared; the others are only held equal, and a curve is enough for that.
        blocks = [
            column.line()
            if name in lines
            else column.indicators()
            if name == levels_of
            else column.block()
            for name, column in self.columns.items()
        ]
        fit = least_squares(blocks, self.learning if score == "learning" else self.forgetting)
        return None if fit.df < FEWEST_DF else fit
