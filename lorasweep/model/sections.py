"""The section of a block that a layer belongs to, by the modules around it and its own name.

The modules around a layer decide, nearest first: what they are called and of which class they are.
Its own name decides only where they say nothing. So a new family is right without a line here, as
long as its authors call attention attention. No set of targets has

* experts. Transformers keeps all experts of a block in one parameter, which is no layer; and an
  expert that is a layer sees only the tokens routed to it, so that the rows of several trials
  cannot be told apart there.
* routers, which choose experts, and indexers, which choose tokens and get no gradient.
* the mixers of Mamba: their fused kernels take the weights themselves and pass an adapter by, for
  which PEFT refuses some of them.
* other recurrent mixers and short convolutions, which are neither attention nor MLP. Linear
  attention has queries, keys and values, and is attention.
* cross-attention, since a text model has nothing to attend to across.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from lorasweep.spec.targets import ATTENTION, GATE, MLP

_ATTENTION_NAMES = frozenset(
    [
        *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "query_key_value"),
        *("c_attn", "Wqkv", "query", "key", "value", "q_a_proj", "q_b_proj"),
        *("kv_a_proj_with_mqa", "kv_b_proj", "in_proj_qkvz", "in_proj_ba", "in_proj_qkv"),
    ]
)
_MLP_NAMES = frozenset(
    [
        *("gate_proj", "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2", "fc_in", "fc_out"),
        *("dense_h_to_4h", "dense_4h_to_h", "c_fc", "w1", "w2", "w3"),
    ]
)
# These names occur in both, and elsewhere; the layers beside them or the modules around decide.
_AMBIGUOUS_NAMES = frozenset({"dense", "c_proj", "out_proj"})
PROJECTIONS = _ATTENTION_NAMES | _MLP_NAMES | _AMBIGUOUS_NAMES
_GATES = {"gate_proj", "proj_up_gate"}  # and w1 beside w3, as in Llama's first code

_TOWER = re.compile(
    r"(^|_)(vision|visual|vit|image|img|audio|video|speech|acoustic|multi_?modal|mm|projector|"
    r"connector|resampler|perceiver|qformer|aligner|patcher)(_|$)"
)
_CROSS = re.compile(r"encoder_attn|cross_?attn|cross_?attention")
_ATTENTION = re.compile(r"attn|attention|(^|_)att($|_)|mlstm")
_ATTENTION_CLASS = re.compile(r"(Attention\d*|DeltaNet|MLA)$")
_MLP = re.compile(r"mlp|ffn|feed_?forward|shared_expert|^ff$|(^|_)moe$")
_MLP_CLASS = re.compile(r"(MLP|Mlp|FeedForward|FFN|Moe|MoE|MoeBlock)$")
_ROUTER_CLASS = re.compile(r"Router|TopK|Gating$")


@dataclass(frozen=True)
class Place:
    """Where a layer belongs.

    section: of the block; empty for none.
    why: it is in no section, or cannot have an adapter.
    adaptable: whether it can have one.
    """

    section: str
    why: str = ""
    adaptable: bool = True


IN_ATTENTION, IN_MLP = Place(ATTENTION), Place(MLP)
ROUTER = Place("", "it routes tokens to experts")
NEITHER = Place("", "it is neither attention nor MLP")
MAMBA = Place("", "kernels of Mamba take the weights themselves and pass adapters by", False)
INDEXER = Place("", "it chooses tokens and gets no gradient", False)
CROSSING = Place("", "it attends to another input, which text does not have", False)


def in_tower(parts: Sequence[str]) -> bool:
    """Check by the components of a name whether it is part of another modality's model."""
    return any(map(_TOWER.search, parts))


def is_projection(name: str) -> bool:
    """Check by its name alone whether a layer inside a block is one of attention or the MLP."""
    parts = name.split(".")
    return parts[-1] in PROJECTIONS and not in_tower(parts)


def among_experts(name: str) -> bool:
    """Check whether a layer is part of one expert of a list."""
    return any(one == "experts" and next_.isdigit() for one, next_ in pairwise(name.split(".")))


def place_layer(name: str, around: Sequence[tuple[str, Any]]) -> Place:
    """Place a layer of a block, or a parameter.

    Args:
        name: the last component of its full name.
        around: the modules around it within the block, each with the last component of its name,
            the nearest first.
    """
    if any(_is_norm(part, module) for part, module in around):
        return NEITHER
    if any(_is_crossing(part, module) for part, module in around):
        return CROSSING
    beside = {child for _, module in around[:1] for child, _ in module.named_children()}
    placed = (_placed_by(name, part, module) for part, module in around)
    place = next((found for found in placed if found is not None), None)
    if place is None and any("expert" in part for part, _ in around):
        place = IN_MLP  # unless attention itself has experts, as in JetMoe
    place = place or _by_name(name, around[0][0], beside)
    is_gate = name in _GATES or (name == "w1" and "w3" in beside)
    return replace(place, section=GATE) if place.section == MLP and is_gate else place


def _placed_by(name: str, part: str, module: Any) -> Place | None:
    """Place a layer by one of the modules around it; None where that says nothing."""
    kind = type(module).__name__
    is_router = part in {"gate", "router"} or name in {"router", "shared_expert_gate"}
    rules = (
        (hasattr(module, "A_log") and hasattr(module, "D"), MAMBA),
        (part == "indexer", INDEXER),
        (is_router or _ROUTER_CLASS.search(kind), ROUTER),
        (name == "gate" and hasattr(module, "experts"), ROUTER),
        (_ATTENTION.search(part) or _ATTENTION_CLASS.search(kind), IN_ATTENTION),
        (_MLP.search(part) or _MLP_CLASS.search(kind), IN_MLP),
    )
    return next((place for holds, place in rules if holds), None)


def _is_norm(part: str, module: Any) -> bool:
    """Check whether a module is a norm; that of DBRX is around an attention too."""
    return "norm" in part and not any("attn" in child for child, _ in module.named_children())


def _is_crossing(part: str, module: Any) -> bool:
    """Check whether a module attends to the output of another model, or does nothing without."""
    is_block = type(module).__name__.endswith("CrossAttentionDecoderLayer")
    return is_block or _CROSS.fullmatch(part) is not None


def _by_name(name: str, parent: str, beside: set[str]) -> Place:
    """Place a layer by its own name and those of the layers beside it."""
    ambiguous = name in _AMBIGUOUS_NAMES
    in_bert = name == "dense" and parent in {"intermediate", "output"}
    if name in _ATTENTION_NAMES or (ambiguous and beside & _ATTENTION_NAMES):
        return IN_ATTENTION
    if name in _MLP_NAMES or (ambiguous and beside & _MLP_NAMES) or in_bert:
        return IN_MLP
    return NEITHER
