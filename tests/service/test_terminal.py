"""The command line on terminals, in folders and under signals of every kind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lorasweep.spec.presets import default_sweep
from lorasweep.spec.sweep import dump_sweep, parse_sweep

ROOT = Path(__file__).parent.parent.parent
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TERMINALS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "cp1252"},
    {**ASCII, "PYTHONIOENCODING": "ascii"},
    ASCII,
    {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "20"},
]


def run(*words: str, env: dict[str, str] | None = None, shell: str = "", cwd: Path | None = None):
    """Run the command line in a process of its own; `shell` is what a shell adds to it."""
    command = [sys.executable, "-m", "lorasweep", *words]
    return subprocess.run(
        ["sh", "-c", f'"$@" {shell}', "sh", *command] if shell else command,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        cwd=cwd,
        capture_output=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def strange_folder(tmp_path: Path) -> Path:
    """Make a results folder, not begun, with a name that few terminals can show."""
    folder = tmp_path / "mön ☃ #1 'a' %20"
    folder.mkdir()
    spec = parse_sweep({**default_sweep(None, None), "question": "Größer als ½?"})
    (folder / "sweep.yaml").write_text(dump_sweep(spec), encoding="utf-8")
    return folder


@pytest.mark.parametrize("env", TERMINALS, ids=str)
def test_any_terminal_shows_a_folder_of_any_name(strange_folder, env):
    ended = run("status", str(strange_folder), env=env)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"not started, 0 of ? trials" in ended.stdout


def test_files_are_utf8_on_an_ascii_terminal(strange_folder):
    ended = run("report", str(strange_folder), env=TERMINALS[2])
    assert (ended.returncode, ended.stderr) == (0, b"")
    written = (strange_folder / "report" / "report.md").read_text(encoding="utf-8")
    assert "Größer als ½?" in written


@pytest.mark.parametrize("env", TERMINALS[1:4], ids=str)
def test_any_terminal_shows_a_mistake_in_one_line(tmp_path, env):
    ended = run("tune", str(tmp_path / "mön ☃.yaml"), env=env)
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"lorasweep: ")
    assert ended.stderr.count(b"\n") == 1
    assert b"\\u2603" in ended.stderr or "☃".encode() in ended.stderr


def test_a_name_that_is_not_utf8_is_one_sentence(tmp_path):
    ended = run("tune", "--out", os.fsdecode(b"m\xf6n"), cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr == b"lorasweep: names must be UTF-8, got 'm\\xf6n'; rename that file\n"


def test_a_folder_that_is_gone_is_one_sentence(tmp_path):
    (tmp_path / "gone").mkdir()
    command = f'cd {tmp_path}/gone && rmdir "$PWD" && exec "$@"'
    words = [sys.executable, "-m", "lorasweep", "plan"]
    ended = subprocess.run(
        ["sh", "-c", command, "sh", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"lorasweep: the current folder cannot be read (No such file")
    assert ended.stderr.count(b"\n") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error(strange_folder, closed):
    ended = run("status", str(strange_folder), shell=closed)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_what_goes_to_a_closed_stream_ends_in_no_file(tmp_path):
    code = (
        "import os; from lorasweep.service.terminal import prepare_streams; prepare_streams()\n"
        "file = open('journal', 'w'); os.write(1, b'from a library'); print('from Python')"
    )
    command = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    shell = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command]
    subprocess.run(shell, env=env, cwd=tmp_path, check=True)
    assert (tmp_path / "journal").read_bytes() == b""


def test_a_reader_that_leaves_early_is_no_error():
    ended = run("tune", "--help", shell="| head -1")
    assert (ended.stderr, ended.stdout.count(b"\n")) == (b"", 1)


@pytest.fixture
def heeds_ctrl_c():
    """Let children heed Ctrl-C, which what a shell starts in the background ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("begun", [b"lorasweep.errors", b"lorasweep.service.build"])
def test_ctrl_c_ends_in_one_line_at_any_time(tmp_path, begun):
    with subprocess.Popen(
        # It says what it has imported, and so how far it is.
        [sys.executable, "-X", "importtime", "-m", "lorasweep", "plan", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stderr is not None
        while not child.stderr.readline().rstrip().endswith(begun):
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        said = [line for line in child.stderr if not line.startswith(b"import time:")]
    assert (child.returncode, b"".join(said)) == (130, b"lorasweep: stopped\n")
