from dataclasses import replace

import pytest

from lorasweep.analysis.analyse import analyse
from lorasweep.report.figures.heat_map import heat_map
from tests.analysis.planted import RANKS, TARGETS, planted_grid, planted_sample, sweep, trial


def drawn(results):
    return heat_map(results, analyse(results))


def test_cells_hold_the_best_and_the_mean_of_each_pair():
    results = planted_grid(lr=0.1, targets=0.05, rank=0.02)
    best, mean = drawn(results).panels
    assert (best.title, mean.title) == ("best of lora", "mean of lora")
    assert (best.y.label, best.x.label) == ("targets", "rank")
    assert best.x.levels == ("4", "16", "64")
    for row, targets in zip(range(3), best.y.levels, strict=True):
        j = TARGETS.index(targets)
        # Over the learning rate, which adds 0, 0.1 and 0.2.
        for column, _ in enumerate(RANKS):
            least = 0.2 + 0.05 * j + 0.02 * column
            assert best.cells[row][column].value == pytest.approx(least + 0.2)
            assert mean.cells[row][column].value == pytest.approx(least + 0.1)
    assert (best.low, best.high) == (mean.low, mean.high) == pytest.approx((0.3, 0.54))


def test_a_cell_knows_its_best_trial_and_its_row_of_the_table():
    results = planted_grid(noise=0.01)
    picture = drawn(results)
    best, mean = picture.panels
    for line, other in zip(best.cells, mean.cells, strict=True):
        for cell, averaged in zip(line, other, strict=True):
            assert results.trials[cell.trial].learning == cell.value
            assert picture.table.rows[cell.row][-2:] == (
                f"{cell.value:.3f}",
                f"{averaged.value:.3f}",
            )


def test_the_alternative_text_says_the_best_cell():
    alt = drawn(planted_grid()).alt
    assert alt == (
        "lora: the best trial, 0.540, has targets all with rank 64. lora: the highest mean, 0.440 "
        "of 3 trials, has targets all with rank 64."
    )


def test_only_completed_trials_count():
    results = planted_grid()
    lost = [
        trial(f"x{i}", 9.0, status=status, lr=1e-3, targets="all", rank=256)
        for i, status in enumerate(["PRUNED", "DIVERGED", "FAILED", "RUNNING"])
    ]
    picture = drawn(replace(results, trials=(*results.trials, *lost)))
    best, _ = picture.panels
    assert best.x.levels == ("4", "16", "64", "256")
    assert [row[3] for row in best.cells] == [None] * 3
    assert best.high == pytest.approx(0.54)
    assert "pairs without a completed trial: 3" in picture.alt


def test_an_interval_is_cut_into_parts():
    results = sweep(
        t.model_copy(update={"hyperparameters": {k: t.hyperparameters[k] for k in ("lr", "rank")}})
        for t in planted_sample(40).trials
    )
    best, _ = drawn(results).panels
    assert (best.y.label, best.x.label) == ("lr", "rank")
    assert len(best.y.levels) == 3
    assert all(".." in row for row in best.y.levels)


def test_each_method_has_axes_of_its_own():
    full = [trial(f"f{i}", i / 9, method="full", lr=(1, 2)[i % 2], epochs=i // 2) for i in range(4)]
    results = replace(planted_grid(), axes=("lr", "targets", "rank", "epochs"))
    picture = drawn(replace(results, trials=(*results.trials, *full)))
    assert [(p.y.label, p.x.label) for p in picture.panels] == [
        *[("targets", "rank")] * 2,
        *[("lr", "epochs")] * 2,
    ]


@pytest.mark.parametrize(
    "results",
    [
        sweep([]),
        sweep([trial("a", 0.5, lr=1e-4, targets="all", rank=4)]),
        sweep(trial(f"t{i}", i / 9, lr=10.0**-i, targets="all", rank=4) for i in range(4)),
        sweep(trial(f"t{i}", status="PRUNED", targets="ab"[i % 2], rank=i) for i in range(4)),
        sweep(trial(f"t{i}", i / 99, targets=f"level {i}", rank=str(i)) for i in range(13)),
    ],
    ids=["no trials", "one trial", "one axis", "no scores", "too many levels"],
)
def test_without_two_axes_of_levels_there_is_no_heat_map(results):
    picture = drawn(results)
    assert picture.panels == ()
    assert picture.missing.startswith("A heat map needs two hyperparameters")
