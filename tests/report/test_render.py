import json
import re
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from lorasweep.analysis.analyse import analyse
from lorasweep.analysis.sensitivity import importance
from lorasweep.report.figures import pictures
from lorasweep.report.render import write_report
from lorasweep.report.setup import setup_of
from lorasweep.report.wording import escape, table
from lorasweep.spec.sweep import parse_sweep
from lorasweep.store.scores import Scores
from lorasweep.store.table import read_table
from tests.analysis.planted import planted_grid, planted_sample, sweep, trial

NASTY = "a|b `x` <i> $y$ _z_\n# boo"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Redraw little: what a ranking says is tested with the analysis."""
    monkeypatch.setattr(importance, "_effort", lambda _: (8, 2, 4))
    monkeypatch.setattr(importance, "_FULL_TREES", 8)


def nasty():
    names = {"lr": NASTY, "ra|nk": 4}
    trials = [
        trial(f"{NASTY}{i}", 0.1 * i, forgetting=0.1).model_copy(
            update={"hyperparameters": names, "method": NASTY}
        )
        for i in range(3)
    ]
    return replace(sweep(trials, axes=("lr", "ra|nk")), name=NASTY, question=NASTY, origin=NASTY)


CASES = {
    "no trials": sweep([]),
    "one trial": sweep([trial("a", 0.5, lr=1e-4, targets="all", rank=4)]),
    "all diverged": sweep(
        [trial(f"t{i}", status="DIVERGED", lr=0.1 * (i + 1), rank=4) for i in range(9)]
    ),
    "running": sweep([trial("a", status="RUNNING", lr=1e-4), trial("b", 0.5, lr=1e-3)]),
    "no source": sweep(
        t.model_copy(update={"source_accuracy": None, "forgetting": None})
        for t in planted_grid().trials
    ),
    "forgetting only": sweep(
        t.model_copy(update={"source_accuracy": None}) for t in planted_grid().trials
    ),
    "source only": sweep(t.model_copy(update={"forgetting": None}) for t in planted_grid().trials),
    "equal scores": sweep(t.model_copy(update={"learning": 0.5}) for t in planted_grid().trials),
    "no axes": sweep([trial("a", 0.5), trial("b", 0.6)], axes=()),
    "unscored": sweep([trial("a", lr=1e-4).model_copy(update={"learning": None})]),
    "only pruned": sweep(
        [trial("a", status="PRUNED", lr=1e-4), trial("b", status="PRUNED", lr=1e-3)]
    ),
    "text only": sweep([trial(f"t{i}", i / 9, targets="ab"[i % 2]) for i in range(9)]),
    "many methods": sweep([trial(f"t{i}", i / 9, method=f"m{i}", lr=1e-4) for i in range(9)]),
    "zero learning": sweep(
        [trial(f"t{i}", 0.0, lr=10.0 ** (-i), forgetting=0.0) for i in range(9)]
    ),
    "negative scores": sweep([trial(f"t{i}", -i, lr=10.0 ** (-i), rank=4) for i in range(9)]),
    "hostile text": nasty(),
    "sample": planted_sample(12),
}


@pytest.mark.parametrize("results", CASES.values(), ids=CASES.keys())
def test_any_state_of_a_sweep_has_a_report(results, tmp_path):
    paths = write_report(results, tmp_path / "report")
    text = paths.markdown.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert "**Answer.**" in text
    assert "## How to reproduce" in text
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", text)
    assert json.loads(paths.analysis.read_text(encoding="utf-8"))["schema_version"] == 2
    assert all(path.stat().st_size > 1000 for path in paths.figures)
    for image in re.findall(r"\]\((figures/[^)]+)\)", text):
        assert (paths.root / image).is_file()
    assert not list(tmp_path.rglob(".*"))
    check_tables(text)


def check_tables(text):
    """See that every row of every table has as many cells as its head."""
    heads = cells = 0
    rows = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        heads = 0 if token.type == "thead_open" else heads + (token.type == "th_open")
        if token.type == "tr_open":
            cells = 0
        cells += token.type in {"th_open", "td_open"}
        if token.type == "tr_close":
            rows.append((cells, heads))
    assert all(cells == heads for cells, heads in rows)
    # A stray pipe would leave a line of a table as a paragraph.
    assert text.count("\n|") == len(rows) + text.count("\n| -")


def test_the_same_trials_give_the_same_bytes(tmp_path):
    first, second = (write_report(planted_grid(), tmp_path / name) for name in "ab")
    for left, right in zip(first.figures, second.figures, strict=True):
        assert left.read_bytes() == right.read_bytes()
    for name in ("markdown", "trials", "analysis"):
        assert getattr(first, name).read_bytes() == getattr(second, name).read_bytes()


@pytest.mark.parametrize("name", ["sample", "all diverged", "running", "many methods"])
def test_the_trials_can_be_read_again(name, tmp_path):
    results = CASES[name]
    axes = results.axes if name == "sample" else ()
    again = read_table(write_report(results, tmp_path).trials, axes)
    assert again.trials == results.trials
    again = replace(results, trials=again.trials)
    second = write_report(again, tmp_path / "again")
    for file in ("report.md", "analysis.json", "trials.csv"):
        assert (tmp_path / file).read_bytes() == (second.root / file).read_bytes()


def test_the_weights_beside_the_report_are_linked(tmp_path):
    (tmp_path / "best" / "lora").mkdir(parents=True)
    text = write_report(planted_grid(), tmp_path / "report").markdown.read_text(encoding="utf-8")
    assert "[../best/lora/](../best/lora/)" in text


def test_a_method_named_like_a_path_links_nothing(tmp_path):
    results = sweep([trial("a", 0.5, method="..", lr=1e-4)])
    text = write_report(results, tmp_path / "report").markdown.read_text(encoding="utf-8")
    assert "best/" not in text


def test_a_sweeps_own_report_says_how_it_was_done(tmp_path):
    spec = parse_sweep({"space": {"lr": [1e-5, 1e-4, 1e-3], "targets": True, "rank": [4, 16, 64]}})
    results = replace(
        planted_grid(noise=0.01),
        spec=spec,
        is_factorial=True,
        base=Scores(learning=0.1, source_accuracy=0.6, response_loss=2.5),
        state="interrupted",
        trials_planned=40,
        origin="results/default",
        notes=("It was cold",),
    )
    text = write_report(results, tmp_path).markdown.read_text(encoding="utf-8")
    assert "* Model: testbed" in text
    assert "* Base before tuning: learning 0.100, source accuracy 0.600" in text
    assert "The sweep was interrupted after 27 of 40 planned trials." in text
    assert "* It was cold." in text
    assert "the best configuration learned more than the base model" in text
    assert "lorasweep tune results/default/sweep.yaml --out results/planted-again" in text


def test_a_table_is_reproduced_by_its_command(tmp_path):
    results = replace(planted_grid(), origin="my trials.csv")
    text = write_report(results, tmp_path).markdown.read_text(encoding="utf-8")
    assert "lorasweep report --table 'my trials.csv' --space lr,targets,rank\n" in text


def test_the_text_shows_every_figure_with_its_table(tmp_path):
    results = planted_grid(noise=0.01)
    text = write_report(results, tmp_path).markdown.read_text(encoding="utf-8")
    for picture in pictures(results, analyse(results)):
        if not picture.panels:
            assert picture.missing in text
            continue
        assert (
            f"### {picture.title}\n\n![{escape(picture.alt)}](figures/{picture.file}.png)" in text
        )
        assert f"*{escape(picture.caption)}*" in text
        if picture.table:
            rows = table(picture.table.heads, picture.table.rows).splitlines()
            # A ranking has a section of its own, with a table for each method.
            shown = [row.split(" | ", 1)[1] for row in rows] if picture.tabled else rows
            assert all(row in text for row in shown)


def test_a_sweep_without_source_tasks_says_that_nothing_measures_the_source():
    content = {"space": {"lr": [1e-5, 1e-4]}, "evaluate": {"source": []}}
    results = replace(sweep([trial("a", 0.5, lr=1e-5)]), spec=parse_sweep(content))
    rows = dict(setup_of(results, analyse(results).totals))
    assert rows["Source accuracy is measured by"] == "nothing"
    assert all(rows.values())
