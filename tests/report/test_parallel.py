from dataclasses import replace

import pytest

from lorasweep.analysis.analyse import analyse
from lorasweep.report.figures.parallel import parallel_coordinates
from tests.analysis.planted import planted_grid, planted_sample, sweep, trial


def drawn(results):
    return parallel_coordinates(results, analyse(results))


def lines(panel):
    """List each line's values, axis by axis."""
    return list(zip(*panel.values, strict=True))


def test_each_trial_is_a_line_across_its_settings():
    results = planted_grid(noise=0.01)
    picture = drawn(results)
    (panel,) = picture.panels
    assert panel.title == "lora, 27 trials"
    assert [axis.label for axis in panel.axes] == ["lr", "targets", "rank", "learning"]
    names = {axis.label: axis.levels for axis in panel.axes}
    assert names["targets"] == ("all", "attention", "mlp")
    ranked = sorted(results.trials, key=lambda t: t.learning)
    for line, trial_ in zip(lines(panel), ranked, strict=True):
        assert names["targets"][int(line[1])] == trial_.hyperparameters["targets"]
        assert line[-1] == trial_.learning
    assert (panel.shades[0], panel.shades[-1]) == (0.0, 1.0)
    assert list(panel.shades) == sorted(panel.shades)
    assert [results.trials[index] for index in panel.trials] == ranked
    assert picture.trials == panel.trials[::-1]


def test_the_alternative_text_says_what_the_best_have():
    assert drawn(planted_grid()).alt == (
        "lora, 27 trials: the best, learning 0.540, has lr=0.001, "
        "targets=all, rank=64; the worst learned 0.200. The best tenth have lr 0.001, "
        "targets all and rank 16 and 64."
    )


def test_an_interval_is_an_axis_of_numbers():
    results = planted_sample(40)
    (panel,) = drawn(results).panels
    rates = [t.hyperparameters["lr"] for t in results.trials]
    axis = panel.axes[0]
    assert (axis.levels, axis.log) == ((), True)
    assert (axis.low, axis.high) == pytest.approx((min(rates), max(rates)))
    assert sorted(line[0] for line in lines(panel)) == sorted(rates)


def test_only_completed_trials_are_lines():
    results = planted_grid()
    lost = trial("x", 9.0, status="DIVERGED", lr=1e-3, targets="all", rank=256)
    (panel,) = drawn(replace(results, trials=(*results.trials, lost))).panels
    assert len(lines(panel)) == 27


def test_a_setting_that_a_trial_lacks_is_a_gap():
    results = planted_grid()
    other = trial("x", 0.3, lr=1e-3, rank=4)
    (panel,) = drawn(replace(results, trials=(*results.trials, other))).panels
    assert sum(None in line for line in lines(panel)) == 1


def test_very_many_trials_are_all_lines():
    results = planted_sample(1000)
    (panel,) = drawn(results).panels
    assert [line[-1] for line in lines(panel)] == sorted(t.learning for t in results.trials)


@pytest.mark.parametrize(
    "results",
    [
        sweep([]),
        sweep([trial("a", 0.5, lr=1e-4, targets="all", rank=4)]),
        sweep((trial(f"t{i}", i / 9, lr=10.0**-i) for i in range(4)), axes=("lr",)),
        sweep(trial(f"t{i}", status="PRUNED", targets="ab"[i % 2], rank=i) for i in range(4)),
    ],
    ids=["no trials", "one trial", "one axis", "no scores"],
)
def test_without_two_axes_and_two_scores_there_are_no_lines(results):
    picture = drawn(results)
    assert picture.panels == ()
    assert picture.missing


def test_equal_scores_have_one_colour():
    results = planted_grid()
    results = replace(
        results, trials=tuple(t.model_copy(update={"learning": 0.5}) for t in results.trials)
    )
    (panel,) = drawn(results).panels
    assert set(panel.shades) == {1.0}
