"""Singular values and vectors of weight updates, and the ranks derived from them.

Shape legend: O outputs and I inputs of a layer, K the smaller of both, R rank of an adapter.

Singular values come from an eigendecomposition of the smaller Gram matrix, A^T A or A A^T, in
float64. That squares the condition number: singular values below the square root of float64's
precision (1e-8), relative to the largest, are lost. What remains is as precise as a float32 SVD of
the matrix itself (`PRECISION`), and K x K is much faster to decompose than O x I.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

PRECISION = 1e-7  # relative to the largest singular value
SHARE = 0.9
TOP = 10
INTRUDER_COSINE = 0.5


def explaining_rank(singular_K: Tensor, *, share: float = SHARE) -> int:
    """Find the smallest k whose k largest squared singular values sum to a share of the total.

    Args:
        singular_K: in descending order; a zero matrix has rank 0.

    References:
        Biderman et al. 2024, v2, section 6 (90% of the explained variance).
    """
    sums_K = singular_K.double().square().cumsum(0)
    if sums_K.numel() == 0 or sums_K[-1] == 0:
        return 0
    # With a margin, or rounding would decide where k values reach the share exactly.
    enough = share * sums_K[-1] * (1 - 1e-9)
    return int((sums_K < enough).sum()) + 1


def effective_rank(singular_K: Tensor) -> float:
    """Compute the exponential of the entropy of the singular values, normalised to sum to one.

    It is k for k equal singular values, and 0 for a zero matrix.

    References:
        Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality".
    """
    singular_K = singular_K.double()
    total = singular_K.sum()
    if total == 0:
        return 0.0
    return float(torch.special.entr(singular_K / total).sum().exp())


def rounding_energy(weight: Tensor) -> float:
    """Estimate the squared norm of the error from rounding a weight to its dtype.

    Each error is uniform within half a unit in the last place, so its variance is that unit squared
    over 12 (Widrow and Kollar 2008, "Quantization Noise", chapter 1).
    """
    # frexp: weight = mantissa * 2^exponent with a mantissa in [0.5, 1), hence the -1.
    _, exponent = torch.frexp(weight.float())
    unit = torch.finfo(weight.dtype).eps * torch.exp2(exponent.double() - 1)
    return float(unit[weight != 0].square().sum() / 12)


def intruders(
    base_OK: Tensor, tuned_OK: Tensor, *, top: int = TOP, cosine: float = INTRUDER_COSINE
) -> int:
    """Count intruder dimensions: leading tuned singular vectors that are like none of the base.

    Args:
        base_OK: all left singular vectors of W_base, as columns.
        tuned_OK: left singular vectors of W_tuned, leading ones first.
        top: number of leading vectors that are checked.
        cosine: an intruder's cosine with every vector of the base is below this.

    References:
        Shuttleworth et al. 2024, "LoRA vs Full Fine-tuning: An Illusion of Equivalence",
        section 3.
    """
    cosines_TK = (tuned_OK[:, :top].T @ base_OK).abs()
    return int((cosines_TK < cosine).all(dim=1).sum())


def singular_values(matrix_OI: Tensor) -> Tensor:
    """Compute all K singular values, in descending order."""
    matrix_OI = matrix_OI.double()
    outputs, inputs = matrix_OI.shape
    gram_KK = matrix_OI @ matrix_OI.T if outputs <= inputs else matrix_OI.T @ matrix_OI
    squares_K: Tensor = torch.linalg.eigvalsh(gram_KK)
    return squares_K.clamp(min=0).sqrt().flip(0)


def decompose(matrix_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Compute all K singular values, in descending order, and left singular vectors as columns.

    Vectors of singular values that are zero in this precision are left out: they are arbitrary.
    """
    matrix_OI = matrix_OI.double()
    is_tall = matrix_OI.shape[0] > matrix_OI.shape[1]
    gram_KK = matrix_OI.T @ matrix_OI if is_tall else matrix_OI @ matrix_OI.T
    squares_K, vectors_KK = torch.linalg.eigh(gram_KK)
    singular_K = squares_K.clamp(min=0).sqrt().flip(0)
    left_OK = vectors_KK.flip(1)
    if is_tall:
        # These are right singular vectors v, and A v / |A v| are the left ones. The Gram matrix of
        # the other side would be O x O.
        left_OK = torch.nn.functional.normalize(matrix_OI @ left_OK, dim=0)
    return singular_K, left_OK[:, singular_K > PRECISION * singular_K[0]]


def product_values(b_OR: Tensor, a_RI: Tensor) -> Tensor:
    """Compute the singular values of B A, at most R of them, without forming the product.

    QR gives B = P S and A^T = Q T, where P and Q have orthonormal columns. B A = P (S T^T) Q^T then
    has the singular values of S T^T, which is only R x R.
    """
    core_B = torch.linalg.qr(b_OR.double(), mode="r").R
    core_A = torch.linalg.qr(a_RI.double().T, mode="r").R
    singular_R: Tensor = torch.linalg.svdvals(core_B @ core_A.T)
    return singular_R


def gaussian(name: str, outputs: int, inputs: int, device: torch.device) -> Tensor:
    """Draw a Gaussian matrix of Frobenius norm 1, seeded by a name.

    It is drawn on the CPU in float32, so that every device computes with the same numbers.
    """
    digest = hashlib.sha256(name.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    noise_OI = torch.randn(outputs, inputs, generator=generator).to(device).double()
    norm: Tensor = torch.linalg.vector_norm(noise_OI)
    return noise_OI / norm
