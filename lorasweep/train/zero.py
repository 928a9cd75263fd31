"""Everything that this project needs of the DeepSpeed library and its ZeRO stages.

Nothing is compiled and nothing is printed: optimizers are torch's or our own, and DeepSpeed's C++
op for all-reduce in shared memory stays out.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

import torch
from torch import Tensor

from lorasweep.data.shard import Shard
from lorasweep.errors import LorasweepError, ResourceError
from lorasweep.model.rows import numel
from lorasweep.spec.sweep import DeepSpeedSpec, TrainSpec

# Gradients are reduced in buckets of this many numbers. DeepSpeed's default of 5e8 takes 2 GB in
# fp32, and twice that where communication overlaps with computing.
BUCKET = 100_000_000


@contextmanager
def environment_variables(**values: str) -> Iterator[None]:
    """Set environment variables for the duration of a block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def import_deepspeed(device: torch.device) -> Any:
    """Import DeepSpeed, which chooses its kind of device once per process.

    Raises:
        ResourceError: this process has imported it for another kind of device.
    """
    with environment_variables(DS_ACCELERATOR=device.type):
        import deepspeed
        from deepspeed.accelerator import get_accelerator

        kind = get_accelerator().device_name()
    # DeepSpeed imports all its optimizers when it starts, and Muon, unused here, would load torch's
    # compiler, which takes seconds.
    with environment_variables(TORCHDYNAMO_DISABLE="1"), suppress(ImportError):
        import deepspeed.runtime.zero.muon.muon_optimizer
    if kind != device.type:
        raise ResourceError(
            f"resources.gpus: DeepSpeed must compute on the same kind of device as the worker, "
            f"{device.type}, and DS_ACCELERATOR or an earlier import has made it {kind}"
        )
    warnings.filterwarnings(
        "ignore",
        # torch 2.13 has renamed functions that DeepSpeed 0.19 calls in every collective.
        r"`torch\.distributed\.(all_gather_into|reduce_scatter)_tensor` is deprecated",
        FutureWarning,
    )
    # Empty the list of ops that can be compiled. A process group on CPUs would look for one, for
    # all-reduce in shared memory, and each node would compile it for half a minute at first start.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.utils.logger.setLevel(logging.ERROR)  # it warns of optimizers it does not know
    return deepspeed


@contextmanager
def silent() -> Iterator[None]:
    """Suppress what DeepSpeed prints about memory and checkpoints."""
    with redirect_stdout(io.StringIO()):
        yield


def set_local_rank(device: torch.device) -> None:
    """Select this worker's device; DeepSpeed reads it from the environment again and again."""
    index = device.index
    if index is None:
        index = torch.cuda.current_device() if device.type == "cuda" else 0
    os.environ["LOCAL_RANK"] = str(index)


def join_process_group(shard: Shard, device: torch.device) -> None:
    """Check that the process group has the trial's workers; a worker alone makes its own group.

    Raises:
        LorasweepError: it has other workers.
    """
    if torch.distributed.is_initialized():
        joined = torch.distributed.get_rank(), torch.distributed.get_world_size()
        if joined != (shard.worker, shard.workers):
            raise LorasweepError(
                f"resources.workers: torch.distributed must join the trial's {shard.workers} "
                f"workers, and has joined this one as worker {joined[0]} of {joined[1]}"
            )
        return
    if shard.workers > 1:
        raise LorasweepError(
            f"resources.workers: torch.distributed must join the trial's {shard.workers} workers "
            "before DeepSpeed starts, and has joined none"
        )
    # A store inside this process needs no port or file, which another process could have taken.
    torch.distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=torch.distributed.HashStore(),  # type: ignore[attr-defined]
        rank=0,
        world_size=1,
    )


def deepspeed_config(
    spec: DeepSpeedSpec,
    train: TrainSpec,
    *,
    dtype: torch.dtype,
    device: torch.device,
    micro_batch: int,
    accumulated: int,
) -> dict[str, Any]:
    """Build DeepSpeed's configuration.

    Gradients are accumulated and reduced in fp32, and a bf16 model has fp32 master weights.

    Args:
        micro_batch: sequences of a worker's forward pass.
        accumulated: micro-batches of a worker per optimizer step.
    """
    bf16 = dtype == torch.bfloat16
    stage = spec.stage
    if stage == 0 and (bf16 or spec.offload):
        # DeepSpeed's stage 0 accumulates bf16 gradients in bf16 and cannot offload. Stage 1
        # accumulates in fp32 and can, and otherwise computes the same.
        stage = 1
    zero: dict[str, Any] = {"stage": stage}
    if spec.offload:
        host = {"device": "cpu", "pin_memory": device.type == "cuda"}
        zero["offload_optimizer"] = host
        if stage == 3:
            zero["offload_param"] = host
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulated,
        "gradient_clipping": train.clip or 0.0,
        "zero_allow_untested_optimizer": True,  # decoupled Lion
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
        "bf16": {"enabled": bf16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
    }


def limit_buckets(config: dict[str, Any], trainable: int) -> None:
    """Set the communication buckets, no larger than all that is trained."""
    bucket = min(BUCKET, trainable)
    config["zero_optimization"] |= {"reduce_bucket_size": bucket, "allgather_bucket_size": bucket}


@contextmanager
def sharded_loading(config: dict[str, Any]) -> Iterator[None]:
    """Let transformers shard the model it loads, so that no device ever holds all of it."""
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    held = HfDeepSpeedConfig(config)  # transformers keeps only a weak reference to it
    try:
        yield
    finally:
        del held
        # Otherwise generate() would wait for the other workers, which may have nothing to generate.
        unset_hf_deepspeed_config()


@contextmanager
def gathered(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Gather some parameters on every worker; all workers must ask for the same ones."""
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters, ZeroParamStatus

    # Small parameters stay whole under stage 3, and leaving the block would shard all that it took.
    sharded = [
        parameter
        for parameter in parameters
        if getattr(parameter, "ds_status", None) == ZeroParamStatus.NOT_AVAILABLE
    ]
    with GatheredParameters(sharded, enabled=bool(sharded)):
        yield


@contextmanager
def gathered_model(engine: Any) -> Iterator[None]:
    """Gather the whole model on every worker, so that each may compute on its own.

    DeepSpeed's hooks would release each layer's weights once it has computed, so they are removed
    meanwhile. Registered again, they record the order of layers anew, as at the start.
    """
    offload = engine.optimizer.parameter_offload
    with gathered(list(engine.module.parameters())):
        for parameter in engine.module.parameters():
            parameter.ds_active_sub_modules.clear()
        for hooks in (offload.forward_hooks, offload.backward_hooks):
            while hooks:
                hooks.pop().remove()
        try:
            yield
        finally:
            offload._register_deepspeed_module(offload.module)


def fits_gathered(engine: Any, shard: Shard, device: torch.device) -> bool:
    """Check whether the gathered model fits into every worker's memory, with as much to spare.

    Every worker must call it; all get the same answer.
    """
    parameters = list(engine.module.parameters())
    needed = sum(numel(parameter) * parameter.element_size() for parameter in parameters)
    trained = sum(numel(parameter) for parameter in parameters if parameter.requires_grad)
    # The optimizer allocates its state, two fp32 numbers per trained weight, at the first step.
    free = free_bytes(device, shard) - 8 * trained // shard.workers
    misfits = torch.tensor(float(2 * needed > free), device=device)
    return not shard.total(misfits).item()


def free_bytes(device: torch.device, shard: Shard) -> int:
    """Measure the memory that a worker may still take; workers on CPUs may share one host."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    import psutil

    return int(psutil.virtual_memory().available) // shard.workers
