"""The filter is read back by the kernel's rules, for machines that the tests do not run on too."""

from __future__ import annotations

import errno
import struct

import pytest

from lorasweep.errors import SandboxError
from lorasweep.evaluate.sandbox.seccomp import ALLOWED, allowing_filter

ALLOW, KILL = 0x7FFF0000, 0x80000000
REFUSE = 0x00050000 | errno.ENOSYS
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
OTHERS = {"x86_64": 0x40000003, "aarch64": 0x40000028}  # i386 and arm
COLUMN = {"x86_64": 0, "aarch64": 1}


def decide(rules: bytes, number: int, audit: int) -> int:
    """Interpret the three instructions that a filter consists of."""
    steps: list[tuple[int, int, int, int]] = list(struct.iter_unpack("=HBBI", rules))
    data = struct.pack("=II", number, audit)
    place, held = 0, 0
    while True:
        code, if_equal, otherwise, operand = steps[place]
        place += 1
        if code == 0x06:
            return operand
        if code == 0x20:
            (held,) = struct.unpack_from("=I", data, operand)
        else:
            assert code == 0x15
            place += if_equal if held == operand else otherwise


@pytest.mark.parametrize("architecture", AUDIT)
def test_exactly_the_listed_calls_are_allowed(architecture):
    rules = allowing_filter(architecture)
    listed = {pair[COLUMN[architecture]] for pair in ALLOWED.values()} - {None}
    allowed = {n for n in range(1024) if decide(rules, n, AUDIT[architecture]) == ALLOW}
    assert allowed == listed
    refused = {decide(rules, n, AUDIT[architecture]) for n in range(1024) if n not in listed}
    assert refused == {REFUSE}


@pytest.mark.parametrize("architecture", AUDIT)
def test_calls_of_another_convention_kill(architecture):
    rules = allowing_filter(architecture)
    assert {decide(rules, n, OTHERS[architecture]) for n in range(1024)} == {KILL}


def test_the_x32_convention_is_refused():
    rules = allowing_filter("x86_64")
    assert {decide(rules, 0x40000000 | n, AUDIT["x86_64"]) for n in range(1024)} == {REFUSE}


def test_no_number_is_listed_twice():
    for column in COLUMN.values():
        numbers = [pair[column] for pair in ALLOWED.values() if pair[column] is not None]
        assert len(numbers) == len(set(numbers))


def test_an_unknown_machine_is_refused():
    with pytest.raises(SandboxError, match="must be x86_64 or aarch64, got 'riscv64'"):
        allowing_filter("riscv64")
