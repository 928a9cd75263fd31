"""The ranking within each rule by which alpha follows the rank.

With alpha fixed, a larger rank shrinks the adapter's factor alpha / r; with alpha a multiple of the
rank it does not. So rank looks unimportant under the one rule and not under the other (Biderman et
al. 2024, v2, section 7), and a ranking over both mixes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorasweep.analysis.scale import Scale
from lorasweep.analysis.sensitivity.importance import Ranking, rank_hyperparameters
from lorasweep.analysis.types import Result
from lorasweep.spec.alpha import FIXED, RSLORA, TIMES_RANK, AlphaRule, common_multiple, rule_of
from lorasweep.store.configurations import Configuration


class AlphaRuleRanking(Result):
    """Ranking of the configurations that share an alpha rule.

    rule: `fixed` for a number, `times rank` for a multiple of the rank, `rslora`.
    configurations: under this rule, completed or not.
    """

    rule: str
    configurations: int
    ranking: Ranking


def alpha_rules(configurations: Sequence[Configuration]) -> tuple[AlphaRule | None, ...]:
    """Classify each configuration by its alpha; None where it has no alpha."""
    alphas = [c.hyperparameters.get("alpha") for c in configurations]
    ranks = [c.hyperparameters.get("rank") for c in configurations]
    rules = [None if alpha is None else rule_of(alpha) for alpha in alphas]
    if common_multiple(zip(alphas, ranks, strict=True)) is not None:
        return tuple(TIMES_RANK if rule == FIXED else rule for rule in rules)
    return tuple(rules)


def rank_within_alpha_rules(
    method: str,
    configurations: Sequence[Configuration],
    scales: Mapping[str, Scale],
    overall: Ranking | None = None,
) -> tuple[AlphaRuleRanking, ...]:
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
        rankings.append(AlphaRuleRanking(rule=rule, configurations=len(own), ranking=ranking))
    return tuple(rankings)
