"""Say what went wrong in one sentence: where, the rule, the value got, the fix.

    LorasweepError            the sweep or a check failed (exit code 1)
    ├── UsageError            the user can mend it before anything starts (exit code 2)
    │   ├── SpecError         one or more fields of the sweep file; all of them at once
    │   ├── DataError         the training or held-out data
    │   ├── ModelError        the base model or its tokenizer
    │   ├── ResourceError     the cluster cannot hold what was asked for
    │   └── SandboxError      code that a model wrote cannot be run safely on this machine
    ├── OutOfMemoryError      a device's memory does not hold what was to run on it
    └── JournalError          the results folder is damaged

All of them cross process borders under Ray, so each must survive pickling.
"""

from __future__ import annotations

from collections.abc import Sequence


class LorasweepError(Exception):
    """Report a failed sweep or check."""

    exit_code = 1


class UsageError(LorasweepError):
    """Report something the user can mend before anything starts."""

    exit_code = 2


class SpecError(UsageError, ValueError):
    """Report every mistake of a sweep's specification at once.

    Args:
        problems: one sentence each, beginning with the field's YAML path.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        """Keep the sentences and join them, a line each, for printing."""
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[SpecError], tuple[tuple[str, ...]]]:
        """Pickle by the sentences, since the default would pass the joined text back in."""
        return type(self), (self.problems,)


class DataError(UsageError, ValueError):
    """Report data that cannot be read or holds nothing to train on."""


class ModelError(UsageError, ValueError):
    """Report a base model that cannot be loaded or does not fit the request."""


class ResourceError(UsageError, RuntimeError):
    """Report a request that the cluster can never satisfy."""


class SandboxError(UsageError, RuntimeError):
    """Report that a machine cannot shut in code that a model wrote."""


class OutOfMemoryError(LorasweepError, MemoryError):
    """Report that a device's memory does not hold what was to run on it."""


class JournalError(LorasweepError, RuntimeError):
    """Report a journal that is damaged in its middle or of another format."""


def in_a_line(error: object, most: int = 300) -> str:
    """Put what an error says on one line, to stand within a sentence.

    Args:
        error: of a library, which may say it in many lines, or its text.
        most: characters to keep.
    """
    return " ".join(str(error).split())[:most]
