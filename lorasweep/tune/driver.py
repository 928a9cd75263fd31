"""Run a sweep from its specification to its last trial.

Ray starts in the background once a quick check of the sweep's inputs has passed, while the driver
reads model, data and tasks. Lanes start after that, when no mistake of the user's can be left.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from rich.console import Console

from lorasweep.errors import LorasweepError
from lorasweep.lanes.capacity import check_cluster
from lorasweep.lanes.cluster import Cluster, cluster_address, connect
from lorasweep.lanes.quiet import libraries_quiet, quiet_loggers
from lorasweep.model.arrival import check_precision
from lorasweep.model.base import BaseReader
from lorasweep.spec.sweep import SweepSpec
from lorasweep.store import journal
from lorasweep.store.claim import check_folder, check_room, lack_of_room
from lorasweep.store.paths import SweepPaths
from lorasweep.store.scratch import ray_folder, use_writable_caches
from lorasweep.tune.live import say
from lorasweep.tune.prepare import Prepared, check_inputs, prepare_studies, published_points

if TYPE_CHECKING:
    from lorasweep.tune.session import Ending


def tune_sweep(
    spec: SweepSpec, folder: Path, console: Console, address: str | None = None
) -> Ending:
    """Run a sweep, or resume it, until every trial has ended.

    Args:
        folder: its results folder; one that holds an earlier part of this sweep is continued.
        console: where the live view goes.
        address: of an existing Ray cluster.

    Raises:
        UsageError: a mistake of the user's: model, data, tasks, resources, or the folder.
    """
    quiet_loggers()
    paths = SweepPaths(folder)
    check_folder(paths, spec)
    base = BaseReader(spec.model)
    records = journal.read(paths.journal)
    if records:
        from lorasweep.tune.kept import due_check
        from lorasweep.tune.replay import nothing_left
        from lorasweep.tune.session import Ending

        if all(
            nothing_left(study, published_points(study, base), records)
            and due_check(study, paths, records) is None
            for study in spec.studies
        ):
            return Ending("complete", 0)
    check_inputs(spec)
    check_room(paths)
    use_writable_caches()
    folder_of_ray = ray_folder() if cluster_address(address) is None else None
    say(console, "reading model, data and tasks")
    with ThreadPoolExecutor(1, "connect") as background:
        connecting = background.submit(connect, address, spec.name, folder_of_ray)
        try:
            return _run(spec, paths, console, base, connecting)
        except Exception as error:
            if not isinstance(error, LorasweepError) and (full := lack_of_room(paths, error)):
                raise LorasweepError(full) from error
            raise
        finally:
            wait([connecting])
            ray.shutdown()


def _run(
    spec: SweepSpec,
    paths: SweepPaths,
    console: Console,
    base: BaseReader,
    connecting: Future[Cluster],
) -> Ending:
    """Read what the sweep needs while Ray starts, then run it."""
    prepared = prepare_studies(spec, paths, base, partial(say, console))
    from lorasweep.tune.session import Session

    # Before the folder is claimed: a sweep that is mended to fit the cluster must find it free.
    cluster = connecting.result()
    for one in prepared:
        resources = check_cluster(one.study, cluster)
        _check_precision(one, on_gpus=resources.gpus > 0)
    with (
        journal.Journal(paths.journal, paths.lock) as writer,
        libraries_quiet(paths.log, console) as quiet,
    ):
        return Session(spec, paths, writer, quiet).run(prepared, cluster)


def _check_precision(one: Prepared, *, on_gpus: bool) -> None:
    """Check adapters that bf16 would spoil, where `dtype: auto` leaves that to the cluster.

    Raises:
        ModelError: the cluster has GPUs, on which the base is in bf16.
    """
    named = any(arrival.by_weight for arrival in one.arrivals.values())
    if named and one.study.model.dtype == "auto" and on_gpus:
        check_precision(one.study, one.arrivals)
