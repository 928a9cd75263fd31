from typing import Any

import pytest

from lorasweep.errors import SpecError, UsageError
from lorasweep.spec.sweep import dump_sweep, parse_sweep
from lorasweep.store.claim import check_folder, differences
from lorasweep.store.paths import SweepPaths, write_atomically

PLAIN = {"name": "study", "space": {"lr": True}}
BOTH: dict[str, Any] = {"methods": {"lora": {}, "full": {}}}


def sweep(**content):
    return parse_sweep({**PLAIN, **content})


@pytest.fixture
def paths(tmp_path):
    """Folder that an earlier sweep has left."""
    paths = SweepPaths(tmp_path / "results")
    write_atomically(paths.sweep, dump_sweep(sweep()))
    return paths


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"seed": 1}, "seed 0 there and 1 here"),
        ({"train": {"clip": None}}, "train.clip 1.0 there and None here"),
        ({"search": {"grace": 0.25}}, "search.grace 0.5 there and 0.25 here"),
        ({"hyperparameters": {"rank": 4}}, "hyperparameters.rank 16 there and 4 here"),
        (BOTH, "lora there, lora and full here"),
    ],
)
def test_what_changes_the_trials_is_refused_and_named(paths, content, field):
    # Fields that change no result differ too; the sentence leaves them out.
    beside = {"evaluate": {"batch_size": 4}, "resources": {"cpus": 2}}
    search = {"confirm": 3, "seeds": 4, **content.get("search", {})}
    other = sweep(**{**beside, **content, "search": search})
    assert differences(sweep(), other) == [field]
    with pytest.raises(SpecError) as caught:
        check_folder(paths, other)
    assert str(caught.value) == (
        f"--out: {paths.root} holds the results of another sweep ({field}); choose another folder"
    )


@pytest.mark.parametrize(
    "content",
    [
        {"name": "other", "question": "Why?"},
        {"search": {"confirm": "all", "trials": 99, "seeds": 5}},
        {"evaluate": {"batch_size": 4, "spectrum": True, "allow_code_execution": True}},
        {"train": {"recompute": True}},
        {"resources": {"workers": 2}, "slots": 3, "deepspeed": {"stage": 1}},
        {"methods": {"lora": {}}},
    ],
)
def test_a_sweep_continues_whatever_changes_no_result(paths, content):
    assert differences(sweep(), sweep(**content)) == []
    check_folder(paths, sweep(**content))


def test_what_differs_in_every_study_is_said_once_and_else_the_studies_are_named():
    there = sweep(**BOTH)
    assert differences(there, sweep(**BOTH, seed=1)) == ["seed 0 there and 1 here"]
    own = {"methods": {"lora": {}, "full": {"space": {"lr": "2e-6..1e-4"}}}}
    assert differences(there, sweep(**own)) == [
        "full: space.lr.high 0.0005 there and 0.0001 here",
        "full: space.lr.low 1e-06 there and 2e-06 here",
    ]


def test_a_new_folder_is_probed_and_removed_and_an_empty_one_stays(tmp_path):
    check_folder(SweepPaths(tmp_path / "new" / "results"), sweep())
    assert list(tmp_path.iterdir()) == []
    check_folder(SweepPaths(tmp_path), sweep())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("file", "--out: must be a folder, and {} is a file; choose another"),
        ("file/below", "--out: {} cannot be written (Not a directory); choose another folder"),
        ("x" * 300, "--out: {} cannot be written (File name too long); choose another folder"),
        ("/proc/nope", "--out: {} cannot be written (No such file or directory); choose another"),
    ],
)
def test_a_path_that_cannot_be_a_folder_is_one_sentence(tmp_path, out, sentence):
    (tmp_path / "file").write_text("mine")
    paths = SweepPaths(tmp_path / out)
    with pytest.raises(UsageError) as caught:
        check_folder(paths, sweep())
    assert str(caught.value).startswith(sentence.format(paths.root))
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    def refuse(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UsageError, match=r"cannot be written \(Read-only file system\)"):
        check_folder(SweepPaths(tmp_path), sweep())
