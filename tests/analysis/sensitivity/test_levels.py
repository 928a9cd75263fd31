import pytest

from lorasweep.analysis.scale import lay_out, scales, show
from lorasweep.analysis.sensitivity.levels import summarise_levels
from lorasweep.spec.space import Choices, Range
from tests.analysis.planted import planted_grid, planted_sample, sweep, trial


def test_levels_count_what_happened_at_each():
    trials = [
        trial("a", 0.4, rank=4, forgetting=0.1),
        trial("b", 0.6, rank=4, forgetting=0.3),
        trial("c", status="DIVERGED", rank=4),
        trial("d", status="PRUNED", rank=16),
        trial("e", status="FAILED", rank=16),
        trial("f", status="RUNNING", rank=16),
    ]
    results = sweep(trials, axes=("rank",))
    four, sixteen = summarise_levels(trials, scales(results, trials))["rank"]
    assert (four.level, four.n, four.best, four.diverged) == ("4", 2, 0.6, 1)
    assert four.mean == pytest.approx(0.5)
    assert four.mean_forgetting == pytest.approx(0.2)
    assert four.mean_source_accuracy == pytest.approx(0.4)
    assert (sixteen.n, sixteen.best, sixteen.mean) == (0, None, None)
    assert (sixteen.pruned, sixteen.failed, sixteen.running) == (1, 1, 1)


def test_every_trial_is_at_one_level():
    results = planted_sample(30)
    levels = summarise_levels(results.trials, scales(results, results.trials))
    assert list(levels) == ["lr", "targets", "rank"]
    assert all(sum(level.n for level in rows) == 30 for rows in levels.values())


def test_a_learning_rate_is_cut_into_equal_parts_of_its_logarithm():
    scale = lay_out("lr", [1e-5, 1e-2], Range(low=1e-5, high=1e-2, log=True))
    assert scale.labels == ("1e-05..0.0001", "0.0001..0.001", "0.001..0.01")
    assert [scale.part(lr) for lr in (1e-5, 9e-5, 2e-4, 1e-2)] == [0, 0, 1, 2]


def test_the_space_decides_which_levels_there_are():
    scale = lay_out("rank", [16], Choices(values=(64, 4, 16)))
    assert (scale.kind, scale.labels) == ("numbers", ("4", "16", "64"))


def test_a_grid_over_a_range_has_levels():
    scale = lay_out("lr", [1e-5, 1e-4, 1e-3], Range(low=1e-5, high=1e-3, log=True), is_grid=True)
    assert scale.kind == "numbers"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["2r", 32.0, "rslora:16"], "text"),
        ([4, 16, 64, 4], "numbers"),
        ([10.0 ** (-i / 3) for i in range(9)], "log"),
        ([0.01 * i for i in range(9)], "linear"),
    ],
)
def test_a_table_is_laid_out_by_its_values(values, kind):
    assert lay_out("x", values).kind == kind


@pytest.mark.parametrize(("name", "kind"), [("lr", "log"), ("rank", "log"), ("dropout", "linear")])
def test_rates_and_sizes_are_on_a_log_scale_within_a_decade_too(name, kind):
    assert lay_out(name, [0.1 * i for i in range(1, 9)]).kind == kind


def test_axes_that_a_method_lacks_are_not_laid_out():
    results = sweep([trial("a", method="full", lr=1e-5)])
    assert list(scales(results, results.trials)) == ["lr"]


@pytest.mark.parametrize(
    ("level", "text"), [(16, "16"), (16.0, "16"), (2e-4, "0.0002"), ("2r", "2r"), (0.0, "0")]
)
def test_levels_are_shown_as_the_command_line_takes_them(level, text):
    assert show(level) == text


def test_a_grid_shows_its_levels():
    results = planted_grid()
    levels = summarise_levels(results.trials, scales(results, results.trials))
    assert [row.level for row in levels["lr"]] == ["1e-05", "0.0001", "0.001"]
    assert {row.n for rows in levels.values() for row in rows} == {9}
