"""The ranking within each rule by which alpha follows the rank.

With alpha fixed, a larger rank shrinks the adapter's factor alpha / r; with alpha a multiple of the
rank it does not. So rank looks unimportant under the one rule and not under the other (Biderman et
al. 2024, v2, section 7), and a ranking over both mixes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorasweep.analysis.scale import Scale
from lorasweep.analysis.sensitivity.importance import Ranking, rank_hyperparameters
from lorasweep.spec.space import Level
from lorasweep.store.configurations import Configuration

FIXED, TIMES_RANK, RSLORA = "fixed", "times rank", "rslora"


@dataclass(frozen=True, slots=True)
class WithinRule:
    """Hold the ranking of the configurations that share an alpha rule.

    rule: `fixed` for a number, `times rank` for a multiple of the rank, `rslora`.
    configurations: under this rule, completed or not.
    """

    rule: str
    configurations: int
    ranking: Ranking


def alpha_rule(hyperparameters: Mapping[str, Level]) -> str | None:
    """Tell the rule of one configuration; None where it has no alpha."""
    alpha = hyperparameters.get("alpha")
    if alpha is None:
        return None
    if not isinstance(alpha, str):
        return FIXED
    if alpha.startswith("rslora"):
        return RSLORA
    return TIMES_RANK if alpha.endswith("r") else FIXED


def alpha_rules(configurations: Sequence[Configuration]) -> tuple[str | None, ...]:
    """Tell the rule of each configuration.

    Tables often give alpha as a number where it is a multiple of the rank. If all numbers are the
    same multiple of several ranks, that is the rule.
    """
    rules = [alpha_rule(c.hyperparameters) for c in configurations]
    pairs = {
        (float(c.hyperparameters["alpha"]), float(c.hyperparameters.get("rank", 0)))
        for c, rule in zip(configurations, rules, strict=True)
        if rule == FIXED and not isinstance(c.hyperparameters.get("rank", 0), str)
    }
    ranks = {rank for _, rank in pairs if rank > 0}
    multiples = {round(alpha / rank, 9) for alpha, rank in pairs if rank > 0}
    if len(ranks) > 1 and len(multiples) == 1 and len(ranks) == len(pairs):
        return tuple(TIMES_RANK if rule == FIXED else rule for rule in rules)
    return tuple(rules)


def rank_within_alpha_rules(
    method: str,
    configurations: Sequence[Configuration],
    scales: Mapping[str, Scale],
    overall: Ranking | None = None,
) -> tuple[WithinRule, ...]:
    """Rank the hyperparameters of one method within each alpha rule that occurs.

    Args:
        overall: the method's ranking, which is the answer too where there is one rule only.

    Returns:
        Nothing where configurations have no alpha.
    """
    rules = alpha_rules(configurations)
    found = [rule for rule in (FIXED, TIMES_RANK, RSLORA) if rule in rules]
    rankings = []
    for rule in found:
        own = [c for c, of in zip(configurations, rules, strict=True) if of == rule]
        if overall is not None and len(own) == len(configurations):
            ranking = overall
        else:
            ranking = rank_hyperparameters(method, own, scales)
        rankings.append(WithinRule(rule, len(own), ranking))
    return tuple(rankings)
