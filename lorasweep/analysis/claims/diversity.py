"""Claims on how different a model's answers to one problem are."""

from __future__ import annotations

from lorasweep.analysis.claims.verdict import (
    BIDERMAN,
    Definition,
    Outcome,
    Region,
    cite,
    judge_all,
    not_tested,
)
from lorasweep.analysis.evidence import Evidence
from lorasweep.analysis.intervals import welch_interval
from lorasweep.store.configurations import mean


def _shares(evidence: Evidence, method: str, task: str) -> list[float]:
    """Compute the share of distinct samples of each configuration, averaged over its seeds."""
    shares = []
    for row in evidence.table(method).scored.rows:
        own = [t.code[task] for t in row.configuration.scored if task in t.code]
        share = mean(score.exact.all / score.samples for score in own if score.samples > 1)
        if share is not None:
            shares.append(share)
    return shares


def _keeps(evidence: Evidence) -> Outcome:
    tasks = dict.fromkeys(
        task for method in ("lora", "full") for t in evidence.trials(method) for task in t.code
    )
    parts = []
    for task in tasks:
        lora, full = (_shares(evidence, method, task) for method in ("lora", "full"))
        if lora and full:
            what = f"{task}, distinct completions among the samples, LoRA minus full"
            parts.append((what, welch_interval(lora, full, of="configurations")))
    if not parts:
        return not_tested("no task on which both methods sampled several programs a problem")
    return judge_all(parts, Region(above=0.01))


CLAIMS = (
    Definition(
        "lora-keeps-diversity",
        "LoRA's answers stay more diverse than those of full finetuning.",
        (
            cite(BIDERMAN, "v1", "section on diversity", "full finetuning collapses more"),
            cite(BIDERMAN, "v2", "section 5.4, figure 5", "full fewest distinct, base most"),
        ),
        "share of distinct completions of a problem, LoRA minus full",
        "holds if LoRA's share is higher by more than one in a hundred",
        "Run both methods on a code task with several samples a problem, three trials each",
        _keeps,
    ),
)
