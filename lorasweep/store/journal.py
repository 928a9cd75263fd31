"""The append-only journal: a checksum on every line, one writer, only a torn last line is lost."""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from lorasweep.errors import JournalError, LorasweepError, UsageError
from lorasweep.spec.trial import canonical_json
from lorasweep.store.migrate import FORMAT, migrate
from lorasweep.store.records import RECORD, Record


def _checksum(content: dict[str, Any]) -> str:
    return f"{zlib.crc32(canonical_json(content).encode()):08x}"


def encode(record: Record) -> str:
    """Write a record as one line, its format version and checksum included."""
    content: dict[str, Any] = {"format": FORMAT, **record.model_dump(mode="json")}
    return canonical_json({**content, "crc": _checksum(content)}) + "\n"


class _LaterFormatError(ValueError):
    """A line that a later lorasweep wrote."""


def decode(line: str) -> Record:
    """Parse one line, of this format or an earlier one.

    Raises:
        ValueError: the line is not JSON, its checksum is wrong, or its format is unknown.
    """
    content = json.loads(line)
    if not isinstance(content, dict) or "crc" not in content:
        raise ValueError("no checksum")
    if content.pop("crc") != _checksum(content):
        raise ValueError("wrong checksum")
    version = content.pop("format", None)
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"format {version!r} is not a version")
    if version > FORMAT:
        raise _LaterFormatError(f"format {version}")
    return RECORD.validate_python(migrate(content, version))


def _not_understood(error: ValidationError) -> str:
    """Phrase why a record with a correct checksum is none of `store/records.py`."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] in {"extra_forbidden", "union_tag_invalid"}:
        what = f"field {where!r}" if where else f"record {first['ctx'].get('tag')!r}"
        return (
            f"the journal must have records that this lorasweep knows, got {what}, which a later "
            "lorasweep wrote; update lorasweep"
        )
    return (
        f"{where} {first['msg'].removeprefix('Value error, ')}, got {first['input']!r}; restore "
        "the file from a backup, or start again with another --out"
    )


def _scan(path: Path) -> tuple[list[Record], int]:
    """Read all records, and measure the bytes up to the last whole line.

    Raises:
        JournalError: a line is damaged; a torn last one is not, since a crash leaves it.
    """
    # In one read: the writer may complete a line meanwhile, which would be read in two parts.
    content = path.read_bytes() if path.exists() else b""
    *lines, torn = content.split(b"\n")
    records: list[Record] = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(decode(line.decode("utf-8")))
        except _LaterFormatError as later:
            raise JournalError(
                f"{path}, line {number}: the journal must be of format {FORMAT} or earlier, got "
                f"{later}, which a later lorasweep wrote; update lorasweep"
            ) from None
        except ValidationError as error:  # whole, as its checksum says, but not understood
            raise JournalError(f"{path}, line {number}: {_not_understood(error)}") from None
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise JournalError(
                f"{path}, line {number}: the journal is damaged ({reason}); restore the file from "
                "a backup, or start again with another --out"
            ) from None
    return records, len(content) - len(torn)


def read(path: Path) -> list[Record]:
    """Read a journal, also while it is being written.

    Raises:
        JournalError: a line other than a torn last one is damaged.
    """
    return _scan(path)[0]


def is_held(lock: Path) -> bool:
    """Check whether a driver holds a folder's lock; one that was killed does not."""
    if not lock.is_file():
        return False
    with lock.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


class Journal:
    """Writer of the journal; a context manager that holds the folder's lock."""

    def __init__(self, path: Path, lock: Path) -> None:
        """Set the paths; nothing is opened before `with`."""
        self._path, self._lock = path, lock
        self.records: list[Record] = []
        self.repaired_bytes = 0

    def __enter__(self) -> Self:
        """Take the lock, cut off a torn last line, and open for appending.

        Raises:
            UsageError: another driver holds the lock.
            JournalError: the journal is damaged in its middle.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock_file = self._lock.open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock_file.close()
            raise UsageError(
                f"{self._path.parent}: another lorasweep is running this sweep; wait for it, stop "
                "it, or choose another --out"
            ) from None
        try:
            self.records, whole = _scan(self._path)
            self._file = self._path.open("ab", buffering=0)
        except BaseException:
            self._lock_file.close()
            raise
        self.repaired_bytes, self._whole = self._path.stat().st_size - whole, whole
        self._file.truncate(whole)
        return self

    def append(self, record: Record) -> None:
        """Write a record and wait until the disk has it.

        Raises:
            LorasweepError: it cannot be written; the journal stays as it was before.
        """
        line = encode(record).encode("utf-8")
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):  # or the next session cuts the torn line off
                self._file.truncate(self._whole)
            raise LorasweepError(
                f"{self._path}: the journal cannot be written ({error.strerror}); mend that and "
                "run the same command to continue, nothing before is lost"
            ) from error
        self._whole = self._file.tell()
        self.records.append(record)

    def restart(self) -> None:
        """Remove all records."""
        self._file.truncate(0)
        self.records, self._whole = [], 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file and release the lock."""
        self._file.close()
        self._lock_file.close()
