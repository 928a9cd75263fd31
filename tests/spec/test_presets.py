import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorasweep.spec.presets import (
    default_sweep,
    first_points,
    learns_code,
    published_full_lr,
    published_lr,
)
from lorasweep.spec.space import Range
from lorasweep.spec.sweep import parse_sweep
from tests.spec.test_space import spaces, spaces_of

MODELS = [None, "testbed", "org/model"]
DATA = [None, "testbed", "testbed-code", "my.jsonl"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("data", DATA)
def test_the_built_in_sweep_is_legal_for_every_model_and_data(model, data):
    spec = parse_sweep(default_sweep(model, data))
    assert spec.model.path == (model or "testbed")
    assert spec.data.path == (data or "testbed")
    assert tuple(spec.space.axes) == ("lr", "targets", "rank")


def test_the_users_model_or_data_replaces_the_testbeds_part():
    own_model = parse_sweep(default_sweep("org/model", None))
    assert own_model.evaluate.learning == ("testbed_math",)
    assert own_model.evaluate.source == ("auto",)
    own_data = parse_sweep(default_sweep(None, "my.jsonl"))
    assert own_data.evaluate.learning == ("response_accuracy",)
    assert own_data.evaluate.source == ("testbed_hellaswag", "testbed_arc", "testbed_winogrande")
    assert own_data.train.steps is None
    assert own_data.data.seq_len is None


def test_the_embedded_code_is_learned_at_its_own_length():
    spec = parse_sweep(default_sweep(None, "testbed-code"))
    assert spec.evaluate.learning == ("testbed_code",)
    assert spec.data.seq_len == 128
    assert not spec.evaluate.allow_code_execution
    assert spec.train == parse_sweep(default_sweep(None, None)).train


def test_changing_one_built_in_sweep_leaves_the_next_one_alone():
    default_sweep(None, None)["space"]["lr"]["low"] = 1.0
    default_sweep("org/model", None)["space"]["lr"] = False
    assert parse_sweep(default_sweep(None, None)).space.axes.get("lr") == Range(
        low=3e-4, high=3e-2, log=True
    )
    assert parse_sweep(default_sweep("org/model", None)).space.axes.get("lr") is not None


@pytest.mark.parametrize(("rank", "lr"), [(16, 2e-4), (64, 2e-4), (256, 1e-4)])
def test_biderman_v2_learns_more_slowly_at_a_high_rank(rank, lr):
    assert published_lr("biderman-v2", rank, 4096, "llama") == lr


@pytest.mark.parametrize(
    ("model_type", "hidden_size", "lr"),
    [
        ("llama", 2000, 5e-4),
        ("llama", 4096, 5e-4 * (2000 / 4096) ** 0.781),
        ("qwen3", 4096, 5e-4 * (2000 / 4096) ** 0.0775),
        ("gpt2", 4096, 5e-4),
    ],
)
def test_thinking_machines_scales_by_the_size_and_family_of_the_model(model_type, hidden_size, lr):
    advised = published_lr("thinking-machines", 8, hidden_size, model_type)
    assert math.isclose(advised, lr)


@settings(deadline=None, max_examples=150)
@given(
    st.tuples(st.just("lora"), spaces) | st.tuples(st.just("full"), spaces_of("full")),
    st.sampled_from([64, 1024, 8192]),
    st.sampled_from(["llama", "qwen2", "gpt2"]),
)
def test_first_points_lie_in_the_space_and_give_every_axis_a_level(study, hidden_size, model_type):
    method, space = study
    spec = parse_sweep({"space": space, "hyperparameters": {"method": method}})
    points = first_points(spec, hidden_size, model_type)
    assert len(points) <= 2
    assert all(left != right for i, left in enumerate(points) for right in points[:i])
    for point in points:
        assert list(point) == list(spec.space.axes)
        assert all(spec.space.contains(name, level) for name, level in point.items())
        spec.trial(point)


def test_the_published_recipes_are_the_first_points_of_the_published_space():
    spec = parse_sweep(
        {"space": {"lr": True, "targets": True, "rank": [16, 256], "alpha": ["2r", 32]}}
    )
    assert first_points(spec, 2000, "llama") == [
        {"lr": 1e-4, "targets": "all", "rank": 256, "alpha": "2r"},
        {"lr": 5e-4, "targets": "all", "rank": 256, "alpha": 32.0},
    ]


def test_the_searched_rank_nearest_to_the_advised_one_is_taken():
    spec = parse_sweep({"space": {"lr": True, "rank": [4, 64, 16]}})
    assert [point["rank"] for point in first_points(spec, 4096, "llama")] == [64, 64]


def test_a_rank_that_is_not_searched_decides_the_learning_rate():
    spec = parse_sweep({"space": {"lr": True}, "hyperparameters": {"rank": 256}})
    assert first_points(spec, 4096, "llama")[0] == {"lr": 1e-4}


def test_a_recipe_outside_the_space_is_left_out():
    spec = parse_sweep({"space": {"lr": "1e-3..1e-2"}})
    assert first_points(spec, 4096, "llama") == []


def test_only_the_recipes_that_the_sweep_names_are_tried():
    spec = parse_sweep({"space": {"lr": True}, "search": {"first_points": []}})
    assert first_points(spec, 4096, "llama") == []


CODE = {"evaluate": {"learning": ["humaneval"]}}
FULL = {"hyperparameters": {"method": "full"}}


@pytest.mark.parametrize(
    ("sections", "code"),
    [
        (CODE, True),
        ({"evaluate": {"learning": ["gsm8k@5"]}}, False),
        ({**CODE, "data": {"kind": "documents"}}, False),
        ({}, False),
    ],
)
def test_code_is_learned_from_instructions_that_a_code_task_measures(sections, code):
    assert learns_code(parse_sweep({"space": {"lr": True}, **sections})) == code


def test_full_finetuning_has_the_published_learning_rates_of_its_own():
    space = {"lr": "1e-6..1e-3", "warmup": [0.0, 0.1], "attention_dropout": [0.0, 0.1]}
    spec = parse_sweep({"space": space, **FULL, **CODE})
    fixed = {"attention_dropout": 0.0}
    assert first_points(spec, 2000, "llama") == [
        {"lr": 5e-5, "warmup": 0.1, **fixed},
        {"lr": pytest.approx(5e-5), "warmup": 0.0, **fixed},
    ]
    assert published_full_lr("biderman-v2", 4096, "llama", code=False) == 1e-5
    full = published_full_lr("thinking-machines", 4096, "llama", code=False)
    assert math.isclose(10 * full, published_lr("thinking-machines", 16, 4096, "llama"))


def test_an_axis_without_advice_takes_its_first_level():
    spec = parse_sweep({"space": {"lr": True, "tokens": [10**9, 10**8]}, **FULL})
    assert [point["tokens"] for point in first_points(spec, 2000, "llama")] == [10**9, 10**9]
