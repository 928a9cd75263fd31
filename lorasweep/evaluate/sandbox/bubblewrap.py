"""Start a bare Python interpreter inside bubblewrap, watch it, and end it in time."""

from __future__ import annotations

import functools
import json
import os
import select
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Literal

from lorasweep.errors import SandboxError
from lorasweep.evaluate.sandbox import child
from lorasweep.evaluate.sandbox.interpreter import find_interpreter
from lorasweep.evaluate.sandbox.seccomp import allowing_filter

START_TIMEOUT_S = 60.0  # a loaded machine starts slowly, which is not the program's fault
FOLDER = "/tmp"
# An empty file takes kernel memory that no limit on bytes counts, so files are counted as well.
MAX_FILES = 1000
POLL_S = 0.05  # some 10,000 files can be made between two checks
READ_BYTES = 4096
# Strings hash alike in every run, so that a program that iterates over a set ends the same way.
ENVIRONMENT = {"HOME": FOLDER, "LANG": "C.UTF-8", "PATH": "/usr/bin", "PYTHONHASHSEED": "0"}

# Named one by one: --unshare-all goes on without a user or cgroup namespace where there is none.
_NAMESPACES = (
    *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc"),
    *("--unshare-uts", "--unshare-cgroup", "--hostname", "sandbox"),
    *("--uid", "65534", "--gid", "65534", "--cap-drop", "ALL"),
    *("--new-session", "--die-with-parent", "--clearenv"),
)


StoppedBy = Literal["", "start", "wall", "cpu", "files"]


@dataclass(frozen=True)
class Limits:
    """Resource limits of one program, which is always one process with one thread."""

    wall_s: float = 10.0
    cpu_s: int = 5  # whole seconds, as the kernel counts them; a busy machine does not matter
    memory_bytes: int = 256 * 2**20  # address space, some 20 MB of the interpreter included
    file_bytes: int = 16 * 2**20  # all files of its folder together

    def __post_init__(self) -> None:
        """Refuse limits that would mean no limit at all."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value <= 0:
                raise ValueError(f"{field.name}: must be above 0, got {value!r}")


@dataclass(frozen=True)
class ProcessExit:
    """How a program ended, as observed from outside its sandbox.

    verdict: what `child.py` wrote to its pipe.
    code: exit code; below 0 the signal that ended bubblewrap, above 128 the one that ended the
        program.
    stopped_by: the limit that ended it, "" if none did.
    stderr: of bubblewrap or the interpreter, from before the program began.
    """

    verdict: bytes
    code: int
    stopped_by: StoppedBy
    stderr: str


def find_bubblewrap() -> str:
    """Find the bubblewrap program on the PATH.

    Raises:
        SandboxError: it is not there.
    """
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxError(
            "the sandbox for generated code: bubblewrap must be installed, and there is no bwrap "
            "on the PATH; install it with `apt-get install bubblewrap`, or leave tasks that run "
            "code out of the sweep"
        )
    return found


@functools.cache
def _command(bubblewrap: str, file_bytes: int) -> tuple[str, ...]:
    """Build bubblewrap's command line.

    The root is an empty tmpfs into which only the interpreter's files are mounted, read-only and
    under their own names, so there is no list of paths to hide that could be incomplete.
    """
    interpreter = find_interpreter()
    shown = (interpreter.program, *interpreter.folders, *interpreter.libraries)
    libraries = ":".join(sorted({str(Path(name).parent) for name in interpreter.libraries}))
    environment = {**ENVIRONMENT, "LD_LIBRARY_PATH": libraries}
    return (
        bubblewrap,
        *_NAMESPACES,
        *(part for item in environment.items() for part in ("--setenv", *item)),
        *(part for path in shown for part in ("--ro-bind", path, path)),
        # Installed packages lie inside the standard library's folder: cover them with empty mounts.
        *(
            part
            for path in interpreter.packages
            for part in ("--size", "4096", "--tmpfs", path, "--remount-ro", path)
        ),
        *("--dev-bind", "/dev/null", "/dev/null"),
        *("--perms", "0700", "--size", str(file_bytes), "--tmpfs", FOLDER),
        *("--remount-ro", "/", "--chdir", FOLDER),
    )


@functools.cache
def _child_command() -> tuple[str, ...]:
    """Build the interpreter's command line.

    It lists the flags that -I implies except the one that ignores PYTHONHASHSEED. The script is
    passed as text, so lorasweep's own folder need not be mounted.
    """
    text = Path(child.__file__).read_text(encoding="utf-8")
    return (find_interpreter().program, "-s", "-P", "-S", "-B", "-X", "utf8", "-c", text)


def run_confined(bubblewrap: str, program: bytes, secret: bytes, limits: Limits) -> ProcessExit:
    """Run a program in a sandbox of its own, which ends with the program or at its time limit.

    Raises:
        OSError: the machine has no process or file to give.
    """
    with ExitStack() as stack:
        stdin, rules, errors = (
            stack.enter_context(_memory_file(content))
            for content in (program + secret, allowing_filter(os.uname().machine), b"")
        )
        verdict, their_verdict = _pipe(stack)
        info, their_info = _pipe(stack)
        inherited = (rules.fileno(), their_info.fileno(), their_verdict.fileno())
        arguments = (len(program), limits.cpu_s, limits.memory_bytes, limits.file_bytes)
        process = subprocess.Popen(
            [
                *_command(bubblewrap, limits.file_bytes),
                *("--seccomp", str(inherited[0]), "--info-fd", str(inherited[1]), "--"),
                *(*_child_command(), str(inherited[2]), *map(str, arguments)),
            ],
            env={},
            pass_fds=inherited,
            process_group=0,  # Ctrl-C at the terminal is for us to handle
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            # Our copies of the write ends must be closed, or reading would never see the end.
            their_verdict.close()
            their_info.close()
            code, stopped_by = _wait(process, verdict, info, limits)
        finally:
            # Killing bubblewrap ends its PID namespace, and with it every process inside.
            process.kill()
            process.wait()
        # Both pipes are non-blocking, so a program that floods one cannot hold us up: it blocks
        # once the pipe is full, until its time is over.
        written = verdict.read(READ_BYTES) or b""
        errors.seek(0)
        stderr = errors.read(READ_BYTES).decode("utf-8", "replace")
        return ProcessExit(written, code, stopped_by, stderr)


def _wait(
    process: subprocess.Popen[bytes], verdict: IO[bytes], info: IO[bytes], limits: Limits
) -> tuple[int, StoppedBy]:
    """Wait until a program ends or breaks a limit; the clock starts at its first line."""
    if not _wait_readable(verdict.fileno(), START_TIMEOUT_S):
        return 0, "start"
    started = time.monotonic()
    deadline = started + limits.wall_s
    known = b""
    ended = os.pidfd_open(process.pid)  # readable once the process has ended
    try:
        while not _wait_readable(ended, min(POLL_S, deadline - time.monotonic())):
            if time.monotonic() >= deadline:
                return 0, "wall"
            known += info.read(READ_BYTES) or b""
            if _count_files(known) > MAX_FILES:
                return 0, "files"
    finally:
        os.close(ended)
    code = process.wait()
    # SIGXCPU comes at the limit, SIGKILL a second later for programs that ignore the first. Others
    # may send SIGKILL too (the OOM killer), but a program with one thread cannot have used `cpu_s`
    # of CPU time in less than `cpu_s` of wall time.
    heeded = code == 128 + signal.SIGXCPU
    killed = code == 128 + signal.SIGKILL and time.monotonic() - started >= limits.cpu_s
    return code, "cpu" if heeded or killed else ""


def _count_files(known: bytes) -> int:
    """Count the files in a sandbox's folder, reached through /proc by the PID of its process.

    Args:
        known: JSON that bubblewrap wrote to --info-fd; empty until the sandbox exists.
    """
    if not known:
        return 0
    try:
        pid = json.loads(known)["child-pid"]
        space = os.statvfs(f"/proc/{pid}/root{FOLDER}")
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it is ending just now
    return space.f_files - space.f_ffree


def _wait_readable(descriptor: int, timeout_s: float) -> bool:
    """Wait until a descriptor has something to read, or its last writer has closed it."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout_s) * 1000))


def _pipe(stack: ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    return (
        stack.enter_context(os.fdopen(ours, "rb", buffering=0)),
        stack.enter_context(os.fdopen(theirs, "wb", buffering=0)),
    )


def _memory_file(content: bytes) -> IO[bytes]:
    """Make an anonymous in-memory file for the sandbox to inherit."""
    file = os.fdopen(os.memfd_create("lorasweep"), "w+b", buffering=0)
    file.write(content)
    file.seek(0)
    return file
