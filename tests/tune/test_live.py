"""The one live view: what it shows, at any width, with whatever is known so far."""

import io
import time

import pytest
from rich.console import Console

from lorasweep.spec.trial import LoraHyperparameters
from lorasweep.store.best import find_best
from lorasweep.store.records import TrialFinished
from lorasweep.tune.live import View, announcer, duration
from lorasweep.tune.progress import RunningTrial, SweepProgress
from tests.lanes.reports import progress as report
from tests.lanes.reports import trial_of


def finished(
    trial: str, status: str, learning: float | None = None, lr: float = 1e-3
) -> TrialFinished:
    return TrialFinished.model_validate(
        {
            "trial": trial,
            "status": status,
            "number": 0,
            "stage": "search",
            "seed": 0,
            "configuration": LoraHyperparameters(lr=lr),
            "learning": learning,
            "forgetting": None if learning is None else 0.1,
            "steps": 160,
            "wall_s": 75.0,
            "time": 0.0,
        }
    )


@pytest.fixture
def progress() -> SweepProgress:
    progress = SweepProgress(planned=10, began=time.time() - 100)
    progress.finish(finished("aaaaaaaaaa", "COMPLETE", 0.5), here=True)
    progress.finish(finished("bbbbbbbbbb", "DIVERGED"), here=True)
    progress.finish(finished("cccccccccc", "COMPLETE", 0.4, lr=2e-3), here=False)
    trial = trial_of("dddddddddd")
    for number in range(3):
        progress.running[f"tune-{number}"] = RunningTrial(trial, time.time())
    progress.running["tune-0"].update(report(percent=30))
    progress.running["tune-1"].update(report(percent=40))
    return progress


def drawn(progress: SweepProgress, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(View("demo", progress, ("lr", "targets", "rank")))
    return console.export_text()


def test_the_view_shows_trials_best_speed_and_time_left(progress):
    text = drawn(progress)
    assert "aaaaaa" in text
    assert "30%" in text
    assert "starting" in text
    assert "3/10 trials" in text
    assert "best learning 0.500 (aaaaaa)" in text
    assert "200 tokens/s" in text
    assert "3 running" in text
    assert "1 diverged" in text
    # Two trials ended here in 100 s and seven are left.
    assert "about 5m 5" in text


def test_what_tells_studies_apart_has_a_column_each(progress):
    console = Console(width=140, file=io.StringIO(), record=True)
    progress.start_study("lora", "math")
    console.print(View("demo", progress, ("lr",), ("domain", "method")))
    text = console.export_text()
    assert "┃ domain ┃ method ┃ lr" in text
    assert "│ math   │ lora   │" in text


def test_the_best_is_of_the_study_under_way(progress):
    one = finished("eeeeeeeeee", "COMPLETE", 0.9).model_copy(update={"domain": "code"})
    progress.finish(one, here=False)
    assert "best learning 0.500 (aaaaaa)" in drawn(progress)
    progress.start_study("lora", "code")
    assert "best learning 0.900 (eeeeee)" in drawn(progress)
    progress.start_study("lora", "math")
    assert "best" not in drawn(progress)
    progress.start_study("full", "code")
    assert "best" not in drawn(progress)


def test_a_trial_that_ends_while_the_view_looks_for_the_best_is_seen_at_the_next_look(
    progress, monkeypatch
):
    def interrupted(grouped):
        found = find_best(grouped)
        if "eeeeee" not in str(progress.recent):
            progress.finish(finished("eeeeeeeeee", "COMPLETE", 0.9, lr=3e-3), here=True)
        return found

    monkeypatch.setattr("lorasweep.tune.progress.find_best", interrupted)
    assert progress.best.winner.learning == 0.5
    assert progress.best.winner.learning == 0.9


def test_a_further_seed_is_marked_and_the_mark_explained(progress):
    assert "*" not in drawn(progress)
    one = finished("eeeeeeeeee", "COMPLETE", 0.2).model_copy(update={"stage": "confirm"})
    progress.finish(one, here=True)
    text = drawn(progress)
    assert "eeeeee*" in text
    assert "* repeated on another seed" in text


def test_before_anything_ended_the_time_left_is_unknown():
    assert "time left unknown" in drawn(SweepProgress(planned=4))


def test_a_narrow_terminal_breaks_nothing(progress):
    assert all(len(line) <= 40 for line in drawn(progress, width=40).splitlines())


def test_many_trials_show_the_newest():
    progress = SweepProgress(planned=99)
    for number in range(40):
        progress.finish(finished(f"{number:010d}", "COMPLETE", 0.1), here=True)
    assert len(drawn(progress).splitlines()) < 24


def test_without_a_terminal_each_ended_trial_is_a_line(progress, capsys):
    announce = announcer(Console(), progress)
    announce(finished("eeeeeeeeee", "COMPLETE", 0.25))
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert line.startswith(
        "[3/10] eeeeeeeeee COMPLETE method=lora lr=0.001 targets=all rank=16 learning=0.250"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (60, "1m 00s"), (3725, "1h 02m")]
)
def test_durations_read_like_a_clock(seconds, text):
    assert duration(seconds) == text
