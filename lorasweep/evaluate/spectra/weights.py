"""Read weights from safetensors one tensor at a time, so that no model needs to fit in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorasweep.errors import LorasweepError, ModelError, in_a_line
from lorasweep.model.base import base_path
from lorasweep.spec.sweep import ModelSpec

_SHARDS = "model.safetensors.index.json"
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def base_folder(spec: ModelSpec) -> Path:
    """Find the local folder of a base's weights, downloading them if they are not here yet.

    Raises:
        ModelError: the base cannot be found or has no safetensors.
    """
    from huggingface_hub import snapshot_download

    path = base_path(spec)
    if Path(path).is_dir():
        return Path(path)
    # Only the names that transformers loads: some repositories hold the weights in two formats.
    files = ["config.json", "model.safetensors", "model-*.safetensors", _SHARDS]
    # Training has downloaded them already, so the hub is only asked if something is missing.
    for is_offline in (True, False):
        try:
            folder = snapshot_download(
                path, revision=spec.revision, allow_patterns=files, local_files_only=is_offline
            )
            Weights(Path(folder))
        except (OSError, ValueError, LorasweepError) as error:
            reason = in_a_line(error)
        else:
            return Path(folder)
    raise ModelError(f"model.path: the weights of {path!r} cannot be loaded ({reason})")


class Weights:
    """Weights in a folder of safetensors, in one file or in shards.

    files: the file of each tensor, by the tensor's name.
    """

    def __init__(self, folder: Path, *, stem: str = "model") -> None:
        self.folder = folder
        self.files = _files(folder, stem)
        self._by_block: dict[str, list[str]] = {}
        for name in self.files:
            self._by_block.setdefault(_from_block(name), []).append(name)

    def find(self, name: str) -> str:
        """Find a tensor's name in this folder, whatever prefix comes before the blocks.

        The hub's GPT-2, for example, has `h.0.attn.c_attn` where transformers saves
        `transformer.h.0.attn.c_attn`.

        Raises:
            LorasweepError: there is no tensor of this name, or several.
        """
        if name in self.files:
            return name
        alike = self._by_block.get(_from_block(name), [])
        if len(alike) != 1:
            raise LorasweepError(
                f"{name}: must be in {str(self.folder)!r}, found "
                f"{' and '.join(alike) or 'nothing like it'} there"
            )
        return alike[0]

    def read(self, name: str) -> Tensor:
        """Read one tensor onto the CPU, in its stored dtype.

        Raises:
            LorasweepError: it is quantised, has NaN or infinite values, or its file is damaged.
        """
        with _opened(self.files[name]) as file:
            tensor: Tensor = file.get_tensor(name)
        where = f"{name} of {str(self.folder)!r}"
        if tensor.dtype not in _DTYPES:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise LorasweepError(f"{where}: must be saved unquantised, got {kind}")
        if not torch.isfinite(tensor).all():
            raise LorasweepError(f"{where}: must be finite, holds NaN or infinity; it diverged")
        return tensor


def _files(folder: Path, stem: str) -> dict[str, Path]:
    """Find the file of each tensor, from the index of the shards or the single file."""
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        shards = read_json(index).get("weight_map", {})
        files = {name: folder / str(shard) for name, shard in shards.items()}
        if missing := sorted({path.name for path in files.values() if not path.is_file()}):
            raise LorasweepError(
                f"{str(folder)!r}: must hold every file of {index.name}, lacks {', '.join(missing)}"
            )
        return files
    whole = folder / f"{stem}.safetensors"
    if not whole.is_file():
        raise LorasweepError(
            f"{str(folder)!r}: must hold its weights as safetensors, has neither {whole.name} nor "
            f"{index.name}; save them again with save_pretrained()"
        )
    with _opened(whole) as file:
        return dict.fromkeys(file.keys(), whole)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file, turning errors into one sentence."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise LorasweepError(
            f"{str(path)!r}: must be an undamaged safetensors file ({error})"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        LorasweepError: the file cannot be read or is not JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LorasweepError(f"{str(path)!r}: must be readable JSON ({error})") from error
    return content if isinstance(content, dict) else {}


def _from_block(name: str) -> str:
    """Cut a name to start at the list of blocks: `model.layers.0.mlp.up_proj` to `layers.0...`."""
    parts = name.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdigit()), 0)
    return ".".join(parts[max(number - 1, 0) :])


def layer_number(name: str) -> int | None:
    """Parse the number of the block in a dotted name; None outside the blocks."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)
