"""The one live view: what it shows, at any width, with whatever is known so far."""

import io
import time

import pytest
from rich.console import Console

from lorasweep.spec.trial import LoraHyperparameters, TrialSpec
from lorasweep.store.records import TrialFinished
from lorasweep.tune.callbacks import Board, Running
from lorasweep.tune.live import View, announcer, duration


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
def board() -> Board:
    board = Board(planned=10, began=time.time() - 100)
    board.finish(finished("aaaaaaaaaa", "COMPLETE", 0.5), here=True)
    board.finish(finished("bbbbbbbbbb", "DIVERGED"), here=True)
    board.finish(finished("cccccccccc", "COMPLETE", 0.4, lr=2e-3), here=False)
    trial = TrialSpec(id="dddddddddd", hyperparameters=LoraHyperparameters(), seed=0)
    board.running["tune-1"] = Running(trial, time.time(), {"percent": 30, "tokens_per_s": 1200.0})
    board.running["tune-2"] = Running(trial, time.time())
    return board


def drawn(board: Board, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(View("demo", board, ("lr", "targets", "rank")))
    return console.export_text()


def test_the_view_shows_trials_best_speed_and_time_left(board):
    text = drawn(board)
    assert "aaaaaa" in text
    assert "30%" in text
    assert "starting" in text
    assert "3/10 trials" in text
    assert "best learning 0.500 (aaaaaa)" in text
    assert "1,200 tokens/s" in text
    assert "2 running" in text
    assert "1 diverged" in text
    # Two trials ended here in 100 s and seven are left.
    assert "about 5m 5" in text


def test_what_tells_studies_apart_has_a_column_each(board):
    console = Console(width=140, file=io.StringIO(), record=True)
    board.enter("lora", "math")
    console.print(View("demo", board, ("lr",), ("domain", "method")))
    text = console.export_text()
    assert "┃ domain ┃ method ┃ lr" in text
    assert "│ math   │ lora   │" in text


def test_the_best_is_of_the_study_under_way(board):
    one = finished("eeeeeeeeee", "COMPLETE", 0.9).model_copy(update={"domain": "code"})
    board.finish(one, here=False)
    assert "best learning 0.500 (aaaaaa)" in drawn(board)
    board.enter("lora", "code")
    assert "best learning 0.900 (eeeeee)" in drawn(board)
    board.enter("lora", "math")
    assert "best" not in drawn(board)
    board.enter("full", "code")
    assert "best" not in drawn(board)


def test_a_further_seed_is_marked_and_the_mark_explained(board):
    assert "*" not in drawn(board)
    one = finished("eeeeeeeeee", "COMPLETE", 0.2).model_copy(update={"stage": "confirm"})
    board.finish(one, here=True)
    text = drawn(board)
    assert "eeeeee*" in text
    assert "* again, on a further seed" in text


def test_before_anything_ended_the_time_left_is_unknown():
    assert "time left unknown" in drawn(Board(planned=4))


def test_a_narrow_terminal_breaks_nothing(board):
    assert all(len(line) <= 40 for line in drawn(board, width=40).splitlines())


def test_many_trials_show_the_newest():
    board = Board(planned=99)
    for number in range(40):
        board.finish(finished(f"{number:010d}", "COMPLETE", 0.1), here=True)
    assert len(drawn(board).splitlines()) < 24


def test_without_a_terminal_each_ended_trial_is_a_line(board, capsys):
    announce = announcer(Console(), board)
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
