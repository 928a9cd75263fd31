from pathlib import Path

import pytest

from lorasweep.store.paths import SweepPaths, TrialPaths, write_atomically


def places(paths: SweepPaths | TrialPaths) -> list[Path]:
    names = [name for name, thing in vars(type(paths)).items() if isinstance(thing, property)]
    return [getattr(paths, name) for name in names]


def test_every_file_has_its_own_path_below_the_folder():
    root = Path("/results/my sweep")
    paths = SweepPaths(root)
    found = [
        *places(paths),
        *places(paths.trial("a")),
        *places(paths.trial("b")),
        paths.best("lora"),
        paths.best("full"),
    ]
    assert len(found) > 10
    assert len(set(found)) == len(found)
    assert all(place.is_relative_to(root) and place != root for place in found)
    assert paths.trial("a").root.is_relative_to(paths.trials)


def test_naming_a_file_touches_no_disk(tmp_path):
    paths = SweepPaths(tmp_path / "new")
    places(paths)
    places(paths.trial("a"))
    assert not paths.root.exists()


def test_a_file_is_written_whole_with_its_folder_and_readable_by_the_team(tmp_path):
    path = tmp_path / "new" / "environment.json"
    write_atomically(path, "größer\n")
    write_atomically(path, "größer still\n")
    assert path.read_text(encoding="utf-8") == "größer still\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_earlier_file_and_nothing_else(tmp_path):
    path = tmp_path / "sweep.yaml"
    write_atomically(path, "earlier")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "later \ud800")
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_rename_that_fails_leaves_the_earlier_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "sweep.yaml"
    write_atomically(path, "earlier")

    def replace(source: Path, target: Path) -> None:
        raise OSError(f"no room to move {source} to {target}")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="no room"):
        write_atomically(path, "later")
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]
