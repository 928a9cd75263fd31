"""How much faster do several trials train on one base than one after another, by size of batch?

Engine only, without Ray, on a CPU or a GPU. The arms see the same random documents, all of whose
tokens carry loss:

    eager-solo      a plain PEFT loop, one trial at a time, in a warm process
    compiled-solo   the same under torch.compile
    engine-solo     our engine with one slot
    packed-S        our engine with S slots, each with a trial of its own
    auto            what choose_slots makes of engine-solo and packed-S

    python benchmarks/packing.py --out benchmarks/results/packing-MACHINE.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from lorasweep import testbed
from lorasweep.data.batches import Batches
from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens
from lorasweep.errors import OutOfMemoryError
from lorasweep.model.packed import PackedModel
from lorasweep.spec.sweep import TrainSpec
from lorasweep.spec.trial import LoraHyperparameters
from lorasweep.store.environment import environment
from lorasweep.train.lora_slot import LoraTrial
from lorasweep.train.packed import PackedEngine
from lorasweep.train.probe import choose_slots

ROW = 256  # tokens of a row; fewer where a trial's whole batch is shorter
WARM_UP = 2
LORA = LoraHyperparameters(lr=1e-4, rank=16, targets="all")
# Hidden size, layers, intermediate size, heads, key-value heads, vocabulary: those of Qwen2.5-0.5B,
# Qwen2.5-1.5B and Llama-3-8B, randomly initialised, as Llamas.
SHAPES = {
    "0.5B": (896, 24, 4864, 14, 2, 151_936),
    "1.5B": (1536, 28, 8960, 12, 2, 151_936),
    "8B": (4096, 32, 14_336, 32, 8, 128_256),
}


@dataclass
class Arm:
    """An arm that is ready to train: a step of all its trials, and their number."""

    name: str
    trials: int
    step: Callable[[], None]


def build_base(shape: str, device: torch.device) -> Any:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    if shape == "testbed":
        model = AutoModelForCausalLM.from_pretrained(str(testbed.MODEL), dtype=torch.float32)
    else:
        hidden, layers, intermediate, heads, kv_heads, vocabulary = SHAPES[shape]
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            intermediate_size=intermediate,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            vocab_size=vocabulary,
            tie_word_embeddings=shape != "8B",
            max_position_embeddings=ROW,
        )
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        with device:
            model = LlamaForCausalLM(config)
        torch.set_default_dtype(before)
    return model.to(device).requires_grad_(False)


def weights_of(shape: str) -> int:
    if shape == "testbed":
        return 1_066_112
    hidden, layers, intermediate, heads, kv_heads, vocabulary = SHAPES[shape]
    attention = 2 * hidden * hidden + 2 * hidden * hidden * kv_heads // heads
    embeddings = vocabulary * hidden * (2 if shape == "8B" else 1)
    return layers * (attention + 3 * hidden * intermediate) + embeddings


def documents(vocabulary: int, width: int) -> Tokens:
    rng = np.random.default_rng(0)
    rows = [rng.integers(2, vocabulary, width).tolist() for _ in range(512)]
    return Tokens.pack([(ids, [True] * width) for ids in rows])


def solo(base: Any, tokens: Tokens, rows: int, *, compiled: bool) -> Arm:
    """Make the plain loop: PEFT, torch's AdamW, mean loss of the step, clipping."""
    alpha, rslora = LORA.resolved_alpha
    torch.manual_seed(0)
    config = LoraConfig(
        r=LORA.rank,
        lora_alpha=alpha,
        use_rslora=rslora,
        target_modules=[f"{n}_proj" for n in ("q", "k", "v", "o", "gate", "up", "down")],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config)
    model.train()
    device = next(model.parameters()).device
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LORA.lr)
    forward = torch.compile(model) if compiled else model
    width = int(tokens.starts_N1[1])
    ids = torch.from_numpy(tokens.ids_S.astype(np.int64)).view(-1, width)
    first = 0

    def step() -> None:
        nonlocal first
        batch = ids[first : first + rows].to(device)
        first = (first + rows) % (len(ids) - rows)
        optimizer.zero_grad()
        logits = forward(input_ids=batch, use_cache=False).logits
        loss = functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), batch[:, 1:].flatten()
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()

    return Arm("compiled-solo" if compiled else "eager-solo", 1, step)


def packed(model: PackedModel, tokens: Tokens, rows: int, slots: int) -> Arm:
    engine = PackedEngine(model, Shard(), level=model.device.type == "cuda")
    for seed in range(slots):
        batches = Batches(tokens, rows, rows, seed, 0)
        trial = LoraTrial(str(seed), LORA, TrainSpec(steps=10**6), batches, 10**6)
        engine.admit(engine.prepare(trial))
    name = "engine-solo" if slots == 1 else f"packed-{slots}"
    return Arm(name, slots, lambda: engine.step() and None)


def measure(arm: Arm, device: torch.device, seconds: float) -> tuple[float, int]:
    """Measure seconds per step, the median of several, and the peak memory in bytes."""
    reset_peak(device)
    times: list[float] = []
    for _ in range(WARM_UP):
        arm.step()
    synchronise(device)
    began = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        arm.step()
        synchronise(device)
        times.append(time.perf_counter() - start)
        if len(times) >= 200:
            break
    return statistics.median(times), peak(device)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif (refs := Path("/proc/self/clear_refs")).exists():
        refs.write_text("5")


def peak(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def cells(
    shape: str, device: torch.device, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Measure one shape: for every number of tokens all arms, one after the other."""
    for tokens_per_trial in options.tokens:
        width = min(ROW, tokens_per_trial)
        rows = tokens_per_trial // width
        # PEFT and the engine change the base that they are given, so each arm has its own.
        for build in arms(shape, device, options, width, rows):
            try:
                arm = build()
                seconds, memory = measure(arm, device, options.seconds)
            except (torch.OutOfMemoryError, OutOfMemoryError) as error:
                yield {"shape": shape, "tokens": tokens_per_trial, "error": str(error)[:100]}
                continue
            cell = {
                "shape": shape,
                "tokens": tokens_per_trial,
                "arm": arm.name,
                "trials": arm.trials,
                "wall_s": seconds,
                "tokens_per_s": arm.trials * tokens_per_trial / seconds,
                "peak_bytes": memory,
            }
            print(json.dumps(cell), flush=True)
            yield cell
            del arm


def arms(
    shape: str, device: torch.device, options: argparse.Namespace, width: int, rows: int
) -> Iterator[Callable[[], Arm]]:
    """List makers of the arms; what one holds is freed before the next is made."""
    yield from packed_arms(shape, device, options.slots, width, rows)
    yield lambda: plain_arm(shape, device, width, rows, compiled=False)
    if options.compiled:
        torch._dynamo.reset()
        yield lambda: plain_arm(shape, device, width, rows, compiled=True)


def packed_arms(
    shape: str, device: torch.device, slots: list[int], width: int, rows: int
) -> Iterator[Callable[[], Arm]]:
    base = build_base(shape, device)
    tokens = documents(base.config.vocab_size, width)
    model = PackedModel(base, device)
    for count in (1, *slots):
        yield partial(packed, model, tokens, rows, count)


def plain_arm(shape: str, device: torch.device, width: int, rows: int, *, compiled: bool) -> Arm:
    base = build_base(shape, device)
    return solo(base, documents(base.config.vocab_size, width), rows, compiled=compiled)


def compare(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Set every arm against eager-solo at the same shape and tokens, and add `auto`."""
    compared = []
    for key in dict.fromkeys((c["shape"], c["tokens"]) for c in measured):
        here = [c for c in measured if (c["shape"], c["tokens"]) == key and "arm" in c]
        speed = {c["arm"]: c["tokens_per_s"] for c in here}
        if "eager-solo" not in speed or "engine-solo" not in speed:
            continue
        ours = {
            c["trials"]: c["tokens_per_s"]
            for c in here
            if "eager" not in c["arm"] and "compiled" not in c["arm"]
        }
        choice = choose_slots(ours)
        row: dict[str, Any] = {"shape": key[0], "tokens": key[1], "auto_slots": choice.slots}
        row["auto over eager-solo"] = ours[choice.slots] / speed["eager-solo"]
        row["auto over best solo"] = ours[choice.slots] / max(
            v for k, v in speed.items() if k.endswith("solo")
        )
        row |= {f"{arm} over eager-solo": v / speed["eager-solo"] for arm, v in speed.items()}
        compared.append(row)
    return compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shapes", default="auto", help="comma list; auto: what memory allows")
    parser.add_argument("--tokens", default="128,256,512,1024,2048", type=_numbers)
    parser.add_argument("--slots", default="2,4,8", type=_numbers)
    parser.add_argument("--seconds", default=3.0, type=float, help="per cell")
    parser.add_argument("--no-compiled", dest="compiled", action="store_false")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shapes = options.shapes.split(",") if options.shapes != "auto" else fitting(device)
    measured = [cell for shape in shapes for cell in cells(shape, device, options)]
    result = {
        "environment": environment(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "arms": measured,
        "speedups": compare(measured),
    }
    for row in result["speedups"]:
        print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()})
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def fitting(device: torch.device) -> list[str]:
    """List the shapes whose weights fill at most a third of the memory; on a CPU the smallest."""
    if device.type != "cuda":
        return ["testbed", "0.5B"]
    room = torch.cuda.get_device_properties(device).total_memory / 3
    return [s for s in ("testbed", *SHAPES) if weights_of(s) * 2 < room]


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
