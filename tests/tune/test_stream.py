from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorasweep.data import tokenise_stream as tokenising
from lorasweep.errors import DataError, UsageError
from lorasweep.model.base import BaseReader
from lorasweep.spec.sweep import SweepSpec, parse_sweep
from lorasweep.store.claim import check_folder
from lorasweep.store.journal import Journal
from lorasweep.store.paths import SweepPaths
from lorasweep.tune import stream as module
from lorasweep.tune.prepare import Prepared, prepare, prepare_studies
from lorasweep.tune.stream import longest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"text": f"a text, {i}"}) + "\n" for i in range(60)))
    return path


def sweep(source: Path, **sections: Any) -> SweepSpec:
    content: dict[str, Any] = {
        "data": {"path": str(source), "seq_len": 16, "streaming": True, "heldout_examples": 4},
        "methods": {"lora": {}, "full": {}},
        "space": {"rank": [2, 4], "tokens": [128, 256]},
        "hyperparameters": {"batch_size": 4},
        "search": {"algorithm": "grid", "scheduler": "none", "confirm": 0},
        "evaluate": {"source": ["base_agreement"]},
    }
    return parse_sweep(content | sections)


def prepare_all(spec: SweepSpec, paths: SweepPaths, say: Callable[[str], None]) -> list[Prepared]:
    return prepare_studies(spec, paths, BaseReader(spec.model), say)


@pytest.mark.parametrize(
    ("sections", "sequences"),
    [
        ({}, 16),
        ({"space": {"tokens": [256], "batch_size": [4, 24]}}, 24),
        ({"methods": {"lora": {}, "full": {"space": {"tokens": [512]}}}}, 32),
        ({"space": {"lr": True}, "train": {"steps": 3}}, 12),
        ({"space": {"lr": True}, "hyperparameters": {"batch_size": 4, "tokens": 320}}, 20),
        ({"space": {"epochs": [1, 2]}}, None),
        ({"space": {"lr": True}}, None),
        ({"methods": {"lora": {}, "full": {"space": {"tokens": None, "epochs": [1]}}}}, None),
    ],
)
def test_as_much_is_wanted_as_the_longest_run_takes(source, sections, sequences):
    assert longest(sweep(source, **sections).studies, 16) == sequences


def test_studies_share_one_file_which_a_second_session_finds(source, tmp_path):
    spec, paths = sweep(source), SweepPaths(tmp_path / "out")
    said: list[str] = []
    first = prepare_all(spec, paths, said.append)
    assert len({id(one.data) for one in first}) == 1
    assert len(list((paths.root / "tokens").iterdir())) == 1
    assert said[-1].startswith("read 256 tokens of ")
    check_folder(paths, spec)  # a driver that was killed since may be started again
    source.write_text("")
    again = prepare_all(spec, paths, said.append)
    assert again[0].data.fingerprint == first[0].data.fingerprint
    assert said[-1].endswith("already")


def test_a_longer_run_reads_the_source_again(source, tmp_path):
    paths = SweepPaths(tmp_path / "out")
    for tokens in ([128], [256]):
        spec = sweep(source, space={"tokens": tokens})
        (prepared, _) = prepare_all(spec, paths, lambda _: None)
        assert prepared.data.train.lengths_N.sum() == tokens[0]


def test_data_that_end_before_the_longest_run_are_repeated_and_this_is_said(source, tmp_path):
    spec = sweep(source, space={"tokens": [8192]})
    prepared, _ = prepare_all(spec, SweepPaths(tmp_path / "out"), lambda _: None)
    assert "the longest run takes 8,192, so it sees them " in prepared.notes[0]


def test_studies_of_data_in_memory_share_them_too(tmp_path):
    content = {"methods": {"lora": {}, "full": {}}, "space": {"lr": True}}
    spec = parse_sweep({**content, "evaluate": {"source": ["base_agreement"]}})
    prepared = prepare_all(spec, SweepPaths(tmp_path / "out"), lambda _: None)
    assert prepared[0].data is prepared[1].data
    assert not (tmp_path / "out").exists()


def test_what_came_to_nothing_leaves_the_folder_to_another_sweep(source, tmp_path):
    paths = SweepPaths(tmp_path / "out")
    source.write_text(source.read_text() + '{"text": "ha')
    with pytest.raises(DataError, match="is not valid JSON"):
        prepare_all(sweep(source), paths, lambda _: None)
    assert not paths.root.exists()


def test_an_interrupted_reading_leaves_a_folder_that_was_begun(source, tmp_path, monkeypatch):
    paths, spec = SweepPaths(tmp_path / "out"), sweep(source)
    prepare_all(spec, paths, lambda _: None)
    monkeypatch.setattr(module, "tokenise_stream", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_all(sweep(source, space={"tokens": [64]}), paths, lambda _: None)
    assert paths.sweep.is_file()


def _interrupted(*_arguments: object) -> None:
    raise KeyboardInterrupt


def test_a_folder_in_which_another_driver_is_at_work_is_refused(source, tmp_path):
    paths = SweepPaths(tmp_path / "out")
    with (
        Journal(paths.journal, paths.lock),
        pytest.raises(UsageError, match="another lorasweep is running this sweep"),
    ):
        prepare_all(sweep(source), paths, lambda _: None)


def test_a_long_reading_says_how_far_it_is(source, tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    monkeypatch.setattr(tokenising, "BATCH", 60)
    prepare_all(sweep(source), SweepPaths(tmp_path / "out"), said.append)
    assert len(said) > 2
    assert said[0].startswith(f"reading {source}: ")
    assert " of 256 tokens, " in said[0]
    assert said[0].endswith("minutes to go")


def test_without_a_results_folder_a_sample_is_read(source):
    prepared = prepare(sweep(source).studies[0])
    assert prepared.data.notes == ("estimated from the first 56 documents of the stream",)
