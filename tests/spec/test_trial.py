import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lorasweep.spec.trial import (
    HYPERPARAMETERS,
    LoraHyperparameters,
    canonical_json,
    content_hash,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("alpha", "resolved", "rslora", "scaling"),
    [
        ("2r", 32.0, False, 2.0),
        ("0.5r", 8.0, False, 0.5),
        (32, 32.0, False, 2.0),
        ("32", 32.0, False, 2.0),
        ("rslora:16", 16.0, True, 4.0),
    ],
)
def test_alpha_is_a_multiple_of_the_rank_a_number_or_over_the_root(
    alpha, resolved, rslora, scaling
):
    trial = LoraHyperparameters.model_validate({"rank": 16, "alpha": alpha})
    assert trial.resolved_alpha == (resolved, rslora)
    assert trial.scaling == scaling


@settings(deadline=None)
@given(st.integers(1, 1024), st.floats(0.1, 64).map(lambda x: round(x, 3)))
def test_a_multiple_of_the_rank_scales_every_rank_alike(rank, times):
    trial = LoraHyperparameters(rank=rank, alpha=f"{times}r")
    assert math.isclose(trial.scaling, times, rel_tol=1e-12)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lr", 0),
        ("lr", math.nan),
        ("lr", math.inf),
        ("lr", True),
        ("targets", "q.proj"),
        ("rank", 0),
        ("rank", 2.5),
        ("rank", True),
        ("alpha", 0),
        ("alpha", -1),
        ("alpha", math.nan),
        ("alpha", "nan"),
        ("alpha", "0r"),
        ("alpha", "rslora:0"),
        ("alpha", "r"),
        ("alpha", "-2r"),
        ("alpha", "rslora"),
        ("dropout", 1),
        ("dropout", -0.1),
        ("weight_decay", -1),
        ("warmup", 1),
        ("batch_size", 0),
        ("epochs", 0),
        ("method", "full"),
        ("gamma", 1),
    ],
)
def test_illegal_hyperparameters_are_refused(field, value):
    with pytest.raises(ValidationError):
        LoraHyperparameters.model_validate({field: value})


def test_a_trial_never_changes():
    with pytest.raises(ValidationError):
        LoraHyperparameters().rank = 8  # type: ignore[misc]


@settings(deadline=None)
@given(st.dictionaries(st.text(), json_values, min_size=2, max_size=5))
def test_the_hash_of_content_ignores_the_order_of_keys(content):
    backwards = dict(reversed(content.items()))
    assert list(backwards) != list(content)
    assert canonical_json(backwards) == canonical_json(content)
    assert content_hash(backwards) == content_hash(content)


@settings(deadline=None)
@given(json_values, json_values)
def test_the_hash_tells_different_content_apart(left, right):
    same_text = canonical_json(left) == canonical_json(right)
    assert (content_hash(left) == content_hash(right)) == same_text


def test_the_hash_of_known_content_is_the_same_in_every_release():
    assert canonical_json({"b": [1, 0.5], "a": None}) == '{"a":null,"b":[1,0.5]}'
    assert content_hash({"b": [1, 0.5], "a": None}) == "fc2ad73864"


def test_a_number_that_json_cannot_hold_is_no_content():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(math.nan)


def test_every_hyperparameter_declares_its_help_and_one_default_axis():
    for name, declared in HYPERPARAMETERS.items():
        assert declared.help, name
        assert bool(declared.levels) != (declared.interval is not None), name
        assert declared.interval is None or declared.scale is not None, name
