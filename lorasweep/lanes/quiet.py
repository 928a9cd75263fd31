"""Keep the libraries' words out of the live view, and in a log file."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console


def quiet_loggers() -> None:
    """Keep libraries from warning a person of what is none of their concern."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings(
        "ignore", module=r"(torch|transformers|datasets|peft|ray|lm_eval)(\.|$)"
    )
    for name in ("transformers", "datasets", "lm_eval", "lm-eval", "peft", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def libraries_quiet(log: Path, console: Console) -> Iterator[Console]:
    """Send whatever is written to stdout and stderr to a log, and give a console to the person.

    The file descriptors themselves are redirected, because Ray writes from threads and from C++.

    Args:
        log: file to append to.
        console: where the person looks; one that does not write to stderr is left as it is.
    """
    if console.file is not sys.stderr:
        yield console
        return
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    with log.open("ab") as target, os.fdopen(os.dup(2), "w", buffering=1) as screen:
        os.dup2(target.fileno(), 1)
        os.dup2(target.fileno(), 2)
        try:
            yield Console(file=screen)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, original in zip(saved, (1, 2), strict=True):
                os.dup2(descriptor, original)
                os.close(descriptor)
