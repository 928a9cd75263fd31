import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorasweep.errors import SpecError
from lorasweep.spec.space import (
    AXES,
    DEFAULT_AXES,
    Axis,
    Choices,
    Range,
    Space,
    parse_space,
    read_axis,
)
from lorasweep.spec.targets import TARGET_SETS
from lorasweep.spec.trial import OF_METHOD, axes_of

positive = st.floats(1e-8, 1.0)
rates = positive.map(lambda rate: float(f"{rate:.4g}"))  # of which a tenth has six digits too
shares = st.floats(0.0, 0.99)
ALPHAS = ("1r", "2r", "0.5r", "rslora:16", 8.0, 32.0)


def listed(levels: st.SearchStrategy[object]) -> st.SearchStrategy[list[object]]:
    return st.lists(levels, min_size=1, max_size=4, unique=True)


@st.composite
def ranges(draw: st.DrawFn, ends: st.SearchStrategy[float], log: bool) -> dict[str, object]:
    low, high = sorted(draw(st.lists(ends, min_size=2, max_size=2, unique=True)))
    return {"low": low, "high": high, "log": log and draw(st.booleans())}


AXIS_STRATEGIES = {
    "lr": listed(rates) | ranges(rates, log=True),
    "targets": listed(st.sampled_from(TARGET_SETS)),
    "rank": listed(st.integers(1, 256)),
    "alpha": listed(st.sampled_from(ALPHAS)),
    "dropout": listed(shares) | ranges(shares, log=False),
    "attention_dropout": listed(shares) | ranges(shares, log=False),
    "weight_decay": listed(shares) | ranges(positive, log=True),
    "warmup": listed(shares) | ranges(shares, log=False),
    "batch_size": listed(st.sampled_from([8, 16, 32])),
    "epochs": listed(st.floats(0.01, 8.0)),
    "tokens": listed(st.integers(1, 20_000_000_000)),
}
# A hyperparameter without a strategy of its own takes the levels of its default axis.
for name, axis in DEFAULT_AXES.items():
    if isinstance(axis, Choices):
        AXIS_STRATEGIES.setdefault(name, listed(st.sampled_from(axis.values)))


def spaces_of(method: str) -> st.SearchStrategy[Any]:
    """Draw spaces of a method, in which one axis at most sets the duration."""
    axes = {axis: AXIS_STRATEGIES[axis] for axis in axes_of(method)}
    drawn = st.fixed_dictionaries({}, optional=axes)
    return drawn.filter(lambda space: space and not {"epochs", "tokens"} <= set(space))


spaces = spaces_of("lora")


def test_every_axis_is_a_hyperparameter_with_a_default_range():
    fields = {field for kind in OF_METHOD.values() for field in kind.model_fields}
    assert set(AXES) == fields - {"method"}
    assert list(AXES) == list(Space.model_fields)
    for name, axis in DEFAULT_AXES.items():
        assert read_axis(name, axis) == axis


@pytest.mark.parametrize("name", AXES)
def test_an_axis_named_alone_takes_its_default_range(name):
    assert read_axis(name, True) == read_axis(name, "default") == DEFAULT_AXES[name]


@pytest.mark.parametrize("nothing", [None, False])
def test_an_axis_may_be_written_down_as_not_searched(nothing):
    assert Space.model_validate({"lr": True, "rank": nothing}).axes == {"lr": DEFAULT_AXES["lr"]}


@pytest.mark.parametrize(
    ("name", "value", "axis"),
    [
        ("lr", "1e-5..1e-2", Range(low=1e-5, high=1e-2, log=True)),
        ("lr", {"low": 0.1, "high": 0.2, "log": False}, Range(low=0.1, high=0.2)),
        ("dropout", "0..0.1", Range(low=0.0, high=0.1)),
        ("rank", "4|16|64", Choices(values=(4, 16, 64))),
        ("rank", [4, "16"], Choices(values=(4, 16))),
        ("rank", 8, Choices(values=(8,))),
        ("rank", {"values": [8]}, Choices(values=(8,))),
        ("targets", " attention | all ", Choices(values=("attention", "all"))),
        ("lr", "1e-4|3e-4", Choices(values=(1e-4, 3e-4))),
        ("alpha", "2r|32|rslora:16", Choices(values=("2r", 32.0, "rslora:16"))),
        ("epochs", [1, 2], Choices(values=(1.0, 2.0))),
    ],
)
def test_every_way_of_writing_an_axis_is_read(name, value, axis):
    assert read_axis(name, value) == axis


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("lr", "1e-2..1e-5", "low must be below high, got 0.01..1e-05"),
        ("lr", "0..1", "a log scale must begin above 0, got 0..1"),
        ("lr", "1e-5..many", "LOW..HIGH with numbers, got '1e-5..many'"),
        ("lr", {"low": math.nan, "high": 1.0}, "low must be below high, got nan..1"),
        ("lr", {"low": 1e-5, "high": math.inf}, "low must be below high, got 1e-05..inf"),
        ("lr", {"low": 1e-5}, "{low, high, log}, got {'low': 1e-05}"),
        ("lr", {"low": 1e-5, "high": 1e-2, "lgo": True}, "'lgo': True"),
        ("lr", {"values": [1e-5], "step": 2}, "'step': 2"),
        ("lr", Range(low=-1.0, high=1.0), "must be greater than 0, got -1.0"),
        ("lr", [True], "got True"),
        ("rank", "4..64", "must be a list of levels such as 'a|b', got a range"),
        ("rank", [4, 0], "must be greater than or equal to 1, got 0"),
        ("rank", [1.5], "must be a valid integer"),
        ("rank", [True], "got True"),
        ("rank", [4, 4], "must have each level once, got [4, 4]"),
        ("rank", [], "must have at least one level, got an empty list"),
        ("targets", "attn", "must be one of attention, mlp, all, ungated, qv, got 'attn'"),
        ("alpha", ["2x"], "a multiple of the rank such as '2r', a number, or 'rslora:N'"),
        ("alpha", ["0r"], "each above 0, got '0r'"),
        ("dropout", "0..1", "must be less than 1, got 1.0"),
    ],
)
def test_a_wrong_axis_is_answered_with_the_rule_and_the_value_got(name, value, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 the words are compared below
        read_axis(name, value)
    assert words in str(caught.value)


def test_a_space_needs_an_axis():
    with pytest.raises(ValueError, match="must name at least one axis of lr, targets, rank"):
        Space.model_validate({})


@settings(deadline=None, max_examples=50)
@given(spaces, st.integers(2, 5))
def test_a_grid_is_every_combination_and_lies_in_the_space(content, points):
    space = Space.model_validate(content)
    small = Space.model_validate(dict(list(content.items())[:3]))
    grid = list(small.grid(points))
    assert len(grid) == math.prod(len(levels) for levels in small.levels(points).values())
    assert all(small.contains(name, level) for point in grid for name, level in point.items())
    for name, axis in space.axes.items():
        if isinstance(axis, Range):
            assert space.levels(points)[name][:: points - 1] == (axis.low, axis.high)


def test_a_log_range_is_spread_by_equal_factors_and_a_linear_one_by_equal_steps():
    assert Range(low=1e-5, high=1e-2, log=True).grid(4) == (1e-5, 1e-4, 1e-3, 1e-2)
    assert Range(low=0.0, high=0.3).grid(4) == (0.0, 0.1, 0.2, 0.3)


def test_the_grid_of_a_narrow_range_stays_inside_of_it():
    narrow = Range(low=0.12345678, high=0.12345679)
    assert all(narrow.low <= level <= narrow.high for level in narrow.grid(5))


def test_the_last_axis_of_a_grid_moves_fastest():
    space = Space.model_validate({"rank": [4, 8], "targets": ["all", "mlp"]})
    assert list(space.axes) == ["targets", "rank"]
    assert [tuple(point.values()) for point in space.grid(2)] == [
        ("all", 4),
        ("all", 8),
        ("mlp", 4),
        ("mlp", 8),
    ]


def test_an_axis_that_is_not_searched_contains_no_level():
    space = Space.model_validate({"lr": True, "targets": ["all"]})
    assert not space.contains("rank", 16)
    assert not space.contains("lr", "all")
    assert not space.contains("targets", "mlp")


def test_the_space_option_takes_known_ranges_before_default_ones():
    mine = Choices(values=(2, 4))
    known: dict[str, Axis] = {"rank": mine}
    assert parse_space("lr=1e-5..1e-2, targets,rank", known.get) == {
        "lr": "1e-5..1e-2",
        "targets": True,
        "rank": mine,
    }


def test_the_space_option_reports_all_mistakes_at_once():
    known: dict[str, Axis] = {}
    with pytest.raises(SpecError) as caught:
        parse_space("rnak,lr,lr,,", known.get)
    unknown = "space: axis must be one of lr, targets, rank, alpha, dropout, attention_dropout"
    assert [p.partition(", weight")[0] for p in caught.value.problems] == [
        unknown,
        "space.lr: each axis must be named once, got it twice",
        unknown,
        unknown,
    ]
