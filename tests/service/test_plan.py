"""Plans of sweeps, checked against counts by hand and against the paper."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorasweep.errors import DataError, ModelError, SpecError
from lorasweep.model.published import PUBLISHED
from lorasweep.service.data_size import DataSize, measure_data
from lorasweep.service.display import show_plan
from lorasweep.service.estimate import (
    configurations,
    duration_text,
    tokens_without_trunks,
    trial_cost,
)
from lorasweep.service.plan import plan_sweep
from lorasweep.service.study_plan import Span
from lorasweep.service.throughput import MEASURED_TOKENS_PER_S, assumed_throughput, utilisation
from lorasweep.spec.grid import planned_trials
from lorasweep.spec.presets import default_sweep
from lorasweep.spec.sweep import DataSpec, ModelSpec, parse_sweep
from tests.model.families import model_of
from tests.spec.test_space import spaces_of

LLAMA = PUBLISHED["meta-llama/Llama-2-7b-hf"]
LARGE = {"path": "meta-llama/Llama-2-7b-hf"}
MAGICODER = {"path": "ise-uiuc/Magicoder-Evol-Instruct-110K"}
BOTH: dict[str, Any] = {"methods": {"lora": {}, "full": {}}}
NO_SEARCH = {"algorithm": "grid", "scheduler": "none", "confirm": 0}


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def large(**sections):
    return parse_sweep({"model": LARGE, "data": MAGICODER, "search": NO_SEARCH, **sections})


def test_the_plan_of_the_built_in_sweep_reads_its_data():
    (study,) = plan_sweep(parse_sweep(default_sweep(None, None))).studies
    assert (study.trials, study.confirmations, study.duration) == (16, 2, "160 steps")
    assert study.data == "read and tokenised"
    assert study.trainable_parameters == Span(min=8192, max=315_392)
    assert study.zero_stage is None
    assert study.steps_per_trial == Span(min=160, max=160)
    assert study.tokens_per_trial is not None
    assert study.tokens == pytest.approx(18 * study.tokens_per_trial.max, rel=1e-6)
    assert study.notes[0] == "asha stops trials early, so the search takes less than this"


def test_the_plan_of_a_7b_sweep_takes_published_numbers_and_says_so():
    spec = large(space={"lr": [1e-4], "rank": [16], "epochs": [1, 2]}, **BOTH)
    lora, full = plan_sweep(spec).studies
    assert lora.parameters == LLAMA.parameters
    assert lora.trainable_parameters == Span(min=16 * 2_498_560, max=16 * 2_498_560)
    assert full.trainable_parameters.min == LLAMA.parameters
    assert lora.tokens == full.tokens == 3 * 72_970_000
    assert full.flops == pytest.approx(6 * LLAMA.multiplied * 3 * 72_970_000)
    assert lora.flops == pytest.approx((4 * LLAMA.multiplied + 6 * 16 * 2_498_560) * 3 * 72_970_000)
    assert full.hours == pytest.approx(
        (full.tokens / full.tokens_per_s_assumed + 2 * 25) / 3600, rel=1e-4
    )
    assert "its shape comes from a table of published models" in lora.notes[0]
    assert full.zero_stage == 2
    assert full.disk_gb_per_trial == pytest.approx(13.48, abs=0.01)
    assert lora.disk_gb_per_trial == pytest.approx(0.16, abs=0.001)
    # Two trials each, and a copy of the better one.
    assert full.disk_gb == pytest.approx(3 * full.disk_gb_per_trial)
    assert lora.disk_gb == pytest.approx(3 * lora.disk_gb_per_trial)


def test_the_throughput_that_is_given_is_that_of_every_study():
    spec = large(space={"lr": [1e-4]}, resources={"workers": 4}, **BOTH)
    lora, full = plan_sweep(spec, throughput=1000).studies
    assert lora.tokens_per_s_assumed == full.tokens_per_s_assumed == 1000
    assert lora.hours == pytest.approx(72_970_000 / 4000 / 3600)


def test_a_throughput_of_nothing_is_refused():
    with pytest.raises(SpecError, match="--throughput: must be above 0, got 0"):
        plan_sweep(large(space={"lr": [1e-4]}), throughput=0.0)


def test_the_assumed_speed_is_the_middle_of_what_the_paper_measured():
    spec = large(space={"lr": [1e-4]}, **BOTH)
    lora, full = (assumed_throughput(study, LLAMA, 4e7, None) for study in spec.studies)
    assert full.tokens_per_s == pytest.approx(MEASURED_TOKENS_PER_S)
    assert 25_000 < 8 * full.tokens_per_s < 42_500
    assert lora.tokens_per_s == pytest.approx(0.85 * full.tokens_per_s)
    assert utilisation() == pytest.approx(0.169, abs=0.001)
    smaller = PUBLISHED["meta-llama/Llama-3.2-1B"]
    faster = assumed_throughput(spec.studies[1], smaller, 4e7, None).tokens_per_s
    assert faster == pytest.approx(full.tokens_per_s * LLAMA.multiplied / smaller.multiplied)


def test_appendix_h_is_in_the_plan_of_a_sharded_sweep():
    spec = large(
        space={"lr": [1e-4]},
        hyperparameters={"batch_size": 32},
        methods={"full": {"deepspeed": {"stage": 3}}},
        resources={"workers": 8},
    )
    (study,) = plan_sweep(spec).studies
    assert study.state_memory_gb_per_gpu == pytest.approx(14, rel=0.05)
    table = dict(zip((1, 8, 16, 32, 64), (112, 14, 7, 3.5, 1.75), strict=True))
    assert study.state_memory_gb_by_gpus == pytest.approx(table, rel=0.05)


def test_what_is_offloaded_is_not_on_the_gpu():
    def state(**deepspeed):
        method = {"full": {"deepspeed": deepspeed}}
        (study,) = plan_sweep(large(space={"lr": [1e-4]}, methods=method)).studies
        return study.state_memory_gb_per_gpu / (LLAMA.parameters / 1e9)

    assert state(stage=2) == pytest.approx(16)
    assert state(stage=2, offload=True) == pytest.approx(8)
    assert state(stage=3, offload=True) == pytest.approx(4)


def test_a_lane_holds_the_base_on_every_gpu_and_as_many_adapters_as_it_has_slots():
    def state(slots):
        spec = large(
            space={"rank": [27]},
            hyperparameters={"batch_size": 8},
            resources={"workers": 8},
            slots=slots,
        )
        return plan_sweep(spec).studies[0].state_memory_gb_per_gpu

    adapter = 16 * 27 * 2_498_560 / 1e9
    assert state("auto") == pytest.approx(2 * LLAMA.parameters / 1e9 + adapter)
    assert state(4) == pytest.approx(2 * LLAMA.parameters / 1e9 + 4 * adapter)


CPT = {
    "data": {"path": "open-web-math/open-web-math", "kind": "documents", "seq_len": 4096},
    "hyperparameters": {"batch_size": 192},
    "train": {"schedule": "trapezoidal", "warmup_steps": 1000},
}
DURATIONS = [250_000_000, 1_000_000_000, 20_000_000_000]


def test_runs_of_several_durations_share_the_trunk_of_the_longest():
    sweep = large(space={"rank": [16, 64], "tokens": DURATIONS}, **CPT)
    (study,) = plan_sweep(sweep).studies
    once = 0.8 * DURATIONS[-1] + 0.2 * sum(DURATIONS)
    assert study.tokens == pytest.approx(2 * once)
    assert study.tokens_shared == pytest.approx(2 * (sum(DURATIONS) - once))
    assert study.steps_per_trial == Span(min=318, max=25_431)  # appendix A: 5,086 are a fifth
    assert study.duration == "0.25, 1, 20 billion tokens"
    assert any("share the trunk of the longest" in note for note in study.notes)


def test_a_trunk_is_shared_within_a_seed():
    search = {**NO_SEARCH, "confirm": "all", "seeds": 3}
    once = large(space={"tokens": DURATIONS}, **CPT)
    thrice = once.model_copy(update={"search": once.search.model_validate(search)})
    one, three = (plan_sweep(spec).studies[0] for spec in (once, thrice))
    assert one.tokens is not None
    assert one.flops is not None
    assert three.tokens == pytest.approx(3 * one.tokens)
    assert three.flops == pytest.approx(3 * one.flops)
    assert three.confirmations == 6


@pytest.mark.parametrize(
    "train", [{"schedule": "cosine", "warmup_steps": 1000}, {"schedule": "trapezoidal"}]
)
def test_without_a_trunk_every_duration_is_trained_in_its_whole_length(train):
    spec = large(space={"tokens": DURATIONS}, **{**CPT, "train": train})
    (study,) = plan_sweep(spec).studies
    assert (study.tokens, study.tokens_shared) == (sum(DURATIONS), 0)


def test_the_best_are_repeated_in_their_mean_length():
    search = {**NO_SEARCH, "confirm": 2, "seeds": 2}
    spec = large(space={"epochs": [1, 3]}, search=search)
    (study,) = plan_sweep(spec).studies
    assert study.tokens == (1 + 3 + 2 * 2) * 72_970_000


def test_a_plan_says_what_is_left_out_of_the_data(tmp_path):
    rows = [{"prompt": f"p{i}", "response": "" if i == 3 else "r"} for i in range(20)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = parse_sweep(default_sweep("testbed", str(tmp_path / "data.jsonl")))
    (study,) = plan_sweep(spec).studies
    note = "1 of 20 rows was left out, because their response is empty (row 4)"
    assert note in study.notes


def test_unknown_data_leave_out_what_depends_on_them():
    spec = large(space={"epochs": [1]}, data={"path": "nobody/knows"})
    facts = plan_sweep(spec)
    (study,) = facts.studies
    assert study.trials == 1
    assert study.tokens is study.flops is study.hours is facts.hours is None
    assert study.state_memory_gb_per_gpu > 13
    assert any(
        "a plan downloads nothing and nobody/knows is not on this machine" in n for n in study.notes
    )
    show_plan(facts)
    (study,) = plan_sweep(
        large(space={"lr": [1e-4]}, data={"path": "nobody/knows"}, train={"steps": 10})
    ).studies
    assert study.tokens == 10 * 16 * 1024
    assert any("full sequences are assumed" in note for note in study.notes)


def test_a_plan_reads_nothing_of_what_is_streamed(tmp_path):
    (tmp_path / "data.jsonl").write_text("not even JSON")
    data = DataSpec(path=str(tmp_path / "data.jsonl"), streaming=True)
    size = measure_data(data, ModelSpec(), 256, 2048)
    assert size == DataSize(None, None, "unknown, since a plan does not read streamed data")
    published = DataSpec(path="open-web-math/open-web-math", streaming=True)
    assert measure_data(published, ModelSpec(**LARGE), 4096, 32_000).tokens == 14_700_000_000


def test_a_limit_takes_its_share_of_published_data():
    size = measure_data(DataSpec(**MAGICODER, limit=11_118), ModelSpec(**LARGE), 4096, 32_000)
    assert size.examples == 11_118
    assert size.tokens == pytest.approx(7_297_000, rel=1e-3)
    whole = DataSize(10, None, "as published")
    assert whole.limited(None) is whole.limited(99) is whole
    assert whole.limited(5) == DataSize(5, None, "as published, the first 5 examples")


def test_local_data_that_are_missing_are_refused():
    with pytest.raises(DataError, match="there is no such file"):
        plan_sweep(large(space={"lr": [1e-4]}, data={"path": "./missing.jsonl"}))


def test_a_local_file_without_the_models_tokenizer_is_of_unknown_length(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"prompt": "p", "response": "r"}) + "\n")
    (study,) = plan_sweep(large(space={"lr": [1e-4]}, data={"path": str(path)})).studies
    assert (
        study.data
        == "unknown, since the tokenizer of meta-llama/Llama-2-7b-hf is not on this machine"
    )


@settings(deadline=None, max_examples=40)
@given(spaces_of("lora"), st.sampled_from(["grid", "random"]))
def test_a_plan_counts_the_trials_that_the_search_runs(space, algorithm):
    small = dict(list(space.items())[:3])
    spec = parse_sweep({"space": small, "search": {**NO_SEARCH, "algorithm": algorithm}})
    chosen = configurations(spec)
    costs = [trial_cost(spec, one, LLAMA, DataSize(100, 9000, "known"), 128) for one in chosen]
    if algorithm == "grid":
        assert len(chosen) == planned_trials(spec)
    assert tokens_without_trunks(spec, chosen, costs) == [cost.tokens for cost in costs]
    assert all(cost.steps and cost.steps >= 1 for cost in costs)


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"space": {"lr": True}}, "1 epoch"),
        ({"space": {"epochs": [0.5]}}, "0.5 epochs"),
        (
            {"space": {"lr": True}, "hyperparameters": {"tokens": 2_500_000}},
            "0.0025 billion tokens",
        ),
        ({"space": {"lr": True}, "train": {"steps": 7}}, "7 steps"),
    ],
)
def test_a_duration_is_said_in_its_own_unit(sections, text):
    assert duration_text(parse_sweep(sections)) == text


def test_a_plan_is_shown_in_lines_that_a_person_reads(capsys):
    spec = large(space={"lr": [1e-4], "rank": [16, 64], "epochs": [1, 2]}, **BOTH)
    show_plan(plan_sweep(spec))
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "trials 4",
        "duration 1, 2 epochs",
        "trained 39,976,960 to 159,907,840",
        "tokens 73M to 146M a trial (as published, not read) 438M in all",
        "all sharded: 107.8 GB on 1",
        "times count training only; evaluation adds to them",
        "FLOPs in all",
    ):
        assert words in shown


def test_a_plan_says_what_sets_of_targets_adapt_and_what_is_in_none(tmp_path, capsys):
    model_of("qwen2_moe").save_pretrained(str(tmp_path))
    content = {
        "model": {"path": str(tmp_path)},
        "data": MAGICODER,
        "space": {"targets": ["attention", "mlp", "upper"]},
        "targets": {"upper": ["up_proj"]},
        "train": {"steps": 4},
        "search": NO_SEARCH,
    }
    spec = parse_sweep(content)
    (study,) = plan_sweep(spec).studies
    assert study.targets is not None
    assert set(study.targets.sets) == {"attention", "mlp", "upper"}
    assert [part.name for part in study.targets.in_no_set][:2] == [
        "mlp.experts.gate_up_proj",
        "mlp.experts.down_proj",
    ]
    said = ("'mlp' is", "'upper' is", "in no set")
    assert sum(note.startswith(said) for note in study.notes) == 4
    show_plan(plan_sweep(spec))
    shown = capsys.readouterr().out
    assert " targets   attention " in shown
    assert "in no set of targets: mlp.experts.gate_up_proj (" in shown
    (dense,) = plan_sweep(parse_sweep(default_sweep(None, None))).studies
    assert dense.targets is not None
    assert not any("set" in note for note in dense.notes)
    full = parse_sweep({**content, "space": {"lr": True}, "methods": {"full": {}}})
    assert [study.targets for study in plan_sweep(full).studies] == [None]


def test_a_plan_of_a_set_that_the_model_lacks_is_refused(tmp_path):
    model_of("mixtral").save_pretrained(str(tmp_path))
    for targets in ("mlp", "all"):
        content = {"model": {"path": str(tmp_path)}, "space": {"targets": [targets]}}
        with pytest.raises(ModelError, match=r"the experts of a block are one parameter.*use 'att"):
            plan_sweep(parse_sweep({**content, "data": MAGICODER}))
