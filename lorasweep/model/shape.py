"""The shape of a model, from its configuration alone: linear layers and all other parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lorasweep.model.layers import HEAD, Layer, LeftOut, ModelLayers, layers_of_set
from lorasweep.model.lora import parameters_per_layer
from lorasweep.spec.targets import ATTENTION, GATE, MLP, OwnSets
from lorasweep.spec.trial import LoraHyperparameters


@dataclass(frozen=True)
class Architecture:
    """Sizes of a model that its configuration alone determines.

    positions: longest sequence it accepts, in tokens.
    linear: the layers of its blocks, and what cannot have an adapter.
    others: parameters besides the weights of those: embeddings, head, norms and biases.
    published: taken from the table of published models instead of the model's configuration.
    """

    hidden_size: int
    layers: int
    positions: int
    vocabulary: int
    linear: ModelLayers
    others: int
    published: bool = False

    @property
    def parameters(self) -> int:
        """Number of all parameters."""
        return self.linear.weights + self.others

    @property
    def multiplied(self) -> int:
        """Number of weights that each token is multiplied with: linear layers and output head."""
        left_out = sum(round(out.active * out.weights) for out in self.linear.left_out)
        layers = sum(layer.weights for layer in self.linear.layers)
        return layers + left_out + self.vocabulary * self.hidden_size

    def trainable(self, hyperparameters: LoraHyperparameters, own: OwnSets | None = None) -> int:
        """Count the parameters of a LoRA adapter.

        Args:
            own: the sets of targets that the sweep defines.

        Raises:
            ModelError: the model has none of the layers that the targets stand for.
        """
        layers = layers_of_set(self.linear, hyperparameters.targets, own or {}).values()
        return sum(parameters_per_layer(hyperparameters, la.inputs, la.outputs) for la in layers)


def positions_of(text: Any) -> int:
    """Read the longest sequence that a model accepts; 1024 where its configuration has none."""
    return int(getattr(text, "max_position_embeddings", None) or 1024)


def _blocks(place: str, count: int, *layers: tuple[str, str, int, int]) -> ModelLayers:
    """Repeat the layers of a block, each with its name, section, inputs and outputs."""
    return ModelLayers(
        tuple(
            Layer(f"{place}.*.{name}", section, inputs, outputs, count)
            for name, section, inputs, outputs in layers
        ),
        (LeftOut("lm_head", "", 0, f"it is {HEAD}", in_blocks=False),),
    )


def gated(
    *,
    hidden: int,
    layers: int,
    ffn: int,
    heads: int,
    kv_heads: int,
    vocabulary: int,
    positions: int,
    tied: bool,
    head_dim: int | None = None,
    biases: int = 0,
    norms: int = 0,
) -> Architecture:
    """Describe Llama and models built like it: gated MLP, RMS norms, rotary positions.

    Args:
        ffn: width of the MLP.
        tied: whether the head is the embedding.
        biases: bias parameters of one layer.
        norms: parameters of one layer's norms, besides the two that every layer has.
    """
    width = head_dim or hidden // heads
    query, key = heads * width, kv_heads * width
    embeddings = vocabulary * hidden * (1 if tied else 2)
    return Architecture(
        hidden_size=hidden,
        layers=layers,
        positions=positions,
        vocabulary=vocabulary,
        linear=_blocks(
            "model.layers",
            layers,
            ("self_attn.q_proj", ATTENTION, hidden, query),
            ("self_attn.k_proj", ATTENTION, hidden, key),
            ("self_attn.v_proj", ATTENTION, hidden, key),
            ("self_attn.o_proj", ATTENTION, query, hidden),
            ("mlp.gate_proj", GATE, hidden, ffn),
            ("mlp.up_proj", MLP, hidden, ffn),
            ("mlp.down_proj", MLP, ffn, hidden),
        ),
        # A norm after the last layer and two in each, which have a weight and no bias.
        others=embeddings + hidden + layers * (2 * hidden + biases + norms),
    )


def _of_gated(text: Any, *, query_bias: bool, output_bias: bool, head_norms: bool) -> Architecture:
    heads, hidden = int(text.num_attention_heads), int(text.hidden_size)
    kv_heads = int(getattr(text, "num_key_value_heads", None) or heads)
    width = int(getattr(text, "head_dim", None) or hidden // heads)
    ffn = int(text.intermediate_size)
    biases = (heads + 2 * kv_heads) * width if query_bias else 0  # of q, k and v
    biases += hidden if output_bias else 0
    biases += 2 * ffn + hidden if getattr(text, "mlp_bias", False) else 0  # of gate, up and down
    return gated(
        hidden=hidden,
        layers=int(text.num_hidden_layers),
        ffn=ffn,
        heads=heads,
        kv_heads=kv_heads,
        vocabulary=int(text.vocab_size),
        positions=int(text.max_position_embeddings),
        tied=bool(text.tie_word_embeddings),
        head_dim=width,
        biases=biases,
        norms=2 * width if head_norms else 0,
    )


def _llama(text: Any) -> Architecture:
    bias = bool(getattr(text, "attention_bias", False))
    return _of_gated(text, query_bias=bias, output_bias=bias, head_norms=False)


def _qwen2(text: Any) -> Architecture:
    return _of_gated(text, query_bias=True, output_bias=False, head_norms=False)


def _qwen3(text: Any) -> Architecture:
    bias = bool(getattr(text, "attention_bias", False))
    return _of_gated(text, query_bias=bias, output_bias=bias, head_norms=True)


def _classic(
    text: Any,
    *,
    ffn: int,
    embeddings: int,
    attention_bias: bool,
    place: str,
    names: tuple[str, str, str, str],
) -> Architecture:
    """Describe GPT-2 and GPT-NeoX: one layer for q, k and v, and layer norms with bias.

    Args:
        place: full name of the list of blocks.
        names: of the two layers of attention and the two of the MLP.
    """
    hidden, layers = int(text.hidden_size), int(text.num_hidden_layers)
    # Of the MLP's two layers; of q, k, v and of the attention's output.
    biases = ffn + hidden + (4 * hidden if attention_bias else 0)
    return Architecture(
        hidden_size=hidden,
        layers=layers,
        positions=int(text.max_position_embeddings),
        vocabulary=int(text.vocab_size),
        linear=_blocks(
            place,
            layers,
            (names[0], ATTENTION, hidden, 3 * hidden),
            (names[1], ATTENTION, hidden, hidden),
            (names[2], MLP, hidden, ffn),
            (names[3], MLP, ffn, hidden),
        ),
        # A norm after the last layer and two in each, of weight and bias.
        others=embeddings + 2 * hidden + layers * (4 * hidden + biases),
    )


def _gpt2(text: Any) -> Architecture:
    hidden = int(text.hidden_size)
    tables = int(text.vocab_size) * (1 if text.tie_word_embeddings else 2)
    embeddings = hidden * (tables + int(text.max_position_embeddings))
    ffn = int(text.n_inner or 4 * hidden)
    return _classic(
        text,
        ffn=ffn,
        embeddings=embeddings,
        attention_bias=True,
        place="transformer.h",
        names=("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    )


def _gpt_neox(text: Any) -> Architecture:
    tables = int(text.vocab_size) * (1 if text.tie_word_embeddings else 2)
    return _classic(
        text,
        ffn=int(text.intermediate_size),
        embeddings=int(text.hidden_size) * tables,
        attention_bias=bool(getattr(text, "attention_bias", True)),
        place="gpt_neox.layers",
        names=(
            "attention.query_key_value",
            "attention.dense",
            "mlp.dense_h_to_4h",
            "mlp.dense_4h_to_h",
        ),
    )


# By transformers' model type, of models that are nothing but text; any other is instantiated by
# transformers without memory.
FAMILIES: dict[str, Callable[[Any], Architecture]] = {
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
}
