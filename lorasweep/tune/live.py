"""The live view of a running sweep, and lines of text outside of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lorasweep.spec.trial import Hyperparameters
from lorasweep.store.records import TrialFinished
from lorasweep.tune.progress import RunningTrial, SweepProgress

_STYLES = {
    "RUNNING": "cyan",
    "COMPLETE": "green",
    "PRUNED": "yellow",
    "DIVERGED": "magenta",
    "FAILED": "red",
}
_SHOWN = 12  # newest trials in the table; the report has all of them


def duration(seconds: float) -> str:
    """Format seconds as 45s, 12m 05s or 3h 20m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def number(value: float | None, digits: int = 3) -> str:
    """Format a number, or a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"


class View:
    """Table of trials with a summary; rich redraws it twice a second, in a thread of its own."""

    def __init__(
        self,
        name: str,
        progress: SweepProgress,
        axes: tuple[str, ...],
        study: tuple[str, ...] = (),
    ) -> None:
        """Configure the table.

        Args:
            axes: the searched hyperparameters, a column each.
            study: which of `domain` and `method` differ between the studies, a column each.
        """
        self._name, self._progress, self._axes, self._study = name, progress, axes, study

    def __rich__(self) -> RenderableType:
        """The table of trials and the summary below it."""
        table = Table(title=f"lorasweep {self._name}", title_justify="left", expand=False)
        for column in ("trial", "status", *self._study, *self._axes):
            table.add_column(column, no_wrap=True)
        for column in ("done", "loss", "learning", "forgetting", "time"):
            table.add_column(column, justify="right", no_wrap=True)
        running = list(self._progress.running.values())
        ended = self._progress.recent[-max(1, _SHOWN - len(running)) :]
        for record in ended:
            table.add_row(*self._ended(record))
        for trial in running:
            table.add_row(*self._running(trial))
        stages = {*(r.stage for r in ended), *(r.trial.stage for r in running)}
        if "confirm" in stages:
            table.caption, table.caption_justify = "* repeated on another seed", "left"
        return Group(table, self.summary())

    def _levels(self, configuration: Hyperparameters, domain: str) -> list[str]:
        values = [
            domain if column == "domain" else getattr(configuration, column, "-")
            for column in (*self._study, *self._axes)
        ]
        return [f"{v:.3g}" if isinstance(v, float) else str(v) for v in values]

    def _ended(self, record: TrialFinished) -> list[RenderableType]:
        return [
            record.trial[:6] + ("*" if record.stage == "confirm" else ""),
            Text(record.status, style=_STYLES[record.status]),
            *self._levels(record.configuration, record.domain),
            f"{record.steps} steps",
            number(record.response_loss or record.train_loss),
            number(record.learning),
            number(record.forgetting),
            duration(record.wall_s),
        ]

    def _running(self, running: RunningTrial) -> list[RenderableType]:
        return [
            running.trial.id[:6] + ("*" if running.trial.stage == "confirm" else ""),
            Text("RUNNING", style=_STYLES["RUNNING"]),
            *self._levels(running.trial.hyperparameters, self._progress.domain),
            "starting" if running.percent is None else f"{running.percent}%",
            number(running.latest.train_loss if running.latest is not None else None),
            "-",
            "-",
            "-",
        ]

    def summary(self) -> Text:
        """One line: trials by status, best learning, speed, and time left."""
        progress = self._progress
        parts = [f"{progress.ended}/{progress.planned} trials"]
        parts += [
            f"{count} {status.lower()}"
            for status, count in (("RUNNING", len(progress.running)), *progress.statuses.items())
            if count and status != "COMPLETE"
        ]
        if progress.best is not None:
            best = progress.best.winner
            seeds = f" over {len(best.seeds)} seeds" if len(best.seeds) > 1 else ""
            parts.append(f"best learning {number(best.learning)}{seeds} ({best.trial[:6]})")
        parts.append(f"{progress.tokens_per_s:,.0f} tokens/s")
        left = progress.seconds_left
        parts.append("time left unknown" if left is None else f"about {duration(left)} left")
        return Text("  " + " · ".join(parts), style="bold")


def say(console: Console, sentence: str) -> None:
    """Print a sentence on what is going on."""
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def announcer(console: Console, progress: SweepProgress) -> Callable[[TrialFinished], None]:
    """Build the callback that prints a line per ended trial, if there is no terminal."""

    def announce(record: TrialFinished) -> None:
        if console.is_terminal:
            return
        searched = record.configuration.model_dump(include={"method", "lr", "targets", "rank"})
        levels = " ".join(
            f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in searched.items()
        )
        domain = f"domain={record.domain} " if record.domain else ""
        say(
            console,
            f"[{progress.ended}/{progress.planned}] {record.trial} {record.status} {domain}"
            f"{levels} learning={number(record.learning)} forgetting={number(record.forgetting)}",
        )
        if record.error is not None:
            say(console, f"  {record.error}")

    return announce


def live_view(console: Console, view: View) -> AbstractContextManager[object]:
    """Context in which the view redraws itself, if there is a terminal."""
    if not console.is_terminal:
        return nullcontext()
    return Live(view, console=console, refresh_per_second=2, transient=False)
