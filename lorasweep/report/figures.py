"""The figures' data, from trials and analysis; what is drawn and what the alternative text says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

from lorasweep.analysis.scale import Scale
from lorasweep.analysis.summary import Analysis
from lorasweep.analysis.tradeoff.pareto import POOLED
from lorasweep.report.curves import draw_curves
from lorasweep.report.heat import draw_heat
from lorasweep.report.history import draw_history
from lorasweep.report.parallel import draw_parallel
from lorasweep.report.picture import Bar, Bars, Picture, Point, Scatter
from lorasweep.report.programs import draw_programs
from lorasweep.report.spectra import draw_spectra
from lorasweep.report.wording import enumerate_words, level, number, percent
from lorasweep.store.configurations import is_scored
from lorasweep.store.results import SweepResults, TrialResult

_MOST_GROUPS = 8
_MOST_PANELS = 24


def pictures(results: SweepResults, analysis: Analysis) -> tuple[Picture, ...]:
    """Collect the figures that the trials have data for."""
    found = (
        _trade_off(results, analysis),
        _learning_rate(results, analysis),
        _sensitivity(analysis),
        draw_heat(results, analysis),
        draw_parallel(results, analysis),
        draw_curves(analysis),
        draw_spectra(results, analysis),
        draw_programs(analysis),
        draw_history(results, analysis),
    )
    # A domain of a table may have any name, a path among them.
    prefix = f"{quote(results.domain, safe='').replace('%', '_')}-" if results.domain else ""
    return tuple(
        replace(_cut(picture), name=f"{prefix}{picture.name}")
        for picture in found
        if picture is not None
    )


def _cut(picture: Picture) -> Picture:
    """Leave out what no image has room for; a table may hold any number of methods."""
    if (more := len(picture.panels) - _MOST_PANELS) <= 0:
        return picture
    caption = f"{picture.caption}; {more} further panels are left out"
    return replace(picture, caption=caption, panels=picture.panels[:_MOST_PANELS])


def _trade_off(results: SweepResults, analysis: Analysis) -> Picture | None:
    """Show learning against source accuracy, or against forgetting where only that is known."""
    scored = [trial for trial in results.trials if is_scored(trial)]
    by_accuracy = any(trial.source_accuracy is not None for trial in scored)

    def height(trial: TrialResult) -> float | None:
        return trial.source_accuracy if by_accuracy else trial.forgetting

    shown = [trial for trial in scored if height(trial) is not None]
    if not shown:
        return None
    # One method's layout serves all: a method without targets shows as `none`.
    layouts = [scales["targets"] for scales in analysis.scales.values() if "targets" in scales]
    name, colours = _grouping({s.name: s for s in layouts[:1]}, ("targets",), shown)
    front = [p for p in analysis.front if p.scope == POOLED]
    heights = [p.source_accuracy if by_accuracy else p.forgetting for p in front]
    base = results.base
    line = [(p.learning, h) for p, h in zip(front, heights, strict=True) if h is not None]
    sign = -1 if by_accuracy else 1
    # Where forgetting was counted from several bases, source accuracy does not show its front.
    if sorted(line, key=lambda place: sign * place[1]) != line:
        line = []
    start = (base.learning, base.source_accuracy) if base and by_accuracy else (None, None)
    panel = Scatter(
        title="",
        x_label="learning (target-domain score)",
        y_label="source accuracy" if by_accuracy else "forgetting",
        points=tuple(
            Point(t.learning or 0.0, height(t) or 0.0, _group(t, name, colours), t.method)
            for t in shown
        ),
        colour_name=name,
        colours=colours,
        marker_name="method",
        markers=analysis.methods,
        line=tuple(line),
        base=None if start[0] is None or start[1] is None else (start[0], start[1]),
    )
    gains = [trial.learning or 0.0 for trial in shown]
    kept = [height(trial) or 0.0 for trial in shown]
    return Picture(
        name="trade-off",
        caption=f"Learning against {panel.y_label}"
        + ("; the line joins the front of all methods" if line else ""),
        alt=(
            f"Scatter of {len(shown)} trials: learning from {number(min(gains))} to "
            f"{number(max(gains))}, {panel.y_label} from {number(min(kept))} to "
            f"{number(max(kept))}; {len(front)} trials are on the front."
        ),
        panels=(panel,),
    )


def _group(trial: TrialResult, name: str, groups: Sequence[str]) -> str:
    if not name:
        return groups[0]
    return level(trial.hyperparameters.get(name)) or "none"


def _learning_rate(results: SweepResults, analysis: Analysis) -> Picture | None:
    """Show learning over the learning rate, or over the first other axis with an order."""
    panels = []
    said = []
    for method in analysis.methods:
        scales = analysis.scales[method]
        ordered = [name for name, scale in scales.items() if scale.kind != "text"]
        own = [t for t in results.trials if t.method == method]
        if not ordered:
            continue
        axis = "lr" if "lr" in ordered else ordered[0]
        having = [t for t in own if axis in t.hyperparameters]
        shown = [t for t in having if is_scored(t)]
        if len({t.hyperparameters[axis] for t in shown}) < 2:
            continue
        others = [name for name in scales if name != axis]
        colour_name, colours = _grouping(scales, ("targets", *others), shown)
        rest = [name for name in ("rank", *others) if name != colour_name]
        marker_name, markers = _grouping(scales, rest, shown)
        lost = [t for t in having if t.status == "DIVERGED"]
        best = max(shown, key=lambda t: t.learning or 0.0)
        values = [float(t.hyperparameters[axis]) for t in having]
        panels.append(
            Scatter(
                title=method,
                x_label="learning rate (lr)" if axis == "lr" else axis,
                y_label="learning (target-domain score)",
                points=tuple(
                    Point(
                        float(t.hyperparameters[axis]),
                        t.learning or 0.0,
                        _group(t, colour_name, colours),
                        _group(t, marker_name, markers),
                    )
                    for t in shown
                ),
                colour_name=colour_name,
                colours=colours,
                marker_name=marker_name,
                markers=markers,
                log_x=min(values) > 0 and (axis == "lr" or max(values) / min(values) >= 10),
                lost=tuple(float(t.hyperparameters[axis]) for t in lost),
            )
        )
        said.append(
            f"{method}, {len(shown)} trials: the best, learning {number(best.learning)}, has "
            f"{axis} {level(best.hyperparameters[axis])}; {len(lost)} diverged."
        )
    if not panels:
        return None
    caption = f"Learning over {enumerate_words(dict.fromkeys(p.x_label for p in panels))}"
    return Picture("learning-rate", caption, " ".join(said), tuple(panels))


def _grouping(
    scales: Mapping[str, Scale], wanted: Sequence[str], trials: Sequence[TrialResult]
) -> tuple[str, tuple[str, ...]]:
    """Choose what a colour or marker stands for among one method's axes."""
    for name in wanted:
        scale = scales.get(name)
        if scale is None or scale.is_interval or not 1 < len(scale.levels) <= _MOST_GROUPS:
            continue
        present = {t.hyperparameters[name] for t in trials if name in t.hyperparameters}
        named = [level(lv) for lv in scale.levels if lv in present]
        missing = ["none"] if any(name not in t.hyperparameters for t in trials) else []
        return name, (*dict.fromkeys(named), *missing)
    return "", ("",)


def _sensitivity(analysis: Analysis) -> Picture | None:
    # A single hyperparameter has the whole variance to itself, which needs no bar.
    ranked = [ranking for ranking in analysis.rankings.values() if len(ranking.rows) > 1]
    if not ranked:
        return None
    panels = tuple(
        Bars(
            title=f"{r.method}: {r.design}, {r.configurations} configurations",
            bars=tuple(
                Bar(row.hyperparameter, row.importance, row.low, row.high, row.chance)
                for row in r.rows
            ),
        )
        for r in ranked
    )
    said = [
        f"{r.method}: "
        + ", ".join(
            f"{row.hyperparameter} {percent(row.importance)} ({percent(row.low)} to "
            f"{percent(row.high)})"
            for row in r.rows
        )
        for r in ranked
    ]
    return Picture(
        name="sensitivity",
        caption="Share of the variance of learning, with 90% intervals; the tick is chance",
        alt=f"Bars of the share of variance. {'; '.join(said)}.",
        panels=panels,
    )
