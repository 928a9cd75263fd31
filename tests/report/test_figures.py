from dataclasses import replace

import pytest

from lorasweep.analysis.summary import analyse
from lorasweep.report.figures import pictures
from lorasweep.report.picture import Bars, Scatter
from lorasweep.store.records import Scores
from tests.analysis.planted import planted_grid, sweep, trial


def drawn(results):
    return {picture.name: picture for picture in pictures(results, analyse(results))}


def test_a_finished_sweep_has_six_figures():
    found = drawn(planted_grid(noise=0.01))
    assert list(found) == [
        *("trade-off", "learning-rate", "sensitivity"),
        *("heat-map", "parallel-coordinates", "history"),
    ]
    assert all(picture.alt.endswith(".") for picture in found.values())


def test_the_figures_of_a_domain_are_named_after_it():
    trials = tuple(replace(t, domain="a/b") for t in planted_grid().trials)
    (part,) = replace(planted_grid(), trials=trials).parts
    assert all(name.startswith("a_2Fb-") for name in drawn(part))
    assert "a_2Fb-heat-map" in drawn(part)


def test_more_panels_than_an_image_holds_are_counted():
    found = drawn(sweep(trial(f"t{i}", i / 90, method=f"m{i}", lr=1e-4) for i in range(90)))
    assert len(found["history"].panels) == 24
    assert found["history"].caption.endswith("; 66 further panels are left out")


def test_the_trade_off_marks_the_base_and_the_front():
    results = planted_grid(noise=0.01)
    results = replace(results, base=Scores(learning=0.1, source_accuracy=0.6))
    (panel,) = drawn(results)["trade-off"].panels
    assert isinstance(panel, Scatter)
    assert len(panel.points) == 27
    assert panel.base == (0.1, 0.6)
    assert panel.colours == ("all", "attention", "mlp")
    front = [p for p in analyse(results).front if p.scope == "pooled"]
    assert panel.line == tuple((p.learning, p.source_accuracy) for p in front)


def test_the_learning_rate_figure_shows_where_trials_diverged():
    results = planted_grid(noise=0.01)
    lost = trial("x", status="DIVERGED", lr=1e-2, targets="all", rank=4)
    (panel,) = drawn(replace(results, trials=(*results.trials, lost)))["learning-rate"].panels
    assert isinstance(panel, Scatter)
    assert panel.log_x
    assert panel.lost == (1e-2,)
    assert (panel.colour_name, panel.marker_name) == ("targets", "rank")


def test_bars_hold_the_ranking():
    results = planted_grid(noise=0.01)
    (panel,) = drawn(results)["sensitivity"].panels
    assert isinstance(panel, Bars)
    rows = analyse(results).rankings["lora"].rows
    assert [(bar.label, bar.value) for bar in panel.bars] == [
        (row.hyperparameter, row.importance) for row in rows
    ]


@pytest.mark.parametrize("results", [sweep([]), sweep([trial("a", status="FAILED", lr=1e-4)])])
def test_nothing_to_show_gives_no_figure(results):
    assert drawn(results) == {}
