"""The one live view of a running sweep."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lorasweep.spec.trial import Hyperparameters
from lorasweep.store.records import TrialFinished
from lorasweep.tune.callbacks import Board, Running

_STYLES = {
    "RUNNING": "cyan",
    "COMPLETE": "green",
    "PRUNED": "yellow",
    "DIVERGED": "magenta",
    "FAILED": "red",
}
_SHOWN = 12  # trials in the table; the newest are of interest, the report has them all


def duration(seconds: float) -> str:
    """Write seconds as 45s, 12m 05s or 3h 20m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def number(value: float | None, digits: int = 3) -> str:
    """Write a number, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


class View:
    """Draw a board; rich asks for it again several times a second."""

    def __init__(
        self, name: str, board: Board, axes: tuple[str, ...], study: tuple[str, ...] = ()
    ) -> None:
        """Remember what to draw.

        Args:
            axes: the searched hyperparameters, a column each.
            study: what tells the sweep's studies apart, of `domain` and `method`, a column each.
        """
        self._name, self._board, self._axes, self._study = name, board, axes, study

    def __rich__(self) -> RenderableType:
        """Draw the table of trials and the line below it."""
        table = Table(title=f"lorasweep {self._name}", title_justify="left", expand=False)
        for column in ("trial", "status", *self._study, *self._axes):
            table.add_column(column, no_wrap=True)
        for column in ("done", "loss", "learning", "forgetting", "time"):
            table.add_column(column, justify="right", no_wrap=True)
        running = list(self._board.running.values())
        ended = self._board.recent[-max(1, _SHOWN - len(running)) :]
        for record in ended:
            table.add_row(*self._ended(record))
        for trial in running:
            table.add_row(*self._running(trial))
        stages = {*(r.stage for r in ended), *(r.trial.stage for r in running)}
        if "confirm" in stages:
            table.caption, table.caption_justify = "* again, on a further seed", "left"
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

    def _running(self, running: Running) -> list[RenderableType]:
        latest = running.latest
        return [
            running.trial.id[:6] + ("*" if running.trial.stage == "confirm" else ""),
            Text("RUNNING", style=_STYLES["RUNNING"]),
            *self._levels(running.trial.hyperparameters, self._board.domain),
            f"{latest['percent']}%" if "percent" in latest else "starting",
            number(latest.get("train_loss")),
            "-",
            "-",
            "-",
        ]

    def summary(self) -> Text:
        """Write trials by status, the best so far, the speed and the time left in one line."""
        board = self._board
        parts = [f"{board.ended}/{board.planned} trials"]
        parts += [
            f"{count} {status.lower()}"
            for status, count in (("RUNNING", len(board.running)), *board.statuses.items())
            if count and status != "COMPLETE"
        ]
        if board.best is not None:
            best = board.best.winner
            seeds = f" over {len(best.seeds)} seeds" if len(best.seeds) > 1 else ""
            parts.append(f"best learning {number(best.learning)}{seeds} ({best.trial[:6]})")
        parts.append(f"{board.tokens_per_s:,.0f} tokens/s")
        left = board.seconds_left
        parts.append("time left unknown" if left is None else f"about {duration(left)} left")
        return Text("  " + " · ".join(parts), style="bold")


def announcer(console: Console, board: Board) -> Callable[[TrialFinished], None]:
    """Print a line per ended trial where there is no terminal to redraw."""

    def announce(record: TrialFinished) -> None:
        if console.is_terminal:
            return
        searched = record.configuration.model_dump(include={"method", "lr", "targets", "rank"})
        levels = " ".join(
            f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in searched.items()
        )
        domain = f"domain={record.domain} " if record.domain else ""
        console.print(
            f"[{board.ended}/{board.planned}] {record.trial} {record.status} {domain}{levels} "
            f"learning={number(record.learning)} forgetting={number(record.forgetting)}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    return announce


def live_view(console: Console, view: View) -> AbstractContextManager[object]:
    """Make the view that redraws itself, where there is a terminal to draw on."""
    if not console.is_terminal:
        return nullcontext()
    return Live(view, console=console, refresh_per_second=2, transient=False)
