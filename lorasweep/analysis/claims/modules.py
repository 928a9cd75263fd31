"""Claims on target modules, rank and alpha."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from lorasweep.analysis.claims.compare import best_of, contrast, slope
from lorasweep.analysis.claims.methods import HIGH_RANK, LOW_RANK, is_twice_rank, rank_of
from lorasweep.analysis.claims.verdict import (
    BIDERMAN,
    TML,
    Definition,
    Outcome,
    Region,
    cite,
    judge_all,
    judge_comparison,
    not_tested,
)
from lorasweep.analysis.evidence import Evidence
from lorasweep.analysis.intervals import difference
from lorasweep.analysis.table import Table
from lorasweep.spec.alpha import FIXED, rule_of

_REFERENCE = 16


def _lacking(table: Table, targets: Iterable[str]) -> str | None:
    found = set(table.scored.levels_of("targets"))
    lacking = [name for name in targets if name not in found]
    return f"no completed LoRA trial with targets {', '.join(lacking)}" if lacking else None


def _all_mlp_attention(evidence: Evidence) -> Outcome:
    table = evidence.table("lora")
    if missing := _lacking(table, ("all", "mlp", "attention")):
        return not_tested(missing)
    first = judge_comparison(
        "learning, all minus mlp",
        contrast(evidence, table, "targets", "all", "mlp"),
        Region(above=-evidence.margin),
    )
    second = judge_comparison(
        "learning, mlp minus attention",
        contrast(evidence, table, "targets", "mlp", "attention"),
        Region(above=evidence.margin),
    )
    if first.missing or second.missing:
        return first if first.missing else second
    return Outcome((*second.parts, *first.parts))


def _mlp_alone(evidence: Evidence) -> Outcome:
    table = evidence.table("lora")
    if missing := _lacking(table, ("all", "mlp")):
        return not_tested(missing)
    edge = 0.05 * abs(best_of(table.rows, "learning") or 0.0)
    found = contrast(evidence, table, "targets", "all", "mlp")
    return judge_comparison(
        "learning, all minus mlp", found, Region(below=max(edge, evidence.margin))
    )


def _equal_parameters(evidence: Evidence) -> Outcome:
    """Regress on the number of trained parameters in the place of the rank."""
    table = evidence.table("lora").scored.where(
        lambda c: c.levels.get("targets") in {"attention", "mlp"}
    )
    if missing := _lacking(table, ("attention", "mlp")):
        return not_tested(missing)
    if any(row.trainable <= 0 for row in table.rows):
        return not_tested("the number of trained parameters is unknown")
    sizes = {
        name: [row.trainable for row in table.rows if row.levels["targets"] == name]
        for name in ("attention", "mlp")
    }
    # The range of sizes that both reach; configurations within a factor of two of it are compared.
    low, high = (f(g(own) for own in sizes.values()) for f, g in ((max, min), (min, max)))
    if low > high:
        return not_tested("no attention trial has about as many trained parameters as an mlp trial")
    kept = [c for c in table.rows if low / 2 <= c.trainable <= high * 2]
    rows = [
        replace(
            c,
            levels={**{k: v for k, v in c.levels.items() if k != "rank"}, "trainable": c.trainable},
        )
        for c in kept
    ]
    own = Table(tuple(rows))
    column = own.columns.get("targets")
    fit = own.fit("learning", levels_of="targets", lines=("trainable",)) if column else None
    if fit is None or column is None:
        return Outcome(missing="too few comparable trials for an estimate")
    weights = np.array([1.0 if level == "mlp" else -1.0 for level in column.levels])
    found = fit.contrast(
        "targets", weights, "regression on all hyperparameters at equal trained parameters"
    )
    return judge_comparison("learning, mlp minus attention", found, Region(above=evidence.margin))


def _rank_16(evidence: Evidence) -> Outcome:
    table = evidence.table("lora")
    ranks = [r for r in table.scored.levels_of("rank") if not isinstance(r, str)]
    if _REFERENCE not in ranks or max(ranks) <= _REFERENCE:
        return not_tested(f"no completed LoRA trials at rank {_REFERENCE} and at a higher one")
    top = max(ranks)
    best = best_of([c for c in table.rows if rank_of(c) == top], "learning")
    edge = 0.1 * abs(best or 0.0)
    found = contrast(evidence, table, "rank", top, _REFERENCE)
    return judge_comparison(f"learning, rank {top:g} minus rank 16", found, Region(below=edge))


def _grows_with_rank(evidence: Evidence) -> Outcome:
    table = evidence.table("lora")
    if "rank" not in table.scored.columns:
        return not_tested("LoRA's rank was not varied")
    found = slope(table, "rank", "learning", per="range")
    what = "rise of learning from the lowest rank to the highest"
    return judge_comparison(what, found, Region(above=evidence.margin))


def _by_rule(table: Table) -> Table:
    """Write alpha as `2r` where it is twice the rank."""
    rows = [
        replace(
            c, levels={**c.levels, "alpha": "2r" if is_twice_rank(c) else str(c.levels["alpha"])}
        )
        for c in table.rows
        if "alpha" in c.levels
    ]
    return Table(tuple(rows))


def _twice_rank(evidence: Evidence) -> Outcome:
    table = _by_rule(evidence.table("lora").where(lambda c: (rank_of(c) or 0) >= LOW_RANK))
    rules = table.scored.levels_of("alpha")
    if "2r" not in rules or len(rules) < 2:
        return not_tested(
            f"no LoRA trials of rank {LOW_RANK} or more at alpha 2r and another alpha"
        )
    parts = [
        (f"learning, alpha 2r minus {rule}", contrast(evidence, table, "alpha", "2r", rule))
        for rule in rules
        if rule != "2r"
    ]
    return judge_all(parts, Region(above=evidence.margin))


def _rank_needs_alpha(evidence: Evidence) -> Outcome:
    lora = evidence.table("lora")
    twice = lora.where(is_twice_rank)
    fixed = lora.where(lambda c: "alpha" in c.levels and rule_of(c.levels["alpha"]) == FIXED)
    ends = []
    for table in (twice, fixed):
        ranks = [r for r in table.scored.levels_of("rank") if not isinstance(r, str)]
        if len(set(ranks)) < 2:
            return not_tested("rank was not varied both at alpha = 2r and at a fixed alpha")
        ends.append(contrast(evidence, table, "rank", max(ranks), min(ranks)))
    if ends[0] is None or ends[1] is None:
        return Outcome(missing="too few comparable trials for an estimate")
    found = difference(ends[0], ends[1], f"gain by rank under either rule; {ends[0].basis}")
    what = "learning, gain by rank at alpha 2r minus that at a fixed alpha"
    return judge_comparison(what, found, Region(above=evidence.margin))


_GRID = "Run a grid over lr, targets=attention|mlp|all and rank with two seeds"

CLAIMS = (
    Definition(
        "all-over-mlp-over-attention",
        "Adapters on all modules learn at least as much as on the MLP, and those more than on "
        "attention.",
        (
            cite(BIDERMAN, "v1", "figure on modules and rank", "all over mlp over attention"),
            cite(BIDERMAN, "v2", "figure 7", "attention worst; mlp has most of the gain of all"),
            cite(TML, "", "layers", "attention-only clearly worse, mlp-only about as all"),
        ),
        "learning, mlp minus attention or all minus mlp",
        "holds if mlp is ahead of attention by more than half a point, and of all by no more",
        _GRID,
        _all_mlp_attention,
    ),
    Definition(
        "mlp-alone-nearly-matches-all",
        "Adapters on the MLP alone learn nearly as much as on all modules.",
        (
            cite(BIDERMAN, "v2", "figure 7", "all is mostly driven by mlp"),
            cite(TML, "", "layers", "mlp-only about as all"),
        ),
        "learning, all minus mlp",
        "holds if all is ahead by less than 5% of the best score",
        _GRID,
        _mlp_alone,
    ),
    Definition(
        "attention-only-worse-at-equal-parameters",
        "At equally many trained parameters attention learns less than the MLP.",
        (cite(TML, "", "layers", "attention r=256 (0.25B) loses to mlp r=128 (0.24B)"),),
        "learning, mlp minus attention",
        "holds if mlp is ahead by more than half a point at equal parameters",
        "Run targets=attention|mlp over several ranks, so that their parameters overlap",
        _equal_parameters,
    ),
    Definition(
        "rank-16-costs-little",
        "Rank 16 learns nearly as much as high ranks.",
        (
            cite(BIDERMAN, "v1", "summary", "rank 16 as the compromise of memory and score"),
            cite(BIDERMAN, "v2", "section 6", "rank 256 if memory allows; 16 to 64 fall short"),
        ),
        "learning, highest rank minus rank 16",
        "holds if rank 16 is behind by less than a tenth of the highest rank's best score",
        "Run rank=16|64|256 at alpha 2r, each with its own lr and two seeds",
        _rank_16,
    ),
    Definition(
        "learning-grows-with-rank",
        "Learning rises with the rank.",
        (
            cite(BIDERMAN, "v1", "sensitivity", "rank matters least"),
            cite(BIDERMAN, "v2", "figure 7", "HumanEval rises with rank at alpha = 2r"),
        ),
        "learning, from the lowest rank to the highest",
        "holds if it rises by more than half a point",
        "Run three ranks or more, each with its own lr and two seeds",
        _grows_with_rank,
    ),
    Definition(
        "alpha-2r-best-at-high-rank",
        "At high ranks alpha = 2r learns more than other alphas.",
        (
            cite(BIDERMAN, "v1", "setup", "alpha 32 for code even at rank 256"),
            cite(BIDERMAN, "v2", "figure S3", "2r best at all learning rates at rank 256"),
            cite(TML, "", "parametrisation", "alpha 32 fixed could not be improved on"),
        ),
        "learning, alpha 2r minus another alpha",
        "holds if 2r is ahead of every other alpha by more than half a point",
        f"Run alpha=2r|32 at rank {HIGH_RANK}, each over its own range of lr",
        _twice_rank,
    ),
    Definition(
        "rank-matters-only-with-alpha",
        "Rank helps where alpha grows with it, and not at a fixed alpha.",
        (
            cite(BIDERMAN, "v1", "sensitivity", "rank matters least, at a fixed alpha"),
            cite(BIDERMAN, "v2", "sections 4.4 and 6", "alpha = 2r is crucial at high rank"),
        ),
        "learning, gain by rank at alpha 2r minus that at a fixed alpha",
        "holds if the gain from rank is larger by more than half a point under alpha = 2r",
        "Run rank=16|256 with alpha=2r|32, each over its own range of lr",
        _rank_needs_alpha,
    ),
)
