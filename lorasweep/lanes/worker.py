"""Entry points of Ray workers: a lane, a trial, a measurement of the base or of kept weights.

Ray pickles these functions by name, and every process that handles them imports this module; so
torch and what needs it are imported only where the work begins.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from lorasweep.lanes.messages import KeptLoss, LaneConfig, SweepJob, to_tune
from lorasweep.spec.trial import TrialSpec
from lorasweep.store.paths import SweepPaths
from lorasweep.store.scores import Scores

if TYPE_CHECKING:
    from lorasweep.data.tokens import Tokens
    from lorasweep.evaluate.agreement import BaseSamples
    from lorasweep.spec.sweep import ModelSpec


def run_lane(lane: LaneConfig) -> None:
    """Serve as a worker of a lane."""
    from lorasweep.lanes.lane import serve

    serve(lane)


def train_and_measure(job: SweepJob, trial: TrialSpec) -> None:
    """Run one trial; every worker of its job calls this."""
    import ray.train

    from lorasweep.lanes.runner import open_runner

    runner = open_runner(job, trial)
    for passed in runner.admit(runner.prepare(trial)):
        ray.train.report(to_tune(passed))
    while trial.id in runner.engine.slots:
        for report in runner.step():
            ray.train.report(to_tune(report))


def measure_and_save_base(job: SweepJob) -> None:
    """Measure the base, and leave its scores and samples in the results folder for the driver."""
    from lorasweep.evaluate.tasks import BASE_AGREEMENT
    from lorasweep.lanes.runner import open_runner

    runner = open_runner(job)
    scores = runner.measure_base()
    if runner.shard.worker == 0:
        samples = runner.measurement.samples if BASE_AGREEMENT in scores.tasks else None
        save_base(SweepPaths(Path(job.root)).base_measured, scores, samples)


def measure_kept(
    model: ModelSpec, folder: str, method: str, heldout: Tokens, cpus: float, on_gpu: bool
) -> KeptLoss:
    """Load kept weights with plain transformers and PEFT, and measure their held-out loss."""
    import math

    from lorasweep.lanes.quiet import set_up_process

    set_up_process(cpus)
    import torch

    from lorasweep.evaluate.kept import UnloadableError, load_plain, plain_loss
    from lorasweep.train.device import CatchOutOfMemory

    device = torch.device("cuda" if on_gpu else "cpu")
    with CatchOutOfMemory() as caught:
        try:
            plain = load_plain(model, Path(folder), method, device)
        except UnloadableError as error:
            return KeptLoss("unloadable", reason=str(error))
        loss = plain_loss(plain.model, heldout, device)
    if caught.message is not None:
        reason = f"memory of one worker does not hold it ({caught.message})"
        return KeptLoss("unchecked", reason=reason)
    return KeptLoss(
        "loaded", loss if math.isfinite(loss) else None, plain.dtype, plain.lost or None
    )


def save_base(file: Path, scores: Scores, samples: BaseSamples | None) -> None:
    """Write the base's scores, and its own samples if a suite needs them."""
    import numpy as np

    arrays = {} if samples is None else dataclasses.asdict(samples)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, scores=scores.model_dump_json(), **arrays)


def load_base(file: Path) -> tuple[Scores, BaseSamples | None]:
    """Read what `save_base` wrote."""
    import numpy as np

    from lorasweep.evaluate.agreement import BaseSamples

    with np.load(file, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files if name != "scores"}
        scores = Scores.model_validate_json(str(content["scores"]))
    return scores, BaseSamples(**arrays) if arrays else None
