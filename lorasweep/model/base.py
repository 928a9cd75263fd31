"""The frozen base model and its tokenizer, from the hub or a folder, safetensors only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lorasweep import testbed
from lorasweep.errors import ModelError, in_a_line
from lorasweep.model.shape import Architecture, positions_of
from lorasweep.spec.sweep import ModelSpec

_CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
# Names of attention dropout in configurations: Llama, Mistral, Qwen, Phi, GPT-NeoX, OPT, Falcon and
# Bloom first, then GPT-2.
_ATTENTION_DROPOUT = ("attention_dropout", "attn_pdrop")


@dataclass(frozen=True)
class BaseFacts:
    """Facts about a base from its configuration.

    family: model type of the whole model; model_type: of its language model, which is the same
        unless it has other modalities.
    positions: longest sequence it accepts, in tokens.
    vocabulary: number of tokens it embeds.
    """

    family: str
    model_type: str
    hidden_size: int
    positions: int
    vocabulary: int


def quiet_deepspeed() -> None:
    """Keep DeepSpeed, which other libraries import, from printing that it found no GPU."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def base_path(spec: ModelSpec) -> str:
    """Resolve the path or hub name for transformers, checking that a local folder is a model.

    Raises:
        ModelError: the folder does not exist, or has no configuration or no safetensors.
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


def _load_config(spec: ModelSpec) -> Any:
    from transformers import AutoConfig

    path = base_path(spec)
    try:
        return AutoConfig.from_pretrained(
            path, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _refuse(spec, "configuration", error) from error


def _refuse(spec: ModelSpec, what: str, error: Exception) -> ModelError:
    reason = in_a_line(error)
    return ModelError(f"model.path: the {what} of {spec.path!r} cannot be loaded ({reason})")


def load_tokenizer(spec: ModelSpec, facts: BaseFacts | None = None) -> Any:
    """Load the tokenizer; one without a padding token pads with its end-of-text token.

    Raises:
        ModelError: it cannot be loaded or has no vocabulary.
    """
    from transformers import AutoTokenizer

    path = base_path(spec)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise _refuse(spec, "tokenizer", error) from error
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        # transformers makes up an empty tokenizer for a folder without one
        raise ModelError(
            f"model.path: must hold a tokenizer, found none in {spec.path!r}; save the tokenizer "
            "into the same folder with save_pretrained()"
        )
    vocabulary = (facts or read_facts(spec)).vocabulary
    if tokenizer.eos_token_id is None or tokenizer.eos_token_id >= vocabulary:
        raise ModelError(
            f"model.path: the tokenizer of {spec.path!r} must have an end-of-text token below the "
            f"model's {vocabulary} embedded tokens, got {tokenizer.eos_token_id}"
        )
    # transformers adds the padding token of the tokenizer's family, which a model with its own
    # vocabulary may not embed.
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= vocabulary:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def read_facts(spec: ModelSpec) -> BaseFacts:
    """Read the facts about a base from its configuration.

    Raises:
        ModelError: it cannot be loaded, or does not describe a causal language model.
    """
    from transformers import AutoModelForCausalLM

    config = _load_config(spec)
    known = spec.trust_remote_code or type(config) in AutoModelForCausalLM._model_mapping
    # A classifier or masked model would load too, with a random head; so check the architecture.
    made_for = config.architectures or ["ForCausalLM"]
    causal = any(name.endswith(_CAUSAL) for name in made_for) and not config.is_encoder_decoder
    if not (known and causal):
        kind = made_for[0] if config.architectures else config.model_type
        raise ModelError(
            f"model.path: must be a causal language model, got a {kind!r} in {spec.path!r}"
        )
    text = config.get_text_config()
    return BaseFacts(
        family=str(config.model_type),
        model_type=str(text.model_type),
        hidden_size=int(text.hidden_size),
        positions=positions_of(text),
        vocabulary=int(text.vocab_size),
    )


@dataclass(frozen=True)
class BaseReader:
    """Facts, shape and tokenizer of a base, each read once, when it is first needed."""

    spec: ModelSpec

    @cached_property
    def facts(self) -> BaseFacts:
        """The facts that its configuration states."""
        return read_facts(self.spec)

    @cached_property
    def shape(self) -> Architecture:
        """Its layers and sizes; only unknown families need torch for that."""
        from lorasweep.model.size import architecture_of  # which imports this module

        return architecture_of(
            _load_config(self.spec), trust_remote_code=self.spec.trust_remote_code
        )

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, with a padding token."""
        return load_tokenizer(self.spec, self.facts)


def dtype_name(spec: ModelSpec, *, on_gpu: bool) -> str:
    """Resolve the dtype of a base: `auto` is bf16 on a GPU, which must support it, else fp32."""
    if spec.dtype != "auto":
        return spec.dtype
    return "bf16" if on_gpu else "fp32"


def compute_dtype(spec: ModelSpec, device: Any) -> Any:
    """Choose torch's dtype for a base on a device."""
    import torch

    on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype_name(spec, on_gpu=on_gpu)]


def load_base(spec: ModelSpec, device: Any, *, attention_dropout: float = 0.0) -> Any:
    """Load the base on a device, frozen, with its own dropouts set to 0.

    Args:
        attention_dropout: probability of dropping an attention weight in training.

    Raises:
        ModelError: it cannot be loaded, or attention dropout is asked for and it has none. Pickled
            weights are refused, since unpickling runs code.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it would break up the live view
    config = _load_config(spec)
    # The base's own dropouts draw from torch's global generator, so one trial's masks would depend
    # on the others; and none of them is a hyperparameter of the sweep.
    for part in (config, config.get_text_config()):
        for name, value in part.to_dict().items():
            if "drop" in name and isinstance(value, float):
                setattr(part, name, 0.0)
    if attention_dropout:
        _set_attention_dropout(config.get_text_config(), attention_dropout)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base_path(spec),
            config=config,
            revision=spec.revision,
            dtype=compute_dtype(spec, device),
            attn_implementation=spec.attention,
            trust_remote_code=spec.trust_remote_code,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise _refuse(spec, "weights", error) from error
    model.requires_grad_(False)
    return model.to(device)


def _set_attention_dropout(config: Any, probability: float) -> None:
    for name in _ATTENTION_DROPOUT:
        if hasattr(config, name):
            setattr(config, name, probability)
            return
    raise ModelError(
        f"hyperparameters.attention_dropout: must be 0 for a {config.model_type!r} model, whose "
        f"configuration has none of {', '.join(_ATTENTION_DROPOUT)}; got {probability}"
    )


def empty_base(spec: ModelSpec) -> Any:
    """Instantiate the base on the meta device: layers, names and shapes without memory.

    Raises:
        ModelError: its configuration cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = _load_config(spec)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=spec.trust_remote_code)


def save_tuned(folder: Path, model: Any, weights: Mapping[str, Any], spec: ModelSpec) -> None:
    """Save a fully finetuned model as transformers would, with the base's own configuration.

    Args:
        model: that was trained; its configuration has the dropouts of training.
        weights: by name; tied ones are one tensor.
    """
    model.save_pretrained(str(folder), state_dict=dict(weights))
    config = _load_config(spec)
    config.architectures, config.dtype = [type(model).__name__], model.dtype
    config.save_pretrained(str(folder))
