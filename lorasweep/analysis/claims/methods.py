"""Claims on LoRA beside full finetuning."""

from __future__ import annotations

from lorasweep.analysis.claims.best_lr import best_lr_at_end
from lorasweep.analysis.claims.compare import best_of, contrast_methods
from lorasweep.analysis.claims.verdict import (
    BIDERMAN,
    TML,
    UNIFIED,
    VANILLA,
    Definition,
    Outcome,
    Region,
    cite,
    judge_all,
    judge_comparison,
    not_tested,
)
from lorasweep.analysis.evidence import Evidence
from lorasweep.analysis.intervals import Estimate, difference
from lorasweep.analysis.table import Row, Table
from lorasweep.spec.alpha import is_multiple

LOW_RANK = 64  # "the standard low-rank settings" of v2 are ranks 16 and 64
HIGH_RANK = 256
VARIANTS = (
    "adalora", "dora", "eva", "lora+", "lora-fa", "lora-ga", "loftq", "loraplus", "mica", "olora",
    "pissa", "rslora", "vera",
)  # fmt: skip


def rank_of(row: Row) -> float | None:
    """Read a configuration's rank; None where the trials do not say."""
    rank = row.levels.get("rank")
    return None if rank is None or isinstance(rank, str) else float(rank)


def is_twice_rank(row: Row) -> bool:
    """Check whether alpha is twice the rank."""
    return is_multiple(row.levels.get("alpha"), rank_of(row), 2)


def _both(evidence: Evidence, lora: Table, *, source: bool = False) -> str | None:
    """Explain which method has no trial to compare."""
    for name, table in (("LoRA", lora), ("full finetuning", evidence.table("full"))):
        if not (table.measured if source else table.scored).rows:
            also = " with a source score" if source else ""
            return f"no completed trial of {name}{also}"
    return None


def _behind_at_end(found: Estimate | None, full: Table, lora: Table) -> str | None:
    """Explain that the method which is behind was not searched to its best.

    Args:
        found: learning of full finetuning minus LoRA's.
    """
    if found is None:
        return None
    if found.effect < 0:
        return best_lr_at_end(full, "full finetuning")
    return best_lr_at_end(lora, "LoRA")


def _learns_less(evidence: Evidence) -> Outcome:
    lora = evidence.table("lora").where(lambda c: (rank_of(c) or 0) <= LOW_RANK)
    if missing := _both(evidence, lora):
        return not_tested(f"{missing}, of LoRA at rank {LOW_RANK} or less")
    found = contrast_methods(evidence, evidence.table("full"), lora)
    if missing := _behind_at_end(found, evidence.table("full"), lora):
        return Outcome(missing=missing)
    what = f"learning, full minus LoRA of rank {LOW_RANK} or less"
    return judge_comparison(what, found, Region(above=evidence.margin))


def _forgets_less(evidence: Evidence) -> Outcome:
    lora, full = evidence.table("lora"), evidence.table("full")
    if missing := _both(evidence, lora, source=True):
        return not_tested(missing)
    missing = best_lr_at_end(full, "full finetuning") or best_lr_at_end(lora, "LoRA")
    if missing:
        return Outcome(missing=missing)
    found = contrast_methods(evidence, full.measured, lora.measured, "forgetting")
    what = "forgetting at the best learning, full minus LoRA"
    return judge_comparison(what, found, Region(above=evidence.margin))


def _less_at_equal(evidence: Evidence) -> Outcome:
    if missing := _both(evidence, evidence.table("lora"), source=True):
        return not_tested(missing)
    for found in evidence.matched:
        if found.outcome != "forgetting" or {found.method, found.other} != {"lora", "full"}:
            continue
        if found.difference is None:
            return Outcome(missing=found.reason)
        estimate = Estimate(
            effect=found.difference,
            low=found.low,
            high=found.high,
            n=found.n,
            n_of="configurations on the fronts",
            basis="both fronts over the range of learning that both reach, configurations redrawn",
        )
        what = "forgetting at equal learning, full minus LoRA"
        less_lora = estimate.scaled(1.0 if found.method == "full" else -1.0)
        return judge_comparison(what, less_lora, Region(above=evidence.margin))
    return not_tested("one of the methods has no learning-forgetting front")


def _high_rank(evidence: Evidence) -> Outcome:
    lora = evidence.table("lora").where(
        lambda c: (rank_of(c) or 0) >= HIGH_RANK and is_twice_rank(c)
    )
    if missing := _both(evidence, lora):
        return not_tested(f"{missing}, of LoRA at rank {HIGH_RANK} or more with alpha = 2r")
    full = evidence.table("full")
    found = contrast_methods(evidence, full, lora)
    if missing := _behind_at_end(found, full, lora):
        return Outcome(missing=missing)
    edge = 0.05 * abs(best_of(full.rows, "learning") or 0.0)
    what = f"learning, full minus LoRA of rank {HIGH_RANK} or more at alpha = 2r"
    return judge_comparison(what, found, Region(below=max(edge, evidence.margin)))


def _regularises_more(evidence: Evidence) -> Outcome:
    lora, full = evidence.table("lora"), evidence.table("full")
    if missing := _both(evidence, lora, source=True):
        return not_tested(missing)
    parts: list[tuple[str, Estimate | None]] = []
    for name in ("weight_decay", "attention_dropout", "dropout"):
        own = full.measured.above_zero(name)
        if own.rows:
            found = contrast_methods(evidence, own, lora.measured, "forgetting")
            said = name.replace("_", " ")
            parts.append((f"forgetting, full finetuning with {said} minus LoRA", found))
    if not parts:
        return not_tested("no full finetuning with weight decay or dropout")
    return judge_all(parts, Region(above=evidence.margin))


def _large_batch(evidence: Evidence) -> Outcome:
    lora, full = evidence.table("lora"), evidence.table("full")
    sizes = [
        size
        for size in lora.scored.levels_of("batch_size")
        if size in full.scored.levels_of("batch_size") and not isinstance(size, str)
    ]
    if len(sizes) < 2:
        return not_tested("both methods were not tried at two batch sizes")
    small, large = min(sizes), max(sizes)
    gaps = [
        contrast_methods(
            evidence,
            full.at("batch_size", size),
            lora.at("batch_size", size),
        )
        for size in (large, small)
    ]
    if gaps[0] is None or gaps[1] is None:
        return Outcome(missing="the noise is unknown, so the gaps cannot be compared")
    found = difference(
        gaps[0], gaps[1], f"gaps at batch size {large:g} and {small:g}; {gaps[0].basis}"
    )
    what = "learning, full minus LoRA, at the large batch minus at the small one"
    return judge_comparison(what, found, Region(above=evidence.margin))


def _variants(evidence: Evidence) -> Outcome:
    lora = evidence.table("lora")
    others = [m for m, f in evidence.tables.items() if m.lower() in VARIANTS and f.scored.rows]
    if not others or not lora.scored.rows:
        return not_tested("LoRA and a variant of it were not both run")
    edge = 0.02 * abs(best_of(lora.rows, "learning") or 0.0)
    parts = [
        (f"learning, {m} minus LoRA", contrast_methods(evidence, evidence.table(m), lora))
        for m in others
    ]
    return judge_all(parts, Region(above=-edge, below=edge))


_BOTH = "Run lora and full over the same durations (three or more), each with its own lr"

CLAIMS = (
    Definition(
        "lora-learns-less",
        "At the usual low ranks LoRA learns less than full finetuning.",
        (
            cite(BIDERMAN, "v1", "abstract", "substantially behind in most settings"),
            cite(
                BIDERMAN, "v2", "abstract, section 4.1", "behind in the standard low-rank settings"
            ),
        ),
        "learning, full minus LoRA",
        "holds if full finetuning learns more by more than half a point",
        _BOTH,
        _learns_less,
    ),
    Definition(
        "lora-forgets-less",
        "LoRA forgets less of the source domain than full finetuning.",
        (
            cite(BIDERMAN, "v1", "section on forgetting", "forgets less"),
            cite(BIDERMAN, "v2", "section 4.2", "forgets less; more so in code than in math"),
        ),
        "forgetting, full minus LoRA",
        "holds if full finetuning forgets more by more than half a point",
        _BOTH + ", and measure the source suite",
        _forgets_less,
    ),
    Definition(
        "lora-forgets-less-at-equal-learning",
        "For equal learning LoRA forgets less than full finetuning.",
        (
            cite(BIDERMAN, "v1", "section on the trade-off", "one curve, in some code cases less"),
            cite(BIDERMAN, "v2", "section 4.3", "LoRA preferable for code, full for math"),
        ),
        "forgetting, full minus LoRA",
        "holds if at equal learning full finetuning forgets more by more than half a point",
        _BOTH + ", and measure the source suite",
        _less_at_equal,
    ),
    Definition(
        "rank-256-at-alpha-2r-closes-the-gap",
        "At rank 256 with alpha = 2r LoRA learns as much as full finetuning.",
        (
            cite(BIDERMAN, "v1", "section on ranks", "no; alpha was 32 for code"),
            cite(BIDERMAN, "v2", "section 4.1", "in instruction finetuning it can match"),
        ),
        "learning, full minus LoRA",
        "holds if LoRA is behind by less than 5% of full finetuning's best score",
        "Run lora at rank 256 with alpha 2r and full over the same three durations or more",
        _high_rank,
    ),
    Definition(
        "lora-regularises-more",
        "LoRA keeps more of the source domain than weight decay and dropout do.",
        (
            cite(BIDERMAN, "v1", "figure 4", "more than attention dropout and weight decay"),
            cite(BIDERMAN, "v2", "section 5.3, figure 4", "the same, at ranks 16 and 256"),
        ),
        "forgetting, regularised full finetuning minus LoRA",
        "holds if each of them forgets more than LoRA by more than half a point",
        "Run sweeps/regularisation.yaml: full with weight_decay and attention_dropout beside lora",
        _regularises_more,
    ),
    Definition(
        "lora-pays-at-large-batch",
        "LoRA falls behind full finetuning at large batch sizes.",
        (cite(TML, "", "batch size", "a growing penalty that rank does not reduce; small at 32"),),
        "learning, gap at the largest batch minus gap at the smallest",
        "holds if the gap grows by more than half a point",
        "Run both methods at batch_size=8|32|128, each with its own lr and two seeds",
        _large_batch,
    ),
    Definition(
        "variants-tie-when-tuned",
        "With the learning rate tuned, LoRA and its variants end within 1 to 2%.",
        (
            cite(VANILLA, "", "abstract", "all peak within 1 to 2%"),
            cite(UNIFIED, "", "abstract", "well-tuned LoRA matches or beats most variants"),
        ),
        "learning, variant minus LoRA",
        "holds if every variant's best lies within 2% of LoRA's",
        "Report a table with a variant such as dora beside lora, each with its own lr sweep",
        _variants,
    ),
)
