"""What the page says of one domain, as plain text and tables.

It reads the analysis as `lorasweep.analysis.document` lays it out, and leaves out what is not
there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lorasweep.analysis.summary import Analysis
from lorasweep.report.findings import Finding, answer, findings
from lorasweep.report.payload import tidy
from lorasweep.report.plain import Table, interval, lay_out, rate, sentences, words
from lorasweep.report.wording import UNKNOWN, enumerate_words, level, number, signed
from lorasweep.spec.studies import study_name
from lorasweep.store.results import SweepResults

# A verdict is told by its sign and its word; colour only helps.
_SIGNS = {"holds here": "✓", "does not hold here": "✗"}
Rows = Callable[[str], list[Mapping[str, Any]]]
_STATUSES = ("COMPLETE", "PRUNED", "DIVERGED", "FAILED", "RUNNING", "PENDING")


def content_of(
    results: SweepResults, analysis: Analysis, document: Mapping[str, Any]
) -> dict[str, Any]:
    """Collect what the page says of one domain."""
    studies = {m: study_name(m, results.domain) for m in analysis.methods}

    def by_study(key: str) -> dict[str, Any]:
        own = document.get(key) or {}
        return {method: own[study] for method, study in studies.items() if own.get(study)}

    def of_domain(key: str) -> list[Mapping[str, Any]]:
        rows = document.get(key) or []
        return [row for row in rows if (row.get("domain") or "") == results.domain]

    claims = [_claim(row) for row in of_domain("claims")]
    return {
        "domain": results.domain,
        "answer": answer(results, analysis),
        "statuses": _statuses(analysis),
        "cards": [
            _card(method, rec, results) for method, rec in by_study("recommendation").items()
        ],
        "claims": claims,
        "decided": [claim for claim in claims if claim["sign"] != "?"],
        "undecided": [claim for claim in claims if claim["sign"] == "?"],
        "tally": _tally(claims),
        "findings": [_finding(found) for found in findings(results, analysis)],
        "levels": [
            lay_out(f"{method}: {name}", rows)
            for method, tables in by_study("levels").items()
            for name, rows in tables.items()
        ],
        "tables": [
            *(_alternatives(method, rows) for method, rows in by_study("alternatives").items()),
            *(table for item in by_study("divergence").items() for table in _divergence(*item)),
            *(table for item in by_study("by_alpha_rule").items() for table in _by_rule(*item)),
        ],
        "fronts": [
            lay_out(title, rows)
            for title, rows in (
                ("How much of the plane a front covers (hypervolume)", _areas(of_domain)),
                ("Two methods at equal forgetting, and at equal learning", _equals(of_domain)),
                ("How much a score varies by chance", of_domain("noise")),
            )
            if rows
        ],
    }


def _alternatives(method: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Show which levels come within a tenth of the best, and what a wrong choice costs."""
    return lay_out(
        f"{method}: levels that reach 90% of the best, and the spread between levels",
        [
            {
                "hyperparameter": row.get("hyperparameter"),
                "levels at 90%": _close(row.get("levels")),
                "spread of the best": row.get("spread"),
                "90% interval": interval(row),
                "note": row.get("reason"),
            }
            for row in rows
        ],
    )


def _close(levels: Any) -> str:
    rows = [row for row in levels or [] if isinstance(row, Mapping)]
    return ", ".join(words(row.get("level")) for row in rows if row.get("is_close")) or UNKNOWN


def _divergence(method: str, found: Mapping[str, Any]) -> list[Table]:
    """Show where trials diverged, and how high the learning rate may be."""
    tables = []
    stable = found.get("stable_rate")
    if stable:
        facts = {
            "estimate": rate(stable.get("estimate")),
            "90% interval": interval(stable, rate),
            "largest that completed": rate(stable.get("largest_stable")),
            "smallest that diverged": rate(stable.get("smallest_diverged")),
            "note": stable.get("reason"),
        }
        tables.append(lay_out(f"{method}: the highest stable learning rate", [facts]))
    by_level = [
        {
            "hyperparameter": name,
            **{key: row.get(key) for key in ("level", "finished", "diverged")},
            "share diverged": row.get("share"),
            "90% interval": interval(row),
        }
        for name, rows in (found.get("by_level") or {}).items()
        for row in rows
    ]
    if any(row["diverged"] for row in by_level):
        tables.append(lay_out(f"{method}: what diverged, level by level", by_level))
    return tables


def _by_rule(method: str, rules: Sequence[Mapping[str, Any]]) -> list[Table]:
    rows = [
        {
            "alpha": rule.get("rule"),
            "configurations": rule.get("configurations"),
            "hyperparameter": row.get("hyperparameter"),
            "share": row.get("importance"),
            "90% interval": interval(row),
        }
        for rule in rules
        for row in rule.get("sensitivity") or []
    ]
    return (
        [lay_out(f"{method}: shares of the variance under each rule for alpha", rows)]
        if rows
        else []
    )


def _areas(of_domain: Rows) -> list[Mapping[str, Any]]:
    return [
        {
            "front of": row.get("scope"),
            "area": row.get("value"),
            "90% interval": interval(row),
            "n": row.get("n"),
        }
        for row in of_domain("hypervolume")
    ]


def _equals(of_domain: Rows) -> list[Mapping[str, Any]]:
    return [
        {
            "difference of": row.get("what"),
            "between": f"{row.get('method')} less {row.get('other')}",
            "difference": row.get("difference"),
            "90% interval": interval(row),
            "n": row.get("n"),
            "note": row.get("reason"),
        }
        for row in of_domain("equal")
    ]


def _statuses(analysis: Analysis) -> Table:
    counts = analysis.statuses
    seen = [status for status in _STATUSES if any(own.get(status) for own in counts.values())]
    rows = [
        [method, *(str(own.get(status, 0)) for status in seen), str(sum(own.values()))]
        for method, own in counts.items()
    ]
    return Table("Trials", ["method", *(status.lower() for status in seen), "all"], rows)


def _card(method: str, found: Mapping[str, Any], results: SweepResults) -> dict[str, Any]:
    """Lay out a method's recommended configuration, the searched settings first."""
    configuration = found["configuration"]
    searched = [name for name in results.axes if name in configuration]
    fixed = [name for name in configuration if name not in searched]
    scores = [f"{number(found['learning'])} ({_seeds(found)})"]
    expected = found.get("expected")
    rows = [("learning", scores[0])]
    rows += [("expected", words(expected))] if expected is not None else []
    for name in ("forgetting", "source_accuracy"):
        if found.get(name) is not None:
            rows.append((name.replace("_", " "), signed(number(found[name]))))
    if found.get("runner_up"):
        other = found["runner_up"]
        gap = found["learning"] - other["learning"]
        rows.append(("runner-up", f"trial {other['trial']}, {number(gap)} behind"))
    more = found.get("more_trials")
    if more:
        rows.append(("more trials", f"{words(more.get('verdict'))}: {words(more.get('reason'))}"))
    return {
        "method": method,
        "trial": found["trial"],
        "settings": [(name, level(tidy(configuration[name]))) for name in searched],
        "fixed": ", ".join(f"{name}={level(tidy(configuration[name]))}" for name in fixed),
        "rows": rows,
        "why": sentences(found.get("why")),
        "next": sentences(found.get("next")),
        "command": found.get("command") or "",
    }


def _seeds(found: Mapping[str, Any]) -> str:
    scores = found.get("scores") or []
    if len(scores) < 2:
        return "one seed"
    return f"{len(scores)} seeds, {number(min(scores))} to {number(max(scores))}"


def _claim(row: Mapping[str, Any]) -> dict[str, str]:
    names = ("id", "statement", "source", "note", "verdict", "unit", "n_of")
    prose = ("evidence", "reason", "to_decide")
    return {
        **{name: words(row.get(name) or "") for name in names},
        **{name: sentences(row.get(name)) for name in prose},
        "sign": _SIGNS.get(row.get("verdict", ""), "?"),
        "effect": words(row.get("effect")),
        "interval": interval(row),
        "n": words(row.get("n")),
    }


def _tally(claims: Sequence[Mapping[str, str]]) -> str:
    by_sign = Counter(claim["sign"] for claim in claims)
    parts = (
        (by_sign["✓"], "holds here", "hold here"),
        (by_sign["✗"], "does not", "do not"),
        (by_sign["?"], "cannot be told", "cannot be told"),
    )
    return enumerate_words(f"{n} {one if n == 1 else many}" for n, one, many in parts if n)


def _finding(found: Finding) -> dict[str, str]:
    unit = found.unit.removesuffix("s") if found.n == 1 else found.unit
    known = found.low is not None and found.high is not None
    return {
        "text": found.text,
        "n": f"{found.n} {unit}",
        "effect": signed(number(found.effect)),
        "measure": found.measure,
        "interval": signed(f"{number(found.low)} to {number(found.high)}") if known else UNKNOWN,
        "basis": found.basis if known else "",
    }
