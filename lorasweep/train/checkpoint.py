"""A trial's state on disk: adapter, optimizer and position, written whole or not at all."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorasweep.errors import LorasweepError


@dataclass
class Position:
    """Hold where a trial stands; the order of its data follows from the step alone.

    step: optimizer steps done.
    tokens: tokens trained on so far, padding left out.
    losses: of the last steps, in nats per token.
    train_s: seconds spent in optimizer steps.
    """

    step: int = 0
    tokens: int = 0
    losses: tuple[float, ...] = ()
    train_s: float = 0.0

    @property
    def train_loss(self) -> float:
        """Give the mean loss of the last steps, in nats per token."""
        return sum(self.losses) / len(self.losses) if self.losses else float("nan")


def save_state(
    folder: Path,
    parameters: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    position: Position,
    notes: dict[str, Any],
) -> None:
    """Write a state in place of an earlier one; a crash leaves either the old or the new.

    Args:
        notes: plain values that belong to the trial's story so far, such as its rungs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".state.pt"
    content = {
        # Copied, since torch writes all that a view is a view of, and so the neighbours' adapters.
        "parameters": {name: p.detach().cpu().clone() for name, p in parameters.items()},
        "optimizer": optimizer.state_dict(),
        "position": asdict(position),
        "notes": notes,
    }
    torch.save(content, temporary)
    temporary.replace(folder / "state.pt")


def load_state(
    folder: Path, parameters: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> tuple[Position, dict[str, Any]]:
    """Restore a state into an adapter and optimizer, or give the beginning where there is none.

    Raises:
        LorasweepError: the state belongs to another adapter.
    """
    file = folder / "state.pt"
    if not file.is_file():
        return Position(), {}
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
    return Position(**content["position"]), dict(content["notes"])


def drop_state(folder: Path) -> None:
    """Remove a state that is no longer needed, since the trial has ended."""
    if folder.is_dir():
        shutil.rmtree(folder)
