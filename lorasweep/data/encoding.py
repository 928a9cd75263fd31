"""Text of data files: UTF-8, decoded without losing where a file is anything else."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

PARQUET = "a Parquet file"
# What a file is that begins so, in small letters, and what to do with it.
_OTHER_FILES = {
    b"par1": (PARQUET, "name it .parquet"),
    b"pk\x03\x04": ("a zip archive or an Excel workbook", "export its rows as CSV or JSONL"),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "export its rows as CSV or JSONL"),
    b"arrow1": ("an Arrow file", "name it .arrow, and give its folder"),
    b"sqlite format 3": ("an SQLite database", "export its rows as CSV or JSONL"),
    b"%pdf": ("a PDF", "export its rows as CSV or JSONL"),
    b"version https://git-lfs": ("a pointer of git LFS", "run `git lfs pull`"),
    b"<!doctype html": ("a web page", "download the file itself"),
    b"<html": ("a web page", "download the file itself"),
}
_WIDE = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_HEAD = 1024  # bytes by which a file is recognised
# Where `surrogateescape` puts the bytes 0x80 to 0xff that are not UTF-8.
_BYTE = re.compile("[\udc80-\udcff]")


class UnreadableFileError(ValueError):
    """A file that holds no text in UTF-8.

    kind: what it is instead.
    """

    def __init__(self, kind: str, fix: str) -> None:
        super().__init__(kind, fix)
        self.kind, self.fix = kind, fix


class UnreadableRowError(ValueError):
    """A row that cannot be read.

    row: from 1; 0 for a header.
    reason: what it is, has or holds.
    """

    def __init__(self, row: int, reason: str, fix: str) -> None:
        super().__init__(row, reason, fix)
        self.row, self.reason, self.fix = row, reason, fix


@contextmanager
def text_lines(
    file: BinaryIO, encoding: str = "utf-8", *, carriage_returns: bool = False
) -> Iterator[Iterator[str]]:
    r"""Decode the lines of a file and close it; bytes that do not fit are kept for `check_text`.

    Args:
        carriage_returns: let `\r` end the lines of a file whose first line ends so; else `\n` does,
            and no other sign that some take for a line's end.

    Raises:
        UnreadableFileError: the file is not text, or written in UTF-16.
    """
    plain = encoding.lower().replace("_", "-") in {"utf-8", "utf8"}
    # Any binary file will do, which the types do not know.
    with (
        io.BufferedReader(file, 2**16) as packed,  # type: ignore[type-var]
        io.BufferedReader(_unpacked(packed), 2**16) as buffered,
    ):
        head = buffered.peek()
        ends = re.search(rb"\r\n?|\n", head) if carriage_returns else None
        newline = "\r" if ends and ends[0] == b"\r" else "\n"
        if plain:
            _check_head(head[:_HEAD])
            encoding = "utf-8-sig"  # a mark at the beginning is no text
        with io.TextIOWrapper(
            buffered, encoding, errors="surrogateescape", newline=newline
        ) as lines:
            yield iter(lines)


def _unpacked(file: Any) -> Any:
    """Unpack a file whose name does not say that it is packed."""
    head = file.peek(6)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if head.startswith(b"BZh"):
        return bz2.BZ2File(file)
    return lzma.LZMAFile(file) if head.startswith(b"\xfd7zXZ") else file


def recognise(head: bytes) -> tuple[str, str] | None:
    """Recognise a file that is no text of rows by its first bytes: what it is, and what to do."""
    start = head.lstrip().lower()
    return next((kind for first, kind in _OTHER_FILES.items() if start.startswith(first)), None)


def _check_head(head: bytes) -> None:
    if other := recognise(head):
        raise UnreadableFileError(f"is {other[0]}", other[1])
    wide = next((name for mark, name in _WIDE if head.startswith(mark)), None)
    nulls = head.count(0)
    if wide is None and nulls * 4 >= len(head) > 0:
        # Text in UTF-16 without a mark has a zero in every other byte, and in UTF-32 three of four.
        wide = "UTF-32" if nulls * 2 > len(head) + 2 else "UTF-16"
    if wide is not None:
        raise UnreadableFileError(f"is written in {wide}", "save it as UTF-8")


def check_text(text: str, row: int) -> None:
    """Check that a part of a file is text of its encoding.

    Raises:
        UnreadableRowError: a byte of it was not.
    """
    if text.isascii():
        return
    if found := _BYTE.search(text):
        byte = ord(found[0]) - 0xDC00
        around = text[max(0, found.start() - 12) : found.end() + 12]
        guess = _BYTE.sub(lambda m: _in_cp1252(ord(m[0]) - 0xDC00), around)
        raise UnreadableRowError(
            row,
            f"has the byte 0x{byte:02x}, which is not UTF-8 (in cp1252 it reads {guess.strip()!r})",
            "save it as UTF-8",
        )


def _in_cp1252(byte: int) -> str:
    return bytes([byte]).decode("cp1252", errors="replace")
