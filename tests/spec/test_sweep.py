import random
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lorasweep.errors import SpecError
from lorasweep.spec.file import override, read_yaml
from lorasweep.spec.presets import default_sweep
from lorasweep.spec.space import AXES, Choices, Range
from lorasweep.spec.sweep import (
    DataSpec,
    EvaluateSpec,
    ModelSpec,
    SearchSpec,
    SweepSpec,
    TrainSpec,
    dump_sweep,
    parse_sweep,
)
from lorasweep.spec.trial import Frozen, LoraHyperparameters
from tests.spec.test_space import AXIS_STRATEGIES, spaces

names = st.text(min_size=1, max_size=12)
maybe_names = st.none() | names
batches = st.sampled_from([8, 16, 64])

SECTIONS = {
    "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    "question": st.text(max_size=40),
    "model": st.fixed_dictionaries(
        {},
        optional={
            "path": names,
            "revision": maybe_names,
            "dtype": st.sampled_from(["auto", "fp32", "bf16"]),
            "attention": st.sampled_from(["sdpa", "eager"]),
        },
    ),
    "data": st.fixed_dictionaries(
        {},
        optional={
            "path": names,
            "subset": maybe_names,
            "data_dir": maybe_names,
            "kind": st.sampled_from(["auto", "instruction", "documents"]),
            "text": maybe_names,
            "heldout": maybe_names,
            "heldout_examples": st.integers(1, 999),
            "seq_len": st.none() | st.integers(8, 4096),
            "limit": st.none() | st.integers(1, 9999),
        },
    ),
    "targets": st.dictionaries(
        st.sampled_from(["upper", "last-4", "x_y"]),
        st.lists(st.sampled_from(["q_proj", "mlp.up_proj"]), min_size=1, unique=True)
        | st.just("layers.(2[4-9]|3.)..*_proj"),
        max_size=2,
    ),
    "hyperparameters": st.fixed_dictionaries(
        {},
        optional={
            "lr": st.floats(1e-8, 1.0),
            "targets": st.sampled_from(["attention", "mlp", "all"]),
            "rank": st.integers(1, 512),
            "alpha": st.sampled_from(["2r", 16, 0.5, "rslora:8"]),
            "batch_size": batches,
            "epochs": st.floats(0.1, 9.0),
        },
    ),
    "deepspeed": st.none()
    | st.fixed_dictionaries(
        {}, optional={"stage": st.sampled_from([0, 1, 2, 3]), "offload": st.booleans()}
    ),
    "train": st.fixed_dictionaries(
        {},
        optional={
            "micro_batch": st.sampled_from([None, 1, 2]),
            "optimizer": st.sampled_from(["adamw", "lion"]),
            "betas": st.none() | st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).map(list),
            "schedule": st.sampled_from(["cosine", "constant", "trapezoidal"]),
            "warmup_steps": st.none() | st.integers(0, 2000),
            "clip": st.none() | st.floats(0.1, 10),
            "recompute": st.booleans(),
        },
    ),
    "search": st.fixed_dictionaries(
        {},
        optional={
            "algorithm": st.sampled_from(["tpe", "gp", "random", "grid"]),
            "scheduler": st.sampled_from(["asha", "median", "none"]),
            "trials": st.integers(1, 99),
            "first_points": st.just([]) | st.just(["thinking-machines"]),
            "grace": st.floats(0.01, 0.9),
            "reduction": st.floats(1.1, 4.0),
            "confirm": st.integers(0, 4) | st.just("all"),
        },
    ),
    "evaluate": st.fixed_dictionaries(
        {},
        optional={
            "learning": st.sampled_from([["gsm8k@5"], ["response_accuracy"]]),
            "source": st.sampled_from([[], ["auto"], ["hellaswag", "winogrande@5"]]),
            "tasks": maybe_names,
            "limit": st.none() | st.integers(1, 99),
            "spectrum": st.booleans(),
            "allow_code_execution": st.booleans(),
        },
    ),
    "resources": st.fixed_dictionaries(
        {},
        optional={
            "workers": st.sampled_from([1, 2, 4]),
            "gpus": st.just("auto") | st.sampled_from([0, 0.5, 2]),
            "cpus": st.floats(0.5, 8),
            "max_concurrent": st.just("auto") | st.integers(1, 8),
        },
    ),
    "slots": st.sampled_from([1, "auto"]),
    "seed": st.integers(0, 2**31 - 1),
}


def agreeing(content: dict[str, Any]) -> dict[str, Any]:
    """Add the micro-batch that dropout on several workers needs; warm up in one way only."""
    if "warmup" in content["space"] and "warmup_steps" in content.get("train", {}):
        content["train"] = {k: v for k, v in content["train"].items() if k != "warmup_steps"}
    workers = content.get("resources", {}).get("workers", 1)
    if "dropout" in content["space"] and workers != 1:
        micro_batch = content.get("train", {}).get("micro_batch") or 1
        content["train"] = {**content.get("train", {}), "micro_batch": micro_batch}
    return content


sweeps = st.fixed_dictionaries({"space": spaces}, optional=SECTIONS).map(agreeing)


def small(**sections: object) -> dict[str, object]:
    return {"space": {"lr": True, "rank": True}, **sections}


def problems_of(content: object) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        parse_sweep(content)  # type: ignore[arg-type]
    return caught.value.problems


def shuffled(value: object, seed: int) -> object:
    if not isinstance(value, dict):
        return value
    items = [(key, shuffled(inner, seed)) for key, inner in value.items()]
    random.Random(seed).shuffle(items)
    return dict(items)


@settings(deadline=None, max_examples=50)
@given(sweeps)
def test_a_sweep_written_as_yaml_is_read_back_to_the_same_value(content):
    spec = parse_sweep(content)
    again = parse_sweep(yaml.safe_load(dump_sweep(spec)))
    assert again == spec
    assert dump_sweep(again) == dump_sweep(spec)


def test_every_mistake_is_reported_at_once_with_its_path():
    content = {
        "name": "a/b",
        "modle": {},
        "model": {"dtype": "fp8"},
        "data": {"seq_len": 4},
        "space": {"rnak": [4], "targets": ["attn"], "lr": "1e-2..1e-4", "rank": [0]},
        "hyperparameters": {"alpha": "double", "dropout": 1},
        "train": {"betas": [0.9, 1.0], "micro_batch": 0},
        "evaluate": {"source": ["@5"]},
        "slots": 0,
    }
    assert sorted(problems_of(content)) == [
        "data.seq_len: must be greater than or equal to 8, got 4",
        "evaluate.source: a task must be written NAME or NAME@SHOTS, got '@5'",
        "hyperparameters.alpha: must be a multiple of the rank such as '2r', a number, or "
        "'rslora:N', each above 0, got 'double'",
        "hyperparameters.dropout: must be less than 1, got 1",
        "model.dtype: must be 'auto', 'fp32' or 'bf16', got 'fp8'",
        "modle: no such field; check its spelling",
        "name: must have up to 64 letters, digits, '.', '_' or '-', a letter or digit first, got "
        "'a/b'",
        "slots: must be auto or a number of at least 1, got 0",
        "space.lr: low must be below high, got 0.01..0.0001",
        "space.rank: must be greater than or equal to 1, got 0",
        "space.rnak: no such field; check its spelling",
        "space.targets: must be one of attention, mlp, all, ungated, qv, got 'attn'",
        "train.betas: both must lie in [0, 1), got [0.9, 1.0]",
        "train.micro_batch: must be greater than or equal to 1, got 0",
    ]


def test_sections_that_disagree_are_reported_at_once_with_their_paths():
    content = {
        "space": {"epochs": True},
        "train": {"steps": 10, "micro_batch": 2},
        "resources": {"workers": 3},
    }
    assert problems_of(content) == (
        "train.steps: must be null where space.epochs sets the duration, got 10",
        "hyperparameters.batch_size: must divide by resources.workers x train.micro_batch = 6, "
        "got 16",
    )


def test_every_searched_batch_size_must_divide_among_the_workers():
    content = {"space": {"batch_size": [4, 6, 10]}, "resources": {"workers": 4}}
    rule = "space.batch_size: must divide by resources.workers x train.micro_batch = 4, got"
    assert problems_of(content) == (f"{rule} 6", f"{rule} 10")


def test_a_fixed_batch_size_that_is_searched_need_not_divide():
    parse_sweep({"space": {"batch_size": [6]}, "resources": {"workers": 3}})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({}, "space: must be given"),
        ({"space": {}}, "space: must name at least one axis of lr, targets, rank"),
        ({"space": None}, "space: must be a valid dictionary"),
        (small(train=None), "train: must be a valid dictionary"),
        (small(hyperparameters={"rank": True}), "hyperparameters.rank: must be a number"),
        (
            small(hyperparameters={"method": "full"}),
            "space.rank: full finetuning has no rank; it has lr, attention_dropout, weight_decay",
        ),
        (small(search={"points": [{"rank": 4}]}), "search: points need algorithm grid, got tpe"),
        (
            small(search={"algorithm": "grid", "points": [{"rank": 5}]}),
            "search.points: rank must be a level of space.rank, got 5",
        ),
        (
            small(search={"algorithm": "grid", "points": [{"lr": 2e-4}]}),
            "search.points: lr must be a level of space.lr, got 0.0002",
        ),
        (
            {"space": {"epochs": True, "tokens": True}},
            "space.tokens: must not be searched with space.epochs, as both set the duration",
        ),
        (
            {"space": {"epochs": True}, "hyperparameters": {"tokens": 9}},
            "space.epochs: must not be searched where hyperparameters.tokens is given",
        ),
        (
            {"space": {"tokens": True}, "train": {"steps": 9}},
            "train.steps: must be null where space.tokens sets the duration, got 9",
        ),
        (small(train={"warmup_steps": -1}), "train.warmup_steps: must be greater than or equal"),
        (small(evaluate={"learning": []}), "evaluate: learning must name at least one task"),
        (small(search={"grid_points": 1}), "search.grid_points: must be greater than or equal"),
        (small(search={"first_points": ["mine"]}), "search.first_points.0: must be 'biderman-v2'"),
        (small(seed=2**31), "seed: must be less than 2147483648"),
        (small(**{"data": {"path": ["x"] * 99}}), "data.path: must be a valid string, got ['x',"),
        (
            small(model={"path": "org/model", "trust_remote_code": True}),
            "model: trust_remote_code needs a pinned model.revision",
        ),
    ],
)
def test_a_mistake_is_one_sentence_that_begins_with_its_path(content, problem):
    (sentence,) = problems_of(content)
    assert sentence.startswith(problem)
    assert "\n" not in sentence
    assert len(sentence) < 250


def test_a_field_that_takes_two_kinds_is_named_without_the_kinds():
    wrong = small(resources={"gpus": -1, "max_concurrent": "x"}, search={"confirm": "best"})
    for sentence in problems_of(wrong):
        assert sentence.split(":")[0] in {
            "resources.gpus",
            "resources.max_concurrent",
            "search.confirm",
        }


def test_remote_code_may_run_from_a_pinned_revision_or_a_folder(tmp_path):
    pinned = {"path": "org/model", "revision": "0123abc", "trust_remote_code": True}
    assert parse_sweep(small(model=pinned)).model.trust_remote_code
    local = {"path": str(tmp_path), "trust_remote_code": True}
    assert parse_sweep(small(model=local)).model.trust_remote_code


@pytest.mark.parametrize(
    ("field", "got"),
    [
        ({"kind": "instruction"}, "kind instruction"),
        ({"prompt": "q", "response": "a"}, "prompt 'q'"),
        ({"messages": "turns"}, "messages 'turns'"),
    ],
)
def test_only_documents_are_streamed(field, got):
    with pytest.raises(SpecError, match=rf"data: streaming is for documents, .*, got {got}; leave"):
        parse_sweep(small(data={"streaming": True, **field}))
    assert parse_sweep(small(data={"streaming": False, **field}))


def test_a_held_out_split_is_another_one_than_that_for_training():
    with pytest.raises(
        SpecError, match="data: heldout_split must be another split than split, got"
    ):
        parse_sweep(small(data={"heldout_split": "train"}))
    parse_sweep(small(data={"heldout_split": "train", "heldout": "elsewhere"}))
    parse_sweep(small(data={"heldout_split": "train", "split": "test"}))


def test_a_trial_from_before_streaming_keeps_its_name():
    data = parse_sweep(small()).identity["data"]
    assert "streaming" not in data
    assert parse_sweep(small(data={"streaming": True})).identity["data"]["streaming"] is True


OTHER: dict[type[Frozen], dict[str, object]] = {
    ModelSpec: {
        "path": "org/model",
        "revision": "abc",
        "dtype": "bf16",
        "attention": "eager",
        "trust_remote_code": True,
    },
    DataSpec: {
        "path": "my.jsonl",
        "subset": "main",
        "data_dir": "python",
        "split": "validation",
        "kind": "documents",
        "prompt": "p",
        "response": "r",
        "text": "t",
        "messages": "m",
        "heldout": "h.jsonl",
        "heldout_split": "test",
        "heldout_examples": 7,
        "seq_len": 64,
        "limit": 100,
        "streaming": True,
        "loss": "last",
    },
    TrainSpec: {
        "steps": 5,
        "micro_batch": 4,
        "optimizer": "lion",
        "betas": [0.8, 0.9],
        "schedule": "constant",
        "warmup_steps": 10,
        "clip": None,
    },
    EvaluateSpec: {
        "learning": ["gsm8k"],
        "source": ["hellaswag"],
        "tasks": "tasks",
        "limit": 3,
    },
    LoraHyperparameters: {
        "lr": 1e-3,
        "targets": "mlp",
        "rank": 2,
        "alpha": "1r",
        "dropout": 0.1,
        "weight_decay": 0.1,
        "warmup": 0.2,
        "batch_size": 8,
        "epochs": 3,
        "tokens": 4096,
    },
}
NO_MATTER = {
    TrainSpec: {"recompute"},
    EvaluateSpec: {"spectrum", "allow_code_execution", "batch_size"},
    LoraHyperparameters: {"method"},
}
SECTION_OF = {ModelSpec: "model", DataSpec: "data", TrainSpec: "train", EvaluateSpec: "evaluate"}


@pytest.mark.parametrize(
    ("section", "field"), [(section, field) for section in OTHER for field in OTHER[section]]
)
def test_the_id_of_a_trial_notices_every_field_that_changes_its_result(section, field):
    fixed = {"model": {"revision": "pinned"}}
    before = parse_sweep({**small(), **fixed})
    value = OTHER[section][field]
    if section is LoraHyperparameters:
        after, values = before, {field: value}
    else:
        name = SECTION_OF[section]
        values = {}
        after = parse_sweep({**small(), **fixed, name: {**fixed.get(name, {}), field: value}})
    assert after.trial(values).id != before.trial({}).id


def test_no_field_was_left_out_of_the_laws_about_the_id():
    for section, others in OTHER.items():
        assert set(section.model_fields) - NO_MATTER.get(section, set()) == set(others)


def test_the_id_of_a_trial_notices_seed_and_rungs():
    spec = parse_sweep(small())
    assert spec.trial({}, seed=1).id != spec.trial({}, seed=2).id
    assert parse_sweep(small(seed=3)).trial({}).id == spec.trial({}, seed=3).id
    assert parse_sweep(small(search={"grace": 0.3})).trial({}).id != spec.trial({}).id


@pytest.mark.parametrize(
    "sections",
    [
        {"name": "other"},
        {"question": "Why?"},
        {"resources": {"workers": 4, "gpus": 2, "cpus": 3, "max_concurrent": 1}},
        {"slots": 1},
        {"search": {"algorithm": "random", "trials": 99, "seeds": 5, "confirm": 9}},
        {"space": {"targets": True}},
        {"deepspeed": {"stage": 3, "offload": True}},
        {"evaluate": {"spectrum": True, "allow_code_execution": True, "batch_size": 2}},
        {"train": {"recompute": True}},
        {"domain": "code"},
    ],
)
def test_the_id_of_a_trial_ignores_what_cannot_change_its_result(sections):
    assert parse_sweep(small(**sections)).trial({}).id == parse_sweep(small()).trial({}).id


@settings(deadline=None, max_examples=30)
@given(sweeps, st.integers())
def test_the_id_of_a_trial_ignores_the_order_of_keys(content, seed):
    values = {"rank": 3, "lr": 0.25}
    backwards = dict(reversed(values.items()))
    spec, again = parse_sweep(content), parse_sweep(shuffled(content, seed))  # type: ignore[arg-type]
    assert again.trial(backwards).id == spec.trial(values).id
    assert again.search_identity == spec.search_identity


def test_the_id_ignores_epochs_where_steps_set_the_duration():
    spec = parse_sweep(small(train={"steps": 5}))
    assert spec.trial({"epochs": 2.0}).id == spec.trial({"epochs": 1.0}).id


def test_the_id_ignores_epochs_where_tokens_set_the_duration():
    spec = parse_sweep(small())
    both = {"tokens": 4096, "epochs": 2.0}
    assert spec.trial(both).id == spec.trial({"tokens": 4096}).id != spec.trial({}).id


def test_the_id_of_a_lora_trial_is_the_same_in_every_release():
    testbed, published = parse_sweep(default_sweep(None, None)), parse_sweep(small())
    values = {"lr": 3e-3, "targets": "all", "rank": 8}
    assert testbed.trial(values).id == "7fb18f9768"
    assert testbed.trial(values, seed=1).id == "606340e42d"
    assert published.trial({"lr": 1e-4, "epochs": 2.0}).id == "aefdf6d316"


def test_the_id_does_not_tell_the_stages_apart_but_the_trial_does():
    spec = parse_sweep(small())
    assert spec.trial({}, stage="confirm").id == spec.trial({}).id
    assert spec.trial({}, stage="confirm").stage == "confirm"


def test_a_trial_has_the_values_of_the_axes_and_the_fixed_ones_of_the_rest():
    trial = parse_sweep(small(hyperparameters={"alpha": "1r"}, seed=9)).trial({"rank": 8})
    assert trial.hyperparameters == LoraHyperparameters(rank=8, alpha="1r")
    assert trial.seed == 9


@pytest.mark.parametrize(
    ("sections", "same"),
    [
        ({"search": {"trials": 99, "confirm": 0, "seeds": 7}}, True),
        ({"resources": {"workers": 2}}, True),
        ({"name": "other"}, True),
        ({"search": {"algorithm": "random"}}, False),
        ({"search": {"startup_trials": 2}}, False),
        ({"space": {"lr": True}}, False),
        ({"hyperparameters": {"dropout": 0.1}}, False),
        ({"seed": 1}, False),
        ({"data": {"limit": 10}}, False),
    ],
)
def test_a_longer_search_is_the_same_search_and_another_one_is_not(sections, same):
    changed = parse_sweep(small(**sections)).search_identity
    assert (changed == parse_sweep(small()).search_identity) == same


@pytest.mark.parametrize(
    ("grace", "reduction", "rungs"),
    [(0.25, 2.0, (25, 50)), (0.1, 3.0, (10, 30, 90)), (0.5, 4.0, (50,)), (0.001, 10.0, (1, 10))],
)
def test_rungs_begin_at_the_grace_and_are_spaced_by_the_reduction(grace, reduction, rungs):
    assert SearchSpec(grace=grace, reduction=reduction).rungs == rungs


@settings(deadline=None)
@given(st.floats(0.001, 0.999), st.floats(1.01, 8.0))
def test_rungs_rise_and_lie_within_the_trial(grace, reduction):
    rungs = SearchSpec(grace=grace, reduction=reduction).rungs
    assert rungs == tuple(sorted(set(rungs)))
    assert all(0 < rung < 100 for rung in rungs)


@pytest.mark.parametrize(
    ("assignment", "content"),
    [
        ("train.steps=5", {"train": {"steps": 5}}),
        ("hyperparameters.lr=1e-4", {"hyperparameters": {"lr": 1e-4}}),
        ("hyperparameters.lr= -1.5E+3 ", {"hyperparameters": {"lr": -1500.0}}),
        ("model.revision='12345e6'", {"model": {"revision": "12345e6"}}),
        ("model.revision=1e4567", {"model": {"revision": "1e4567"}}),
        ("name=nan", {"name": "nan"}),
        ("data.path=a=b", {"data": {"path": "a=b"}}),
        ("train.clip=null", {"train": {"clip": None}}),
        ("train.clip=", {"train": {"clip": None}}),
        ("search.first_points=[]", {"search": {"first_points": []}}),
        ("space.lr=1e-5..1e-3", {"space": {"lr": "1e-5..1e-3"}}),
        (" slots =1", {"slots": 1}),
    ],
)
def test_an_override_is_read_as_yaml_and_1e_4_as_a_number(assignment, content):
    given_content: dict[str, object] = {}
    override(given_content, [assignment])
    assert given_content == content


def test_an_override_reaches_one_field_and_leaves_the_others():
    content = default_sweep(None, None)
    override(content, ["search.trials=4", "search.trials=5", "space.lr=1e-4|1e-3"])
    spec = parse_sweep(content)
    assert spec.search.trials == 5
    assert spec.search.confirm == 2
    assert spec.space.axes.get("lr") == Choices(values=(1e-4, 1e-3))
    assert parse_sweep(default_sweep(None, None)).search.trials == 16


def test_wrong_overrides_are_reported_at_once():
    with pytest.raises(SpecError) as caught:
        override({"name": "a"}, ["trials", "=1", "a.=1", "name.x=1", "seed=[1"])
    assert caught.value.problems == (
        "--set: must be KEY.PATH=VALUE, got 'trials'",
        "--set: must be KEY.PATH=VALUE, got '=1'",
        "--set: must be KEY.PATH=VALUE, got 'a.=1'",
        "--set: name is a value, not a section, in 'name.x=1'",
        "--set: the value is not valid YAML in 'seed=[1'",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "the sweep file cannot be read"),
        (b"\xff\xfe\x00", "the sweep file cannot be read"),
        (b"a: [", "the sweep file is not valid YAML"),
        (b"- a", "a sweep file must be a mapping, got list"),
        (b"", "a sweep file must be a mapping, got NoneType"),
    ],
)
def test_a_file_that_is_no_sweep_is_refused_in_one_sentence_with_its_name(tmp_path, text, words):
    path = tmp_path / "sweep.yaml"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(SpecError) as caught:
        read_yaml(path)
    (sentence,) = caught.value.problems
    assert sentence.startswith(f"{path}: {words}")
    assert sentence.count(str(path)) == 1
    assert "\n" not in sentence


def test_a_range_in_a_file_may_have_exponents_without_a_dot(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("space:\n  lr: {low: 1e-5, high: 1e-2}\n  rank: 4|8\n")
    spec = parse_sweep(read_yaml(path))
    assert spec.space.axes.get("lr") == Range(low=1e-5, high=1e-2, log=True)


def test_every_section_has_a_strategy_and_every_axis_too():
    by_studies = {"methods", "domains", "domain"}  # see test_studies.py
    assert set(SweepSpec.model_fields) == {"space", *SECTIONS, *by_studies}
    assert set(AXIS_STRATEGIES) == set(AXES)


@pytest.mark.parametrize(
    "where", [{"hyperparameters": {"dropout": 0.1}}, {"space": {"dropout": "0|0.1"}}]
)
def test_dropout_on_several_workers_needs_a_fixed_micro_batch(where):
    content = {"space": {"lr": True}, **where, "resources": {"workers": 2}}
    with pytest.raises(SpecError, match=r"train\.micro_batch: must be given with dropout"):
        parse_sweep(content)
    parse_sweep({**content, "train": {"micro_batch": 4}})
    parse_sweep({**content, "resources": {"workers": 1}})


def test_only_a_grid_is_a_full_factorial():
    assert parse_sweep(small(search={"algorithm": "grid"})).search.is_factorial
    assert not parse_sweep(small()).search.is_factorial


def test_points_are_no_full_factorial():
    points = {"algorithm": "grid", "points": [{"rank": 4}]}
    assert not parse_sweep(small(search=points)).search.is_factorial


@pytest.mark.parametrize(
    ("confirm", "seeds", "configurations", "repetitions"),
    [(2, 2, 16, 2), (4, 3, 2, 4), ("all", 3, 16, 32), (0, 5, 16, 0), ("all", 1, 16, 0)],
)
def test_the_best_or_all_are_repeated_on_each_further_seed(
    confirm, seeds, configurations, repetitions
):
    search = SearchSpec(confirm=confirm, seeds=seeds)
    assert search.repetitions(configurations) == repetitions


def test_a_warmup_that_nothing_reads_is_neither_searched_nor_part_of_a_trials_name():
    train = {"schedule": "trapezoidal", "warmup_steps": 10}
    with pytest.raises(SpecError, match="must not be searched where"):
        parse_sweep({"space": {"warmup": [0.1, 0.2]}, "train": train})
    one, other = (
        parse_sweep({"space": {"lr": True}, "train": train, "hyperparameters": {"warmup": share}})
        for share in (0.1, 0.2)
    )
    assert one.trial({"lr": 1e-4}).id == other.trial({"lr": 1e-4}).id


def test_saving_memory_leaves_a_sweep_the_same():
    less = {"evaluate": {"batch_size": 2}, "train": {"recompute": True}}
    assert parse_sweep(small(**less)).search_identity == parse_sweep(small()).search_identity
    other = parse_sweep(small(evaluate={"limit": 2}))
    assert other.search_identity != parse_sweep(small()).search_identity


def test_the_values_of_a_hyperparameter_are_its_levels_its_ends_or_the_fixed_one():
    spec = parse_sweep({"space": {"lr": "1e-5..1e-3", "rank": [4, 16]}})
    assert spec.levels_of("lr") == (1e-5, 1e-3)
    assert spec.levels_of("rank") == (4, 16)
    assert spec.levels_of("batch_size") == (spec.hyperparameters.batch_size,)
