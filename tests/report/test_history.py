import pytest

from lorasweep.analysis.analyse import analyse
from lorasweep.report.figures.history import history
from tests.analysis.planted import planted_grid, sweep, trial


def drawn(results):
    return history(results, analyse(results))


def points(panel):
    """Pair the places of a panel's only series, those with a score and those without."""
    (series,) = panel.series
    pairs = list(zip(series.x, series.y, strict=True))
    return [p for p in pairs if p[1] is not None], [x for x, y in pairs if y is None]


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
    scored, lost = points(panel)
    assert scored == [(0, 0.3), (1, 0.2), (3, 0.5), (4, 0.5), (5, 0.4)]
    (line,) = panel.lines
    assert line.points == ((0, 0.3), (3, 0.5), (5, 0.5))
    assert line.steps
    assert lost == [2]
    assert panel.strip == "no score"
    assert "The line is the best so far" in picture.caption
    assert picture.alt == (
        "lora, 6 trials: the best, learning 0.500, is number 3; 1 without a score."
    )


def test_the_line_never_falls_and_ends_at_the_last_trial():
    results = planted_grid(noise=0.05)
    (panel,) = drawn(results).panels
    (line,) = panel.lines
    heights = [y for _, y in line.points]
    assert heights == sorted(heights)
    assert heights[-1] == max(t.learning for t in results.trials)
    assert line.points[-1][0] == 26


def test_the_search_is_shown_without_confirmations_and_running_trials():
    trials = [
        *numbered(0.1, 0.2),
        trial("again", 0.9, lr=1e-4).model_copy(update={"stage": "confirm", "number": 2}),
        trial("now", status="RUNNING", number=3, lr=1e-4),
        trial("next", status="PENDING", number=4, lr=1e-4),
    ]
    (panel,) = drawn(sweep(trials)).panels
    scored, lost = points(panel)
    assert [x for x, _ in scored] == [0, 1]
    assert lost == []
    # All figures of learning have the same height, which covers everything that has a score.
    assert (panel.y.low, panel.y.high) == (0.1, 0.9)


def test_methods_stand_side_by_side_at_the_same_height():
    results = sweep([*numbered(0.1, 0.2), *numbered(0.7, 0.8, method="full")])
    first, second = drawn(results).panels
    assert (first.title, second.title) == ("lora", "full")
    assert first.y == second.y
    assert (first.y.low, first.y.high) == (0.1, 0.8)


def test_a_table_without_numbers_is_shown_row_by_row():
    trials = [t.model_copy(update={"number": 0}) for t in numbered(0.1, 0.4, 0.3, 0.2, 0.5)]
    (panel,) = drawn(sweep(trials)).panels
    assert [x for x, _ in points(panel)[0]] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("results", [sweep([]), sweep(numbered(None, None))])
def test_without_a_score_there_is_no_history(results):
    picture = drawn(results)
    assert picture.panels == ()
    assert picture.missing


def test_a_completed_trial_whose_score_is_missing_counts_as_one_without():
    trials = [
        *numbered(0.3, 0.2),
        trial("unmeasured", number=2, lr=1e-4).model_copy(update={"learning": None}),
    ]
    picture = drawn(sweep(trials))
    assert points(picture.panels[0])[1] == [2]
    assert picture.alt.endswith("1 without a score.")


def test_one_trial_has_a_history():
    picture = drawn(sweep(numbered(0.5)))
    assert "lora, 1 trial: the best, learning 0.500, is number 0" in picture.alt
