"""Shapes of published models, for planning without access to the hub.

From the configurations on the hub; parameter counts agree with the model cards.
"""

from __future__ import annotations

from lorasweep.model.shape import Architecture, gated


def _llama_2(hidden: int, layers: int, ffn: int, heads: int, kv_heads: int) -> Architecture:
    return gated(
        hidden=hidden,
        layers=layers,
        ffn=ffn,
        heads=heads,
        kv_heads=kv_heads,
        vocabulary=32_000,
        positions=4096,
        tied=False,
    )


def _llama_3(
    hidden: int, layers: int, ffn: int, heads: int, *, tied: bool = False, positions: int = 131_072
) -> Architecture:
    return gated(
        hidden=hidden,
        layers=layers,
        ffn=ffn,
        heads=heads,
        kv_heads=8,
        vocabulary=128_256,
        positions=positions,
        tied=tied,
    )


def _qwen_2_5(
    hidden: int, layers: int, ffn: int, heads: int, kv_heads: int, *, vocabulary: int, tied: bool
) -> Architecture:
    """Describe a Qwen2.5 model, whose queries, keys and values have a bias."""
    return gated(
        hidden=hidden,
        layers=layers,
        ffn=ffn,
        heads=heads,
        kv_heads=kv_heads,
        vocabulary=vocabulary,
        positions=32_768 if tied else 131_072,
        tied=tied,
        biases=(heads + 2 * kv_heads) * (hidden // heads),
    )


_LLAMA_2 = {
    "7b": _llama_2(4096, 32, 11_008, 32, 32),
    "13b": _llama_2(5120, 40, 13_824, 40, 40),
    "70b": _llama_2(8192, 80, 28_672, 64, 8),
}

PUBLISHED: dict[str, Architecture] = {
    **{f"meta-llama/Llama-2-{size}-hf": shape for size, shape in _LLAMA_2.items()},
    **{f"meta-llama/Llama-2-{size}-chat-hf": shape for size, shape in _LLAMA_2.items()},
    "meta-llama/Meta-Llama-3-8B": _llama_3(4096, 32, 14_336, 32, positions=8192),
    "meta-llama/Llama-3.1-8B": _llama_3(4096, 32, 14_336, 32),
    "meta-llama/Llama-3.1-70B": _llama_3(8192, 80, 28_672, 64),
    "meta-llama/Llama-3.1-405B": _llama_3(16_384, 126, 53_248, 128),
    "meta-llama/Llama-3.2-1B": _llama_3(2048, 16, 8192, 32, tied=True),
    "meta-llama/Llama-3.2-3B": _llama_3(3072, 28, 8192, 24, tied=True),
    "mistralai/Mistral-7B-v0.1": gated(
        hidden=4096,
        layers=32,
        ffn=14_336,
        heads=32,
        kv_heads=8,
        vocabulary=32_000,
        positions=32_768,
        tied=False,
    ),
    "Qwen/Qwen2.5-0.5B": _qwen_2_5(896, 24, 4864, 14, 2, vocabulary=151_936, tied=True),
    "Qwen/Qwen2.5-1.5B": _qwen_2_5(1536, 28, 8960, 12, 2, vocabulary=151_936, tied=True),
    "Qwen/Qwen2.5-7B": _qwen_2_5(3584, 28, 18_944, 28, 4, vocabulary=152_064, tied=False),
}
