"""Measure how finetuning changed each weight matrix, from a checkpoint or adapter and its base.

One matrix at a time is read, decomposed and freed, so that no model needs to fit in memory. A large
model takes hours, so the matrices are split over all workers.

Shape legend: O outputs and I inputs of a layer, K the smaller of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil
import torch
from torch import Tensor

from lorasweep.data.shard import Shard
from lorasweep.errors import LorasweepError
from lorasweep.evaluate.spectra.svd import (
    decompose,
    effective_rank,
    explaining_rank,
    gaussian,
    intruders,
    product_values,
    rounding_energy,
    singular_values,
)
from lorasweep.evaluate.spectra.weights import Weights, layer_number, read_json
from lorasweep.model.lora import SavedAdapter, adapted_layers, saved_name
from lorasweep.model.sections import PROJECTIONS, is_projection
from lorasweep.store.records import MatrixSpectrum

# Families whose projections are Conv1D, which stores its weight as inputs x outputs. Layer names do
# not tell them apart: GPT-BigCode has the same names for linear layers.
_TRANSPOSED = frozenset({"gpt2", "openai-gpt"})


@dataclass(frozen=True)
class _Change:
    """One matrix before and after, in float64, and the singular values of the difference.

    rounded: squared norm of what rounding contributes to the difference.
    """

    base_OI: Tensor
    tuned_OI: Tensor
    update_K: Tensor
    rounded: float = 0.0


class _Source(Protocol):
    """Reads changed matrices one at a time, by their names without `.weight`."""

    names: list[str]

    def read(self, name: str) -> _Change: ...


class _Checkpoint:
    """Reads what full finetuning saved: every projection inside a block."""

    def __init__(self, base: Weights, folder: Path, device: torch.device) -> None:
        self.base, self.tuned, self.device = base, Weights(folder), device
        config = base.folder / "config.json"
        family = read_json(config).get("model_type") if config.is_file() else None
        self.is_transposed = family in _TRANSPOSED
        matrices = [n.removesuffix(".weight") for n in self.tuned.files if n.endswith(".weight")]
        self.names = [
            name for name in matrices if is_projection(name) and layer_number(name) is not None
        ]

    def read(self, name: str) -> _Change:
        tuned = self.tuned.read(f"{name}.weight")
        base = _read_base(self.base, name, tuned.shape)
        start = base
        if torch.finfo(tuned.dtype).eps > torch.finfo(base.dtype).eps:
            # A difference in rounding is not an update, but it has full rank. If the tuned weights
            # were saved in a coarser dtype, the base is rounded alike, so that weights that never
            # moved have a difference of zero.
            start = base.to(tuned.dtype)
        rounded = rounding_energy(tuned)
        if self.is_transposed:
            base, start, tuned = base.T, start.T, tuned.T
        tuned_OI = tuned.to(self.device).double()
        update_K = singular_values(tuned_OI - start.to(self.device).double())
        return _Change(base.to(self.device).double(), tuned_OI, update_K, rounded)


class _Adapter:
    """Reads a PEFT folder of a LoRA adapter: the layers that have one."""

    def __init__(self, base: Weights, folder: Path, device: torch.device) -> None:
        self.base, self.tuned, self.device = base, Weights(folder, stem="adapter_model"), device
        config = folder / "adapter_config.json"
        self.saved = SavedAdapter.of(read_json(config), config)
        self.names = adapted_layers(self.tuned.files)

    def read(self, name: str) -> _Change:
        found = {of: self.tuned.find(saved_name(name, of)) for of in self.saved.tensors}
        tensors = {of: self.tuned.read(it).to(self.device).double() for of, it in found.items()}
        base = _read_base(self.base, name, self.saved.weight_shape(tensors))
        base_OI = (base.T if self.saved.transposed else base).to(self.device).double()
        tuned_OI, factors = self.saved.merge(base_OI, tensors)
        return _Change(base_OI, tuned_OI, product_values(*factors))


def _read_base(base: Weights, name: str, shape: tuple[int, ...]) -> Tensor:
    """Read a matrix of the base, and check that it has the shape of its tuned version."""
    weight = base.read(base.find(f"{name}.weight"))
    if weight.shape != shape or weight.ndim != 2:
        raise LorasweepError(
            f"{name}: must be a matrix of its base's shape {tuple(weight.shape)}, got "
            f"{tuple(shape)}; compare with the model that was tuned, {str(base.folder)!r} is not it"
        )
    return weight


@dataclass(frozen=True)
class _BaseMatrix:
    """Facts of a base matrix that do not depend on the update.

    rank: explaining 90% of the base; noise: the same of a Gaussian matrix of its shape.
    left_OK: left singular vectors, in float32 on the CPU.
    """

    rank: int
    noise: int
    left_OK: Tensor


@dataclass
class BaseSpectra:
    """Cache of decomposed base matrices, which all trials of a sweep share.

    It is about as large as the base in float32: an intruder is unlike every singular vector of the
    base, so all of them are needed.

    free: share of the machine's memory to leave free; matrices that do not fit are decomposed
        again for each trial.
    """

    free: float = 0.25
    _known: dict[tuple[Path, str], _BaseMatrix] = field(
        default_factory=dict, init=False, repr=False
    )

    def decomposed(self, folder: Path, name: str, base_OI: Tensor, noise_OI: Tensor) -> _BaseMatrix:
        """Decompose a base matrix, or look it up."""
        if (folder, name) in self._known:
            return self._known[folder, name]
        base_K, left_OK = decompose(base_OI)
        noise = explaining_rank(singular_values(noise_OI))
        known = _BaseMatrix(explaining_rank(base_K), noise, left_OK.float().cpu())
        memory = psutil.virtual_memory()
        if memory.available > self.free * memory.total:
            self._known[folder, name] = known
        return known


def spectrum_of_update(
    base: Path,
    tuned: Path,
    *,
    device: torch.device | None = None,
    spectra: BaseSpectra | None = None,
    shard: Shard = Shard(),  # noqa: B008 - frozen
) -> tuple[MatrixSpectrum, ...]:
    """Measure how each matrix was changed, ordered by layer, then by module.

    For a full checkpoint these are the projections of attention and MLP inside the blocks, for a
    LoRA adapter the layers that have one.

    Args:
        base: folder of the base's weights, as returned by `base_folder`.
        tuned: folder of a checkpoint, or of a PEFT adapter.
        device: computes; the CPU by default.
        spectra: cache for callers that compare several trials with one base.
        shard: each worker measures its share and returns the results of all.

    Raises:
        LorasweepError: weights are missing, damaged, quantised, not finite, or not of this base.
    """
    device = device or torch.device("cpu")
    spectra = BaseSpectra(free=1.0) if spectra is None else spectra  # 1.0: caches nothing
    kind = _Adapter if (tuned / "adapter_config.json").is_file() else _Checkpoint
    source: _Source = kind(Weights(base), tuned, device)
    if not source.names:
        raise LorasweepError(
            f"{str(tuned)!r}: must hold adapters of linear layers, or layers in blocks named "
            f"{', '.join(sorted(PROJECTIONS))}; found neither"
        )
    own = source.names[shard.worker :: shard.workers]
    measured = [_measure(name, source.read(name), base, spectra) for name in own]
    rows = [row for share in shard.gather(measured) for row in share]
    last = math.inf  # layers outside the blocks are listed last
    return tuple(
        sorted(rows, key=lambda m: (last if m.layer is None else m.layer, m.module, m.name))
    )


def _measure(name: str, change: _Change, base: Path, spectra: BaseSpectra) -> MatrixSpectrum:
    """Compute the ranks of one matrix: its update, the base, the tuned weights, and noise.

    For comparison, Gaussian noise of the update's norm is added to the base: its rank (`noisy`)
    shows what the rank of the tuned weights could reveal about an update of full rank.
    """
    outputs, inputs = change.base_OI.shape
    device = change.base_OI.device
    noise_OI = gaussian(name, outputs, inputs, device)
    known = spectra.decomposed(base, name, change.base_OI, noise_OI)
    tuned_K, tuned_OK = decompose(change.tuned_OI)
    norm = float(change.update_K.norm())
    base_norm = float(change.base_OI.norm())
    return MatrixSpectrum(
        name=name,
        layer=layer_number(name),
        module=name.rpartition(".")[2],
        outputs=outputs,
        inputs=inputs,
        update=explaining_rank(change.update_K),
        base=known.rank,
        tuned=explaining_rank(tuned_K),
        noise=known.noise if norm else 0,
        noisy=explaining_rank(singular_values(change.base_OI + norm * noise_OI)),
        effective=effective_rank(change.update_K),
        share=norm / base_norm if base_norm else 0.0,
        rounding=min(1.0, change.rounded / norm**2) if norm else 0.0,
        intruders=intruders(known.left_OK.to(device), tuned_OK.float()),
    )
