from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorasweep import testbed
from lorasweep.errors import SandboxError, SpecError
from lorasweep.evaluate import tasks
from lorasweep.evaluate.sandbox.execution import Sandbox
from lorasweep.evaluate.tasks import (
    BASE_AGREEMENT,
    PAPER_SOURCE,
    check_tasks,
    code_tasks,
    load_tasks,
    resolve_suites,
    split_shots,
    task_files,
)
from lorasweep.spec.sweep import EvaluateSpec
from tests.evaluate.programs import write_task
from tests.evaluate.taught import TASKS

NOWHERE = "http://127.0.0.1:9"  # nothing listens there


@pytest.fixture
def spec(tasks_folder: Path) -> EvaluateSpec:
    return EvaluateSpec(tasks=str(tasks_folder))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", NOWHERE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("no_proxy", "*")


def _sentence(error: pytest.ExceptionInfo[SpecError]) -> str:
    (sentence,) = error.value.problems
    assert sentence.startswith("evaluate")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("written", "name", "shots"),
    [("gsm8k", "gsm8k", None), ("gsm8k@8", "gsm8k", 8), ("arc_easy@0", "arc_easy", 0)],
)
def test_a_task_is_written_with_or_without_its_shots(written: str, name: str, shots: int | None):
    assert split_shots(written) == (name, shots)


@pytest.mark.parametrize("written", ["", "@5", "gsm8k@", "gsm8k@five", "gsm8k@-1", "a@1@2"])
def test_a_task_written_otherwise_is_refused(written: str):
    with pytest.raises(ValueError, match=r"must be written NAME or NAME@SHOTS"):
        EvaluateSpec(learning=(written,))


def test_the_tasks_of_the_testbed_and_those_that_run_programs_are_always_at_hand():
    names = task_files(EvaluateSpec()).keys()
    files = [*testbed.TASKS.glob("*.yaml"), *tasks.ASSETS.glob("*.yaml")]
    assert names == {file.stem for file in files}
    assert {"testbed_math", "humaneval"} <= names


def test_tasks_of_a_folder_come_to_those_of_the_testbed(spec: EvaluateSpec):
    assert task_files(spec).keys() - task_files(EvaluateSpec()).keys() == TASKS.keys()


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("a.jsonl", "{0}/a.jsonl"),
        ("../b/a.jsonl", "{1}/b/a.jsonl"),
        ("/data/a.jsonl", "/data/a.jsonl"),
        ("https://host/a.jsonl", "https://host/a.jsonl"),
        (["a.jsonl", "b.jsonl"], ["{0}/a.jsonl", "{0}/b.jsonl"]),
        (
            {"test": "a.jsonl", "train": ["b.jsonl"]},
            {"test": "{0}/a.jsonl", "train": ["{0}/b.jsonl"]},
        ),
    ],
)
def test_data_files_stand_beside_their_task(tmp_path: Path, named: Any, found: Any):
    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return value.format(folder, folder.parent)
        if isinstance(value, list):
            return [filled(part) for part in value]
        return {split: filled(part) for split, part in value.items()}

    folder = tmp_path / "tasks"
    folder.mkdir()
    content = {"task": "mine", "dataset_path": "json", "dataset_kwargs": {"data_files": named}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    files = task_files(EvaluateSpec(tasks=str(folder)))["mine"]["dataset_kwargs"]["data_files"]
    assert files == filled(found)


def test_a_task_loads_wherever_the_process_runs(
    spec: EvaluateSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    loaded = load_tasks(("chosen@2", "told"), spec)
    assert list(loaded) == ["chosen@2", "told"]
    assert [task.config.num_fewshot for task in loaded.values()] == [2, 0]
    assert len(loaded["told"].eval_docs) == 10


def test_shots_in_the_file_hold_unless_others_are_asked_for(tasks_folder: Path, tmp_path: Path):
    content = task_files(EvaluateSpec(tasks=str(tasks_folder)))["chosen"] | {"num_fewshot": 4}
    (tmp_path / "chosen.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    loaded = load_tasks(("chosen", "chosen@0", "chosen@1"), EvaluateSpec(tasks=str(tmp_path)))
    assert [task.config.num_fewshot for task in loaded.values()] == [4, 0, 1]


def test_what_is_built_in_needs_no_task(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tasks, "_task_manager", None)
    assert load_tasks(("response_accuracy", "base_agreement"), EvaluateSpec()) == {}


def test_the_index_of_lm_eval_is_left_alone_where_a_folder_has_every_task(
    spec: EvaluateSpec, monkeypatch: pytest.MonkeyPatch
):
    manager = tasks._task_manager

    def watched(*, defaults: bool) -> Any:
        assert not defaults
        return manager(defaults=defaults)

    monkeypatch.setattr(tasks, "_task_manager", watched)
    assert list(load_tasks(("told", "response_accuracy"), spec)) == ["told"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"task: [unclosed", "expected ',' or ']'"),
        (b"- a\n- list\n", "list indices"),
        (b"", "not subscriptable"),
        (b"dataset_path: json\n", "'task'"),
        (b"group: mine\ntask: [told, chosen]\n", "it is a group; name its tasks one by one"),
        (b"task: mine\ndoc_to_text: !function run.me\n", "!function"),
        (b"task: \xff\xfe\n", "codec can't decode"),
    ],
    ids=["syntax", "list", "empty", "nameless", "group", "function", "bytes"],
)
def test_a_file_that_is_no_task_is_refused_by_name(tmp_path: Path, content: bytes, reason: str):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(SpecError) as error:
        load_tasks(("told",), EvaluateSpec(tasks=str(tmp_path)))
    sentence = _sentence(error)
    assert str(tmp_path / "mine.yaml") in sentence
    assert reason in sentence


def test_a_folder_that_is_missing_is_refused(tmp_path: Path):
    with pytest.raises(SpecError, match=r"^evaluate\.tasks: must be a folder of task files"):
        task_files(EvaluateSpec(tasks=str(tmp_path / "nowhere")))


def test_a_task_without_its_data_is_refused(tasks_folder: Path, tmp_path: Path):
    (tmp_path / "told.yaml").write_bytes((tasks_folder / "told.yaml").read_bytes())
    with pytest.raises(SpecError) as error:
        load_tasks(("told",), EvaluateSpec(tasks=str(tmp_path)))
    sentence = _sentence(error)
    assert "the data of task 'told' cannot be loaded" in sentence
    assert "questions.jsonl" in sentence


@pytest.mark.parametrize("name", ["tasks [v2]", "what?", "*"])
def test_a_folder_may_be_called_like_a_pattern(tasks_folder: Path, tmp_path: Path, name: str):
    folder = tmp_path / name
    folder.mkdir()
    for file in ("told.yaml", "questions.jsonl"):
        (folder / file).write_bytes((tasks_folder / file).read_bytes())
    spec = EvaluateSpec(learning=("told",), source=(), tasks=str(folder))
    assert check_tasks(spec)
    (loaded,) = load_tasks(("told",), spec).values()
    assert len(loaded.eval_docs) == 10


PERPLEXITIES = "word_perplexity, byte_perplexity, bits_per_byte"
BLEU_LESS = """
output_type: generate_until
metric_list:
  - metric: ter
    aggregation: ter
    higher_is_better: false
"""
MISNAMED = """
output_type: loglikelihood_rolling
metric_list:
  - metric: bits_per_byte
    aggregation: bits_per_byte
    higher_is_better: true
"""


@pytest.mark.parametrize(
    ("content", "metrics"),
    [
        ("output_type: loglikelihood_rolling", PERPLEXITIES),
        (BLEU_LESS, "ter"),
        (MISNAMED, "bits_per_byte"),
    ],
)
def test_a_task_without_a_metric_for_which_higher_is_better_is_refused(
    tasks_folder: Path, tmp_path: Path, content: str, metrics: str
):
    task = yaml.safe_load(content) | {
        "task": "rolled",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tasks_folder / "questions.jsonl")}},
        "test_split": "test",
        "doc_to_text": "",
        "doc_to_target": "a",
    }
    (tmp_path / "rolled.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    with pytest.raises(SpecError) as error:
        load_tasks(("rolled@0",), EvaluateSpec(tasks=str(tmp_path)))
    assert _sentence(error) == (
        "evaluate: task 'rolled' must have a metric for which higher is better, such as acc or "
        f"exact_match, got {metrics}; name another task, or give it such a metric in a task file "
        "of your own"
    )


def test_shots_of_what_is_built_in_are_refused():
    with pytest.raises(SpecError) as error:
        load_tasks(("response_accuracy@5",), EvaluateSpec())
    assert (
        _sentence(error) == "evaluate: response_accuracy takes no shots, got 'response_accuracy@5'"
    )


def test_an_unknown_task_is_refused_with_the_known_ones(spec: EvaluateSpec):
    with pytest.raises(SpecError) as error:
        resolve_suites(spec.model_copy(update={"learning": ("tolt",)}))
    sentence = _sentence(error)
    assert sentence.endswith("or one of lm-eval's own, got 'tolt'")
    assert "followed, humaneval, humaneval_pass_at_256, normed" in sentence
    assert "told," in sentence


@pytest.mark.parametrize("group", ["mmlu", "ai2_arc"])  # a group and a tag
def test_a_group_of_lm_eval_is_refused_before_its_data_are_loaded(group: str):
    with pytest.raises(SpecError) as error:
        load_tasks((group,), EvaluateSpec())
    assert _sentence(error) == f"evaluate: '{group}' is a group; name its tasks one by one"


def test_data_of_a_task_that_are_not_there_are_missed_before_anything_starts(
    tasks_folder: Path, tmp_path: Path
):
    (tmp_path / "told.yaml").write_bytes((tasks_folder / "told.yaml").read_bytes())
    with pytest.raises(SpecError) as error:
        resolve_suites(EvaluateSpec(tasks=str(tmp_path), learning=("told",), source=("told",)))
    sentence = _sentence(error)
    assert sentence.startswith("evaluate: the data of task 'told' cannot be loaded, since there is")
    assert "questions.jsonl" in sentence or "shots.jsonl" in sentence


def test_shots_of_what_is_built_in_are_refused_before_anything_starts():
    with pytest.raises(SpecError, match=r"base_agreement takes no shots, got 'base_agreement@2'"):
        resolve_suites(EvaluateSpec(source=("base_agreement@2",)))


def test_suites_that_are_named_stay_as_they_are(spec: EvaluateSpec):
    named = spec.model_copy(update={"learning": ("told",), "source": ("chosen@2", "told")})
    assert resolve_suites(named) == (named, ())


@pytest.mark.usefixtures("no_hub")
def test_auto_falls_back_at_once_where_the_hub_does_not_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tasks, "_task_manager", None)  # no index, no data
    spec, (note,) = resolve_suites(EvaluateSpec())
    assert spec == EvaluateSpec(source=(BASE_AGREEMENT,))
    assert note.startswith("forgetting is measured as base_agreement")
    assert f"{NOWHERE} does not answer" in note
    assert "HF_HUB_OFFLINE=1" in note
    assert "\n" not in note


def test_auto_falls_back_where_the_data_are_not_on_an_offline_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    spec, (note,) = resolve_suites(EvaluateSpec())
    assert spec.source == (BASE_AGREEMENT,)
    assert "the data of task 'hellaswag' cannot be loaded" in note


@pytest.fixture
def refusing_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve a hub that answers every question with 'not found'."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    monkeypatch.setattr(
        "huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}"
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("no_proxy", "*")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("refusing_hub")
def test_auto_is_the_source_suite_of_the_paper_where_it_can_be_had(
    monkeypatch: pytest.MonkeyPatch,
):
    asked = []
    monkeypatch.setattr(tasks, "load_tasks", lambda names, _: asked.append(names))
    spec, notes = resolve_suites(EvaluateSpec())
    assert spec == EvaluateSpec(source=("hellaswag@0", "arc_challenge@3", "winogrande@5"))
    assert notes == ()
    assert asked == [("response_accuracy",), PAPER_SOURCE]


ALLOWED = EvaluateSpec(learning=("quoted",), source=(), allow_code_execution=True)


@pytest.mark.parametrize(("suite", "other"), [("learning", "source"), ("source", "learning")])
def test_a_task_that_runs_programs_needs_leave(tmp_path: Path, suite: str, other: str):
    names = {suite: ("quoted",), other: ("response_accuracy",)}
    spec = EvaluateSpec(tasks=str(write_task(tmp_path)), **names)
    for step in (check_tasks, resolve_suites, code_tasks):
        with pytest.raises(SpecError) as error:
            step(spec)
        assert _sentence(error) == (
            f"evaluate.{suite}: task 'quoted' runs programs that the model writes; allow it with "
            "--allow-code-execution"
        )


def test_with_leave_the_sandbox_is_tried_out_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(_: Sandbox) -> None:
        raise SandboxError("there is no bubblewrap")

    spec = ALLOWED.model_copy(update={"tasks": str(write_task(tmp_path))})
    monkeypatch.setattr(Sandbox, "probe", lambda _: None)
    assert resolve_suites(spec) == (spec, ())
    monkeypatch.setattr(Sandbox, "probe", fail)
    with pytest.raises(SandboxError, match="there is no bubblewrap"):
        resolve_suites(spec)
    assert resolve_suites(EvaluateSpec(source=("testbed_arc",)))[1] == ()  # it is not asked for


def test_lm_eval_never_sees_a_task_that_runs_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tasks, "_task_manager", None)
    spec = ALLOWED.model_copy(update={"tasks": str(write_task(tmp_path))})
    assert load_tasks(("quoted", "response_accuracy"), spec) == {}
    assert list(code_tasks(spec)) == ["quoted"]


def test_shots_of_a_task_that_runs_programs_are_refused(tmp_path: Path):
    spec = ALLOWED.model_copy(
        update={"tasks": str(write_task(tmp_path)), "learning": ("quoted@3",)}
    )
    with pytest.raises(SpecError) as error:
        check_tasks(spec)
    assert _sentence(error) == "evaluate: quoted takes no shots, got 'quoted@3'"


def test_data_of_a_task_that_runs_programs_are_missed_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Sandbox, "probe", lambda _: None)
    spec = ALLOWED.model_copy(update={"tasks": str(write_task(tmp_path))})
    (tmp_path / "quoted.jsonl").unlink()
    with pytest.raises(SpecError, match=r"since there is no .*quoted\.jsonl"):
        check_tasks(spec)


def test_problems_from_the_hub_are_loaded_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
):
    loaded = []
    monkeypatch.setattr(Sandbox, "probe", lambda _: None)
    monkeypatch.setattr(tasks, "load_problems", lambda task: loaded.append(task.task))
    spec = ALLOWED.model_copy(update={"learning": ("humaneval",)})
    assert resolve_suites(spec) == (spec, ())
    assert loaded == ["humaneval"]  # ours, not lm-eval's
