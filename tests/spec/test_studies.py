"""The studies of a sweep: what methods and domains share, what is their own, and what they lack."""

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lorasweep.errors import SpecError
from lorasweep.spec.space import AXES, DEFAULT_AXES, Choices, Range
from lorasweep.spec.studies import factor, for_method, has_no, overlay
from lorasweep.spec.sweep import dump_sweep, parse_sweep
from lorasweep.spec.trial import axes_of
from tests.spec.test_space import spaces_of
from tests.spec.test_sweep import SECTIONS, agreeing

FULL_AXES = ", ".join(axes_of("full"))
NO_RANK = f"full finetuning has no rank; it has {FULL_AXES}"
BOTH: dict[str, Any] = {"methods": {"lora": {}, "full": {}}}


def small(**sections: object) -> dict[str, object]:
    return {"space": {"lr": True, "rank": True}, **sections}


def problems_of(content: dict[str, object]) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        parse_sweep(content)
    return caught.value.problems


def test_a_sweep_of_one_method_is_its_own_only_study():
    spec = parse_sweep(small())
    assert spec.studies == (spec,)
    assert spec.studies[0] is spec
    assert (spec.method, spec.study_name, spec.axes) == ("lora", "lora", ("lr", "rank"))


def test_sweeps_that_know_their_studies_can_be_compared():
    left, right = parse_sweep(small()), parse_sweep(small())
    assert left.studies == right.studies
    assert left == right != parse_sweep(small(seed=1))
    left, right = parse_sweep(small(**BOTH)), parse_sweep(small(**BOTH))
    assert left.studies
    assert left == right


def test_studies_are_domain_by_domain_and_each_is_its_own_only_study():
    domains = {"code": {"data": {"path": "testbed-code"}}, "math": {"data": {"path": "testbed"}}}
    spec = parse_sweep(small(**BOTH, domains=domains))
    assert [study.study_name for study in spec.studies] == [
        "code/lora",
        "code/full",
        "math/lora",
        "math/full",
    ]
    assert [study.data.path for study in spec.studies] == ["testbed-code"] * 2 + ["testbed"] * 2
    assert all(study.studies == (study,) for study in spec.studies)
    assert spec.axes == ("lr", "rank")


def test_a_method_and_a_domain_without_sections_may_be_left_empty():
    empty = parse_sweep(small(methods={"lora": None, "full": None}, domains={"math": None}))
    assert empty == parse_sweep(small(**BOTH, domains={"math": {}}))


@pytest.mark.parametrize(
    ("lr", "tenth"),
    [
        (True, Range(low=1e-6, high=5e-4, log=True)),
        ("default", Range(low=1e-6, high=5e-4, log=True)),
        ("1e-4..1e-2", Range(low=1e-5, high=1e-3, log=True)),
        ({"low": 1e-4, "high": 1e-2}, Range(low=1e-5, high=1e-3, log=True)),
        ({"low": 1e-4, "high": 1e-2, "log": False}, Range(low=1e-5, high=1e-3)),
        ("1e-4|2e-4", Choices(values=(1e-5, 2e-5))),
        ([1e-4, "2e-4"], Choices(values=(1e-5, 2e-5))),
        ({"values": [1e-4, 2e-4]}, Choices(values=(1e-5, 2e-5))),
        (1e-4, Choices(values=(1e-5,))),
        ("1e-4", Choices(values=(1e-5,))),
    ],
)
def test_full_finetuning_takes_a_tenth_of_a_shared_learning_rate(lr, tenth):
    lora, full = parse_sweep({"space": {"lr": lr}, **BOTH}).studies
    assert full.space.axes.get("lr") == tenth
    assert lora.space == parse_sweep({"space": {"lr": lr}}).space
    # Written for another method, before anything has read it:
    written = for_method({"space": {"lr": lr}, "hyperparameters": {}}, "full", "lora")
    assert parse_sweep(written).space.axes.get("lr") == tenth


def test_full_finetuning_shares_what_it_has_and_drops_what_it_lacks():
    fixed = {"lr": 1e-3, "rank": 8, "dropout": 0.05, "batch_size": 32}
    space = {"lr": True, "rank": True, "alpha": True, "epochs": [1, 2]}
    _, full = parse_sweep({"space": space, "hyperparameters": fixed, **BOTH}).studies
    assert tuple(full.space.axes) == ("lr", "epochs")
    assert full.hyperparameters.lr == 1e-4
    assert full.hyperparameters.batch_size == 32


def test_points_are_shared_without_what_a_method_lacks():
    points = [{"lr": 2e-4, "rank": 16}, {"lr": 2e-4, "rank": 64}, {"lr": 1e-4, "rank": 256}]
    space = {"lr": [2e-4, 1e-4], "rank": [16, 64, 256], "epochs": [1, 2]}
    search = {"algorithm": "grid", "points": points}
    lora, full = parse_sweep({"space": space, "search": search, **BOTH}).studies
    assert lora.search.points == tuple(points)
    assert full.search.points == ({"lr": 2e-5}, {"lr": 1e-5})


def test_shared_sections_are_loras_in_any_order_of_the_methods():
    for order in (("lora", "full"), ("full", "lora")):
        spec = parse_sweep({"space": {"lr": True}, "methods": {name: {} for name in order}})
        lora, full = spec.studies
        assert (lora.method, full.method) == ("lora", "full")
        assert lora.space.axes.get("lr") == DEFAULT_AXES["lr"]
        assert full.space.axes.get("lr") == Range(low=1e-6, high=5e-4, log=True)
    alone = parse_sweep({"space": {"lr": [1e-4]}, "methods": {"full": {}}})
    assert alone.studies[0].space.axes.get("lr") == Choices(values=(1e-4,))


def test_the_sections_of_a_method_win_and_those_of_a_domain_over_them():
    content = small(
        methods={"lora": {"data": {"limit": 1}}, "full": {"space": {"lr": [3e-5]}}},
        domains={"code": {"data": {"limit": 2}, "evaluate": {"learning": ["humaneval"]}}},
        data={"limit": 3, "seq_len": 64},
    )
    lora, full = parse_sweep(content).studies
    assert (lora.data.limit, lora.data.seq_len) == (2, 64)
    assert full.space.axes.get("lr") == Choices(values=(3e-5,))
    assert full.evaluate.learning == ("humaneval",)
    assert lora.domain == full.domain == "code"


def test_a_domain_is_read_as_the_shared_sections_are():
    domain = {"space": {"lr": [2e-4], "rank": [8]}, "hyperparameters": {"alpha": "1r"}}
    lora, full = parse_sweep(small(**BOTH, domains={"code": domain})).studies
    assert lora.space.axes == {"lr": Choices(values=(2e-4,)), "rank": Choices(values=(8,))}
    assert full.space.axes == {"lr": Choices(values=(2e-5,))}


def test_a_range_named_in_a_methods_own_sections_is_its_own():
    content = {"space": {"lr": [1e-4]}, "methods": {"lora": {}, "full": {"space": {"lr": True}}}}
    assert parse_sweep(content).studies[1].space.axes.get("lr") == Range(
        low=1e-6, high=5e-4, log=True
    )


def test_an_overlay_replaces_a_value_that_is_no_section():
    assert overlay({"a": 1, "b": {"c": 1, "d": 2}}, {"a": 2, "b": {"c": 3}}) == {
        "a": 2,
        "b": {"c": 3, "d": 2},
    }


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (small(methods={"full": {}}), f"space.rank: {NO_RANK}"),
        (small(hyperparameters={"method": "full"}), f"space.rank: {NO_RANK}"),
        (
            small(methods={"lora": {}, "full": {"space": {"rank": [4]}}}),
            f"space.rank: {NO_RANK}",
        ),
        (
            {"space": {"lr": True}, "hyperparameters": {"method": "full", "rank": 4}},
            f"hyperparameters.rank: {NO_RANK}",
        ),
        (
            {"space": {"lr": True}, "hyperparameters": {"rank": 4}, "methods": {"full": {}}},
            f"hyperparameters.rank: {NO_RANK}",
        ),
        (
            {"space": {"lr": True, "attention_dropout": True}},
            f"space.attention_dropout: {has_no('lora', 'attention_dropout')}",
        ),
        (
            {"space": {"rank": True}, **BOTH},
            f"space: must name at least one axis of {', '.join(AXES)}",
        ),
        (small(deepspeed={"stage": 4}), "deepspeed.stage: must be 0, 1, 2 or 3, got 4"),
        (
            small(methods={"lora": {}, "full": {"deepspeed": {"stage": 4}}}),
            "deepspeed.stage: must be 0, 1, 2 or 3, got 4",
        ),
        (small(methods={"dora": {}}), "methods: must be one of lora, full, got 'dora'"),
        (
            small(methods={"lora": {"spaces": {}}}),
            "methods: lora.spaces: must be one of data, deepspeed, evaluate, hyperparameters, "
            "resources, search, space, train",
        ),
        (
            small(domains={"code": {"model": {}}}),
            "domains: code.model: must be one of data, deepspeed, evaluate, hyperparameters, "
            "resources, search, space, train",
        ),
        (
            small(domains={"Code": {}}),
            "domains: a name must have up to 32 lower-case letters, digits or '-', a letter first, "
            "got 'Code'",
        ),
        (
            {"space": {"lr": True}, "hyperparameters": {"method": "lora"}, "methods": {"full": {}}},
            "hyperparameters.method: must be full, the first of methods, or left out, got 'lora'",
        ),
    ],
)
def test_what_a_method_lacks_is_refused_in_one_sentence(content, problem):
    assert problems_of(content) == (problem,)


def test_a_mistake_that_studies_share_is_said_once():
    content = small(**BOTH, domains={"code": {}, "math": {}}, train={"steps": 5})
    content["space"] = {"lr": True, "epochs": True}
    assert problems_of(content) == (
        "train.steps: must be null where space.epochs sets the duration, got 5",
    )


own = {
    "data": st.fixed_dictionaries({}, optional={"limit": st.integers(1, 99)}),
    "deepspeed": st.fixed_dictionaries({}, optional={"stage": st.integers(0, 3)}),
    "hyperparameters": st.fixed_dictionaries({}, optional={"lr": st.floats(1e-8, 1.0)}),
    "search": st.fixed_dictionaries({}, optional={"trials": st.integers(1, 9)}),
}
overlays = st.none() | st.fixed_dictionaries({}, optional=own)
shared = {name: section for name, section in SECTIONS.items() if name != "hyperparameters"}
of_studies = st.fixed_dictionaries(
    {
        "space": spaces_of("lora").filter(lambda space: "lr" in space),
        # In this order, since the shared sections are the first one's.
        "methods": st.tuples(overlays, overlays).map(lambda own: {"lora": own[0], "full": own[1]}),
        "domains": st.dictionaries(st.sampled_from(["code", "math", "a-1"]), overlays),
    },
    optional=shared,
).map(agreeing)


@settings(deadline=None, max_examples=25)
@given(of_studies)
def test_a_sweep_of_studies_written_as_yaml_is_read_back_to_the_same_value(content):
    spec = parse_sweep(content)
    again = parse_sweep(yaml.safe_load(dump_sweep(spec)))
    assert again == spec
    assert again.studies == spec.studies
    assert again.search_identity == spec.search_identity
    for study in spec.studies:
        assert parse_sweep(yaml.safe_load(dump_sweep(study))) == study
        assert set(study.space.axes) <= set(axes_of(study.method))


@settings(deadline=None, max_examples=25)
@given(of_studies)
def test_full_finetuning_never_searches_above_a_tenth_of_what_lora_does(content):
    lora, full = parse_sweep(content).studies[:2]
    ratio = factor("lr", "full")
    for ours, theirs in zip(full.space.levels(3)["lr"], lora.space.levels(3)["lr"], strict=True):
        assert float(ours) == pytest.approx(ratio * float(theirs), rel=1e-5)


@pytest.mark.parametrize(
    "sections",
    [
        {"evaluate": {"spectrum": True}},
        {"evaluate": {"allow_code_execution": True}},
        {"deepspeed": {"stage": 3, "offload": True}},
        {"resources": {"workers": 4, "max_concurrent": 2}},
        {"methods": {"full": {"deepspeed": {"stage": 1}}, "lora": {"resources": {"workers": 2}}}},
    ],
)
def test_the_trials_of_a_study_ignore_what_cannot_change_their_result(sections):
    plain = {"space": {"lr": True}, "methods": {"full": {}, "lora": {}}}
    studies, others = parse_sweep(plain).studies, parse_sweep({**plain, **sections}).studies
    for study, other in zip(studies, others, strict=True):
        assert other.trial({"lr": 1e-5}) == study.trial({"lr": 1e-5})
        assert other.identity == study.identity
        assert other.search_identity == study.search_identity


def test_the_trials_of_the_methods_and_of_the_domains_differ():
    domains = {"code": {"data": {"path": "a"}}, "math": {"data": {"path": "b"}}}
    spec = parse_sweep({"space": {"lr": [1e-5]}, **BOTH, "domains": domains})
    assert len({study.trial({"lr": 1e-5}).id for study in spec.studies}) == 4


def test_a_study_of_lora_has_the_trials_of_a_sweep_of_lora_alone():
    (lora, _), alone = parse_sweep(small(**BOTH)).studies, parse_sweep(small())
    assert lora.trial({"rank": 4}) == alone.trial({"rank": 4})
    assert lora.search_identity == alone.search_identity
