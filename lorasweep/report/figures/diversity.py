"""How different the programs are that a model writes."""

from __future__ import annotations

from lorasweep.analysis.result import Analysis
from lorasweep.analysis.tradeoff.programs import BASE, Programs
from lorasweep.report.figures.trials import axis_over
from lorasweep.report.picture import LOOKS, Key, Picture, Plane, Series
from lorasweep.report.programs import program_rows
from lorasweep.report.wording import number
from lorasweep.store.results import SweepResults

_FIGURE = Picture(
    name="diversity",
    section="diversity",
    title="How different the programs are",
    missing="No programs were sampled several times, so their diversity is unknown.",
    tabled=True,
)
_MOST_NAMED = 4


def diversity(results: SweepResults, analysis: Analysis) -> Picture:
    """Show how many completions of a problem are distinct, over how many pass."""
    rows = [row for row in analysis.programs if row.samples > 1 and "1" in row.pass_at]
    if not rows:
        return _FIGURE
    index = {trial.trial: i for i, trial in enumerate(results.trials)}
    who = dict.fromkeys(row.model for row in rows)
    looks = {name: min(look, LOOKS - 1) for look, name in enumerate(who)}
    tasks = dict.fromkeys(row.task for row in rows)
    sentences = "; ".join(_summary(row) for row in rows[:_MOST_NAMED])
    return _FIGURE.drawn(
        tuple(
            _panel(task, [(i, row) for i, row in enumerate(rows) if row.task == task], looks, index)
            for task in tasks
        ),
        "Distinct completions of a problem among its samples, as written, over the share "
        f"that passes: {sentences}.",
        legend=tuple(Key(label=n, kind="point", look=look) for n, look in looks.items()),
        table=program_rows(rows),
    )


def _summary(row: Programs) -> str:
    who = "the base" if row.model == BASE else row.model
    return f"{who} {number(row.exact.all)} at pass@1 {number(row.pass_at['1'])}"


def _panel(
    task: str, rows: list[tuple[int, Programs]], looks: dict[str, int], index: dict[str, int]
) -> Plane:
    return Plane(
        title=f"{task}, {rows[0][1].samples} samples a problem",
        name=f"Distinct completions over pass@1: {task}",
        alt=f"{task}: distinct completions {'; '.join(_summary(row) for _, row in rows)}.",
        x=axis_over("pass@1", [row.pass_at["1"] for _, row in rows]),
        y=axis_over("distinct completions", [row.exact.all for _, row in rows]),
        series=tuple(
            Series(
                look=looks[row.model],
                x=(row.pass_at["1"],),
                y=(row.exact.all,),
                trials=(index.get(row.trial) if row.trial else None,),
                rows=(place,),
            )
            for place, row in rows
        ),
    )
