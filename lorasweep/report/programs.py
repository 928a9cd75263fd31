"""What running the models' programs showed, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from lorasweep.analysis.result import Analysis
from lorasweep.analysis.tradeoff.programs import Programs
from lorasweep.report.picture import Table
from lorasweep.report.wording import Markdown, number, table


def program_rows(rows: Sequence[Programs]) -> Table:
    """List how many programs passed and how many were distinct, task by task."""
    ks = list(dict.fromkeys(k for row in rows for k in row.pass_at))
    kinds = ("exact", "whitespace", "syntax")
    heads = [
        *("task", "model", "models", "samples", *(f"pass@{k}" for k in ks)),
        *(f"{kind}: {group}" for kind in kinds for group in ("all", "passed", "failed")),
        *("timed out", "could not run"),
    ]
    cells = [
        [
            *(row.task, row.model, str(row.n), str(row.samples)),
            *(number(row.pass_at.get(k)) for k in ks),
            *(
                number(score)
                for kind in (row.exact, row.whitespace, row.syntax)
                for score in (kind.all, kind.passed, kind.failed)
            ),
            *(str(row.timed_out), str(row.failed_to_run)),
        ]
        for row in rows
    ]
    return Table(heads=tuple(heads), rows=tuple(tuple(line) for line in cells), names=2)


def program_table(analysis: Analysis) -> Markdown | None:
    """List the programs as Markdown; None where none were run."""
    if not analysis.programs:
        return None
    found = program_rows(analysis.programs)
    return table(found.heads, found.rows)
