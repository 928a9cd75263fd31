"""Unusable folders of the machine: another one serves, or one sentence names the cause."""

import os
from pathlib import Path

import pytest

from lorasweep.errors import UsageError
from lorasweep.store import scratch

CACHES = ("HF_HOME", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "XDG_CACHE_HOME")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in (*CACHES, "RAY_TMPDIR", "TMPDIR", "TEMP", "TMP", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def a_file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("not a folder")
    return tmp_path / "file"


def test_ray_chooses_its_own_folder_where_it_can():
    assert scratch.ray_folder() is None


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_long_folder_is_passed_over(monkeypatch, capsys, tmp_path, name):
    monkeypatch.setenv(name, str(tmp_path / ("x" * 80)))
    assert str(scratch.ray_folder()) in {"/tmp/ray", f"/tmp/ray-{os.getuid()}"}
    err = capsys.readouterr().err
    assert err.startswith(f"lorasweep: {name}={tmp_path}")
    assert "is too long for the path of a socket (at most 43 bytes with /ray, got " in err


def test_the_length_that_is_refused_is_the_one_that_ray_refuses():
    from ray._private.utils import validate_socket_filepath

    session = "session_2026-11-28_02-54-09_803784_4194304"  # the longest process number
    for length, fits in ((43, True), (44, False)):
        folder = "/" + "x" * (length - 5) + "/ray"
        assert len(folder) == length
        assert (scratch._unusable(Path(folder)) or "").startswith("is too long") is not fits
        if fits:
            validate_socket_filepath(f"{folder}/{session}/sockets/plasma_store")
        else:
            with pytest.raises(OSError, match="cannot exceed 107 bytes"):
                validate_socket_filepath(f"{folder}/{session}/sockets/plasma_store")


def test_a_folder_that_is_a_file_is_passed_over(monkeypatch, capsys, a_file):
    monkeypatch.setenv("TMPDIR", str(a_file))
    monkeypatch.setattr(scratch, "_RAY_BYTES", 0)  # pytest's folders are long
    assert scratch.ray_folder() is not None
    assert f"TMPDIR={a_file} cannot be written (Not a directory)" in capsys.readouterr().err


def test_no_usable_folder_is_one_sentence_with_every_reason(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/proc/nowhere")
    monkeypatch.setattr(scratch, "_ROOM", 2**70)
    with pytest.raises(UsageError) as raised:
        scratch.ray_folder()
    said = str(raised.value)
    assert "TMPDIR=/proc/nowhere cannot be written (No such file or directory)" in said
    assert "/var/tmp has no room" in said
    assert said.endswith("set RAY_TMPDIR to a folder with a short name that can be written")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "below"),
    [
        ("HOME", ".cache/huggingface/datasets"),
        ("XDG_CACHE_HOME", "huggingface/datasets"),
        ("HF_HOME", "datasets"),
        ("HF_DATASETS_CACHE", ""),
    ],
)
def test_a_cache_that_cannot_be_written_moves_and_is_named(
    monkeypatch, capsys, tmp_path, a_file, name, below
):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("HF_DATASETS_CACHE", "HF_MODULES_CACHE"):  # restored after the test
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv(name, str(a_file))
    scratch.use_writable_caches()
    moved = Path(os.environ["HF_DATASETS_CACHE"])
    assert scratch._unwritable(moved) is None
    said = capsys.readouterr().err
    assert said.startswith(f"lorasweep: {name}: the cache {a_file / below} cannot be written (")
    assert said.count("\n") == 1


def test_caches_that_can_be_written_stay(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    scratch.use_writable_caches()
    assert "HF_DATASETS_CACHE" not in os.environ
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("usable", [True, False])
def test_ray_gets_a_token_where_it_could_keep_none(monkeypatch, tmp_path, a_file, usable):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path if usable else a_file))
    scratch.use_own_token()
    assert ("RAY_AUTH_TOKEN" in os.environ) is not usable


def test_a_token_that_is_given_stays(monkeypatch, a_file):
    monkeypatch.setenv("HOME", str(a_file))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    scratch.use_own_token()
    assert os.environ["RAY_AUTH_TOKEN"] == "mine"
