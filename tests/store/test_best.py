import pytest

from lorasweep.store.best import find_best
from lorasweep.store.configurations import configurations
from tests.analysis.planted import trial


def best(*trials):
    (found,) = find_best(configurations(trials))
    return found


def test_a_configuration_is_judged_by_its_mean_over_seeds():
    found = best(
        trial("a", 0.60, number=0, rank=4),
        trial("b", 0.59, number=1, rank=16),
        trial("a2", 0.50, number=0, rank=4, seed=1, stage="confirm"),
        trial("b2", 0.57, number=1, rank=16, seed=1, stage="confirm"),
    )
    assert found.winner.trial == "b"
    assert found.winner.learning == pytest.approx(0.58)
    assert found.winner.seeds == (0, 1)
    assert found.winner.spread == (0.57, 0.59)
    assert found.runner_up is not None
    assert found.runner_up.trial == "a"


def test_equal_learning_is_decided_by_source_accuracy_then_by_number():
    a = trial("a", 0.5, number=0, rank=4, forgetting=0.2)
    b = trial("b", 0.5, number=1, rank=16, forgetting=0.1)
    c = trial("c", 0.5, number=2, rank=64, forgetting=0.1)
    assert best(c, a, b).winner.trial == "b"


def test_forgetting_replaces_a_missing_source_accuracy():
    a = trial("a", 0.5, number=0, rank=4, forgetting=0.2).model_copy(
        update={"source_accuracy": None}
    )
    b = trial("b", 0.5, number=1, rank=16, forgetting=0.1).model_copy(
        update={"source_accuracy": None}
    )
    assert best(a, b).winner.trial == "b"


def test_lost_seeds_are_counted():
    found = best(
        trial("a", 0.6, rank=4), trial("b", status="DIVERGED", rank=4, seed=1, stage="confirm")
    )
    assert found.winner.lost == 1
    assert found.winner.seeds == (0,)


def test_a_confirmed_configuration_goes_before_a_lucky_one_which_is_named():
    found = best(
        trial("a", 0.60, number=0, rank=4),
        trial("b", 0.58, number=1, rank=16),
        trial("b2", 0.58, number=1, rank=16, seed=1),
    )
    assert found.winner.trial == "b"
    assert found.higher_on_fewer_seeds is not None
    assert found.higher_on_fewer_seeds.trial == "a"


def test_each_method_has_its_own_and_one_without_scores_has_none():
    trials = [
        trial("a", 0.5, lr=1e-4),
        trial("b", 0.6, method="full", lr=1e-5),
        trial("c", status="FAILED", method="other", lr=1e-5),
    ]
    assert {f.method: f.winner.trial for f in find_best(configurations(trials))} == {
        "lora": "a",
        "full": "b",
    }
