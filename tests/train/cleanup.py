"""Free a DeepSpeed engine, so that one process can run one after the other.

A worker ends with its only trial, so lorasweep itself never needs this.
"""

from __future__ import annotations

import gc
import os
from typing import Any

import torch
from torch import Tensor

from lorasweep.train.deepspeed import DeepSpeedEngine


def close(engine: DeepSpeedEngine) -> None:
    """Free the engine's memory, its device and the process group of a worker alone."""
    if engine._loaded is not None:
        _free(engine._loaded.engine)
    engine._loaded = None
    engine.slots = {}
    gc.collect()  # DeepSpeed's hooks and the model refer to one another
    os.environ.pop("LOCAL_RANK", None)
    if engine.shard.workers == 1 and torch.distributed.is_initialized():
        if engine._library.comm.is_initialized():
            engine._library.comm.destroy_process_group()
        else:
            torch.distributed.destroy_process_group()


def _free(engine: Any) -> None:
    """Remove DeepSpeed's hooks and buffers from a model, and whatever keeps the model alive."""
    from deepspeed.runtime.zero import parameter_offload
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator

    engine.destroy()
    # A stack of modules to which DeepSpeed adds the model without ever removing it,
    stack = parameter_offload.FWD_MODULE_STACK
    stack[:] = [module for module in stack if module is not engine.module]
    # and a cache, inside a decorated method, of what each layer releases once it has computed.
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
    """Release the memory of all tensors in nested lists and dictionaries."""
    if isinstance(value, Tensor):
        value.data = torch.empty(0, dtype=value.dtype, device=value.device)
    elif isinstance(value, dict):
        _empty(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            _empty(item)
