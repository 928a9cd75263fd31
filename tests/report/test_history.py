from dataclasses import replace

import pytest

from lorasweep.analysis.summary import analyse
from lorasweep.report.history import draw_history
from tests.analysis.planted import planted_grid, sweep, trial


def drawn(results):
    return draw_history(results, analyse(results))


def numbered(*scores, method="lora", first=0):
    """Make a trial for each score, a diverged one for None."""
    return [
        trial(
            f"{method}{number}",
            0.0 if score is None else score,
            status="DIVERGED" if score is None else "COMPLETE",
            method=method,
            number=number,
            lr=1e-4,
        )
        for number, score in enumerate(scores, start=first)
    ]


def test_the_line_is_the_best_so_far():
    picture = drawn(sweep(numbered(0.3, 0.2, None, 0.5, 0.5, 0.4)))
    (panel,) = picture.panels
    assert [(p.x, p.y) for p in panel.points] == [(0, 0.3), (1, 0.2), (3, 0.5), (4, 0.5), (5, 0.4)]
    assert panel.line == ((0, 0.3), (3, 0.3), (3, 0.5), (5, 0.5))
    assert panel.lost == (2,)
    assert (panel.line_name, panel.lost_name) == ("best so far", "no score")
    assert picture.alt == (
        "Learning over the trial number. lora, 6 trials: the best, learning 0.500, is number 3; "
        "1 without a score."
    )


def test_the_line_never_falls_and_ends_at_the_last_trial():
    results = planted_grid(noise=0.05)
    (panel,) = drawn(results).panels
    heights = [y for _, y in panel.line]
    assert heights == sorted(heights)
    assert heights[-1] == max(t.learning for t in results.trials)
    assert panel.line[-1][0] == 26


def test_the_search_is_told_and_not_what_confirms_it_or_still_runs():
    trials = [
        *numbered(0.1, 0.2),
        replace(trial("again", 0.9, lr=1e-4), stage="confirm", number=2),
        trial("now", status="RUNNING", number=3, lr=1e-4),
        trial("next", status="PENDING", number=4, lr=1e-4),
    ]
    (panel,) = drawn(sweep(trials)).panels
    assert [p.x for p in panel.points] == [0, 1]
    assert panel.lost == ()
    # The page's plots share their heights with everything that has a score.
    assert panel.reach == (0.1, 0.9)


def test_methods_stand_side_by_side_at_the_same_height():
    results = sweep([*numbered(0.1, 0.2), *numbered(0.7, 0.8, method="full")])
    first, second = drawn(results).panels
    assert (first.title, second.title) == ("lora", "full")
    assert first.reach == second.reach == (0.1, 0.8)


def test_a_table_without_numbers_is_told_row_by_row():
    trials = [replace(t, number=0) for t in numbered(0.1, 0.4, 0.3, 0.2, 0.5)]
    (panel,) = drawn(sweep(trials)).panels
    assert [p.x for p in panel.points] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("results", [sweep([]), sweep(numbered(None, None))])
def test_without_a_score_there_is_no_history(results):
    assert drawn(results) is None


def test_one_trial_has_a_history():
    picture = drawn(sweep(numbered(0.5)))
    assert "lora, 1 trial: the best, learning 0.500, is number 0" in picture.alt
