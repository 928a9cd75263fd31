"""Estimate pass@k, the chance that at least one of k completions passes, from n of them."""

from __future__ import annotations

import numpy as np

from lorasweep.errors import LorasweepError


def estimate_pass_at_k(k: int, *, samples: int, passed: int) -> float:
    """Estimate pass@k of one problem without bias (Chen et al. 2021, section 2.1).

    With n samples of which c passed this is 1 - C(n - c, k) / C(n, k), the chance that k of them,
    drawn without replacement, include one that passed. It is computed as a product, since binomial
    coefficients of n = 256 overflow.

    Raises:
        LorasweepError: k is not between 1 and `samples`, or `passed` not between 0 and `samples`.
    """
    if not 1 <= k <= samples:
        raise LorasweepError(
            f"pass@k: k must be between 1 and the number of samples, {samples}, got {k}; take more "
            "samples or a smaller k"
        )
    if not 0 <= passed <= samples:
        raise LorasweepError(
            f"pass@k: between 0 and all {samples} samples must have passed, got {passed}"
        )
    if samples - passed < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(samples - passed + 1, samples + 1)))
