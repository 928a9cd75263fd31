from dataclasses import replace

import pytest

from lorasweep.analysis.analyse import analyse
from lorasweep.report.figures import pictures
from lorasweep.report.picture import Bars, Plane
from lorasweep.store.scores import Scores
from tests.analysis.planted import planted_grid, planted_sample, sweep, trial


def made(results):
    return {
        picture.name: picture
        for picture in pictures(results, analyse(results).of_domain(results.domain))
    }


def drawn(results):
    return {name: picture for name, picture in made(results).items() if picture.panels}


def test_a_finished_sweep_has_its_figures_in_the_order_of_the_page():
    found = drawn(planted_grid(noise=0.01))
    assert list(found) == [
        *("sensitivity", "top", "interactions", "learning-rate", "heat-map"),
        *("parallel-coordinates", "trade-off", "history"),
    ]
    assert all(picture.alt.endswith(".") for picture in found.values())
    assert all(picture.caption.endswith(".") for picture in found.values())


def test_a_figure_has_panels_or_says_what_it_lacks():
    for results in (sweep([]), planted_grid(), planted_sample(12)):
        for picture in made(results).values():
            assert bool(picture.panels) != bool(picture.missing)
            assert picture.missing == "" or picture.missing.endswith(".")
            assert (picture.table is None) == bool(picture.trials) or not picture.panels


def test_every_mark_points_to_a_row_or_a_trial():
    results = planted_grid(noise=0.01)
    for picture in drawn(results).values():
        rows = len(picture.table.rows) if picture.table else 0
        for panel in picture.panels:
            for series in getattr(panel, "series", ()):
                assert len(series.x) == len(series.y) == len(series.trials)
                assert all(0 <= row < rows for row in series.rows)
                for index, x, y in zip(series.trials, series.x, series.y, strict=True):
                    facts = results.trials[index]
                    assert {x, y} <= {facts.learning, facts.forgetting, facts.number} | set(
                        facts.hyperparameters.values()
                    )
            for bar in getattr(panel, "bars", ()):
                assert bar.label in picture.table.rows[bar.row]


def test_the_figures_of_a_domain_are_named_after_it():
    trials = tuple(t.model_copy(update={"domain": "a/b"}) for t in planted_grid().trials)
    (part,) = replace(planted_grid(), trials=trials).parts
    found = drawn(part)
    assert all(picture.file == f"a_2Fb-{name}" for name, picture in found.items())
    assert "heat-map" in found


def test_more_panels_than_an_image_holds_are_counted():
    found = drawn(sweep(trial(f"t{i}", i / 90, method=f"m{i}", lr=1e-4) for i in range(90)))
    assert len(found["history"].panels) == 24
    assert found["history"].caption.endswith(" 66 further panels are left out.")


def test_the_trade_off_marks_the_base_and_the_front():
    results = planted_grid(noise=0.01)
    results = replace(results, base=Scores(learning=0.1, source_accuracy=0.6))
    picture = drawn(results)["trade-off"]
    (panel,) = picture.panels
    assert isinstance(panel, Plane)
    (series,) = panel.series
    assert len(series.x) == 27
    assert panel.base == (0.1, 0.0)
    front = [p for p in analyse(results).front if p.scope == "pooled"]
    (line,) = panel.lines
    assert line.points == tuple((p.learning, p.forgetting) for p in front)
    assert [(ring.x, ring.y) for ring in panel.rings] == list(line.points)
    learned = [results.trials[index].learning for index in picture.trials]
    assert learned == sorted(learned, reverse=True)


def test_without_forgetting_the_trade_off_shows_source_accuracy():
    trials = [t.model_copy(update={"forgetting": None}) for t in planted_grid(noise=0.01).trials]
    results = replace(sweep(trials), base=Scores(learning=0.1, source_accuracy=0.6))
    (panel,) = drawn(results)["trade-off"].panels
    assert panel.y.label == "source accuracy"
    assert panel.base == (0.1, 0.6)
    assert set(panel.series[0].y) == {t.source_accuracy for t in trials}


def test_the_learning_rate_figure_shows_where_trials_diverged():
    results = planted_grid(noise=0.01)
    lost = trial("x", status="DIVERGED", lr=1e-2, targets="all", rank=4)
    picture = drawn(replace(results, trials=(*results.trials, lost)))["learning-rate"]
    assert [panel.title for panel in picture.panels] == [
        f"lora, targets {targets}" for targets in ("all", "attention", "mlp")
    ]
    first = picture.panels[0]
    assert first.x.log
    assert first.strip == "diverged"
    unscored = [
        x for series in first.series for x, y in zip(series.x, series.y, strict=True) if y is None
    ]
    assert unscored == [1e-2]
    assert [key.label for key in picture.legend] == ["rank 4", "rank 16", "rank 64"]
    assert all(panel.y == first.y and panel.x == first.x for panel in picture.panels)


def test_methods_share_the_colours_of_the_learning_rate_figure():
    full = [
        trial(f"f{i}", 0.1 * i, method="full", lr=10.0**-i, rank=16, targets="all")
        for i in range(2, 5)
    ]
    other = [trial(f"o{i}", 0.1 * i, method="other", lr=10.0**-i) for i in range(2, 5)]
    results = planted_grid(noise=0.01)
    picture = drawn(replace(results, trials=(*results.trials, *full, *other)))["learning-rate"]
    looks = {key.label: key.look for key in picture.legend}
    assert list(looks) == ["rank 4", "rank 16", "rank 64", "without rank"]
    assert [series.look for series in picture.panels[-1].series] == [looks["without rank"]]


def test_bars_hold_the_ranking():
    results = planted_grid(noise=0.01)
    picture = drawn(results)["sensitivity"]
    (panel,) = picture.panels
    assert isinstance(panel, Bars)
    rows = analyse(results).rankings["lora"].rows
    assert [(bar.label, bar.value) for bar in panel.bars] == [
        (row.hyperparameter, row.importance) for row in rows
    ]
    assert [row[1] for row in picture.table.rows] == [row.hyperparameter for row in rows]


@pytest.mark.parametrize("results", [sweep([]), sweep([trial("a", status="FAILED", lr=1e-4)])])
def test_nothing_to_show_gives_no_figure(results):
    assert drawn(results) == {}
