"""Claims on what forgetting grows with."""

from __future__ import annotations

from lorasweep.analysis.claims.compare import slope
from lorasweep.analysis.claims.verdict import (
    BIDERMAN,
    Definition,
    Outcome,
    Region,
    cite,
    judge_all,
    judge_comparison,
    not_tested,
)
from lorasweep.analysis.evidence import Evidence


def _with_duration(evidence: Evidence) -> Outcome:
    parts = []
    for method, table in evidence.tables.items():
        duration = table.measured.duration()
        if duration is not None:
            found = slope(table, duration, "forgetting", per="range")
            parts.append((f"{method}, forgetting from the shortest to the longest", found))
    known = [(what, found) for what, found in parts if found is not None]
    if not parts:
        return not_tested("forgetting was not measured at several durations")
    return judge_all(known or parts, Region(above=evidence.margin))


def _with_rank(evidence: Evidence) -> Outcome:
    table = evidence.table("lora")
    if "rank" not in table.measured.columns:
        return not_tested("forgetting was not measured at several ranks")
    found = slope(table, "rank", "forgetting", per="range")
    what = "rise of forgetting from the lowest rank to the highest"
    return judge_comparison(what, found, Region(above=evidence.margin))


CLAIMS = (
    Definition(
        "forgetting-grows-with-duration",
        "The longer the training, the more is forgotten.",
        (
            cite(BIDERMAN, "v1", "section on forgetting", "grows with duration"),
            cite(BIDERMAN, "v2", "section 4.2, tables of appendix D", "grows with duration"),
        ),
        "forgetting, from the shortest duration to the longest",
        "holds if it rises by more than half a point in every method",
        "Run epochs=1|2|4|8 in each method and measure the source suite",
        _with_duration,
    ),
    Definition(
        "forgetting-grows-with-rank",
        "The higher the rank, the more is forgotten.",
        (cite(BIDERMAN, "v2", "section 4.2", "rank is a knob along the trade-off"),),
        "forgetting, from the lowest rank to the highest",
        "holds if it rises by more than half a point",
        "Run three ranks or more and measure the source suite",
        _with_rank,
    ),
)
