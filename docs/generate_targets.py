"""Write the table of families in docs/targets.md from empty models; a test checks the file.

Each family has the size that transformers gives it by default, without memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorasweep.model.coverage import Coverage, coverage
from lorasweep.model.layers import ModelLayers

PAGE = Path(__file__).with_name("targets.md")
BEGIN, END = "<!-- families -->\n", "<!-- end -->\n"
HEAD = "| family | `attention` | `mlp` | `all` | `qv` | in no set |\n|---|---|---|---|---|---|\n"
SETS = ("attention", "mlp", "all", "qv")

# By model type, with what transformers' defaults lack.
_PLAIN = """
    apertus bloom codegen cohere cohere2 deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 ernie4_5
    ernie4_5_moe exaone4 exaone_moe falcon falcon_h1 gemma gemma2 gemma3 gemma3n_text gemma4
    gemma4_text glm4 glm4_moe got_ocr2 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss gptj granite
    granitemoe helium jamba jetmoe kimi_linear lfm2 llama llama4 longcat_flash mamba mamba2 minicpm3
    minimax mistral mixtral mllama mpt nemotron_h olmo olmo2 olmo3 olmoe opt phi phi3
    phi4_multimodal phimoe qwen2 qwen2_moe qwen3 qwen3_5 qwen3_moe qwen3_next recurrent_gemma rwkv
    seed_oss smollm3 stablelm starcoder2 xlstm zamba2
"""
FAMILIES: dict[str, dict[str, Any]] = {
    **{name: {} for name in _PLAIN.split()},
    "bamba": {"attn_layer_indices": [9, 18, 27]},
    "dbrx": {"attn_config": {"kv_n_heads": 8, "rope_theta": 5e5}},
    "hunyuan_v1_dense": {
        "head_dim": 128,
        "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"},
    },
    "nemotron": {"num_key_value_heads": 48},
}


def layers_of(family: str) -> ModelLayers:
    """Find the layers of a family's model of default size."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    from lorasweep.model.targets import find_layers

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        config = CONFIG_MAPPING[family](**FAMILIES[family])
        return find_layers(AutoModelForCausalLM.from_config(config))


def table() -> str:
    """Build the table: a row for each family, by name."""
    rows = []
    for family in sorted(FAMILIES):
        covered = coverage(layers_of(family), {})
        shares = [_share(covered, name) for name in SETS]
        rows.append(f"| {family} | {' | '.join(shares)} | {', '.join(_left(covered))} |\n")
    return HEAD + "".join(rows)


def _share(covered: Coverage, name: str) -> str:
    """Write the share of a set, with that of its section where a part cannot have adapters."""
    if name not in covered.sets:
        return "refused"
    found = covered.sets[name]
    whole = found.of_section is None or found.of_section > 0.9995
    return f"{100 * found.share:.3g}%" + ("" if whole else f" ({100 * found.of_section:.3g}%)")


def _left(covered: Coverage) -> Iterator[str]:
    """Write what is in no set; of a share below a thousandth, the name alone."""
    for part in covered.in_no_set:
        yield f"`{part.name}`" + (f" {100 * part.share:.3g}%" if part.share >= 0.001 else "")


def page() -> str:
    """Build the page: what is written there, with the table made anew."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
