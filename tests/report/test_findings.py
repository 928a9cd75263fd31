import pytest

from lorasweep.analysis.analyse import analyse
from lorasweep.analysis.sensitivity import importance
from lorasweep.report.findings import answer, findings
from tests.analysis.planted import planted_grid, sweep, trial


def told(results):
    return answer(results, analyse(results))


def found(results):
    return findings(results, analyse(results))


def test_the_answer_is_three_sentences():
    use, matters, cost = told(planted_grid(noise=0.002))
    assert use.startswith("For lora use lr=0.001, targets=all, rank=64 (learning ")
    assert "one seed" in use
    assert matters.startswith("For lora, over 27 configurations, learning varied most with lr (7")
    assert "then targets" in matters
    assert cost.startswith("The trial that learned most")
    assert all(sentence.endswith(".") for sentence in (use, matters, cost))


def crossed(lr=0.0, together=0.1):
    """Give a grid in which lr helps at one rank as much as it harms at another."""
    results = planted_grid(lr, 0, 0, noise=0.004)
    places = [(i, k) for i in (-1, 0, 1) for _ in range(3) for k in (-1, 0, 1)]
    return sweep(
        one.model_copy(update={"learning": one.learning + together * i * k})
        for one, (i, k) in zip(results.trials, places, strict=True)
    )


def test_what_two_explain_together_is_part_of_the_answer():
    matters = told(crossed())[1]
    assert (
        "no hyperparameter has an effect of its own above chance, but lr and rank interact: "
        "together they explain 100% (" in matters
    )
    matters = told(crossed(lr=0.1))[1]
    assert "learning varied most with lr (" in matters
    assert "; but lr and rank interact" in matters
    assert "together" not in told(crossed(lr=0.1, together=0.02))[1]
    (pair,) = [f for f in found(crossed()) if f.measure == "share of variance beyond main effects"]
    assert pair.text == "lora: lr and rank interact: the effect of one depends on the other."
    assert 0.9 < pair.low <= pair.effect <= pair.high <= 1


def test_noise_is_answered_with_cannot_tell():
    results = planted_grid(0, 0, 0, noise=0.1, seed=3)
    assert "No hyperparameter of lora has an effect above chance" in told(results)[1]
    shares = [f for f in found(results) if f.measure == "share of variance"]
    assert len(shares) == 3
    assert all("has no effect above chance" in f.text for f in shares)


def test_no_trials_get_an_honest_answer():
    use, matters, cost = told(sweep([]))
    assert use == "No trial has completed, so nothing can be recommended yet."
    assert "no hyperparameter can be ranked" in matters
    assert "unknown" in cost


def test_divergence_is_not_waiting():
    assert "some diverged" in told(sweep([trial("a", status="DIVERGED", lr=1.0)]))[0]


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        (((0.60, 0.62), (0.50, 0.52)), "every seed of the first scored higher"),
        (((0.60, 0.62), (0.58, 0.61)), "a tie, since their seeds overlap"),
        (((0.60,), (0.58,)), "the lead may be noise"),
    ],
)
def test_two_configurations_are_compared_by_their_seeds(scores, verdict):
    trials = [
        trial(f"t{rank}{seed}", score, rank=rank, seed=seed, number=rank)
        for rank, own in zip((4, 16), scores, strict=True)
        for seed, score in enumerate(own)
    ]
    (lead,) = [f for f in found(sweep(trials)) if f.measure == "difference in learning"]
    assert verdict in lead.text
    assert lead.n == sum(len(own) for own in scores)


def test_methods_are_compared(monkeypatch):
    monkeypatch.setattr(importance, "_effort", lambda _: (5, 2, 4))
    trials = [trial("a", 0.5, lr=1e-4), trial("b", 0.6, method="full", lr=1e-5)]
    assert any("The best of full against the best of lora" in f.text for f in found(sweep(trials)))


def test_a_trade_off_has_its_interval():
    (trade,) = [f for f in found(planted_grid()) if "more forgetting" in f.text]
    assert trade.effect is not None
    assert trade.low is not None
    assert trade.high is not None
    assert -1 <= trade.low <= trade.effect <= trade.high <= 1
    assert trade.text == "lora: trials with more forgetting learned more."


def test_every_finding_has_its_n():
    assert all(f.n > 0 for f in found(planted_grid()))
