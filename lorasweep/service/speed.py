"""How fast training is assumed to be, where nobody has measured it, and on what basis."""

from __future__ import annotations

from dataclasses import dataclass

from lorasweep.model.published import PUBLISHED
from lorasweep.model.shape import Architecture
from lorasweep.model.size import flops_per_token
from lorasweep.spec.sweep import SweepSpec

# Biderman et al. (2024, v2, appendix I): the middle of the 25,000 to 42,500 tokens a second that 8
# H100 trained with Llama-2-7B, for each of them; LoRA was 15% slower than full finetuning, although
# it takes fewer FLOPs.
MEASURED_TOKENS_PER_S = (25_000 + 42_500) / 2 / 8
LORA_SPEED = 0.85
H100_FLOPS = 989e12  # dense bf16, NVIDIA's data sheet
# Of useful FLOPs, one core of a server's CPU did 45e9 on the embedded testbed: 10,400 tokens a
# second of LoRA (benchmarks/README.md).
CORE_FLOPS = 45e9
# A trial that is a job of its own waits so long for its processes on two cores.
START_S = 25.0


@dataclass(frozen=True)
class Speed:
    """Hold an assumed speed.

    tokens_per_s: of training, on each worker.
    basis: why, in a sentence.
    """

    tokens_per_s: float
    basis: str


def utilisation() -> float:
    """Give the share of an H100's FLOPs that the measurement makes useful, at 6 N a token."""
    shape = PUBLISHED["meta-llama/Llama-2-7b-hf"]
    return MEASURED_TOKENS_PER_S * flops_per_token(shape, "full", 0) / H100_FLOPS


def on_gpus(study: SweepSpec) -> bool:
    """Tell whether a study is reckoned for GPUs: `auto` is, but for the embedded base."""
    gpus = study.resources.gpus
    return study.model.path != "testbed" if gpus == "auto" else gpus > 0


def assumed_speed(
    study: SweepSpec, shape: Architecture, trained: float, throughput: float | None
) -> Speed:
    """Give the speed that a study is reckoned with.

    Args:
        trained: parameters of an adapter of middling size.
        throughput: tokens a second on each worker, where somebody has measured it.
    """
    if throughput is not None:
        return Speed(throughput, "as given with --throughput")
    if on_gpus(study):
        speed = utilisation() * H100_FLOPS / flops_per_token(shape, "full", 0)
        basis = f"{100 * utilisation():.0f}% of an H100's 989 TFLOP/s at 6 N a token (appendix I)"
        if study.method == "lora":
            return Speed(LORA_SPEED * speed, f"15% below full finetuning's {basis}")
        return Speed(speed, basis)
    speed = CORE_FLOPS * study.resources.cpus / flops_per_token(shape, study.method, round(trained))
    return Speed(speed, "45 GFLOP/s on each core, as on the embedded testbed")
