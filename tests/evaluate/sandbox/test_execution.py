"""Each attack is a program that would do harm outside a sandbox, and is shown to do none within.

Where an attack is merely refused, the program asserts so itself and passes; where it would leave
a trace, the test looks for it outside.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import sysconfig
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lorasweep.errors import SandboxError
from lorasweep.evaluate.sandbox import execution as module
from lorasweep.evaluate.sandbox.bubblewrap import ProcessExit, find_bubblewrap, run_confined
from lorasweep.evaluate.sandbox.execution import Limits, Outcome, Sandbox

REFUSED = """
import os, sys

def refused(action, *errors):
    try:
        action()
    except errors or OSError:
        return True
    return False
"""

RAW = """
import ctypes, errno
library = ctypes.CDLL(None, use_errno=True)

def refused(number, *arguments):
    return library.syscall(number, *arguments) == -1 and ctypes.get_errno() == errno.ENOSYS
"""

# By the kernel's headers: the number on x86_64, and on aarch64.
DANGEROUS = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "kill": (62, 129),
    "tgkill": (234, 131),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "pidfd_open": (434, 434),
    "mount": (165, 40),
    "umount2": (166, 39),
    "move_mount": (429, 429),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "memfd_create": (319, 279),
    "mknodat": (259, 33),
    "inotify_init1": (294, 26),
    "timer_create": (222, 107),
    "shmget": (29, 194),
    "prctl": (157, 167),
    "seccomp": (317, 277),
    "execveat": (322, 281),
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "landlock_create_ruleset": (444, 444),
    "one that does not exist yet": (999, 999),
}

RIGHT = """
def fold(numbers):
    total = 0
    for number in numbers:
        total += number
    return total

def check(candidate):
    assert candidate([]) == 0
    assert candidate([1, 2, 3]) == 6

check(fold)
"""
WRONG = RIGHT.replace("total = 0", "total = 1")

IGNORES_EVERYTHING = """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
"""

SMALL = Limits(wall_s=20, cpu_s=1, memory_bytes=128 * 2**20, file_bytes=2**20)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(SMALL)


@pytest.fixture(scope="module")
def hasty() -> Sandbox:
    return Sandbox(Limits(wall_s=0.5, file_bytes=2**20))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("nobody may read this", encoding="utf-8")
    return file


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        yield server


def withstood(sandbox: Sandbox, program: str) -> None:
    outcome = sandbox.run(textwrap.dedent(program))
    assert outcome.status == "passed", outcome.detail


def numbers() -> dict[str, int]:
    column = ("x86_64", "aarch64").index(platform.machine())
    return {name: pair[column] for name, pair in DANGEROUS.items()}


# Known answers


def test_a_right_program_passes_and_a_wrong_one_fails(sandbox):
    assert sandbox.run(RIGHT) == Outcome("passed")
    assert sandbox.run(WRONG) == Outcome("failed", "line 9: AssertionError")


def test_the_standard_library_works(sandbox):
    withstood(
        sandbox,
        """
        import bz2, collections, copy, csv, ctypes, datetime, decimal, fractions, functools
        import hashlib, heapq, io, itertools, json, lzma, math, operator, pickle, random, re
        import sqlite3, statistics, string, struct, tempfile, time, typing, unicodedata, uuid, zlib
        from dataclasses import dataclass

        @dataclass
        class Point:
            x: int

        assert pickle.loads(pickle.dumps(Point(3))) == Point(3)
        assert hashlib.sha512(b"a").hexdigest().startswith("1f40fc")
        assert __name__ == "__main__" and random.random() < 1 and uuid.uuid4()
        with tempfile.TemporaryDirectory() as folder:
            with open(folder + "/a", "w") as file:
                file.write("Grüße")
            assert open(folder + "/a").read() == "Grüße"
        assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
        """,
    )


def test_order_is_kept_and_identical_programs_run_once(sandbox, monkeypatch):
    ran = []

    def counted(bubblewrap: str, program: bytes, answer: bytes, limits: Limits) -> ProcessExit:
        ran.append(program)
        return run_confined(bubblewrap, program, answer, limits)

    sandbox.probe()
    monkeypatch.setattr(module, "run_confined", counted)
    slow = f"import time; time.sleep(0.3)\n{RIGHT}"
    outcomes = sandbox.run_all([slow, WRONG, RIGHT, WRONG, slow], max_parallel=2)
    assert [one.status for one in outcomes] == ["passed", "failed", "passed", "failed", "passed"]
    assert len(ran) == 3
    assert sandbox.run_all([]) == []


def test_strings_hash_alike_in_every_run(sandbox):
    program = "assert False, hash('a string')"
    assert sandbox.run(program) == sandbox.run(program)


# Time


def test_an_endless_loop_ends_when_its_time_is_over(hasty):
    assert hasty.run("while True: pass") == Outcome("timed_out", "longer than 0.5 s")


def test_waiting_counts_as_time(hasty):
    assert hasty.run("import time; time.sleep(60)").status == "timed_out"


@pytest.mark.parametrize("program", ["while True: pass", IGNORES_EVERYTHING, "x = 10 ** 10 ** 10"])
def test_cpu_time_is_bounded_whatever_a_program_ignores(sandbox, program):
    assert sandbox.run(program) == Outcome("timed_out", "more than 1 s of CPU time")


def test_a_loop_that_ignores_all_signals_and_interrupts_is_killed(hasty):
    started = time.monotonic()
    assert hasty.run(IGNORES_EVERYTHING).status == "timed_out"
    assert time.monotonic() - started < 5


def processes_of(limits: Limits) -> list[psutil.Process]:
    """Find sandboxes by their limits, which are in their command lines."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(limits.file_bytes) in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until_gone(limits: Limits) -> None:
    deadline = time.monotonic() + 5
    while processes_of(limits) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes_of(limits) == []


def test_nothing_of_a_killed_program_goes_on():
    limits = Limits(wall_s=0.4, file_bytes=1_234_567)
    assert Sandbox(limits).run(IGNORES_EVERYTHING).status == "timed_out"
    wait_until_gone(limits)


def test_a_program_dies_with_the_process_that_runs_it():
    limits = Limits(wall_s=60, file_bytes=1_234_576)
    program = (
        "from lorasweep.evaluate.sandbox.execution import Limits, Sandbox\n"
        f"Sandbox({limits!r}).run('import time; time.sleep(55)')"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        try:
            deadline = time.monotonic() + 30
            # The probe's programs do not sleep, and each lasts much less than a second.
            while not any(
                time.time() - process.create_time() > 2 for process in processes_of(limits)
            ):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            parent.kill()
    wait_until_gone(limits)


# Memory, disk, processes, output


def test_a_fork_bomb_makes_no_process(sandbox):
    outcome = sandbox.run("import os\nwhile True:\n    os.fork()")
    assert outcome.status == "failed"
    assert "OSError" in outcome.detail


def test_no_process_can_be_left_behind(sandbox):
    withstood(
        sandbox,
        REFUSED
        + """
import multiprocessing, subprocess
command = [sys.executable, "-c", "import time; time.sleep(60)"]
assert refused(os.fork) and refused(os.forkpty)
assert refused(lambda: subprocess.Popen(command, start_new_session=True))
assert refused(lambda: os.posix_spawn(command[0], command, {}))
assert refused(multiprocessing.get_context("fork").Process(target=print).start)
""",
    )


def test_a_thread_bomb_makes_no_thread(sandbox):
    outcome = sandbox.run(
        "import threading, time\n"
        "while True:\n    threading.Thread(target=time.sleep, args=(60,)).start()"
    )
    assert outcome.status == "failed"
    assert "can't start new thread" in outcome.detail


@pytest.mark.parametrize(
    "program",
    [
        "held = []\nwhile True:\n    held.append(bytearray(2**20))",
        "held = 'x' * 2**28",
        "import mmap; mmap.mmap(-1, 2**28)",
        "held = [0]\nwhile True:\n    held += held",
    ],
)
def test_a_memory_bomb_fails(sandbox, program):
    outcome = sandbox.run(program)
    assert outcome.status == "failed"
    assert "MemoryError" in outcome.detail or "Cannot allocate memory" in outcome.detail


def test_a_disk_bomb_of_many_files_runs_out_of_space(sandbox):
    outcome = sandbox.run(
        "for number in range(500):\n"
        "    with open(str(number), 'wb') as file:\n        file.write(bytes(2**16))"
    )
    assert outcome.status == "failed"
    assert "No space left" in outcome.detail


def test_a_disk_bomb_of_one_file_is_cut_off(sandbox):
    outcome = sandbox.run(
        "with open('a', 'wb') as f:\n    while True:\n        f.write(bytes(4096))"
    )
    assert outcome.status == "failed"
    assert "File too large" in outcome.detail or "No space left" in outcome.detail


@pytest.mark.parametrize(
    "make", ["os.mkdir(name)", "open(name, 'w').close()", "os.symlink('a', name)"]
)
def test_a_bomb_of_empty_files_is_ended(sandbox, make):
    outcome = sandbox.run(f"import os, itertools\nfor name in map(str, itertools.count()): {make}")
    assert outcome == Outcome("failed", "more than 1000 files")


def test_an_output_bomb_neither_blocks_nor_fills_memory(hasty, sandbox):
    before = psutil.Process().memory_info().rss
    bomb = (
        "import sys\nwhile True:\n    print('x' * 10**6)\n    print('y' * 10**6, file=sys.stderr)"
    )
    assert hasty.run(bomb).status == "timed_out"
    assert sandbox.run("for _ in range(50): print('x' * 10**6)") == Outcome("passed")
    assert psutil.Process().memory_info().rss - before < 50 * 2**20


def test_flooding_every_descriptor_neither_blocks_nor_passes(hasty):
    flood = """
import os
while True:
    for descriptor in range(1000):
        try:
            os.write(descriptor, b"x" * 4096)
        except OSError:
            pass
"""
    outcome = hasty.run(flood)
    assert outcome.status == "timed_out"


# Reaching out


def test_a_listening_socket_is_out_of_reach(sandbox, listener):
    port = listener.getsockname()[1]
    withstood(
        sandbox,
        f"""{REFUSED}
import socket, urllib.request
assert refused(lambda: socket.create_connection(("127.0.0.1", {port}), 1))
assert refused(lambda: urllib.request.urlopen("http://127.0.0.1:{port}", timeout=1))
for family in range(64):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        assert refused(lambda: socket.socket(family, kind))
""",
    )
    with pytest.raises(TimeoutError):
        listener.accept()


@pytest.mark.parametrize("abstract", [False, True])
def test_unix_sockets_are_out_of_reach(sandbox, tmp_path, abstract):
    address = f"\0lorasweep-{os.getpid()}" if abstract else str(tmp_path / "door")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        server.settimeout(0.1)
        withstood(
            sandbox,
            f"{REFUSED}import socket\n"
            f"assert refused(lambda: socket.socket(socket.AF_UNIX).connect({address!r}))",
        )
        with pytest.raises(TimeoutError):
            server.accept()


def test_files_outside_cannot_be_read(sandbox, secret):
    paths = [
        str(secret),
        str(Path.home() / ".ssh"),
        str(Path.home() / ".bashrc"),
        __file__,
        "/etc/passwd",
        "/etc/shadow",
        "/etc/hostname",
        "/proc/1/environ",
        f"/proc/{os.getpid()}/environ",
        f"/proc/self/root{secret}",
        "/proc/self/fd",
        "/proc/cpuinfo",
        "/sys",
        "/dev/shm",
        "/dev/mem",
        "/dev/kmsg",
        "/var/run",
        sysconfig.get_path("purelib"),
        "/tmp/../" + str(secret),
    ]
    withstood(
        sandbox,
        f"{REFUSED}for path in {paths}:\n"
        "    assert refused(lambda: open(path)) and refused(lambda: os.listdir(path)), path",
    )


def test_packages_installed_beside_python_cannot_be_seen(sandbox):
    withstood(
        sandbox,
        """
        import sys
        for name in ("numpy", "torch", "lorasweep", "pip"):
            try:
                __import__(name)
            except ImportError:
                continue
            raise AssertionError(name)
        """,
    )


def test_no_variable_of_the_parent_comes_in(sandbox, monkeypatch):
    for name in ("HF_TOKEN", "RAY_ADDRESS", "LD_PRELOAD_", "PYTHONPATH"):
        monkeypatch.setenv(name, "a-secret-of-the-parent")
    withstood(
        sandbox,
        """
        import ctypes, os
        environ = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
        raw = []
        while environ[len(raw)]:
            raw.append(environ[len(raw)].decode())
        assert not [item for item in raw if "secret" in item], raw
        names = {"HOME", "LANG", "PATH", "PYTHONHASHSEED", "LD_LIBRARY_PATH", "PWD", "LC_CTYPE"}
        assert set(os.environ) <= names, os.environ
        """,
    )


def test_nothing_outside_can_be_written_to(sandbox, tmp_path, secret):
    folders = [
        str(tmp_path),
        "/",
        "/dev",
        "/dev/shm",
        "/proc",
        "/usr",
        str(Path.home()),
        sysconfig.get_path("purelib"),
        sysconfig.get_path("stdlib"),
        os.path.dirname(os.path.realpath(sys.executable)),  # noqa: PTH120 - a plain string
    ]
    withstood(
        sandbox,
        f"""{REFUSED}
for folder in {folders}:
    assert refused(lambda: open(folder + "/left-behind", "w")), folder
    assert refused(lambda: os.mkdir(folder + "/left-behind")), folder
    assert refused(lambda: os.symlink("a", folder + "/left-behind")), folder
assert refused(lambda: open(os.__file__, "a")) and refused(lambda: os.remove(os.__file__))
assert refused(lambda: os.chmod(os.__file__, 0o777))
assert refused(lambda: open({str(secret)!r}, "a")) and refused(lambda: os.remove({str(secret)!r}))
""",
    )
    assert secret.read_text(encoding="utf-8") == "nobody may read this"
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert not any((Path(folder) / "left-behind").exists() for folder in folders)


def test_class_traversal_reaches_a_shell_that_is_not_there(sandbox, tmp_path):
    mark = tmp_path / "mark"
    outcome = sandbox.run(
        f"""
import os
found = [
    kind for kind in ().__class__.__base__.__subclasses__() if kind.__name__ == "_wrap_close"
]
system = found[0].__init__.__globals__["system"]
assert system("touch {mark}") != 0
assert system("touch /tmp/mark") != 0
try:
    found[0].__init__.__globals__["execv"]("/bin/sh", ["sh", "-c", "touch {mark}"])
except OSError:
    pass
"""
    )
    assert outcome == Outcome("passed")
    assert not mark.exists()


def test_no_process_can_be_killed_or_signalled(sandbox):
    withstood(
        sandbox,
        f"""{REFUSED}
import signal
for process in (-1, 0, 1, os.getpid(), os.getppid(), {os.getpid()}, {os.getppid()}):
    assert refused(lambda: os.kill(process, signal.SIGKILL)), process
assert refused(lambda: os.killpg(0, signal.SIGKILL))
assert refused(lambda: signal.raise_signal(signal.SIGKILL))
assert os.getpid() < 10
""",
    )


def test_dangerous_system_calls_are_refused_by_number(sandbox):
    withstood(
        sandbox,
        f"{RAW}for name, number in {numbers()}.items():\n"
        "    assert refused(number, 0, 0, 0, 0, 0, 0), name",
    )


def test_limits_can_not_be_raised(sandbox):
    withstood(
        sandbox,
        REFUSED
        + """
import resource
for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE,
             resource.RLIMIT_NOFILE, resource.RLIMIT_CORE):
    hard = resource.getrlimit(kind)[1]
    assert hard != resource.RLIM_INFINITY
    assert refused(lambda: resource.setrlimit(kind, (hard, hard + 1)), ValueError, OSError)
assert os.getuid() == os.getgid() == 65534 and refused(lambda: os.setuid(0))
""",
    )


def test_no_descriptor_is_inherited_but_the_sandbox_s_own(sandbox, secret):
    with secret.open("rb") as file:
        os.set_inheritable(file.fileno(), True)
        withstood(
            sandbox,
            """
            import os, stat
            found = {}
            for descriptor in range(5000):
                try:
                    found[descriptor] = os.fstat(descriptor).st_mode
                except OSError:
                    pass
            rest = {descriptor: mode for descriptor, mode in found.items() if descriptor > 2}
            assert all(stat.S_ISCHR(found[standard]) for standard in (0, 1, 2)), found
            assert sorted(map(stat.S_ISFIFO, rest.values())) == [False, True], found
            program, = (number for number, mode in rest.items() if stat.S_ISREG(mode))
            assert os.pread(program, 10, 0) == b"\\nimport os"
            assert not any(map(os.get_inheritable, rest))
            """,
        )


# Claiming to have passed


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit(0)",
        "import sys; sys.exit()",
        "raise SystemExit",
        "raise SystemExit(0)",
        "import os; os._exit(0)",
        "import os; os._exit(137)",
        "import os; os._exit(152)",
        "raise KeyboardInterrupt",
        "import os, sys; os.execv(sys.executable, [sys.executable, '-S', '-c', 'pass'])",
        "import sys; print('passed'); sys.stdout.flush(); sys.exit(0)",
        "print('\\n' + '0' * 32); raise SystemExit(0)",
        "import atexit, os; atexit.register(os._exit, 0); assert False",
        "import os; os.abort()",
        "import ctypes; ctypes.string_at(0)",
        "import builtins; builtins.AssertionError = None; assert False",
        "import sys; sys.modules.clear(); assert False",
        "import sys; sys.excepthook = lambda *error: None; assert False",
        "import os\nos.write = os._exit = os.pread = lambda *anything: None\nassert False",
        "def endless():\n    endless()\nendless()",
        "def oh no",
        "\0",
        "\ud800",
        "x = '" + "(" * 100_000,
        "import os\nfor descriptor in range(3, 100):\n    try:\n"
        "        os.write(descriptor, b'\\n' + b'0' * 32)\n    except OSError:\n        pass\n"
        "os._exit(0)",
    ],
)
def test_a_program_that_does_not_reach_its_end_has_not_passed(sandbox, program):
    outcome = sandbox.run(program)
    assert outcome.status in {"failed", "timed_out"}
    assert outcome.status == "failed" or "_exit(152)" in program
    assert outcome.detail


def test_recursion_without_a_limit_fails(sandbox):
    outcome = sandbox.run(
        "import sys; sys.setrecursionlimit(10**9)\ndef deep(x):\n    return deep([x])\ndeep(0)"
    )
    assert outcome.status in {"failed", "timed_out"}


def test_an_error_s_text_is_one_printable_line(sandbox):
    outcome = sandbox.run("raise ValueError('a\\x1b[31m\\nb\\x00' + 'c' * 10**6)")
    assert outcome.status == "failed"
    assert outcome.detail.startswith("line 1: ValueError: a [31m b c")
    assert outcome.detail.isprintable()
    assert len(outcome.detail) <= 200


def test_an_error_that_cannot_be_printed_fails_all_the_same(sandbox):
    outcome = sandbox.run(
        "class Odd(Exception):\n    def __str__(self):\n        raise SystemExit(0)\nraise Odd"
    )
    assert outcome == Outcome("failed", "an exception that cannot be shown")


def test_one_program_leaves_nothing_to_the_next(sandbox):
    first = "import builtins, os; builtins.mark = 1; open('/tmp/mark', 'w').write('x')"
    second = (
        "import builtins, os; assert os.listdir('/tmp') == [] and not hasattr(builtins, 'mark')"
    )
    assert sandbox.run_all([first, second]) == [Outcome("passed"), Outcome("passed")]


# What is not the program's fault


def test_a_sandbox_that_was_killed_from_outside_says_nothing_of_the_program(sandbox, monkeypatch):
    sandbox.probe()
    monkeypatch.setattr(
        module, "run_confined", lambda *_: ProcessExit(b"\n", -signal.SIGKILL, "", "")
    )
    assert sandbox.run(RIGHT).status == "failed_to_run"


def test_a_machine_without_processes_to_spare_says_nothing_of_the_program(sandbox, monkeypatch):
    def refuse(*_: object) -> ProcessExit:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    sandbox.probe()
    monkeypatch.setattr(module, "run_confined", refuse)
    outcome = sandbox.run(RIGHT)
    assert outcome.status == "failed_to_run"
    assert "temporarily unavailable" in outcome.detail


def test_a_program_that_was_killed_once_gets_a_second_chance(sandbox, monkeypatch):
    endings = [ProcessExit(b"\n", 128 + signal.SIGKILL, "", "")]
    sandbox.probe()
    monkeypatch.setattr(
        module, "run_confined", lambda *given: endings.pop() if endings else run_confined(*given)
    )
    assert sandbox.run(RIGHT) == Outcome("passed")


# Refusing to run


def test_without_bubblewrap_nothing_runs(sandbox, monkeypatch):
    monkeypatch.setenv("PATH", "")
    for action in (sandbox.probe, lambda: sandbox.run(RIGHT), lambda: sandbox.run_all([RIGHT])):
        with pytest.raises(SandboxError, match="bubblewrap must be installed"):
            action()


@pytest.fixture
def weaken(tmp_path, monkeypatch):
    """Shadow bwrap by a script that changes its arguments."""

    def install(change: str) -> None:
        real = find_bubblewrap()
        folder = tmp_path / "programs"
        folder.mkdir()
        script = folder / "bwrap"
        script.write_text(
            f"#!/bin/sh\n''''exec {sys.executable} -I -S \"$0\" \"$@\" # '''\n"
            "import os, sys\narguments = sys.argv[1:]\n"
            "def drop(name, values):\n"
            "    place = arguments.index(name)\n"
            "    del arguments[place : place + 1 + values]\n"
            f"{change}\nos.execv({real!r}, ['bwrap', *arguments])\n",
            encoding="utf-8",
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return install


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("sys.exit('bwrap: No permissions to create new namespace')", "No permissions"),
        ("drop('--seccomp', 1)", "there is no network"),
        ("arguments[:0] = ['--ro-bind', '/etc', '/etc']", "files outside cannot be read"),
        ("drop('--remount-ro', 1); drop('--remount-ro', 1)", "nothing outside can be written"),
        ("arguments[:0] = ['--setenv', 'HF_TOKEN', 'x']; drop('--clearenv', 0)", "no variable"),
        ("drop('--unshare-pid', 0)", "processes outside are out of sight"),
        ("drop('--perms', 1); drop('--size', 1); drop('--size', 1)", "size of files is bounded"),
    ],
)
def test_a_protection_that_does_not_hold_is_named_and_nothing_runs(weaken, change, sentence):
    weaken(change)
    with pytest.raises(SandboxError, match=sentence):
        Sandbox(SMALL).run(RIGHT)


def test_a_machine_is_probed_once(sandbox, monkeypatch):
    sandbox.probe()
    monkeypatch.setattr(module, "run_confined", None)
    Sandbox(SMALL).probe()


@pytest.mark.parametrize("name", ["wall_s", "cpu_s", "memory_bytes", "file_bytes"])
def test_a_limit_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}: must be above 0, got 0"):
        Limits(**{name: 0})
