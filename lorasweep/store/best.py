"""Best configuration of each method, by the one rule that status, live view and report share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lorasweep.spec.space import Level
from lorasweep.spec.trial import Frozen
from lorasweep.store.configurations import Configuration, mean

RULE = (
    "of the configurations that completed on the most seeds, the one with the highest mean "
    "learning over them; among equals the higher source accuracy, then the earlier trial"
)
# Decimals compared; sums of the same scores in another order differ in later ones.
_EQUAL = 12


class Standing(Frozen):
    """Scores of one configuration over its seeds.

    trial: its first trial, which names it.
    seeds: those that completed; scores: learning of each, in the same order.
    lost: trials of it that diverged or failed.
    learning, source_accuracy, forgetting: means over the seeds that completed.
    """

    trial: str
    configuration: Mapping[str, Level]
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    lost: int
    learning: float
    source_accuracy: float | None
    forgetting: float | None

    @property
    def spread(self) -> tuple[float, float]:
        """Lowest and highest score."""
        return min(self.scores), max(self.scores)


@dataclass(frozen=True, slots=True)
class Best:
    """Best configuration of a method.

    runner_up: the highest mean learning of the others, on however many seeds; None without others.
    higher_on_fewer_seeds: the best of those that scored higher than the winner on fewer seeds, None
        where there is none; a single high score is often a lucky one.
    """

    method: str
    winner: Standing
    runner_up: Standing | None
    higher_on_fewer_seeds: Standing | None


def _standing(configuration: Configuration) -> Standing:
    scored = configuration.scored
    return Standing(
        trial=scored[0].trial,
        configuration=configuration.hyperparameters,
        seeds=tuple(trial.seed for trial in scored),
        scores=tuple(t.learning for t in scored if t.learning is not None),
        lost=sum(trial.status in {"DIVERGED", "FAILED"} for trial in configuration.trials),
        learning=configuration.learning or 0.0,
        source_accuracy=mean(trial.source_accuracy for trial in scored),
        forgetting=mean(trial.forgetting for trial in scored),
    )


def _order(candidates: Iterable[Configuration]) -> list[Standing]:
    """Sort by the rule; a stable sort leaves equal ones in the order of the trials' numbers."""
    standings = [_standing(configuration) for configuration in candidates]

    def key(standing: Standing) -> tuple[float, float]:
        preserved = standing.source_accuracy
        if preserved is None and standing.forgetting is not None:
            preserved = -standing.forgetting
        return (-round(standing.learning, _EQUAL), -(preserved or 0.0))

    return sorted(standings, key=key)


def find_best(grouped: Iterable[Configuration]) -> tuple[Best, ...]:
    """Find the best configuration of every method that has a completed trial."""
    by_method: dict[str, list[Configuration]] = {}
    for configuration in grouped:
        if configuration.scored:
            by_method.setdefault(configuration.method, []).append(configuration)
    found = []
    for method, candidates in by_method.items():
        ordered = _order(candidates)
        most = max(len(standing.seeds) for standing in ordered)
        winner = next(standing for standing in ordered if len(standing.seeds) == most)
        others = [standing for standing in ordered if standing is not winner]
        higher = ordered[: ordered.index(winner)]
        found.append(
            Best(
                method=method,
                winner=winner,
                runner_up=others[0] if others else None,
                higher_on_fewer_seeds=higher[0] if higher else None,
            )
        )
    return tuple(found)
