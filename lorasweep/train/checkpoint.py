"""Checkpoint of a packed LoRA trial: adapter, optimizer and position, replaced atomically."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from lorasweep.errors import LorasweepError, in_a_line
from lorasweep.train.progress import Position, TrialNotes


def save_state(
    folder: Path,
    parameters: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    position: Position,
    notes: TrialNotes,
) -> None:
    """Write a checkpoint over an earlier one; a crash leaves either the old or the new one.

    Raises:
        LorasweepError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".state.pt"
    content = {
        # Cloned: torch saves the whole storage behind a view, which is the stack of all adapters.
        "parameters": {name: p.detach().cpu().clone() for name, p in parameters.items()},
        "optimizer": optimizer.state_dict(),
        "position": asdict(position),
        "notes": notes.model_dump(mode="json"),
    }
    try:
        torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # of a full disk torch only says "unexpected pos"
        free = shutil.disk_usage(folder).free / 2**20
        temporary.unlink(missing_ok=True)
        raise LorasweepError(
            f"{folder}: the trial's state cannot be saved with {free:.1f} MiB free on its disk "
            f"({in_a_line(error)}); make room and run the same command again"
        ) from error
    temporary.replace(folder / "state.pt")


def load_state(
    folder: Path, parameters: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> tuple[Position, TrialNotes]:
    """Restore a checkpoint into an adapter and its optimizer; without one, start at step 0.

    Raises:
        LorasweepError: the checkpoint belongs to another adapter.
    """
    file = folder / "state.pt"
    if not file.is_file():
        return Position(), TrialNotes()
    content = torch.load(file, map_location="cpu", weights_only=True)
    held = {name: value.shape for name, value in content["parameters"].items()}
    if held != {name: parameter.shape for name, parameter in parameters.items()}:
        raise LorasweepError(
            f"{file}: must hold this trial's adapter, and holds another one; delete the folder to "
            "train the trial from its beginning"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(content["parameters"][name])
    optimizer.load_state_dict(content["optimizer"])
    return Position(**content["position"]), TrialNotes.model_validate(content["notes"])


def drop_state(folder: Path) -> None:
    """Delete the checkpoint of a trial that has ended."""
    if folder.is_dir():
        shutil.rmtree(folder)
