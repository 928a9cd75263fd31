"""Report and best weights after a sweep; its journal is written by hand, nothing is trained."""

import errno
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lorasweep.errors import LorasweepError
from lorasweep.service.sweep import keep_best, run_sweep
from lorasweep.store.journal import Journal
from lorasweep.store.kept import describe
from lorasweep.store.paths import SweepPaths
from lorasweep.store.results import load_results
from tests.folders import sweep_folder
from tests.store.test_kept import check


@pytest.fixture
def paths(tmp_path):
    """Write a finished sweep whose trials have left their adapters."""
    folder = sweep_folder(tmp_path / "mine", trials=4)
    paths = SweepPaths(folder)
    for trial in load_results(folder).trials:
        adapter = paths.trial(trial.trial).adapter
        adapter.mkdir(parents=True)
        (adapter / "adapter_config.json").write_text("{}")
        (adapter / "adapter_model.safetensors").write_text(trial.trial)
    return paths


@pytest.fixture
def ended(paths, monkeypatch, capsys):
    """Run a sweep whose trials have all ended; returns the exit code and the output."""
    ending = SimpleNamespace(state="complete", ran=0)
    driver = SimpleNamespace(tune_sweep=lambda *_: ending)
    monkeypatch.setitem(sys.modules, "lorasweep.tune.driver", driver)

    def run():
        spec = load_results(paths.root).spec
        assert spec is not None
        return run_sweep(spec, paths.root, None), capsys.readouterr().out

    return run


def ordered(paths: SweepPaths) -> list[str]:
    """List the trials, the best one first."""
    trials = load_results(paths.root).trials
    return [trial.trial for trial in sorted(trials, key=lambda t: -(t.learning or 0))]


def held(paths: SweepPaths) -> dict[str, str]:
    """Read the files of the best weights."""
    return {file.name: file.read_text() for file in paths.best("lora").iterdir()}


def keep(paths: SweepPaths) -> list[str]:
    return keep_best(load_results(paths.root), paths)


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def copying(*_: object) -> None:
    raise AssertionError("copied again")


def test_the_best_weights_are_a_copy_that_names_its_trial(paths):
    best = ordered(paths)[0]
    assert keep(paths) == [f"best     {paths.best('lora')}"]
    assert held(paths) == {
        "adapter_config.json": "{}",
        "adapter_model.safetensors": best,
        "trial.txt": f"{best}\n",
    }


def test_weights_that_are_there_are_not_copied_again(paths, monkeypatch):
    lines = keep(paths)
    monkeypatch.setattr(shutil, "copytree", copying)
    assert keep(paths) == lines
    shutil.rmtree(paths.trials)
    assert keep(paths) == lines


def test_a_new_best_takes_the_place_of_an_earlier_one(paths):
    best = ordered(paths)[0]
    shutil.copytree(paths.trials, paths.best("lora"))
    paths.best_trial("lora").write_text("earlier\n")
    assert keep(paths) == [f"best     {paths.best('lora')}"]
    assert held(paths)["adapter_model.safetensors"] == best
    assert list(paths.best("lora").parent.iterdir()) == [paths.best("lora")]


def test_weights_that_are_gone_are_said_and_the_sweep_is_reported(paths, ended):
    best = ordered(paths)[0]
    shutil.rmtree(paths.trial(best).root)
    code, out = ended()
    assert code == 0
    assert (paths.report / "report.html").is_file()
    assert "best/lora" not in (paths.report / "report.md").read_text(encoding="utf-8")
    assert out.splitlines()[-1] == (
        f"best     the weights of trial {best} are not in {paths.best('lora')}: "
        f"{paths.trial(best).root} no longer has them"
    )


def test_a_full_disk_is_said_and_leaves_the_earlier_weights(paths, monkeypatch):
    best, other = ordered(paths)[:2]
    shutil.copytree(paths.trial(other).adapter, paths.best("lora"))
    paths.best_trial("lora").write_text(f"{other}\n")
    before = held(paths)
    monkeypatch.setattr(shutil, "copyfile", full_disk)
    (line,) = keep(paths)
    assert line == (
        f"best     the weights of trial {best} are not in {paths.best('lora')}, which still holds "
        f"those of {other}: {paths.trial(best).adapter} cannot be copied ([Errno {errno.ENOSPC}] "
        "No space left on device); fix that and run this command again"
    )
    assert held(paths) == before
    assert list(paths.best("lora").parent.iterdir()) == [paths.best("lora")]


def test_the_report_links_the_weights_that_were_kept(paths, ended):
    code, out = ended()
    assert code == 0
    assert "(../best/lora/)" in (paths.report / "report.md").read_text(encoding="utf-8")
    assert [line.split()[0] for line in out.splitlines()] == [
        "4",
        "report",
        "page",
        "journal",
        "best",
    ]
    assert all(Path(line.split()[1]).exists() for line in out.splitlines()[1:])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"status": "unchecked", "loaded": None, "reason": "its folder is gone"}, 0),
        ({"status": "differs", "loaded": 1.5}, 1),
        ({"status": "unloadable", "loaded": None, "reason": "header too large"}, 1),
    ],
)
def test_kept_weights_that_are_not_those_measured_exit_1(paths, ended, changes, code):
    found = check(ordered(paths)[0], **changes)
    worse = check(ordered(paths)[1], status="differs", loaded=9.0)  # of a trial that is not best
    with Journal(paths.journal, paths.lock) as journal:
        journal.append(worse)
        journal.append(found)
    ended_with, out = ended()
    assert ended_with == code
    assert out.splitlines()[-1] == f"kept     {describe(found)}"
    report = (paths.report / "report.md").read_text(encoding="utf-8")
    page = (paths.report / "report.html").read_text(encoding="utf-8")
    warned = json.loads((paths.report / "analysis.json").read_text(encoding="utf-8"))["warnings"]
    for text in (report, page):
        assert f"kept adapter of trial {found.trial}" in text
        assert f"kept adapter of trial {worse.trial}" not in text
    assert any(describe(found) in warning for warning in warned) == (found.status != "agrees")


def test_a_report_that_cannot_be_written_is_one_sentence(paths, ended):
    paths.report.write_text("a file in its place")
    with pytest.raises(LorasweepError, match=r"report: the report cannot be written .*; once it"):
        ended()


def test_the_report_links_no_weights_of_another_trial(ended, paths):
    ended()
    report = paths.report / "report.md"
    assert "../best/lora/" in report.read_text(encoding="utf-8")
    paths.best_trial("lora").write_text("another\n")
    shutil.rmtree(paths.trials)  # so that the right ones cannot be copied
    ended()
    assert "../best/lora/" not in report.read_text(encoding="utf-8")
