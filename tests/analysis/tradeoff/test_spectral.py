import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorasweep.analysis.tradeoff.spectral import OUTSIDE, RankSummary, summarise_spectrum
from lorasweep.store.records import MatrixSpectrum
from tests.analysis.planted import trial


def matrix(layer, module, *, update=1, intruders=0, **other):
    values = {"outputs": 8, "inputs": 12, "base": 5, "tuned": 5, "noise": 7, "noisy": 5}
    return MatrixSpectrum(
        name=f"layers.{layer}.{module}",
        layer=layer,
        module=module,
        update=update,
        intruders=intruders,
        **{**values, "effective": float(update), "share": 0.1, **other},
    )


def summary_of(rows):
    summary = summarise_spectrum(trial("a").model_copy(update={"spectrum": tuple(rows)}))
    assert summary is not None
    return summary


def test_medians_are_taken_by_module_and_by_layer_and_intruders_are_added_up():
    rows = [
        matrix(0, "up_proj", update=6, intruders=1),
        matrix(0, "q_proj", update=2, intruders=2, share=0.3),
        matrix(1, "up_proj", update=8, intruders=4),
        matrix(1, "q_proj", update=3),
    ]
    summary = summary_of(rows)
    assert summary.whole == RankSummary(
        n=4,
        full=8,
        update=4.5,
        base=5,
        tuned=5,
        noise=7,
        noisy=5,
        effective=4.5,
        share=0.1,
        intruders=7,
    )
    assert list(summary.by_module) == ["q_proj", "up_proj"]
    assert summary.by_module["up_proj"].update == 7
    assert summary.by_module["q_proj"].share == pytest.approx(0.2)
    assert list(summary.by_layer) == ["0", "1"]
    assert summary.by_layer["1"].update == 5.5
    assert summary.by_layer["0"].intruders == 3


def test_the_largest_possible_rank_is_that_of_the_smaller_side():
    rows = [matrix(0, "c_fc", outputs=64, inputs=16), matrix(0, "c_proj", outputs=16, inputs=64)]
    assert summary_of(rows).whole.full == 16


def test_layers_come_in_the_order_of_the_blocks_and_what_is_outside_last():
    rows = [matrix(layer, "up_proj") for layer in (10, None, 2, 0)]
    assert list(summary_of(rows).by_layer) == ["0", "2", "10", OUTSIDE]


def test_without_matrices_there_is_nothing_to_summarise():
    assert summarise_spectrum(trial("a")) is None


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from("qkv"), st.integers(0, 9)), min_size=1)
)
def test_every_matrix_is_in_one_module_and_in_one_layer(drawn):
    rows = [matrix(layer, module, update=n, intruders=n) for layer, module, n in drawn]
    summary = summary_of(rows)
    for parts in (summary.by_module, summary.by_layer):
        assert sum(part.n for part in parts.values()) == len(rows) == summary.whole.n
        assert sum(part.intruders for part in parts.values()) == summary.whole.intruders
        low, high = (f(part.update for part in parts.values()) for f in (min, max))
        assert low <= summary.whole.update <= high


def test_the_order_of_the_matrices_does_not_matter():
    rows = [matrix(layer, module, update=layer) for layer in range(3) for module in ("b", "a")]
    forwards, backwards = summary_of(rows), summary_of(reversed(rows))
    assert forwards == backwards
