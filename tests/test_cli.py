"""Command line for a user: help at once, one sentence for every mistake."""

import json
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from lorasweep import cli
from lorasweep.errors import SpecError
from lorasweep.spec.file import read_yaml
from lorasweep.spec.presets import default_sweep
from lorasweep.spec.sweep import parse_sweep

ROOT = Path(__file__).parent.parent


def test_help_answers_at_once():
    command = [sys.executable, "-m", "lorasweep", "--help"]
    times = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.5


def test_help_loads_no_library_but_that_of_the_command_line():
    program = (
        "import atexit, sys\n"
        "sys.argv = ['lorasweep', '--help']\n"
        "atexit.register(lambda: print(*sys.modules))\n"
        "from lorasweep import cli\n"
        "cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    loaded = set(done.stdout.decode().splitlines()[-1].split())
    required = {re.split(r"[^\w-]", line)[0] for line in metadata.requires("lorasweep") or ()}
    assert {"torch", "ray", "typer"} <= required
    libraries = {
        module
        for module, names in metadata.packages_distributions().items()
        if required.intersection(names)
    }
    assert loaded & libraries == {"typer"}


def test_the_commands_are_those_of_the_contract(lorasweep):
    code, out, _ = lorasweep("--help")
    assert code == 0
    assert cli.COMMANDS == ("tune", "plan", "data", "status", "report", "export")
    assert all(command in out for command in cli.COMMANDS)


def test_the_built_in_sweep_is_the_one_in_the_folder():
    built_in = parse_sweep(default_sweep(None, None))
    assert parse_sweep(read_yaml(ROOT / "sweeps" / "default.yaml")) == built_in


@pytest.mark.ray
@pytest.mark.parametrize(
    ("words", "sentences"),
    [
        (["--space", "lr,speed"], ["space: axis must be one of lr, targets, rank"]),
        (["--space", "lr,lr"], ["space.lr: each axis must be named once"]),
        (["--space", "targets=attention|head"], ["space.targets: must be one of attention"]),
        (["--space", "lr=1e-2..1e-5"], ["space.lr: low must be below high, got 0.01..1e-05"]),
        (["--space", "rank=0|4"], ["space.rank: must be greater than or equal to 1, got '0'"]),
        (["--set", "search.algoritm=tpe"], ["search.algoritm: no such field"]),
        (["--set", "search.trials"], ["--set: must be KEY.PATH=VALUE"]),
        (["--trials", "0"], ["search.trials: must be greater than or equal to 1, got 0"]),
        (["--method", "dora"], ["--method: must be one of lora, full, got 'dora'"]),
        (["--method", "full", "--space", "lr,rank"], ["space.rank: full finetuning has no rank"]),
        (["--space", "full.lr"], ["space.full: must be a method of the sweep, lora, got 'full'"]),
        (["--slots", "0"], ["slots: must be auto or a number of at least 1, got 0"]),
        (["--slots", "many"], ["slots: must be auto or a number of at least 1, got 'many'"]),
        (["missing.yaml"], ["missing.yaml: the sweep file cannot be read"]),
        (
            ["--space", "lr=3..1,rank=0", "--set", "data.seq_len=2", "--set", "oops=1"],
            ["data.seq_len: must", "space.lr: low", "space.rank: must", "oops: no such field"],
        ),
        (["--model", "no/such/folder"], ["model.path: "]),
        (
            ["--model", "./nowhere"],
            ["model.path: must be a Hugging Face folder with a config.json"],
        ),
        (["--set", "data.seq_len=100000"], ["data.seq_len: must be at most the model's"]),
        (["--set", "evaluate.learning=[nonsense]"], ["evaluate: task must be one of"]),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    lorasweep, ray_address, monkeypatch, words, sentences
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    code, out, err = lorasweep("tune", *words)
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith("lorasweep: ")]
    assert len(lines) == len(sentences)
    for line, sentence in zip(lines, sentences, strict=True):
        assert line.startswith(f"lorasweep: {sentence}")
    assert "Traceback" not in err


@pytest.mark.ray
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty"),
        ('{"a": "b"}\n', "the columns must include"),
        ('{"prompt": "p", "response": ""}\n', "must hold at least one training example"),
        ("not json\n", "is not valid JSON (Expecting value at character 1)"),
    ],
)
def test_bad_data_is_one_sentence_and_exit_code_2(
    lorasweep, ray_address, monkeypatch, tmp_path, content, sentence
):
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    (tmp_path / "data.jsonl").write_text(content)
    code, _, err = lorasweep("tune", "--data", "data.jsonl")
    assert code == 2
    assert err.count("lorasweep: data") == 1
    assert sentence in err
    assert "Traceback" not in err
    assert [file.name for file in tmp_path.iterdir()] == ["data.jsonl"]


@pytest.mark.ray  # starts a cluster of its own
def test_a_missing_column_is_named_with_those_there(lorasweep, tmp_path):
    (tmp_path / "data.jsonl").write_text('{"prompt": "p", "response": "r"}\n')
    code, _, err = lorasweep("tune", "--data", "data.jsonl", "--set", "data.prompt=question")
    assert code == 2
    assert "data.prompt: must be one of prompt, response, got 'question'" in err


def test_a_folder_with_other_files_is_refused(lorasweep, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    code, _, err = lorasweep("tune", "--out", "mine")
    assert code == 2
    assert "--out: must be a new folder" in err
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("mine.txt", "must be a folder, and mine.txt is a file"),
        ("mine.txt/below", "mine.txt/below cannot be written (Not a directory)"),
        ("/proc/nope", "/proc/nope cannot be written (No such file or directory)"),
    ],
)
def test_a_folder_that_cannot_be_is_one_sentence_before_ray_starts(
    lorasweep, monkeypatch, tmp_path, out, sentence
):
    started = []
    monkeypatch.setattr("lorasweep.tune.driver.connect", lambda *words: started.append(words))
    (tmp_path / "mine.txt").write_text("do not touch")
    code, _, err = lorasweep("tune", "--out", out)
    assert (code, started) == (2, [])
    assert err.startswith(f"lorasweep: --out: {sentence}; choose another")
    assert (tmp_path / "mine.txt").read_text() == "do not touch"


def test_the_results_of_another_sweep_are_refused_with_the_difference(lorasweep, tmp_path):
    from lorasweep.spec.sweep import dump_sweep

    other = parse_sweep({**default_sweep(None, None), "seed": 7})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sweep.yaml").write_text(dump_sweep(other))
    code, _, err = lorasweep("tune", "--out", "out")
    assert code == 2
    assert "holds the results of another sweep (seed 7 there and 0 here)" in err
    assert parse_sweep(read_yaml(tmp_path / "out" / "sweep.yaml")) == other


def test_a_sweep_that_ended_before_its_first_trial_leaves_the_folder_free(tmp_path):
    from lorasweep.spec.sweep import dump_sweep
    from lorasweep.store.claim import check_folder
    from lorasweep.store.journal import Journal
    from lorasweep.store.paths import SweepPaths
    from lorasweep.store.records import BaseMeasured, SessionChanged, SweepStarted
    from lorasweep.store.scores import Scores

    spec, paths = parse_sweep(default_sweep(None, None)), SweepPaths(tmp_path)
    other = parse_sweep({**default_sweep(None, None), "seed": 7})
    paths.sweep.write_text(dump_sweep(other), encoding="utf-8")
    with Journal(paths.journal, paths.lock) as writer:
        writer.append(SweepStarted(name="s", identity="of seed 7", data="", time=1.0))
        writer.append(SessionChanged(state="failed", time=2.0))
        check_folder(paths, spec)
        writer.append(BaseMeasured(scores=Scores(), wall_s=1.0))  # which takes long
        with pytest.raises(SpecError, match="holds the results of another sweep"):
            check_folder(paths, spec)


def test_a_disk_without_room_is_one_sentence_before_ray_starts(lorasweep, monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr("lorasweep.tune.driver.connect", lambda *words: started.append(words))
    monkeypatch.setattr("lorasweep.store.claim._LEAST_ROOM", 2**60)
    code, _, err = lorasweep("tune", "--out", "out")
    assert (code, started, list(tmp_path.iterdir())) == (2, [], [])
    assert "--out: there must be 1099511627776 MiB free on the disk of out, got " in err


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(28, "No space left on device"), True),
        (OSError("Error writing bytes to file. Detail: [errno 28] No space left"), True),
        (EOFError("Ran out of input"), False),
    ],
)
def test_a_full_disk_is_told_from_other_errors(tmp_path, error, full):
    from lorasweep.store.claim import lack_of_room
    from lorasweep.store.paths import SweepPaths

    sentence = lack_of_room(SweepPaths(tmp_path / "not" / "there"), error)
    assert (sentence is not None) is full


@pytest.mark.parametrize(
    ("raised", "code", "last"),
    [
        (KeyError("k"), 1, "lorasweep: failed with KeyError: 'k'; this is a fault of lorasweep"),
        (
            EOFError("Ran out"),
            1,
            "lorasweep: failed with RuntimeError: a file ended too early (Ran",
        ),
        (
            OSError(28, "No space left", "f"),
            1,
            "lorasweep: f: a file cannot be read or written (No",
        ),
        (KeyboardInterrupt(), 130, "lorasweep: stopped"),
    ],
)
def test_whatever_is_raised_the_last_line_says_so(lorasweep, monkeypatch, raised, code, last):
    def fail(_folder: Path) -> None:
        raise raised

    monkeypatch.setattr("lorasweep.service.status.status_of", fail)
    monkeypatch.delenv("LORASWEEP_DEBUG", raising=False)
    ended, _, err = lorasweep("status", "x")
    assert ended == code
    assert err.splitlines()[-1].startswith(last)
    unforeseen = isinstance(raised, KeyError | EOFError)
    assert ("Traceback" in err) is unforeseen
    monkeypatch.setenv("LORASWEEP_DEBUG", "1")
    assert ("Traceback" in lorasweep("status", "x")[2]) is not isinstance(raised, KeyboardInterrupt)


@pytest.mark.ray
def test_advice_is_followed_in_the_same_folder(lorasweep, ray_address, monkeypatch, pairs_file):
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    words = ["--data", str(pairs_file), "--out", "out", "--trials", "1", "--set", "train.steps=2"]
    few = ["--set", "evaluate.learning=[response_accuracy]", "--set", "evaluate.source=[]"]
    code, _, err = lorasweep("tune", *words, *few, "--set", "resources.cpus=99")
    assert code == 2
    assert "lorasweep: resources.workers: one trial of 1 workers needs 99 CPUs and the" in err
    assert not Path("out").exists()
    code, out, err = lorasweep("tune", *words, *few, "--set", "search.confirm=0")
    assert (code, out.splitlines()[0]) == (0, "1 complete"), err


@pytest.mark.parametrize("command", ["status", "report"])
def test_a_folder_without_a_sweep_is_one_sentence(lorasweep, command):
    code, _, err = lorasweep(command, "nowhere")
    assert code == 2
    assert err.startswith("lorasweep: nowhere: must be a results folder")


def test_status_of_a_sweep_that_never_began_is_json_on_request(lorasweep, tmp_path):
    from lorasweep.spec.sweep import dump_sweep

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sweep.yaml").write_text(dump_sweep(parse_sweep(default_sweep(None, None))))
    code, out, _ = lorasweep("status", "out", "--json")
    assert code == 0
    assert json.loads(out)["state"] == "not started"


def test_the_command_line_reference_is_up_to_date():
    script = ROOT / "docs" / "generate_cli.py"
    shown = subprocess.run(
        [sys.executable, "-c", f"import runpy; print(runpy.run_path({str(script)!r})['page']())"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert shown.strip() == (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").strip()


def test_a_plan_is_json_on_request_and_starts_nothing(lorasweep, tmp_path):
    (tmp_path / "data.jsonl").write_text('{"prompt": "p", "response": "r"}\n' * 20)
    words = ["--method", "lora,full", "--data", "data.jsonl", "--throughput", "500", "--json"]
    code, out, _ = lorasweep("plan", *words)
    assert code == 0
    facts = json.loads(out)
    assert [study["study"] for study in facts["studies"]] == ["lora", "full"]
    assert {study["tokens_per_s_assumed"] for study in facts["studies"]} == {500}
    assert list(tmp_path.iterdir()) == [tmp_path / "data.jsonl"]


def test_a_plan_of_a_model_that_nobody_knows_is_one_sentence(lorasweep, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, out, err = lorasweep("plan", "--model", "no/such")
    assert (code, out) == (2, "")
    assert err.startswith("lorasweep: model.path: the configuration of 'no/such' cannot be loaded")
