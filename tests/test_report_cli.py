"""Reports and exports on the command line: results, or one sentence for each mistake."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.folders import DIVERGED, sweep_folder

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "tests" / "data" / "biderman_v2.csv"


def analysis(folder):
    return json.loads((folder / "analysis.json").read_text())


def test_two_folders_make_one_report(lorasweep, tmp_path):
    sweep_folder(tmp_path / "a", trials=3)
    sweep_folder(tmp_path / "b", trials=2, seed=1, hyperparameters={"alpha": "1r"})
    code, out, err = lorasweep("report", "a", "b", "a/")
    assert (code, out, err) == (
        0,
        "report   results/report/report.md\npage     results/report/report.html\n",
        "",
    )
    found = analysis(Path("results/report"))
    assert sum(found["statuses"]["lora"].values()) == 5
    assert found["axes"] == ["lr", "rank", "alpha"]
    assert found["domains"] == []
    text = Path("results/report/report.md").read_text()
    assert "a: 3 trials of the sweep a" in text
    assert "b: 2 trials of the sweep b" in text
    assert "lorasweep report a b" in text


def test_folders_of_other_tasks_are_separate_in_the_report(lorasweep, tmp_path):
    sweep_folder(tmp_path / "a", trials=2)
    sweep_folder(tmp_path / "b", trials=2, data={"path": "other.jsonl"})
    code, out, _ = lorasweep("report", "a", "b", "--out", "both")
    assert (code, out) == (0, "report   both/report.md\npage     both/report.html\n")
    assert analysis(Path("both"))["domains"] == ["a", "b"]
    assert "Learning is not compared between a, b" in Path("both/report.md").read_text()


def test_a_report_of_several_loads_neither_torch_nor_ray(tmp_path):
    folders = [str(sweep_folder(tmp_path / name, trials=2, seed=s)) for s, name in enumerate("ab")]
    program = (
        "import sys; from lorasweep import cli\n"
        f"sys.argv = ['lorasweep', 'report', *{folders!r}, '--out', {str(tmp_path / 'r')!r}]\n"
        "cli.main.__globals__['app'](standalone_mode=False)\n"
        "print(*[m for m in ('torch', 'ray', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2:] == [""]


def test_the_published_table_gives_a_report_by_setting(lorasweep):
    words = ["--table", str(PUBLISHED), "--space", "rank,targets,duration", "--out", "paper"]
    code, out, err = lorasweep("report", *words)
    assert (code, out, err) == (0, "report   paper/report.md\npage     paper/report.html\n", "")
    assert analysis(Path("paper"))["domains"] == ["code-cpt", "math-cpt", "code-ift", "math-ift"]


def one_trial_twice(root: Path) -> list[str]:
    """Write two sweeps that disagree on a trial."""
    sweep_folder(root / "a", trials=2)
    sweep_folder(root / "b", trials=2, ends=[DIVERGED])
    return ["a", "b"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--table", "t.csv", "a"], "--table: a table and a results folder"),
        (["--space", "lr"], "--space: must be given with --table"),
        (["--table", "t.csv", "--space", ""], "--space: must name columns"),
        (["--table", "t.csv", "--space", "lr,,rank"], "--space: must name columns"),
        (["--table", "t.csv", "--space", "speed"], "t.csv: the axis 'speed' must be"),
        (["--table", "none.csv"], "none.csv: the table cannot be read (No such file"),
        (["--table", "."], ".: the table cannot be read (Is a directory)"),
        (["nowhere"], "nowhere: must be a results folder"),
        (["a", "nowhere"], "nowhere: must be a results folder"),
        (["a", "b"], "b: trial "),
        (["--table", "t.csv", "--out", "t.csv"], "--out: t.csv"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(lorasweep, tmp_path, words, sentence):
    one_trial_twice(tmp_path)
    (tmp_path / "t.csv").write_text("learning,lr\n0.5,1e-4\n0.6,1e-3\n")
    code, out, err = lorasweep("report", *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"lorasweep: {sentence}")
    assert err.count("\n") == 1


def test_space_without_a_value_is_said_in_a_sentence(lorasweep):
    code, _, err = lorasweep("report", "--table", "t.csv", "--space")
    assert code == 2
    assert "requires an argument" in err
    assert "Traceback" not in err


def rows(count: int, **columns: object) -> str:
    text = io.StringIO()
    names = {"trial": "", "learning": 0.5, "source_accuracy": 0.6, "lr": 1e-4, "rank": 4, **columns}
    writer = csv.writer(text)
    writer.writerow(names)
    for i in range(count):
        given = {"trial": f"t{i}", "learning": 0.1 * i, **columns}
        cells = {**names, "lr": [1e-4, 1e-3][i % 2], **given}
        writer.writerow([c[i % len(c)] if isinstance(c, list) else c for c in cells.values()])
    return text.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        rows(1),
        rows(2),
        rows(9, learning=0.5),
        rows(9, lr=1e-4),
        rows(4, learning="", status="DIVERGED"),
        rows(4, learning="nan", status="FAILED"),
        rows(6, learning=[-0.5, -0.1, 3.0]),
        rows(6, learning=[1e30, -1e30, 1e-30]),
        rows(4, note="x" * 10**6, error="e\n" * 1000),
        rows(8, targets=["<script>alert(1)</script>", "a|b", "$x$", "[l](http://x)"]),
        rows(6, **{"<b>my|axis</b> `x`": [1, 2, 3]}),
        rows(6, domain=["../../out", "<i>", "a|b"]),
        rows(6, method=["../../out", "<i>", "a|b"]),
        "learning\n0.5\n0.6\n",
    ],
    ids=range(14),
)
def test_an_odd_table_gives_a_report_that_stays_in_its_folder(lorasweep, tmp_path, text):
    inner = tmp_path / "x" / "y"
    inner.mkdir(parents=True)
    (inner / "t.csv").write_text(text)
    code, out, err = lorasweep("report", "--table", "x/y/t.csv")
    assert (code, out, err) == (
        0,
        "report   x/y/t-report/report.md\npage     x/y/t-report/report.html\n",
        "",
    )
    assert sorted(path.name for path in inner.iterdir()) == ["t-report", "t.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]
    for name in ("report.md", "analysis.json", "trials.csv"):
        assert (inner / "t-report" / name).is_file()


def test_an_export_names_what_it_wrote(lorasweep, tmp_path):
    sweep_folder(tmp_path / "a", trials=2)
    assert lorasweep("export", "a", "--csv", "t.csv") == (0, "csv      t.csv\n", "")
    code, out, err = lorasweep("export", "a", "--csv", "t.csv", "--parquet", ".")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "lorasweep: --csv: t.csv exists already; --force replaces it",
        "lorasweep: --parquet: must be a file, and . is a folder",
    ]
    assert lorasweep("export", "a", "--csv", "t.csv", "--force")[0] == 0
    assert lorasweep("export", "a")[0] == 2
    assert lorasweep("export", "nowhere", "--csv", "u.csv")[0] == 2
