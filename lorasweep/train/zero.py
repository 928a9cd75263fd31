"""DeepSpeed as this project uses it: its configuration, its workers, and weights that it shards.

Nothing is compiled and nothing is said: optimizers are torch's or our own, and DeepSpeed's C++ op
for sums in shared memory stays out.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

import torch
from torch import Tensor

from lorasweep.data.shard import Shard
from lorasweep.errors import LorasweepError, ResourceError
from lorasweep.spec.sweep import DeepSpeedSpec, TrainSpec

# Numbers that are summed over the workers at a time. DeepSpeed's default of 5e8 takes 2 GB in
# fp32, twice over where communication overlaps.
BUCKET = 100_000_000


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            _set(name, value)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def import_deepspeed(device: torch.device) -> Any:
    """Import DeepSpeed, which chooses its kind of device once in a process.

    Raises:
        ResourceError: this process has imported it for another kind of device.
    """
    with environment(DS_ACCELERATOR=device.type):
        import deepspeed
        from deepspeed.accelerator import get_accelerator

        kind = get_accelerator().device_name()
    # DeepSpeed imports its optimizers when it starts, and one that nobody uses here would bring
    # torch's compiler with it, which takes seconds.
    with environment(TORCHDYNAMO_DISABLE="1"), suppress(ImportError):
        import deepspeed.runtime.zero.muon.muon_optimizer
    if kind != device.type:
        raise ResourceError(
            f"resources.gpus: DeepSpeed must compute on the same kind of device as the worker, "
            f"{device.type}, and DS_ACCELERATOR or an earlier import has made it {kind}"
        )
    warnings.filterwarnings(
        "ignore",
        # Names that torch 2.13 has replaced, and that DeepSpeed 0.19 calls in every collective.
        r"`torch\.distributed\.(all_gather_into|reduce_scatter)_tensor` is deprecated",
        FutureWarning,
    )
    # Ops that could be compiled. A group of workers on CPUs looks for one, for sums in shared
    # memory, which each node would compile for half a minute at its first start.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.utils.logger.setLevel(logging.ERROR)  # it warns of optimizers that it does not know
    return deepspeed


@contextmanager
def quietly() -> Iterator[None]:
    """Keep what DeepSpeed prints about memory and checkpoints to itself."""
    with redirect_stdout(io.StringIO()):
        yield


def place(device: torch.device) -> Callable[[], None]:
    """Let DeepSpeed use this device, which it reads from the environment time and again.

    Returns:
        What puts the environment back.
    """
    before = os.environ.get("LOCAL_RANK")
    index = device.index
    if index is None:
        index = torch.cuda.current_device() if device.type == "cuda" else 0
    os.environ["LOCAL_RANK"] = str(index)
    return functools.partial(_set, "LOCAL_RANK", before)


def join(shard: Shard, device: torch.device) -> bool:
    """Make sure that the workers are joined; a worker that is alone makes a group of itself.

    Returns:
        Whether the group was made here, and is to be left with `leave`.

    Raises:
        LorasweepError: the workers that are joined are others than the trial's.
    """
    if torch.distributed.is_initialized():
        joined = torch.distributed.get_rank(), torch.distributed.get_world_size()
        if joined != (shard.worker, shard.workers):
            raise LorasweepError(
                f"resources.workers: torch.distributed must join the trial's {shard.workers} "
                f"workers, and has joined this one as worker {joined[0]} of {joined[1]}"
            )
        return False
    if shard.workers > 1:
        raise LorasweepError(
            f"resources.workers: torch.distributed must join the trial's {shard.workers} workers "
            "before DeepSpeed starts, and has joined none"
        )
    # The store lives in this process, so there is no port or file that could be taken.
    torch.distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=torch.distributed.HashStore(),  # type: ignore[attr-defined]
        rank=0,
        world_size=1,
    )
    return True


def leave(deepspeed: Any) -> None:
    """End the group that `join` made, and DeepSpeed's references to it."""
    if deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()
    else:
        torch.distributed.destroy_process_group()


def configuration(
    spec: DeepSpeedSpec,
    train: TrainSpec,
    *,
    dtype: torch.dtype,
    device: torch.device,
    micro_batch: int,
    accumulated: int,
) -> dict[str, Any]:
    """Give DeepSpeed's configuration.

    Gradients are accumulated and summed in fp32, and a bf16 model has master weights in fp32.

    Args:
        micro_batch: sequences of a worker's forward pass.
        accumulated: micro-batches of a worker in one optimizer step.
    """
    bf16 = dtype == torch.bfloat16
    stage = spec.stage
    if stage == 0 and (bf16 or spec.offload):
        # DeepSpeed's stage 0 accumulates bf16 gradients in bf16, and offloads nothing. Stage 1
        # does, and on one worker there is no other difference.
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


def fit_buckets(config: dict[str, Any], trained: int) -> None:
    """Make what is summed at a time no larger than what is trained."""
    bucket = min(BUCKET, trained)
    config["zero_optimization"] |= {"reduce_bucket_size": bucket, "allgather_bucket_size": bucket}


@contextmanager
def sharding(config: dict[str, Any]) -> Iterator[None]:
    """Let transformers shard what it loads, so that no device ever holds all of it."""
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    held = HfDeepSpeedConfig(config)  # transformers refers to it, and does not keep it alive
    try:
        yield
    finally:
        del held
        # Otherwise generating text would wait for the other workers, which may have none to make.
        unset_hf_deepspeed_config()


def size(parameter: Tensor) -> int:
    """Count the numbers of a parameter, of which this worker may hold a share."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


@contextmanager
def gathered(deepspeed: Any, parameters: Sequence[Tensor]) -> Iterator[None]:
    """Give every worker the whole of some parameters; every worker must ask for the same ones."""
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    # Small parameters are whole anyway, and must stay so.
    sharded = [
        parameter
        for parameter in parameters
        if getattr(parameter, "ds_status", None) == ZeroParamStatus.NOT_AVAILABLE
    ]
    with deepspeed.zero.GatheredParameters(sharded, enabled=bool(sharded)):
        yield


@contextmanager
def whole(deepspeed: Any, engine: Any) -> Iterator[None]:
    """Give every worker the whole model, which may then compute without the others.

    DeepSpeed's hooks would give each layer's weights away again once it has computed. Put back,
    they record the order of layers afresh, as after the start.
    """
    offload = engine.optimizer.parameter_offload
    with gathered(deepspeed, list(engine.module.parameters())):
        for parameter in engine.module.parameters():
            parameter.ds_active_sub_modules.clear()
        for hooks in (offload.forward_hooks, offload.backward_hooks):
            while hooks:
                hooks.pop().remove()
        try:
            yield
        finally:
            offload._register_deepspeed_module(offload.module)


def fits_whole(engine: Any, shard: Shard, device: torch.device) -> bool:
    """Tell whether the whole model fits into every worker's memory, with as much again to spare.

    Every worker must ask, and all get the same answer.
    """
    parameters = list(engine.module.parameters())
    needed = sum(size(parameter) * parameter.element_size() for parameter in parameters)
    trained = sum(size(parameter) for parameter in parameters if parameter.requires_grad)
    # The optimizer makes its state, two numbers of fp32 for each of its weights, at the first step.
    free = free_bytes(device, shard) - 8 * trained // shard.workers
    misfits = torch.tensor(float(2 * needed > free), device=device)
    return not shard.total(misfits).item()


def free_bytes(device: torch.device, shard: Shard) -> int:
    """Give the memory that a worker may still take; workers without a GPU may share a host."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    import psutil

    return int(psutil.virtual_memory().available) // shard.workers


def release(engine: Any) -> None:
    """Take DeepSpeed's hooks and buffers off a model, and end what keeps the model alive."""
    from deepspeed.runtime.zero import parameter_offload
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator

    engine.destroy()
    # A stack of modules that DeepSpeed puts the model on and never takes it off,
    stack = parameter_offload.FWD_MODULE_STACK
    stack[:] = [module for module in stack if module is not engine.module]
    # and a cache, inside a decorated method, of what each layer gives away once it has computed.
    cached = vars(PartitionedParameterCoordinator).get(
        "_PartitionedParameterCoordinator__params_to_release"
    )
    for cell in getattr(cached, "__closure__", None) or ():
        if hasattr(cell.cell_contents, "cache_clear"):
            cell.cell_contents.cache_clear()
    # With recomputing, autograd keeps the hooks of stage 3, and so everything; it is emptied.
    _empty(list(engine.module.parameters()))
    _empty([getattr(parameter, "ds_tensor", None) for parameter in engine.module.parameters()])
    _empty(list(vars(engine.optimizer).values()))
    _empty(list(engine.optimizer.state.values()))


def _empty(value: Any) -> None:
    """Take their numbers from all tensors in nested lists and dictionaries."""
    if isinstance(value, Tensor):
        value.data = torch.empty(0, dtype=value.dtype, device=value.device)
    elif isinstance(value, dict):
        _empty(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            _empty(item)
