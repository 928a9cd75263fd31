"""Run programs that a model wrote, each in a bubblewrap sandbox. Nothing else here may run them.

A program gets one process with one thread, read access to the interpreter's own files, a small
in-memory folder to write to, and nothing else: no network, no other processes, no secrets, no
environment variables. docs/sandbox.md says what this protects from and what it does not.
"""

from __future__ import annotations

import functools
import secrets
import signal
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lorasweep.errors import SandboxError
from lorasweep.evaluate.sandbox import child
from lorasweep.evaluate.sandbox.attacks import attacks
from lorasweep.evaluate.sandbox.bubblewrap import (
    MAX_FILES,
    Limits,
    ProcessExit,
    find_bubblewrap,
    run_confined,
)

__all__ = ["Limits", "Outcome", "Sandbox"]

PROBE_WALL_S = 0.3  # long enough to start, short enough to wait for


@dataclass(frozen=True)
class Outcome:
    """Result of one program, with the reason in one line.

    `timed_out`: the program did not end in time. `failed_to_run`: nothing is known about the
    program, because the sandbox did not start or was killed from outside.
    """

    status: Literal["passed", "failed", "timed_out", "failed_to_run"]
    detail: str = ""


class Sandbox:
    """Runs programs, each in a fresh sandbox that ends with it."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - it is frozen
        """Set the limits of each program."""
        self.limits = limits

    def probe(self) -> None:
        """Check that every protection holds on this machine; only the first call takes long.

        Raises:
            SandboxError: a protection does not hold, or bubblewrap is missing.
        """
        _check_protections(find_bubblewrap(), self.limits)

    def run(self, program: str) -> Outcome:
        """Run a program; it passes only if it reaches its last line.

        Raises:
            SandboxError: as in probe. Whatever the program itself does is an outcome.
        """
        return self.run_all([program])[0]

    def run_all(self, programs: Sequence[str], max_parallel: int = 1) -> list[Outcome]:
        """Run programs, identical ones once, and return outcomes in the order of the programs.

        Raises:
            SandboxError: as in probe.
        """
        self.probe()
        run = functools.partial(_run, find_bubblewrap(), self.limits)
        unique = list(dict.fromkeys(programs))
        # Threads suffice: each one only waits for a process of its own.
        with ThreadPoolExecutor(max_workers=max_parallel) as pool:
            outcomes = dict(zip(unique, pool.map(run, unique), strict=True))
        return [outcomes[program] for program in programs]


@functools.cache
def _check_protections(bubblewrap: str, limits: Limits) -> None:
    """Run every attack in a sandbox and require the expected outcome.

    Raises:
        SandboxError: an attack succeeds, or nothing runs at all.
    """
    # A tight time limit must not fail the other checks, and a generous one must not make the
    # endless program's check wait; so both are replaced here.
    patient = replace(limits, wall_s=30.0)
    with tempfile.NamedTemporaryFile() as secret:
        for number, attack in enumerate(attacks(Path(secret.name), limits)):
            is_endless = attack.expected == "timed_out"
            within = replace(limits, wall_s=PROBE_WALL_S) if is_endless else patient
            outcome = _run(bubblewrap, within, attack.program)
            if outcome.status == attack.expected:
                continue
            if number == 0:
                raise SandboxError(
                    "the sandbox for generated code: bubblewrap must be able to make a user "
                    f"namespace and run Python in it, got {outcome.detail!r}; allow user "
                    "namespaces on this machine and in its container, or leave tasks that run "
                    "code out of the sweep"
                )
            raise SandboxError(
                f"the sandbox for generated code: it must hold on this machine that "
                f"{attack.protection}, and it does not ({outcome.status}: {outcome.detail}); "
                "leave tasks that run code out of the sweep"
            )


def _run(bubblewrap: str, limits: Limits, program: str) -> Outcome:
    """Run a program, a second time if something killed it, without checking the protections."""
    outcome = _run_once(bubblewrap, limits, program)
    # Killed, but not by us. If the machine was out of memory, that passes; if the program did it
    # to itself, it will do so again.
    if outcome is None:
        outcome = _run_once(bubblewrap, limits, program)
    return Outcome("failed", "killed before its end") if outcome is None else outcome


def _run_once(bubblewrap: str, limits: Limits, program: str) -> Outcome | None:
    """Run a program once; None if something killed it."""
    secret = secrets.token_hex(16).encode()
    code = program.encode("utf-8", "surrogatepass")
    try:
        ended = run_confined(bubblewrap, code, secret, limits)
    except OSError as error:  # the machine's fault: it had no process or file to give
        return Outcome("failed_to_run", _one_line(f"{type(error).__name__}: {error}"))
    if ended.verdict == child.STARTED + secret:
        return Outcome("passed")
    if not ended.verdict.startswith(child.STARTED):
        complaint = ended.stderr.strip().splitlines() or ["it did not start"]
        return Outcome("failed_to_run", _one_line(complaint[-1]))
    if ended.code < 0:
        return Outcome("failed_to_run", "something outside killed the sandbox")
    return _failure(ended, limits)


def _failure(ended: ProcessExit, limits: Limits) -> Outcome | None:
    """Explain why a program that started did not reach its end; None if something killed it."""
    if ended.stopped_by == "wall":
        return Outcome("timed_out", f"longer than {limits.wall_s:g} s")
    if ended.stopped_by == "cpu":
        return Outcome("timed_out", f"more than {limits.cpu_s} s of CPU time")
    if ended.stopped_by == "files":
        return Outcome("failed", f"more than {MAX_FILES} files")
    detail = _one_line(ended.verdict.removeprefix(child.STARTED).decode("utf-8", "replace"))
    if not detail and ended.code == 128 + signal.SIGKILL:
        return None
    how = f"signal {ended.code - 128}" if ended.code > 128 else f"exit code {ended.code}"
    return Outcome("failed", detail or f"it left before its end, with {how}")


def _one_line(text: str) -> str:
    """Make text that may come from a program safe to print, on one line of a terminal."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(shown.split())[: child.DETAIL_CHARACTERS]
