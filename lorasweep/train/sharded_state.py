"""Checkpoint of a trial whose workers each hold a shard of its state, as DeepSpeed writes it.

A folder holds one of two parts, `a` and `b`, and a file that names the valid one. A new state goes
into the other part, so that a crash leaves the old one intact.
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
from lorasweep.train.progress import Position, TrialNotes
from lorasweep.train.zero import environment_variables

_FILE = "state.json"
_TAG = "workers"


def save(
    engine: Any, folder: Path, shard: Shard, kind: str, position: Position, notes: TrialNotes
) -> None:
    """Write a checkpoint over an earlier one; every worker must call it.

    Args:
        engine: DeepSpeed's.
        kind: must be the same when the checkpoint is loaded.
    """
    current = _read(folder, shard)
    part = "b" if current is not None and current["part"] == "a" else "a"
    if shard.worker == 0:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / part, ignore_errors=True)
    engine.save_checkpoint(
        str(folder / part), tag=_TAG, save_latest=False, exclude_frozen_parameters=True
    )
    # DeepSpeed has waited for all workers, so the part is complete and may become the valid one.
    if shard.worker == 0:
        content = {
            "part": part,
            "workers": shard.workers,
            "kind": kind,
            "position": asdict(position),
            "notes": notes.model_dump(mode="json"),
        }
        temporary = folder / f".{_FILE}"
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(folder / _FILE)
        if current is not None:
            shutil.rmtree(folder / current["part"], ignore_errors=True)
    torch.distributed.barrier()


def load(engine: Any, folder: Path, shard: Shard, kind: str) -> tuple[Position, TrialNotes]:
    """Restore a checkpoint; without one, start at step 0. Every worker must call it.

    Raises:
        LorasweepError: another number of workers has written it, or it is another trial's.
    """
    content = _read(folder, shard)
    if content is None:
        return Position(), TrialNotes()
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
    # By default DeepSpeed unpickles whatever the files hold, which can run code.
    with environment_variables(TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"), safe_globals(_plain_classes()):
        engine.load_checkpoint(
            str(folder / content["part"]),
            tag=_TAG,
            load_module_strict=False,  # frozen weights were left out
            load_lr_scheduler_states=False,
        )
    position = content["position"]
    restored = Position(**{**position, "losses": tuple(position["losses"])})
    return restored, TrialNotes.model_validate(content["notes"])


def _plain_classes() -> list[Any]:
    """List the classes that DeepSpeed saves beside tensors; each holds plain values."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]


def _read(folder: Path, shard: Shard) -> dict[str, Any] | None:
    """Read which part is valid, on the first worker: shared storage may show others old files."""
    content: dict[str, Any] | None = None
    file = folder / _FILE
    if shard.worker == 0 and file.is_file():
        content = json.loads(file.read_text(encoding="utf-8"))
    return shard.broadcast(content)
