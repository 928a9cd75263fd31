import pytest

from lorasweep.analysis.tradeoff.curves import TRAINED, trace_curves
from tests.analysis.planted import trial
from tests.analysis.published import setting


def test_a_configuration_is_one_curve_over_its_durations():
    trials = [
        trial("a", 0.3, rank=4, epochs=1.0, forgetting=0.1),
        trial("b", 0.5, rank=4, epochs=2.0, forgetting=0.2),
        trial("b2", 0.4, rank=4, epochs=2.0, forgetting=0.4, seed=1),
        trial("c", 0.4, rank=16, epochs=1.0),
        trial("d", status="DIVERGED", rank=16, epochs=2.0),
    ]
    (curve,) = trace_curves(trials)
    assert curve.configuration == {"rank": 4}
    assert curve.duration == "epochs"
    assert [point.at for point in curve.points] == [1.0, 2.0]
    late = curve.points[1]
    assert (late.n, late.learning_low, late.learning_high) == (2, 0.4, 0.5)
    assert late.learning == pytest.approx(0.45)
    assert late.forgetting == pytest.approx(0.3)
    assert (late.forgetting_low, late.forgetting_high) == (0.2, 0.4)


def test_trained_tokens_stand_in_where_no_hyperparameter_says_how_long():

    trials = [
        trial("a", 0.3, rank=4).model_copy(update={"tokens": 1000}),
        trial("b", 0.4, rank=4).model_copy(update={"tokens": 1003}),
        trial("c", 0.5, rank=4).model_copy(update={"tokens": 4000}),
    ]
    (curve,) = trace_curves(trials)
    assert curve.duration == TRAINED
    assert [(point.at, point.n) for point in curve.points] == [(1000, 2), (4000, 1)]


def test_trials_of_one_length_make_no_curve():
    assert trace_curves([trial("a", 0.3, rank=4), trial("b", 0.4, rank=16)]) == ()


def test_the_published_table_has_a_curve_for_every_row_of_its_figure():
    curves = trace_curves(setting("code-ift").trials)
    assert [curve.configuration.get("rank") for curve in curves] == [16, 64, 256, None]
    assert all([p.at for p in curve.points] == [1, 2, 4, 8, 16] for curve in curves)
