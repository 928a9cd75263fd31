"""Tokens of streamed documents, kept in the results folder: reused if complete, else made."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lorasweep.data.batches import steps_of
from lorasweep.data.prepare import recipe_of
from lorasweep.data.stored import read_stored
from lorasweep.data.tokenise_stream import StreamProgress, tokenise_stream
from lorasweep.data.tokens import TrainingData
from lorasweep.errors import DataError
from lorasweep.model.base import BaseFacts
from lorasweep.spec.sweep import DataSpec, SweepSpec, dump_sweep
from lorasweep.store.journal import Journal
from lorasweep.store.paths import SweepPaths, write_atomically

EVERY_S = 10.0  # seconds between two lines about progress


def stream(
    spec: SweepSpec,
    data: DataSpec,
    paths: SweepPaths,
    facts: BaseFacts,
    tokenizer: Any,
    say: Callable[[str], None],
) -> TrainingData:
    """Tokenise streamed documents, unless the results folder holds their tokens already.

    Args:
        spec: the sweep; its longest run decides how many tokens there must be.
        data: a data section of it that is streamed.
        say: prints progress.

    Raises:
        UsageError: the documents cannot be read or do not fit, the disk is full, or another driver
            is at work in the folder.
    """
    recipe = recipe_of(data, tokenizer, facts.positions, facts.vocabulary, None)
    studies = [study for study in spec.studies if study.data == data]
    recipe = recipe.model_copy(update={"sequences": longest(studies, recipe.seq_len)})
    folder = paths.tokens(recipe.key)
    stored = read_stored(folder, recipe)
    if stored is not None:
        say(f"the tokens of {data.path} are in {folder} already")
        return stored
    with _claimed(paths, spec, folder), _all_cores():
        tokenise_stream(folder, recipe, tokenizer, _progress_printer(data.path, say))
        stored = read_stored(folder, recipe)
    if stored is None:
        raise DataError(
            f"--out: the tokens in {folder} must stay as they are; something changed them"
        )
    say(f"read {stored.train.lengths_N.sum():,} tokens of {data.path} into {folder}")
    return stored


def longest(studies: Iterable[SweepSpec], seq_len: int) -> int | None:
    """Count the sequences that the longest run of these studies reads; None means all there are."""
    counts = [_longest(study, seq_len) for study in studies]
    known = [count for count in counts if count is not None]
    return max(known) if len(known) == len(counts) else None


def _longest(study: SweepSpec, seq_len: int) -> int | None:
    durations = study.levels_of("tokens")
    if study.train.steps is None and ("epochs" in study.space.axes or None in durations):
        return None
    given = study.hyperparameters
    trials = [
        given.model_copy(update={"batch_size": int(size), "tokens": tokens})
        for size, tokens in itertools.product(study.levels_of("batch_size"), durations)
    ]
    return max(
        trial.batch_size * steps_of(trial, study.train, seq_len=seq_len, examples=0)
        for trial in trials
    )


def _progress_printer(path: str, say: Callable[[str], None]) -> Callable[[StreamProgress], None]:
    """Build the callback that prints every few seconds how far a stream has been read."""
    last = time.monotonic()

    def show(progress: StreamProgress) -> None:
        nonlocal last
        if time.monotonic() - last < EVERY_S:
            return
        last = time.monotonic()
        speed = progress.tokens / max(progress.seconds, 1e-9)
        wanted, left = "", ""
        if progress.wanted is not None:
            wanted = f" of {progress.wanted:,}"
            minutes = (progress.wanted - progress.tokens) / max(speed, 1) / 60
            left = f", {minutes:,.0f} minutes to go"
        say(
            f"reading {path}: {progress.tokens:,}{wanted} tokens, "
            f"{progress.documents:,} documents, {speed:,.0f} tokens/s{left}"
        )

    return show


@contextmanager
def _claimed(paths: SweepPaths, spec: SweepSpec, folder: Path) -> Iterator[None]:
    """Lock the results folder while tokens are written into it, as a session does later.

    A folder that holds this sweep stays this sweep's even if the driver is killed. One that was new
    is emptied after an error, so that another sweep may use it.
    """
    new = not paths.sweep.is_file()
    with Journal(paths.journal, paths.lock):
        if new:
            write_atomically(paths.sweep, dump_sweep(spec))
        try:
            yield
        except BaseException:
            if new:
                shutil.rmtree(folder, ignore_errors=True)
                for file in (paths.sweep, paths.journal, paths.lock):
                    file.unlink(missing_ok=True)
                with suppress(OSError):  # another domain's tokens may be there
                    folder.parent.rmdir()
                    paths.root.rmdir()
            raise


@contextmanager
def _all_cores() -> Iterator[None]:
    """Let the tokenizer use all cores, which it does not while trials share them."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
