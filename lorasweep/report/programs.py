"""What the models' programs showed, as a table and a figure."""

from __future__ import annotations

from lorasweep.analysis.summary import Analysis
from lorasweep.analysis.tradeoff.programs import BASE
from lorasweep.report.picture import Picture, Point, Scatter
from lorasweep.report.wording import Markdown, enumerate_words, number, table


def program_table(analysis: Analysis) -> Markdown | None:
    """Show how many programs passed and how many were distinct; None where none were run."""
    ks = list(dict.fromkeys(k for row in analysis.programs for k in row.pass_at))
    kinds = ("exact", "whitespace", "syntax")
    heads = [
        *("task", "model", "models", "samples", *(f"pass@{k}" for k in ks)),
        *(f"{kind}: {group}" for kind in kinds for group in ("all", "passed", "failed")),
        *("timed out", "could not run"),
    ]
    rows = [
        [
            *(row.task, row.who, row.n, row.samples),
            *(number(row.pass_at.get(k)) for k in ks),
            *(
                number(getattr(getattr(row, kind), group))
                for kind in kinds
                for group in ("all", "passed", "failed")
            ),
            *(row.timed_out, row.failed_to_run),
        ]
        for row in analysis.programs
    ]
    return table(heads, rows) if rows else None


def draw_programs(analysis: Analysis) -> Picture | None:
    """Show how many completions of a problem are distinct, over how many pass."""
    rows = [row for row in analysis.programs if row.samples > 1 and "1" in row.pass_at]
    if not rows:
        return None
    who = tuple(dict.fromkeys(row.who for row in rows))
    tasks = tuple(dict.fromkeys(row.task for row in rows))
    panel = Scatter(
        title="",
        x_label="pass@1",
        y_label=f"distinct completions of {rows[0].samples} samples",
        points=tuple(Point(row.pass_at["1"], row.exact.all, row.who, row.task) for row in rows),
        colour_name="model",
        colours=who,
        marker_name="task",
        markers=tasks,
    )
    said = [
        f"{'the base' if row.who == BASE else row.who} {number(row.exact.all)} at pass@1 "
        f"{number(row.pass_at['1'])}"
        for row in rows
    ]
    return Picture(
        name="diversity",
        caption="Distinct completions of a problem, as written, over pass@1",
        alt=f"Scatter of {len(rows)} rows: distinct completions {enumerate_words(said)}.",
        panels=(panel,),
    )
