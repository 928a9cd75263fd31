"""Run programs that a model wrote, each shut in by bubblewrap; nothing else here may run them.

A program gets one process with one thread, the interpreter's own files to read, a small folder in
memory to write to, and nothing of the machine besides: no network, no other process, no secret,
no variable. docs/sandbox.md says what that protects from and what it does not.
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
from lorasweep.evaluate.sandbox import guest
from lorasweep.evaluate.sandbox.attacks import attacks
from lorasweep.evaluate.sandbox.bubblewrap import (
    MOST_FILES,
    Ending,
    Limits,
    find_bubblewrap,
    shut_in,
)

__all__ = ["Limits", "Outcome", "Sandbox"]

PROBE_WALL_S = 0.3  # long enough to start, short enough to wait for


@dataclass(frozen=True)
class Outcome:
    """Say how one program ended, and why in a line.

    `timed_out` is a program that did not end in time, `failed_to_run` one that nothing can be said
    of: the sandbox did not start, or was killed from outside.
    """

    status: Literal["passed", "failed", "timed_out", "failed_to_run"]
    detail: str = ""


class Sandbox:
    """Run programs, each in a fresh sandbox that ends with it."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - it is frozen
        """Take the limits that hold for each program."""
        self.limits = limits

    def probe(self) -> None:
        """See that every protection really holds on this machine; only the first time takes long.

        Raises:
            SandboxError: one of them does not, or there is no bubblewrap.
        """
        _withstand(find_bubblewrap(), self.limits)

    def run(self, program: str) -> Outcome:
        """Run a program; it passes only by reaching its very end.

        Raises:
            SandboxError: as in probe. Whatever the program itself does is an outcome.
        """
        return self.run_all([program])[0]

    def run_all(self, programs: Sequence[str], at_a_time: int = 1) -> list[Outcome]:
        """Run programs, identical ones once, and give the outcomes in the order of the programs.

        Raises:
            SandboxError: as in probe.
        """
        self.probe()
        attempt = functools.partial(_attempt, find_bubblewrap(), self.limits)
        unique = list(dict.fromkeys(programs))
        with ThreadPoolExecutor(max_workers=at_a_time) as pool:
            outcomes = dict(zip(unique, pool.map(attempt, unique), strict=True))
        return [outcomes[program] for program in programs]


@functools.cache
def _withstand(bubblewrap: str, limits: Limits) -> None:
    """Attack a sandbox in every way that is listed.

    Raises:
        SandboxError: an attack succeeds, or nothing runs at all.
    """
    # The probe must not fail where only the limits on time are tight, nor wait where they are not.
    patient = replace(limits, wall_s=30.0)
    with tempfile.NamedTemporaryFile() as secret:
        for number, attack in enumerate(attacks(Path(secret.name), limits)):
            hasty = attack.expected == "timed_out"
            within = replace(limits, wall_s=PROBE_WALL_S) if hasty else patient
            outcome = _attempt(bubblewrap, within, attack.program)
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


def _attempt(bubblewrap: str, limits: Limits, program: str) -> Outcome:
    """Run a program without asking whether the sandbox holds."""
    outcome = _once(bubblewrap, limits, program)
    # Killed by nothing of ours: the machine may have run out of memory, which passes, or the
    # program did it to itself, which it does again.
    if outcome is None:
        outcome = _once(bubblewrap, limits, program)
    return Outcome("failed", "killed before its end") if outcome is None else outcome


def _once(bubblewrap: str, limits: Limits, program: str) -> Outcome | None:
    """Run a program once; None means that something killed it."""
    secret = secrets.token_hex(16).encode()
    try:
        ending = shut_in(bubblewrap, program.encode("utf-8", "surrogatepass"), secret, limits)
    except OSError as error:  # the machine's fault: no process or file to be had
        return Outcome("failed_to_run", _line(f"{type(error).__name__}: {error}"))
    if ending.said == guest.STARTED + secret:
        return Outcome("passed")
    if not ending.said.startswith(guest.STARTED):
        complaint = ending.complaint.strip().splitlines() or ["it did not start"]
        return Outcome("failed_to_run", _line(complaint[-1]))
    if ending.code < 0:
        return Outcome("failed_to_run", "something outside killed the sandbox")
    return _ended(ending, limits)


def _ended(ending: Ending, limits: Limits) -> Outcome | None:
    """Say why a program that began did not come to its end."""
    if ending.over == "wall":
        return Outcome("timed_out", f"longer than {limits.wall_s:g} s")
    if ending.over == "cpu":
        return Outcome("timed_out", f"more than {limits.cpu_s} s of CPU time")
    if ending.over == "files":
        return Outcome("failed", f"more than {MOST_FILES} files")
    detail = _line(ending.said.removeprefix(guest.STARTED).decode("utf-8", "replace"))
    if not detail and ending.code == 128 + signal.SIGKILL:
        return None
    how = f"signal {ending.code - 128}" if ending.code > 128 else f"exit code {ending.code}"
    return Outcome("failed", detail or f"it left before its end, with {how}")


def _line(text: str) -> str:
    """Make a text that a program had a hand in fit for a line of a terminal."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(shown.split())[: guest.DETAIL_CHARACTERS]
