"""Assume a training throughput where nobody has measured one, and say what it is based on."""

from __future__ import annotations

from dataclasses import dataclass

from lorasweep.model.published import PUBLISHED
from lorasweep.model.shape import Architecture
from lorasweep.model.size import flops_per_token
from lorasweep.spec.sweep import SweepSpec

# Biderman et al. (2024, v2, appendix I): 8 H100 trained Llama-2-7B at 25,000 to 42,500 tokens a
# second; this is the middle, per GPU. LoRA was 15% slower than full finetuning there, although it
# takes fewer FLOPs.
MEASURED_TOKENS_PER_S = (25_000 + 42_500) / 2 / 8
LORA_SPEED = 0.85
H100_FLOPS = 989e12  # dense bf16, NVIDIA's data sheet
# Useful FLOPs a second of one server core on the embedded testbed: 10,400 tokens a second of LoRA
# (benchmarks/README.md).
CORE_FLOPS = 45e9
# Start-up of a trial that is a Ray Train job of its own, on two cores.
START_S = 25.0


@dataclass(frozen=True)
class Throughput:
    """An assumed training throughput.

    tokens_per_s: on each worker.
    basis: where the number comes from, in a sentence.
    """

    tokens_per_s: float
    basis: str


def utilisation() -> float:
    """Model FLOPs utilisation of an H100 that the paper's measurement implies, at 6 N a token."""
    shape = PUBLISHED["meta-llama/Llama-2-7b-hf"]
    return MEASURED_TOKENS_PER_S * flops_per_token(shape, "full", 0) / H100_FLOPS


def on_gpus(study: SweepSpec) -> bool:
    """Whether a study is planned for GPUs: with `gpus: auto` all but the embedded base are."""
    gpus = study.resources.gpus
    return study.model.path != "testbed" if gpus == "auto" else gpus > 0


def assumed_throughput(
    study: SweepSpec, shape: Architecture, trained: float, given: float | None
) -> Throughput:
    """Choose the throughput that a study is planned with.

    Args:
        trained: trainable parameters of the average adapter.
        given: tokens a second on each worker, where somebody has measured it.
    """
    if given is not None:
        return Throughput(given, "as given with --throughput")
    if on_gpus(study):
        speed = utilisation() * H100_FLOPS / flops_per_token(shape, "full", 0)
        basis = f"{100 * utilisation():.0f}% of an H100's 989 TFLOP/s at 6 N a token (appendix I)"
        if study.method == "lora":
            return Throughput(LORA_SPEED * speed, f"15% below full finetuning's {basis}")
        return Throughput(speed, basis)
    speed = CORE_FLOPS * study.resources.cpus / flops_per_token(shape, study.method, round(trained))
    return Throughput(speed, "45 GFLOP/s on each core, as on the embedded testbed")
