"""Held-out loss of kept weights, as plain transformers and PEFT load and compute them.

This is what a user of the folder will do, so none of our engines, loaders or batches take part:
rows hold one example each, padded on the right, and the model's own forward makes all logits.

Shape legend: B rows and T tokens of a batch, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lorasweep.data.tokens import Tokens
from lorasweep.errors import LorasweepError, in_a_line
from lorasweep.model.base import base_path, compute_dtype
from lorasweep.model.lora import WEIGHTS
from lorasweep.spec.sweep import ModelSpec

# Logits are most of the memory; a batch has no more than this many bytes of them in fp32.
_LOGIT_BYTES = 1 << 29
_IGNORED = -100


class UnloadableError(LorasweepError):
    """The kept folder cannot be loaded."""


@dataclass(frozen=True)
class PlainModel:
    """A kept model as plain transformers and PEFT load it.

    dtype: of the base, `fp32` or `bf16`.
    lost: half a sentence on tensors that did not arrive; empty if all did.
    """

    model: Any
    dtype: str
    lost: str = ""


def load_plain(spec: ModelSpec, folder: Path, method: str, device: torch.device) -> PlainModel:
    """Load the base and the adapter in a folder, or the whole model in it, as a user would.

    Raises:
        UnloadableError: the folder cannot be loaded.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    dtype = compute_dtype(spec, device)
    name = "bf16" if dtype == torch.bfloat16 else "fp32"
    load: dict[str, Any] = {
        "dtype": dtype,
        "attn_implementation": spec.attention,
        "trust_remote_code": spec.trust_remote_code,
    }
    if method != "lora":
        try:
            model = AutoModelForCausalLM.from_pretrained(str(folder), **load)
        except Exception as error:  # whatever the libraries raise, the user's load would raise too
            raise UnloadableError(in_a_line(error)) from error
        return PlainModel(model.to(device).eval(), name)
    base = AutoModelForCausalLM.from_pretrained(base_path(spec), revision=spec.revision, **load)
    model, lost = _with_adapter(base.to(device), folder)
    return PlainModel(model.to(device).eval(), name, lost)


def _with_adapter(base: Any, folder: Path) -> tuple[Any, str]:
    """Let PEFT load an adapter, and compare what it holds then with the file."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            saved = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
        model = PeftModel.from_pretrained(base, str(folder))
    except Exception as error:  # whatever the libraries raise, the user's load would raise too
        raise UnloadableError(in_a_line(error)) from error
    held = {name: tuple(value.shape) for name, value in get_peft_model_state_dict(model).items()}
    if held == saved:
        return model, ""
    arrived = sum(held.get(name) == shape for name, shape in saved.items())
    return model, f"{arrived} of {len(saved)} tensors arrive, and PEFT makes {len(held)}"


def plain_loss(model: Any, heldout: Tokens, device: torch.device) -> float:
    """Measure the mean cross-entropy of a model's held-out tokens that carry loss, in nats."""
    vocabulary = int(model.get_output_embeddings().weight.shape[0])
    total, count = 0.0, 0
    with torch.no_grad():
        for ids_BT, labels_BT, mask_BT in _batches(heldout, vocabulary):
            logits_BTV = model(
                input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device), use_cache=False
            ).logits
            losses = functional.cross_entropy(
                logits_BTV[:, :-1].flatten(0, 1).float(),
                labels_BT[:, 1:].flatten().to(device),
                ignore_index=_IGNORED,
                reduction="none",
            )
            total += float(losses.double().sum())
            count += int((labels_BT[:, 1:] != _IGNORED).sum())
    return total / count


def _batches(heldout: Tokens, vocabulary: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Pad examples of similar lengths to batches of ids, labels and attention mask."""
    lengths = np.diff(heldout.starts_N1)
    order = np.argsort(-lengths, kind="stable")
    first = 0
    while first < len(order):
        longest = int(lengths[order[first]])
        rows = max(1, _LOGIT_BYTES // (4 * longest * vocabulary))
        examples = [heldout.example(int(index)) for index in order[first : first + rows]]
        ids_BT = torch.zeros(len(examples), longest, dtype=torch.long)
        labels_BT = torch.full_like(ids_BT, _IGNORED)
        mask_BT = torch.zeros_like(ids_BT)
        for row, (ids, carries_loss) in enumerate(examples):
            tokens = torch.from_numpy(ids.astype(np.int64))
            ids_BT[row, : len(ids)], mask_BT[row, : len(ids)] = tokens, 1
            labels_BT[row, : len(ids)] = torch.where(
                torch.from_numpy(carries_loss), tokens, torch.tensor(_IGNORED)
            )
        yield ids_BT, labels_BT, mask_BT
        first += rows
