"""Sets of targets that a sweep defines: how they are written, and what a trial is named after."""

from __future__ import annotations

import pytest
import yaml

from lorasweep.errors import SpecError
from lorasweep.service.build import build_sweep
from lorasweep.service.options import SweepOptions
from lorasweep.spec.sweep import dump_sweep, parse_sweep
from lorasweep.spec.targets import BUILT_IN, names_layer, read_own_sets

LAST = "layers.(2[4-9]|3.)..*_proj"
OF_THE_ISSUE = f'{{qv: [q_proj, v_proj], last: "{LAST}"}}'


def swept(**content):
    return parse_sweep({"space": {"lr": [1e-4]}, **content})


def trial(spec, targets):
    return spec.trial({"lr": 1e-4, "targets": targets})


def problems_of(content):
    with pytest.raises(SpecError) as caught:
        parse_sweep(content)
    return caught.value.problems


def test_sets_may_be_levels_and_come_back_from_the_file_they_are_written_to():
    own = yaml.safe_load(OF_THE_ISSUE)
    spec = swept(space={"targets": ["all", "qv", "last"]}, targets=own)
    assert spec.targets == {"last": LAST}  # qv is what the built-in one is
    assert spec.levels_of("targets") == ("all", "qv", "last")
    assert parse_sweep(yaml.safe_load(dump_sweep(spec))) == spec


def test_a_set_may_be_defined_on_the_axis_or_on_the_command_line():
    section = swept(space={"targets": ["attention", "last"]}, targets={"last": LAST})
    assert swept(space={"targets": {"attention": None, "last": LAST}}) == section
    assert swept(targets={"last": LAST}, space={"targets": {"attention": None, "last": LAST}})
    twice = {"targets": {"last": "other"}, "space": {"targets": {"last": LAST}}}
    assert problems_of(twice) == (
        "targets.last: must be defined once, and space.targets defines it again",
    )
    options = SweepOptions(
        space="targets=attention|upper|qv",
        assignments=["targets.upper=[up_proj, mlp.down_proj]", "targets.qv=[q_proj,v_proj]"],
    )
    built = build_sweep(options)
    assert built.targets == {"upper": ("up_proj", "mlp.down_proj")}
    assert built.levels_of("targets") == ("attention", "upper", "qv")
    fixed = swept(targets={"last": LAST}, hyperparameters={"targets": "last"})
    assert fixed.own_sets == {"last": LAST}


# As they were named before there were sets of one's own.
RECORDED = {
    "attention": "92bbd58396",
    "mlp": "debfc3fd31",
    "all": "d3e5064159",
    "ungated": "605f3ef157",
}


@pytest.mark.parametrize("targets", RECORDED)
def test_trials_of_built_in_sets_keep_their_names(targets):
    assert trial(swept(), targets).id == RECORDED[targets]
    assert trial(swept(targets={"last": LAST}), targets).id == RECORDED[targets]


def test_a_search_without_own_sets_keeps_its_identity():
    assert parse_sweep({"space": {"lr": True, "targets": True}}).search_identity == "9a6cf9eace"


def test_a_trial_is_named_after_the_definition_of_its_set():
    one, other = (swept(targets={"x": layers}) for layers in (["q_proj"], ["k_proj"]))
    same = swept(targets={"x": ["q_proj"], "y": ["k_proj"]})
    assert trial(one, "x").id != trial(other, "x").id
    assert trial(one, "x").id == trial(same, "x").id
    searches = [
        swept(space={"targets": ["x"]}, targets={"x": layers}).search_identity
        for layers in ("q_proj", ["q_proj"], ["k_proj"])
    ]
    assert len(set(searches)) == 3


def test_the_trunk_of_a_trial_depends_on_the_definition():
    train = {"schedule": "trapezoidal", "warmup_steps": 2}
    one, other = (swept(train=train, targets={"x": [name]}) for name in ("q_proj", "k_proj"))
    assert one.trunk(trial(one, "x")) != other.trunk(trial(other, "x"))
    assert one.trunk(trial(one, "all")) == other.trunk(trial(other, "all"))


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ({"attention": ["q_proj"]}, "attention: is built in and cannot be defined again"),
        ({"qv": ["q_proj"]}, "qv: is built in and cannot be defined again"),
        ({"Last": ["q_proj"]}, "a letter first, got 'Last'"),
        ({"2x": ["q_proj"]}, "a letter first, got '2x'"),
        ({"x": []}, "x: must be a list of layer names or a regular expression"),
        ({"x": ""}, "x: must be a list of layer names or a regular expression"),
        ({"x": 3}, "x: must be a list of layer names or a regular expression"),
        ({"x": None}, "x: must be a list of layer names or a regular expression"),
        ({"x": ["q_proj", 3]}, "x: must list names of layers, such as q_proj, got 3"),
        ({"x": ["."]}, "x: must list names of layers, such as q_proj, got '.'"),
        ({"x": "layers.(2"}, "x: must be a regular expression, got 'layers.(2' (missing )"),
        (["q_proj"], "must map names to layers, such as {upper: [up_proj]}, got ['q_proj']"),
    ],
)
def test_a_wrong_definition_is_refused_in_a_sentence(own, sentence):
    (problem,) = problems_of({"space": {"lr": True}, "targets": own})
    assert problem.startswith(("targets: must map", f"targets.{next(iter(own))}: "))
    assert sentence in problem


def test_all_wrong_definitions_are_refused_at_once():
    own = {"all": ["q_proj"], "x": [], "good": ["q_proj"], "y": "("}
    found = problems_of({"space": {"rank": [0]}, "targets": own})
    assert [problem.split(":")[0] for problem in found] == [
        "targets.all",
        "targets.x",
        "targets.y",
        "space.rank",
    ]


def test_a_level_that_nobody_defines_is_refused_with_all_names():
    content = {"space": {"targets": ["upper", "upr"]}, "targets": {"upper": ["up_proj"]}}
    known = ", ".join(BUILT_IN)
    assert problems_of(content) == (f"space.targets: must be one of {known}, upper, got 'upr'",)
    fixed = {"space": {"lr": True}, "hyperparameters": {"targets": "upr"}}
    assert problems_of(fixed) == (f"hyperparameters.targets: must be one of {known}, got 'upr'",)


def test_a_study_of_a_method_or_domain_may_have_own_sets_too():
    content = {
        "targets": {"upper": ["up_proj"]},
        "domains": {"math": {"space": {"targets": ["upper", "all"]}}, "code": {}},
        "space": {"lr": True},
    }
    math, code = parse_sweep(content).studies
    assert math.own_sets == {"upper": ("up_proj",)}
    assert code.own_sets == {}
    content["domains"] = {"code": {"space": {"targets": ["uper"]}}}
    assert any("got 'uper'" in problem for problem in problems_of(content))


@pytest.mark.parametrize(
    ("definition", "layer", "named"),
    [
        (("up_proj",), "model.layers.3.mlp.up_proj", True),
        (("up_proj",), "model.layers.3.mlp.gate_up_proj", False),
        (("mlp.up_proj",), "model.layers.3.mlp.up_proj", True),
        (("lp.up_proj",), "model.layers.3.mlp.up_proj", False),
        (LAST, "model.layers.24.self_attn.q_proj", True),
        (LAST, "model.layers.31.mlp.down_proj", True),
        (LAST, "model.layers.23.mlp.down_proj", False),
        (LAST, "model.layers.3.mlp.down_proj", True),  # a dot is any character
        (LAST.replace("layers.", r"layers\."), "model.layers.2.mlp.down_proj", False),
        (r"layers\.(2[4-9]|3\d)\..*_proj", "model.layers.3.mlp.down_proj", False),
    ],
)
def test_a_list_names_ends_of_full_names_and_a_text_matches_within_them(definition, layer, named):
    assert names_layer(definition, layer) == named


def test_a_name_that_is_listed_twice_counts_once():
    assert read_own_sets({"x": ["q_proj", "q_proj"]}) == {"x": ("q_proj",)}
