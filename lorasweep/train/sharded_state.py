"""The state of a trial whose workers each hold a part of it, as DeepSpeed writes it.

A folder holds one of two parts, `a` and `b`, and a file that says which one counts. A new state is
written into the other part, so that a crash leaves the old one whole.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.serialization import safe_globals

from lorasweep.data.shard import Shard
from lorasweep.errors import LorasweepError
from lorasweep.train.broadcast import broadcast
from lorasweep.train.checkpoint import Position
from lorasweep.train.zero import environment

_FILE = "state.json"
_TAG = "workers"


def save(
    engine: Any, folder: Path, shard: Shard, kind: str, position: Position, notes: dict[str, Any]
) -> None:
    """Write a state in place of an earlier one; every worker must call it.

    Args:
        engine: DeepSpeed's.
        kind: what a state must agree on with the engine that goes on from it.
        notes: plain values that belong to the trial's story so far, such as its rungs.
    """
    current = _read(folder, shard)
    part = "b" if current is not None and current["part"] == "a" else "a"
    if shard.worker == 0:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / part, ignore_errors=True)
    engine.save_checkpoint(
        str(folder / part), tag=_TAG, save_latest=False, exclude_frozen_parameters=True
    )
    # DeepSpeed has waited for all workers, so all of the part is written.
    if shard.worker == 0:
        content = {
            "part": part,
            "workers": shard.workers,
            "kind": kind,
            "position": asdict(position),
            "notes": notes,
        }
        temporary = folder / f".{_FILE}"
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(folder / _FILE)
        if current is not None:
            shutil.rmtree(folder / current["part"], ignore_errors=True)
    torch.distributed.barrier()


def load(engine: Any, folder: Path, shard: Shard, kind: str) -> tuple[Position, dict[str, Any]]:
    """Restore a state, or give the beginning where there is none; every worker must call it.

    Raises:
        LorasweepError: other workers have written it, or it is another trial's.
    """
    content = _read(folder, shard)
    if content is None:
        return Position(), {}
    if content["workers"] != shard.workers:
        raise LorasweepError(
            f"resources.workers: must be {content['workers']}, as when {folder} was written, since "
            f"each worker holds a part of the trial's state, got {shard.workers}; delete the "
            "folder to train the trial from its beginning"
        )
    if content["kind"] != kind:
        raise LorasweepError(
            f"{folder}: must hold the state of {kind}, and holds that of {content['kind']}; delete "
            "the folder to train the trial from its beginning"
        )
    # DeepSpeed would unpickle whatever the files hold.
    with environment(TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"), safe_globals(_harmless()):
        engine.load_checkpoint(
            str(folder / content["part"]),
            tag=_TAG,
            load_module_strict=False,  # frozen weights were left out
            load_lr_scheduler_states=False,
        )
    position = content["position"]
    return Position(**{**position, "losses": tuple(position["losses"])}), content["notes"]


def _harmless() -> list[Any]:
    """List the classes that DeepSpeed saves beside tensors, each of which holds plain values."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]


def _read(folder: Path, shard: Shard) -> dict[str, Any] | None:
    """Give what the first worker reads, since storage may still show the others what was before."""
    content: dict[str, Any] | None = None
    file = folder / _FILE
    if shard.worker == 0 and file.is_file():
        content = json.loads(file.read_text(encoding="utf-8"))
    return broadcast(content, shard)
