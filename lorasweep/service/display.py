"""Print plans, measured slots and the state of a sweep for a person."""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.table import Table

from lorasweep.service.examples import DataView
from lorasweep.service.status import SweepStatus
from lorasweep.service.study_plan import SlotMeasurement, Span, StudyPlan, SweepPlan
from lorasweep.spec.studies import study_name

_SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def show_plan(plan: SweepPlan) -> None:
    """Print a plan: a table for each study, and what the sweep takes in all."""
    console = Console()
    for study in plan.studies:
        _print_table(console, study.study, _rows(study), study.notes)
        console.print()
    if len(plan.studies) > 1 and plan.hours is not None and plan.flops is not None:
        console.print(
            f" {plan.name}: {_hours(plan.hours)} and {plan.flops:.2g} FLOPs in all",
            highlight=False,
        )


def show_slots(measured: tuple[SlotMeasurement, ...]) -> None:
    """Print how many slots pay, for each study that was measured."""
    console = Console()
    for study in measured:
        confirm = f", then {study.confirmations} to confirm" if study.confirmations else ""
        rows = [
            ("trials", f"{study.trials}{confirm}"),
            ("lanes", f"{study.lanes}, up to {study.in_flight} trials under way"),
            ("slots", f"{study.slots} in each lane: {study.reason}"),
            *(
                ("", f"{speed:,} tokens a second with {n} slot{'s' if n > 1 else ''}")
                for n, speed in study.tokens_per_s.items()
            ),
            ("trainable", f"{study.trainable:,} parameters at most"),
        ]
        _print_table(console, f"{study.study}, measured on this machine", rows, study.notes)
    if not measured:
        console.print("nothing to measure: no study's trials share a base", highlight=False)


def show_data(views: tuple[DataView, ...]) -> None:
    """Print data as they will be trained, with what carries loss in brackets."""
    opening, closing = ("⟦", "⟧") if _can_print("⟦⟧") else ("[[", "]]")
    for view in views:
        of_domain = f"{view.domain}: " if view.domain else ""
        print(f"{of_domain}{view.path}, read as {view.kind}, at most {view.seq_len} tokens each")
        for name, size in (("training", view.train), ("held out", view.heldout)):
            print(
                f"  {name}  {size.examples:,} examples, {size.tokens:,} tokens, "
                f"{size.loss_tokens:,} with loss"
            )
        for note in view.notes:
            print(f"  {note}")
        for number, example in enumerate(view.shown, 1):
            where = f"sequence {number}" if example.row is None else f"row {example.row}"
            print(
                f"\n{where}: {len(example.ids)} tokens, {sum(example.loss)} with loss, those in "
                f"{opening}brackets{closing}"
            )
            for part in example.parts:
                bracketed = f"{opening}{part.text}{closing}"
                typer.echo(typer.style(bracketed, fg="green") if part.loss else part.text, nl=False)
            print()


def _can_print(text: str) -> bool:
    """Check whether the terminal has these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def show_status(status: SweepStatus) -> None:
    """Print how far a sweep has come, with the best configuration of each study."""
    from lorasweep.report.wording import level

    planned = status.trials_planned or "?"
    print(f"{status.name}: {status.state}, {status.ended} of {planned} trials")
    for name, count in sorted(status.trials.items()):
        print(f"  {name:<9} {count}")
    for study in status.studies:
        if (best := study.best) is not None:
            seeds = f" over {len(best.seeds)} seeds" if len(best.seeds) > 1 else ""
            name = study_name(study.method, study.domain)
            print(f"  best      {name}: learning {best.learning:.3f}{seeds} ({best.trial})")
            print(
                f"            {', '.join(f'{k}={level(v)}' for k, v in best.configuration.items())}"
            )
    print(f"  journal   {status.journal}")


def _print_table(
    console: Console, title: str, rows: list[tuple[str, str]], notes: tuple[str, ...]
) -> None:
    table = Table(box=None, show_header=False, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for note in notes:
        console.print(f" {note}", highlight=False, soft_wrap=True)


def _rows(study: StudyPlan) -> list[tuple[str, str]]:
    """Lay out the lines of one study's plan."""
    confirm = f", and {study.confirmations} on further seeds" if study.confirmations else ""
    workers = f"{study.gpus} worker{'s' if study.gpus > 1 else ''}"
    engine = "in a lane" if study.zero_stage is None else f"under ZeRO {study.zero_stage}"
    sharded = [f"{_gigabytes(gb)} on {n}" for n, gb in study.state_memory_gb_by_gpus.items()]
    return [
        ("trials", f"{study.trials}{confirm}"),
        ("duration", study.duration),
        ("model", f"{study.parameters:,} parameters"),
        ("trained", _span(study.trainable_parameters)),
        *_target_rows(study),
        *_cost_rows(study, workers),
        ("speed", f"{study.tokens_per_s_assumed:,.0f} tokens/s a worker: {study.speed}"),
        ("state", f"{_gigabytes(study.state_memory_gb_per_gpu)} a GPU {engine}, {workers}"),
        ("", f"all sharded: {', '.join(sharded)}"),
        (
            "disk",
            f"{_gigabytes(study.disk_gb)}: {_gigabytes(study.disk_gb_per_trial)} a trial; "
            f"{_gigabytes(study.disk_gb_under_way)} while one is under way",
        ),
    ]


def _target_rows(study: StudyPlan) -> list[tuple[str, str]]:
    """Lay out what share of the linear weights each set of targets adapts."""
    if study.targets is None:
        return []
    sets = [f"{name} {100 * of.share:.3g}%" for name, of in study.targets.sets.items()]
    return [("targets", f"{', '.join(sets)} of the linear weights")]


def _cost_rows(study: StudyPlan, workers: str) -> list[tuple[str, str]]:
    """Lay out steps, tokens, FLOPs and hours, where the number of tokens is known."""
    steps, each, hours = study.steps_per_trial, study.tokens_per_trial, study.hours_per_trial
    if steps is None or each is None or hours is None:
        return []
    shared = f", {_short(study.tokens_shared)} more shared" if study.tokens_shared else ""
    return [
        ("steps", f"{_span(steps)} a trial"),
        ("tokens", f"{_range(_short(each.min), _short(each.max))} a trial ({study.data})"),
        ("", f"{_short(study.tokens or 0)} in all{shared}"),
        ("FLOPs", f"{study.flops:.3g} in all"),
        ("time", f"{_range(_hours(hours.min), _hours(hours.max))} a trial on {workers}"),
        ("", f"{_hours(study.hours or 0.0)} in all"),
    ]


def _span(span: Span) -> str:
    return _range(f"{span.min:,}", f"{span.max:,}")


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _short(count: float) -> str:
    """Abbreviate a count to three digits and a letter for its thousands."""
    return next((f"{count / n:.3g}{letter}" for n, letter in _SCALES if count >= n), f"{count:.3g}")


def _gigabytes(gigabytes: float) -> str:
    return f"{gigabytes * 1000:.3g} MB" if gigabytes < 0.1 else f"{gigabytes:,.4g} GB"


def _hours(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.2g} minutes"
    return f"{hours:,.3g} hours" if hours < 100 else f"{hours:,.0f} hours"
