"""Errors whose text is one sentence: where, the rule, the value got, the fix.

    LorasweepError            the sweep or a check failed (exit code 1)
    ├── UsageError            the user can fix it before anything starts (exit code 2)
    │   ├── SpecError         one or more fields of the sweep file; all of them at once
    │   ├── DataError         the training or held-out data
    │   ├── ModelError        the base model or its tokenizer
    │   ├── ResourceError     the cluster cannot hold what was asked for
    │   └── SandboxError      code that a model wrote cannot be run safely on this machine
    ├── OutOfMemoryError      a device has too little memory for what was to run on it
    └── JournalError          the journal is damaged, or of a later format

All of them cross process borders under Ray, so each must survive pickling.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

# A full disk or quota, a folder or file that cannot be written, too many open files: what the user
# of a machine can mend, wherever in the program it is noticed.
_OF_THE_MACHINE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EIO,
    errno.ESTALE,
}


class LorasweepError(Exception):
    """A sweep or a check failed."""

    exit_code = 1


class UsageError(LorasweepError):
    """The user can fix it before anything starts."""

    exit_code = 2


class SpecError(UsageError, ValueError):
    """Every mistake of a sweep's specification at once.

    Args:
        problems: one sentence each, beginning with the field's YAML path.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        """Store the sentences, joined for printing, one a line."""
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[SpecError], tuple[tuple[str, ...]]]:
        """Pickle by the sentences, since the default would pass the joined text back in."""
        return type(self), (self.problems,)


class DataError(UsageError, ValueError):
    """Data cannot be read or contain nothing to train on."""


class ModelError(UsageError, ValueError):
    """A base model cannot be loaded or does not fit the request."""


class ResourceError(UsageError, RuntimeError):
    """A request that the cluster can never satisfy."""


class SandboxError(UsageError, RuntimeError):
    """A machine cannot confine code that a model wrote."""


class OutOfMemoryError(LorasweepError, MemoryError):
    """A device has too little memory for what was to run on it."""


class JournalError(LorasweepError, RuntimeError):
    """A journal is damaged in its middle or of a later format."""


def in_a_line(error: object, most: int = 300) -> str:
    """Join the lines of an error's text, to quote it within a sentence.

    Args:
        error: of a library, whose text may have many lines, or that text.
        most: characters kept.
    """
    return " ".join(str(error).split())[:most]


def is_of_the_machine(error: OSError) -> bool:
    """Whether an error tells of the machine's disks and limits rather than of a mistake in code."""
    return error.errno in _OF_THE_MACHINE
