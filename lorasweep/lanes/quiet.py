"""Silence libraries, and limit the threads of processes that share a machine."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console

from lorasweep.model.base import quiet_deepspeed


def quiet_loggers() -> None:
    """Silence warnings of libraries that a user can do nothing about."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings(
        "ignore", module=r"(torch|transformers|datasets|peft|ray|lm_eval)(\.|$)"
    )
    for name in ("transformers", "datasets", "lm_eval", "lm-eval", "peft", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def set_up_process(cpus: float) -> None:
    """Silence the libraries of a process that trains, and limit torch to its share of the cores."""
    quiet_loggers()
    import torch

    quiet_deepspeed()
    torch.set_num_threads(max(1, int(cpus)))


@contextmanager
def libraries_quiet(log: Path, console: Console) -> Iterator[Console]:
    """Redirect stdout and stderr to a log, and yield a console that still reaches the terminal.

    The file descriptors themselves are redirected, because Ray writes from threads and from C++.

    Args:
        log: file to append to.
        console: the user's; if it does not write to stderr, nothing is redirected.
    """
    terminal: TextIO = sys.stderr
    if console.file is not terminal:
        yield console
        return
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    same = open(  # noqa: PTH123, SIM115  # a descriptor, closed with the others
        os.dup(2), "w", buffering=1, encoding=terminal.encoding, errors=terminal.errors
    )
    with log.open("ab") as target, same as screen:
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
