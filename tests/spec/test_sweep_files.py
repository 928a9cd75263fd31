"""Every sweep that is shipped: it loads, plans, names its question, and has a small twin."""

from pathlib import Path

import pytest
import yaml

from lorasweep.data.published import PUBLISHED_DATA
from lorasweep.service.data_size import DataSize
from lorasweep.service.plan import plan_sweep
from lorasweep.spec.file import read_yaml
from lorasweep.spec.presets import EMBEDDED, default_sweep
from lorasweep.spec.sweep import SweepSpec, dump_sweep, parse_sweep

FOLDER = Path(__file__).parent.parent.parent / "sweeps"
LARGE = sorted(path for path in FOLDER.glob("*.yaml") if path.stem != "default")
TWINS = sorted((FOLDER / "testbed").glob("*.yaml"))
ALL = [FOLDER / "default.yaml", *LARGE, *TWINS]
FACTS = (
    "trials",
    "trainable_parameters",
    "parameters",
    "flops",
    "state_memory_gb_per_gpu",
    "state_memory_gb_by_gpus",
    "hours",
    "tokens_per_s_assumed",
)
PAPER = {"code-ift", "math-ift", "code-cpt", "math-cpt"}


def name_of(path):
    return str(path.relative_to(FOLDER))


def load(path):
    return parse_sweep(read_yaml(path))


def planned(path, monkeypatch):
    """Plan without reading data and without the hub, which are tested elsewhere."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("lorasweep.service.data_size.measure_data", _known)
    return plan_sweep(load(path))


def _known(data, *_):
    if data.path in EMBEDDED:
        return DataSize(6000, 270_000, "read and tokenised").limited(data.limit)
    published = PUBLISHED_DATA[data.path]
    return DataSize(published.examples, published.tokens, "as published")


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_every_shipped_sweep_loads_and_states_its_question(path):
    spec = load(path)
    assert spec.name == (path.stem if path.parent == FOLDER else f"testbed-{path.stem}")
    assert spec.question.endswith("?")
    assert spec.question != SweepSpec.model_fields["question"].default
    header = path.read_text(encoding="utf-8")
    assert header.startswith("# Question: ")
    words = " ".join(line.lstrip("# ") for line in header.split("\n#\n")[0].splitlines())
    assert words.removeprefix("Question: ").lower() == spec.question.lower()


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_every_shipped_sweep_written_as_yaml_is_read_back_to_the_same_value(path):
    spec = load(path)
    again = parse_sweep(yaml.safe_load(dump_sweep(spec)))
    assert again == spec
    assert again.studies == spec.studies


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_every_shipped_sweep_plans_without_starting_anything(path, monkeypatch):
    import ray

    plan = planned(path, monkeypatch)
    assert len(plan.studies) == len(load(path).studies)
    for study in plan.studies:
        assert all(getattr(study, fact) is not None for fact in FACTS)
        assert study.trials > 0 < study.hours
        assert tuple(study.state_memory_gb_by_gpus) == (1, 8, 16, 32, 64)
    assert not ray.is_initialized()


@pytest.mark.parametrize("path", LARGE, ids=name_of)
def test_each_sweep_has_a_twin_with_its_methods_domains_and_axes(path):
    spec, twin = load(path), load(FOLDER / "testbed" / path.name)
    assert spec.model.path == "meta-llama/Llama-2-7b-hf"
    assert twin.model.path == "testbed"
    assert [study.study_name for study in twin.studies] == [
        study.study_name for study in spec.studies
    ]
    for theirs, ours in zip(twin.studies, spec.studies, strict=True):
        assert tuple(theirs.space.axes) == tuple(ours.space.axes)
        assert theirs.search.algorithm == ours.search.algorithm
        assert [tuple(p) for p in theirs.search.points] == [tuple(p) for p in ours.search.points]
        assert theirs.has_trunk == ours.has_trunk
        assert theirs.data.kind == ours.data.kind
        assert theirs.data.path in EMBEDDED
        assert ours.data.path in PUBLISHED_DATA
        assert len(theirs.evaluate.learning) == len(ours.evaluate.learning)
        assert len(theirs.evaluate.source) == len(ours.evaluate.source) == 3


def test_no_twin_is_without_its_large_sweep():
    assert [path.name for path in TWINS] == [path.name for path in LARGE]


def test_the_shipped_default_is_the_built_in_one():
    assert load(FOLDER / "default.yaml") == parse_sweep(default_sweep(None, None))


@pytest.mark.parametrize("path", LARGE, ids=name_of)
def test_programs_run_only_where_the_user_says_so(path):
    for study in load(path).studies:
        assert not study.evaluate.allow_code_execution
    for study in load(FOLDER / "testbed" / path.name).studies:
        if "testbed_code" in study.evaluate.learning:
            assert study.evaluate.allow_code_execution


def test_the_twin_of_both_methods_is_small():
    twin = load(FOLDER / "testbed" / "methods.yaml")
    assert [study.study_name for study in twin.studies] == [
        "code/lora",
        "code/full",
        "math/lora",
        "math/full",
    ]
    assert [study.search.trials for study in twin.studies] == [12, 7, 12, 7]
    assert all(study.evaluate.spectrum for study in twin.studies)
    assert all(study.search.scheduler == "none" for study in twin.studies if study.method == "full")
    lora, full = twin.studies[:2]
    assert full.space.levels(2)["lr"] == pytest.approx([x / 10 for x in lora.space.levels(2)["lr"]])


def _learning_rates(study):
    searched = study.space.levels(2).get("lr", (study.hyperparameters.lr,))
    return sorted({point["lr"] for point in study.search.points} or searched)


def test_the_papers_settings_are_those_of_its_appendix():
    specs = {path.stem: load(path) for path in LARGE if path.stem in PAPER}
    assert set(specs) == PAPER
    for spec in specs.values():
        lora, full = spec.studies
        assert lora.hyperparameters.alpha == "2r"
        assert lora.hyperparameters.dropout == 0.05
        assert lora.hyperparameters.targets == "all"
        assert lora.space.levels(2)["rank"] == (16, 64, 256)
        assert (lora.train.optimizer, lora.train.betas, lora.train.clip) == (
            "lion",
            (0.9, 0.95),
            1.0,
        )
        assert full.train == lora.train
        assert full.resources.workers * full.train.micro_batch == full.hyperparameters.batch_size
        assert lora.evaluate.source == ("hellaswag@0", "arc_challenge@3", "winogrande@5")
    lrs = {name: [_learning_rates(study) for study in spec.studies] for name, spec in specs.items()}
    assert lrs == {
        "code-ift": [[1e-4, 2e-4], [5e-5]],
        "math-ift": [[5e-5, 1e-4], [1e-5]],
        "code-cpt": [[1e-5], [1e-5]],
        "math-cpt": [[4e-5], [1e-5]],
    }
    decays = {name: spec.studies[0].hyperparameters.weight_decay for name, spec in specs.items()}
    assert decays == {"code-ift": 0, "math-ift": 0, "code-cpt": 1e-6, "math-cpt": 0}
    assert specs["math-ift"].data.seq_len == 1024
    assert specs["math-ift"].hyperparameters.batch_size == 768
