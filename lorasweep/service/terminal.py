"""Prepare a process for any terminal: closed streams, encodings, names that are not UTF-8."""

from __future__ import annotations

import os
import sys

from lorasweep.errors import UsageError

_MODE = "PYTHONUTF8"


def prepare_streams() -> None:
    """Make stdin, stdout and stderr usable, whatever the shell made of them."""
    # The next file that is opened would get the number of a closed stream, and what libraries print
    # from C++ would end up in the journal.
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(free, True)
    os.close(free)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        # Losing a character is better than losing the sweep that was to be summarised.
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def use_utf8() -> None:
    """Start the process again in Python's UTF-8 mode if the locale has another encoding.

    Ray, transformers and the results folder take every path for UTF-8, so that the file names of a
    Latin-1 or ASCII locale would name other files there.
    """
    is_utf8 = sys.getfilesystemencoding().lower().replace("-", "") == "utf8"
    if is_utf8 or os.environ.get(_MODE) == "1" or not sys.executable:
        return
    os.environ[_MODE] = "1"
    # The terminal still shows the encoding of the locale.
    os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:backslashreplace")
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def check_names() -> None:
    """Check that the current folder exists, and that it and the arguments are UTF-8.

    Raises:
        UsageError: they are not, so no report or journal could name them.
    """
    try:
        here = os.getcwd()  # noqa: PTH109  # Path.cwd() would do no more
    except OSError as error:
        raise UsageError(
            f"the current folder cannot be read ({error.strerror}); change to one that exists"
        ) from None
    for word in (here, *sys.argv[1:]):
        try:
            word.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(word).decode(errors="backslashreplace")
            raise UsageError(f"names must be UTF-8, got '{shown}'; rename that file") from None
