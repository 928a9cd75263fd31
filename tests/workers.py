"""Two processes in a gloo group, like two Ray Train workers, started once for all tests."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import pytest

from lorasweep.data.shard import Shard

R = TypeVar("R")

WORKERS = 2
PATIENCE_S = 120


def _work(worker: int, meeting: str, pipe: Connection) -> None:
    """Run functions sent through the pipe until the tests end."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch
    import torch.distributed

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=worker,
        world_size=WORKERS,
        timeout=timedelta(seconds=PATIENCE_S),
    )
    with contextlib.suppress(EOFError):  # the tests have ended
        while True:
            function, arguments = pipe.recv()
            try:
                pipe.send((function(*arguments, shard=Shard(worker, WORKERS)), None))
            except Exception:
                pipe.send((None, traceback.format_exc()))
                return  # which ends the other one's wait, too


class TwoWorkers:
    """Calls a function in both processes at once, each with its own shard."""

    def __init__(self) -> None:
        context = get_context("spawn")
        meeting = str(Path(tempfile.mkdtemp()) / "meeting")
        self._pipes = []
        for worker in range(WORKERS):
            ours, theirs = context.Pipe()
            context.Process(target=_work, args=(worker, meeting, theirs), daemon=True).start()
            theirs.close()
            self._pipes.append(ours)

    def __call__(self, function: Callable[..., R], *arguments: Any) -> list[R]:
        """Collect what the workers returned, in the order of their ranks."""
        for pipe in self._pipes:
            pipe.send((function, arguments))
        values: list[R] = []
        for worker, pipe in enumerate(self._pipes):
            answer: Any = pipe.recv() if pipe.poll(PATIENCE_S) else (None, "no answer")
            value, error = answer
            if error is not None:
                _start.cache_clear()  # both leave after an error, so the next test starts anew
                pytest.fail(f"worker {worker}: {error}")
            values.append(value)
        return values


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread, as each of two workers does; more would spin on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def _start() -> TwoWorkers:
    return TwoWorkers()


@pytest.fixture
def two_workers() -> TwoWorkers:
    return _start()
