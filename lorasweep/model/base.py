"""The frozen base model and its tokenizer, from the hub or a folder, safetensors only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorasweep import testbed
from lorasweep.errors import ModelError
from lorasweep.spec.sweep import ModelSpec


@dataclass(frozen=True)
class BaseFacts:
    """Hold what can be known of a base without its weights.

    positions: longest sequence that it takes, in tokens.
    """

    model_type: str
    hidden_size: int
    positions: int


def _path(spec: ModelSpec) -> str:
    """Resolve the embedded testbed; refuse a local folder that is no model.

    Raises:
        ModelError: the folder does not exist or lacks its configuration or its safetensors.
    """
    if spec.path == "testbed":
        return str(testbed.MODEL)
    folder = Path(spec.path)
    looks_local = spec.path.startswith((".", "/", "~")) or folder.exists()
    if looks_local:
        if not (folder.expanduser() / "config.json").is_file():
            raise ModelError(
                f"model.path: must be a Hugging Face folder with a config.json, got {spec.path!r}"
            )
        if not any(folder.expanduser().glob("*.safetensors")):
            raise ModelError(
                f"model.path: must hold its weights as safetensors, found none in {spec.path!r}; "
                "save the model again with save_pretrained()"
            )
        return str(folder.expanduser())
    return spec.path


def _refuse(spec: ModelSpec, what: str, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())[:300]
    return ModelError(f"model.path: the {what} of {spec.path!r} cannot be loaded ({reason})")


def load_tokenizer(spec: ModelSpec) -> Any:
    """Load the tokenizer; where it has no padding token, its end-of-text token pads.

    Raises:
        ModelError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            _path(spec), revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise _refuse(spec, "tokenizer", error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def read_facts(spec: ModelSpec) -> BaseFacts:
    """Read the configuration.

    Raises:
        ModelError: it cannot be loaded, or does not describe a causal language model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(
            _path(spec), revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise _refuse(spec, "configuration", error) from error
    if not spec.trust_remote_code and type(config) not in AutoModelForCausalLM._model_mapping:
        raise ModelError(
            f"model.path: must be a causal language model, got a {config.model_type!r} in "
            f"{spec.path!r}"
        )
    text = config.get_text_config()
    return BaseFacts(
        model_type=str(text.model_type),
        hidden_size=int(text.hidden_size),
        positions=int(getattr(text, "max_position_embeddings", None) or 1024),
    )


def compute_dtype(spec: ModelSpec, device: Any) -> Any:
    """Give torch's dtype; `auto` is bf16 on a GPU that computes in it, else fp32."""
    import torch

    if spec.dtype != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[spec.dtype]
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def load_base(spec: ModelSpec, device: Any) -> Any:
    """Load the base on a device, frozen and without dropout of its own.

    Raises:
        ModelError: it cannot be loaded; pickled weights are refused, since unpickling runs code.
    """
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            _path(spec),
            revision=spec.revision,
            dtype=compute_dtype(spec, device),
            attn_implementation=spec.attention,
            trust_remote_code=spec.trust_remote_code,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _refuse(spec, "weights", error) from error
    model.requires_grad_(False)
    return model.to(device)
