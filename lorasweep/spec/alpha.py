"""Alpha as a sweep writes it, and the rule by which it follows the rank."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lorasweep.spec.declare import Level

_WRITTEN = re.compile(r"(?P<times>\d+(?:\.\d+)?)r|rslora:(?P<rslora>\d+(?:\.\d+)?)")
AlphaRule = Literal["fixed", "times rank", "rslora"]
FIXED: AlphaRule = "fixed"
TIMES_RANK: AlphaRule = "times rank"
RSLORA: AlphaRule = "rslora"


@dataclass(frozen=True, slots=True)
class Alpha:
    """A rule and its number: `32.0` is fixed, `2r` times the rank, `rslora:16` over its root."""

    rule: AlphaRule
    number: float

    def at(self, rank: int) -> float:
        """Compute alpha at a rank."""
        return self.number * rank if self.rule == TIMES_RANK else self.number

    def scaling(self, rank: int) -> float:
        """Factor on the adapter's output; rsLoRA divides by the root (Kalajdzievski 2023)."""
        return self.at(rank) / (math.sqrt(rank) if self.rule == RSLORA else rank)


def read_alpha(value: float | str) -> Alpha:
    """Parse a number, `2r` or `rslora:16`.

    Raises:
        ValueError: it is none of these, or not above 0.
    """
    try:
        alpha = Alpha(FIXED, float(value))
    except ValueError:
        written = _WRITTEN.fullmatch(str(value))
        if written is None or float(written["times"] or written["rslora"]) == 0:
            raise ValueError(
                "must be a multiple of the rank such as '2r', a number, or 'rslora:N', "
                f"each above 0, got {value!r}"
            ) from None
        if written["times"]:
            return Alpha(TIMES_RANK, float(written["times"]))
        return Alpha(RSLORA, float(written["rslora"]))
    if not (math.isfinite(alpha.number) and alpha.number > 0):
        raise ValueError(f"must be above 0, got {alpha.number!r}")
    return alpha


def rule_of(alpha: Level) -> AlphaRule:
    """Classify an alpha by how it is written, also one of a table that was made elsewhere."""
    if isinstance(alpha, str) and alpha.startswith("rslora"):
        return RSLORA
    return TIMES_RANK if isinstance(alpha, str) and alpha.endswith("r") else FIXED


def is_multiple(alpha: Level | None, rank: float | None, times: float) -> bool:
    """Check whether alpha is this multiple of the rank, written so or as a number."""
    if isinstance(alpha, str):
        return alpha == f"{times:g}r"
    return alpha is not None and rank is not None and float(alpha) == times * rank


def common_multiple(pairs: Iterable[tuple[Level | None, Level | None]]) -> float | None:
    """Find the multiple of the rank that all numeric alphas are; None if one rank alone shows it.

    Tables often give alpha as a number where it follows the rank.

    Args:
        pairs: alpha and rank of each configuration.
    """
    numbers = {
        (float(alpha), float(rank))
        for alpha, rank in pairs
        if not isinstance(alpha, str | None) and not isinstance(rank, str | None) and rank > 0
    }
    multiples = {round(alpha / rank, 9) for alpha, rank in numbers}
    return multiples.pop() if len(multiples) == 1 and len(numbers) > 1 else None
