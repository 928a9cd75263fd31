import json

import pytest

from lorasweep.analysis.advice.caution import edge
from lorasweep.analysis.analyse import analyse
from lorasweep.analysis.intervals import rank_correlation
from lorasweep.analysis.scale import lay_out
from lorasweep.spec.space import Choices, Range
from tests.analysis.planted import planted_grid, sweep, trial


def document(results):
    return json.loads(analyse(results).to_json())


def test_the_document_has_what_other_programs_rely_on():
    found = document(planted_grid(noise=0.01))
    assert found["schema_version"] == 2
    row = found["sensitivity"]["lora"][0]
    assert row.keys() >= {"hyperparameter", "importance", "low", "high", "rank", "effect"}
    assert found["rankings"]["lora"]["design"] == "anova"
    assert found["rankings"]["lora"]["rows"] == found["sensitivity"]["lora"]
    level = found["levels"]["lora"]["rank"][0]
    assert level.keys() >= {"level", "n", "best", "mean", "diverged"}
    scopes = {point["scope"] for point in found["front"]}
    assert scopes == {"lora", "pooled"}
    assert found["front"][0].keys() >= {"scope", "trial", "learning", "forgetting"}
    for scope in scopes:
        gains = [point["learning"] for point in found["front"] if point["scope"] == scope]
        assert gains == sorted(gains)
    recommended = found["recommendation"]["lora"]
    assert recommended["configuration"] == {"lr": 1e-3, "targets": "all", "rank": 64}
    assert recommended.keys() >= {"trial", "learning", "forgetting"}
    assert recommended["expected"].keys() >= {"learning", "low", "high"}
    claim = found["claims"][0]
    assert claim.keys() >= {"id", "domain", "verdict", "effect", "low", "high", "n"}
    assert found["statuses"] == {"lora": {"COMPLETE": 27}}


def test_the_same_trials_give_the_same_text():
    first, second = (analyse(planted_grid(noise=0.01)) for _ in range(2))
    assert first.to_json() == second.to_json()


def test_no_trials_are_an_answer_too():
    found = document(sweep([]))
    assert found["front"] == []
    assert found["sensitivity"] == {}
    assert found["warnings"] == ["No trial has started yet."]


def test_all_diverged_is_said():
    results = sweep([trial(f"t{i}", status="DIVERGED", lr=1e-2, rank=4) for i in range(3)])
    warnings = " ".join(document(results)["warnings"])
    assert "all 3 finished trials diverged" in warnings
    assert "No trial has completed" in warnings


def test_missing_source_scores_are_said():
    warnings = " ".join(analyse(sweep([trial("a", 0.5, lr=1e-4)])).warnings)
    assert "The source domain was not measured" in warnings
    assert "rests on one seed" in warnings


def test_unfinished_and_unscored_trials_are_said():
    results = sweep(
        [
            trial("a", 0.5, lr=1e-4, forgetting=0.1),
            trial("b", status="RUNNING", lr=1e-3),
            trial("c", lr=1e-5).model_copy(update={"learning": None}),
            trial("d", status="FAILED", lr=1e-3),
        ]
    )
    warnings = " ".join(analyse(results).warnings)
    assert "1 trial is not finished" in warnings
    assert "1 completed trials have no learning score" in warnings
    assert "1 of 3 finished trials failed" in warnings


def test_a_best_at_the_edge_is_said():
    warnings = " ".join(analyse(planted_grid()).warnings)
    assert "the best rank, 64, is at the upper end of what was tried (4 to 64)" in warnings


@pytest.mark.parametrize(
    ("values", "axis", "level", "side"),
    [
        ([1e-4], Range(low=1e-5, high=1e-2, log=True), 8e-3, "upper"),
        ([1e-4], Range(low=1e-5, high=1e-2, log=True), 1e-3, None),
        ([4], Choices(values=(4, 16, 64)), 4, "lower"),
        ([4], Choices(values=(4, 16)), 4, None),
        ([0.0], Choices(values=(0.0, 0.05, 0.1)), 0.0, None),
        (["all"], None, "all", None),
    ],
)
def test_the_edge_of_what_was_tried(values, axis, level, side):
    assert edge(lay_out("x", values, axis), level) == side


def test_the_proxy_is_judged_by_its_ranks():
    trials = [
        trial(f"t{i}", i / 10, rank=4).model_copy(update={"response_loss": 3 - i**2 / 100})
        for i in range(1, 6)
    ]
    proxy = analyse(sweep(trials, axes=("rank",))).proxy["lora"]
    assert proxy.n == 5
    assert proxy.spearman == pytest.approx(1.0)


def test_rank_correlation_against_a_worked_example():
    assert rank_correlation([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]) == pytest.approx(0.8207826817)
    assert rank_correlation([1, 2, 3], [1, 2, 3]) is None
    assert rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]) is None


def test_a_hyperparameter_that_never_varied_by_itself_is_named():
    rates = {4: 2e-3, 16: 2e-3, 64: 1e-3}
    trials = [
        trial(f"t{number}", 0.1 * number, lr=rates[rank], rank=rank, epochs=epochs)
        for number, (rank, epochs) in enumerate((r, e) for r in rates for e in (1, 2))
    ]
    (tied,) = [w for w in analyse(sweep(trials)).warnings if "cannot be separated" in w]
    assert tied.startswith("lora: at each rank only one lr was tried")
    apart = [*trials, trial("t9", 0.3, lr=2e-3, rank=64, epochs=1)]
    assert not any("cannot be separated" in w for w in analyse(sweep(apart)).warnings)
