"""Check, once all trials have ended, that the kept weights of the best are those measured.

The worker that does it has a trial's resources, which the lanes have given back, so the driver
needs no GPU and loads no torch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import ray
from ray.exceptions import RayError, RayTaskError

from lorasweep.errors import in_a_line
from lorasweep.lanes.capacity import fit
from lorasweep.lanes.cluster import Cluster
from lorasweep.lanes.messages import KeptLoss
from lorasweep.lanes.worker import measure_kept
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import Method
from lorasweep.store.kept import TOLERANCES, best_of, content_hash_of, kept_folder, last_check
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import KeptChecked, Record, SessionChanged
from lorasweep.store.results import last_states

if TYPE_CHECKING:
    from lorasweep.tune.prepare import Prepared

# A worker that does not answer for so long has got no resources, or cannot read the base.
_PATIENCE_S = 3600.0


@dataclass(frozen=True)
class DueCheck:
    """A best trial whose kept weights have not been checked as they are now.

    folder: that holds them; None if they are gone.
    measured: its response loss.
    """

    trial: str
    method: Method
    domain: str
    folder: Path | None
    content: str
    measured: float


def due_check(study: SweepSpec, paths: SweepPaths, records: Sequence[Record]) -> DueCheck | None:
    """Find the check that is due for a study's best trial.

    None is due where that trial has been checked and its files are the same, where no trial has a
    response loss, and in a sweep that an earlier lorasweep completed, which checked nothing.
    """
    best = best_of(study, records)
    if best is None:
        return None
    trial = best.winner.trial
    measured = _measured(trial, records)
    checked = last_check(records, trial)
    sessions = [record for record in records if isinstance(record, SessionChanged)]
    if measured is None or (checked is None and sessions and sessions[-1].state == "complete"):
        return None
    folder = kept_folder(paths, trial, study.method, study.domain)
    content = content_hash_of(folder)
    if checked is not None and checked.content == content:
        return None
    return DueCheck(trial, study.method, study.domain, folder, content, measured)


def _measured(trial: str, records: Sequence[Record]) -> float | None:
    return getattr(last_states(records).get(trial), "response_loss", None)


def check_kept(due: DueCheck, prepared: Prepared, cluster: Cluster) -> KeptChecked:
    """Load a best trial's weights in a worker, measure them, and compare."""
    began = time.perf_counter()
    loss = _measure(due, prepared, cluster)
    return compare(due, loss, wall_s=round(time.perf_counter() - began, 3))


def compare(due: DueCheck, loss: KeptLoss, *, wall_s: float) -> KeptChecked:
    """Compare what plain PEFT or transformers made of a trial's weights with what was measured."""
    tolerance = TOLERANCES.get(loss.dtype or "", 0.0)
    status: Literal["agrees", "differs", "unloadable", "unchecked"]
    if loss.status == "loaded":
        within = loss.loss is not None and abs(loss.loss - due.measured) <= tolerance
        status = "agrees" if within and loss.reason is None else "differs"
    else:
        status = loss.status
    return KeptChecked(
        trial=due.trial,
        method=due.method,
        domain=due.domain,
        status=status,
        content=due.content,
        measured=due.measured,
        loaded=loss.loss,
        dtype=loss.dtype,
        tolerance=tolerance,
        reason=loss.reason,
        wall_s=wall_s,
        time=time.time(),
    )


def _measure(due: DueCheck, prepared: Prepared, cluster: Cluster) -> KeptLoss:
    if due.folder is None:
        return KeptLoss("unchecked", reason="its folder is gone")
    resources = fit(prepared.study.resources, cluster)
    task = ray.remote(measure_kept).options(
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
        max_retries=0,
        name=f"lorasweep check {due.trial}",
    )
    answer = task.remote(
        prepared.spec.model,
        str(due.folder.resolve()),
        due.method,
        prepared.data.heldout,
        resources.cpus,
        resources.gpus > 0,
    )
    try:
        loss: KeptLoss = ray.get(answer, timeout=_PATIENCE_S)
    except RayError as error:  # the worker died or answered too late; the sweep itself is sound
        ray.cancel(answer, force=True)
        cause = error.cause if isinstance(error, RayTaskError) else error
        return KeptLoss("unchecked", reason=in_a_line(cause))
    return loss
