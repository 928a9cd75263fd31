"""Start bubblewrap around a bare interpreter, listen to what is within, and end it in time."""

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
from lorasweep.evaluate.sandbox import guest
from lorasweep.evaluate.sandbox.interpreter import find_interpreter
from lorasweep.evaluate.sandbox.seccomp import allowing_filter

START_PATIENCE_S = 60.0  # a machine under load is slow, and that is not the program's fault
FOLDER = "/tmp"
MOST_FILES = 1000  # each takes the kernel's memory, which no limit on bytes counts
LOOK_EVERY_S = 0.05  # some ten thousand files can be made in between
SAID_BYTES = 4096
# Strings hash alike in every run, so that a program which walks over a set ends alike as well.
ENVIRONMENT = {"HOME": FOLDER, "LANG": "C.UTF-8", "PATH": "/usr/bin", "PYTHONHASHSEED": "0"}

# Each on its own: --unshare-all goes on without a user or cgroup namespace where there is none.
_SEPARATE = (
    *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc"),
    *("--unshare-uts", "--unshare-cgroup", "--hostname", "sandbox"),
    *("--uid", "65534", "--gid", "65534", "--cap-drop", "ALL"),
    *("--new-session", "--die-with-parent", "--clearenv"),
)


Over = Literal["", "start", "wall", "cpu", "files"]


@dataclass(frozen=True)
class Limits:
    """Bound what one program may use; it is one process with one thread in any case."""

    wall_s: float = 10.0
    cpu_s: int = 5  # whole seconds, as the kernel counts them; a busy machine does not matter
    memory_bytes: int = 256 * 2**20  # address space, some 20 MB of the interpreter included
    file_bytes: int = 16 * 2**20  # all files of its folder together

    def __post_init__(self) -> None:
        """Refuse limits that would mean none at all."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value <= 0:
                raise ValueError(f"{field.name}: must be above 0, got {value!r}")


@dataclass(frozen=True)
class Ending:
    """Say what was seen of a program from outside."""

    said: bytes  # through the verdict's pipe
    code: int  # below 0: what ended bubblewrap; above 128: what ended the program
    over: Over
    complaint: str  # of bubblewrap or the interpreter, from before the program began


def find_bubblewrap() -> str:
    """Look for bubblewrap on the path.

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
    """Say what a sandbox shows: the interpreter's files under their own names, read-only."""
    interpreter = find_interpreter()
    shown = (interpreter.program, *interpreter.folders, *interpreter.libraries)
    libraries = ":".join(sorted({str(Path(name).parent) for name in interpreter.libraries}))
    environment = {**ENVIRONMENT, "LD_LIBRARY_PATH": libraries}
    return (
        bubblewrap,
        *_SEPARATE,
        *(part for item in environment.items() for part in ("--setenv", *item)),
        *(part for path in shown for part in ("--ro-bind", path, path)),
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
def _guest() -> tuple[str, ...]:
    """Give the interpreter's command line; -I would ignore the seed of the hashes."""
    text = Path(guest.__file__).read_text(encoding="utf-8")
    return (find_interpreter().program, "-s", "-P", "-S", "-B", "-X", "utf8", "-c", text)


def shut_in(bubblewrap: str, program: bytes, secret: bytes, limits: Limits) -> Ending:
    """Run a program in a sandbox of its own, which ends with it or with its time.

    Raises:
        OSError: there is no process or file to be had.
    """
    with ExitStack() as stack:
        given, rules, complaints = (
            stack.enter_context(_in_memory(content))
            for content in (program + secret, allowing_filter(os.uname().machine), b"")
        )
        verdict, their_verdict = _pipe(stack)
        facts, their_facts = _pipe(stack)
        handed = (rules.fileno(), their_facts.fileno(), their_verdict.fileno())
        numbers = (len(program), limits.cpu_s, limits.memory_bytes, limits.file_bytes)
        process = subprocess.Popen(
            [
                *_command(bubblewrap, limits.file_bytes),
                *("--seccomp", str(handed[0]), "--info-fd", str(handed[1]), "--"),
                *(*_guest(), str(handed[2]), *map(str, numbers)),
            ],
            env={},
            pass_fds=handed,
            process_group=0,  # an interrupt at the terminal is for us to answer
            stdin=given,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
        )
        try:
            their_verdict.close()
            their_facts.close()
            code, over = _watch(process, verdict, facts, limits)
        finally:
            process.kill()  # bubblewrap takes everything within along
            process.wait()
        # Whoever writes more than a pipe holds waits there until its time is over.
        said = verdict.read(SAID_BYTES) or b""
        complaints.seek(0)
        complaint = complaints.read(SAID_BYTES).decode("utf-8", "replace")
        return Ending(said, code, over, complaint)


def _watch(
    process: subprocess.Popen[bytes], verdict: IO[bytes], facts: IO[bytes], limits: Limits
) -> tuple[int, Over]:
    """Wait for a program's end, or for that of its time."""
    if not _stirs(verdict.fileno(), START_PATIENCE_S):
        return 0, "start"
    started = time.monotonic()
    deadline = started + limits.wall_s
    known = b""
    end = os.pidfd_open(process.pid)
    try:
        while not _stirs(end, min(LOOK_EVERY_S, deadline - time.monotonic())):
            if time.monotonic() >= deadline:
                return 0, "wall"
            known += facts.read(SAID_BYTES) or b""
            if _files(known) > MOST_FILES:
                return 0, "files"
    finally:
        os.close(end)
    code = process.wait()
    # One thread uses no more CPU time than time goes by. The second signal is for programs that
    # do not heed the first.
    heeded = code == 128 + signal.SIGXCPU
    killed = code == 128 + signal.SIGKILL and time.monotonic() - started >= limits.cpu_s
    return code, "cpu" if heeded or killed else ""


def _files(known: bytes) -> int:
    """Count the files in the folder of a sandbox, of which bubblewrap names a process."""
    if not known:
        return 0  # it never began
    try:
        within = json.loads(known)["child-pid"]
        space = os.statvfs(f"/proc/{within}/root{FOLDER}")
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it ends just now
    return space.f_files - space.f_ffree


def _stirs(descriptor: int, patience_s: float) -> bool:
    """Wait until there is something to read, or nobody left to write."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, patience_s) * 1000))


def _pipe(stack: ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    return (
        stack.enter_context(os.fdopen(ours, "rb", buffering=0)),
        stack.enter_context(os.fdopen(theirs, "wb", buffering=0)),
    )


def _in_memory(content: bytes) -> IO[bytes]:
    """Make a file without a name, for a sandbox to inherit."""
    file = os.fdopen(os.memfd_create("lorasweep"), "w+b", buffering=0)
    file.write(content)
    file.seek(0)
    return file
