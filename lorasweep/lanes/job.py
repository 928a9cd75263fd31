"""A Ray Train job that starts no more processes than it needs.

On a small machine start-up is bound by the CPU seconds of its processes, a second and more for each
that imports Ray's libraries, and another for torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.train import RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from lorasweep.lanes.cluster import Shape

# A worker may have hours of spectra or generated programs to do while the others wait for it. One
# that died is found out by Ray, and needs no time limit.
PATIENCE_S = 24 * 3600


def train_job(
    work: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    shape: Shape,
    run_config: RunConfig,
    *,
    cleaned: bool,
) -> DataParallelTrainer:
    """Put together a job whose workers all call `work(config)`; `fit` runs it.

    Args:
        cleaned: whether somebody is to free what the job holds after its controller was killed;
            needless where the cluster ends with it.
    """
    scaling = ScalingConfig(
        num_workers=shape.workers, use_gpu=shape.gpus > 0, resources_per_worker=shape.per_worker
    )
    backend = None  # one worker has no group to join, and so no torch is loaded but there
    if shape.workers > 1:
        from ray.train.torch import TorchConfig

        # What a lane's leader decides travels by gloo, whatever the gradients take.
        backend = TorchConfig(
            backend="cpu:gloo,cuda:nccl" if shape.gpus else "gloo", timeout_s=PATIENCE_S
        )
    # Neither of them is of use here, and each is an actor: one deals out Ray datasets, of which
    # there are none; the other waits for the death of the controller.
    spared = (
        {"DatasetsCallback"} if cleaned else {"DatasetsCallback", "PlacementGroupCleanerCallback"}
    )

    class _Spare(DataParallelTrainer):  # type: ignore[misc]
        """Leave out Ray Train's callbacks that only start actors nobody asks."""

        def _create_default_callbacks(self) -> list[Any]:
            callbacks: list[Any] = super()._create_default_callbacks()
            return [c for c in callbacks if type(c).__name__ not in spared]

    return _Spare(
        work,
        train_loop_config=config,
        backend_config=backend,
        scaling_config=scaling,
        run_config=run_config,
    )
