"""What singular values and singular vectors say about how a matrix was changed.

Shape legend: O outputs and I inputs of a layer, K the smaller of both, R rank of an adapter.

Everything is computed in float64, by way of the Gram matrix of the smaller side. The singular
values are then right to within `PRECISION` of the largest one, as a float32 decomposition of the
matrix itself would have them, in less time.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

PRECISION = 1e-7
SHARE = 0.9
TOP = 10
INTRUDER_COSINE = 0.5


def explaining_rank(singular_K: Tensor, *, share: float = SHARE) -> int:
    """Give the smallest k whose k first squared singular values hold a share of the sum of all.

    Args:
        singular_K: in descending order; those of a zero matrix are explained by rank 0.

    References:
        Biderman et al. 2024, v2, section 6 (90% of the explained variance).
    """
    sums_K = singular_K.double().square().cumsum(0)
    if sums_K.numel() == 0 or sums_K[-1] == 0:
        return 0
    # Rounding would else decide where k values hold the share exactly, as with equal ones.
    enough = share * sums_K[-1] * (1 - 1e-9)
    return int((sums_K < enough).sum()) + 1


def effective_rank(singular_K: Tensor) -> float:
    """Give the exponential of the entropy of the singular values, scaled to sum to one.

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
    """Expect the squared norm of the errors that rounding a weight to its type has made.

    Each is uniform within half a unit in the last place, and so has a variance of a twelfth of that
    unit squared (Widrow and Kollar 2008, "Quantization Noise", chapter 1).
    """
    _, exponent = torch.frexp(weight.float())
    unit = torch.finfo(weight.dtype).eps * torch.exp2(exponent.double() - 1)
    return float(unit[weight != 0].square().sum() / 12)


def intruders(
    base_OK: Tensor, tuned_OK: Tensor, *, top: int = TOP, cosine: float = INTRUDER_COSINE
) -> int:
    """Count leading singular vectors of a tuned matrix that are like none of its base.

    Args:
        base_OK: all left singular vectors of W_base, in columns.
        tuned_OK: left singular vectors of W_tuned, the leading ones first.
        top: how many of these are looked at.
        cosine: an intruder's cosine with every vector of the base is below it.

    References:
        Shuttleworth et al. 2024, "LoRA vs Full Fine-tuning: An Illusion of Equivalence",
        section 3.
    """
    cosines_TK = (tuned_OK[:, :top].T @ base_OK).abs()
    return int((cosines_TK < cosine).all(dim=1).sum())


def singular_values(matrix_OI: Tensor) -> Tensor:
    """Give all K singular values, in descending order."""
    matrix_OI = matrix_OI.double()
    outputs, inputs = matrix_OI.shape
    gram_KK = matrix_OI @ matrix_OI.T if outputs <= inputs else matrix_OI.T @ matrix_OI
    squares_K: Tensor = torch.linalg.eigvalsh(gram_KK)
    return squares_K.clamp(min=0).sqrt().flip(0)


def decompose(matrix_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Give all K singular values, in descending order, and left singular vectors in columns.

    Vectors of singular values that are zero in this precision are left out: they could be any.
    """
    matrix_OI = matrix_OI.double()
    is_tall = matrix_OI.shape[0] > matrix_OI.shape[1]
    gram_KK = matrix_OI.T @ matrix_OI if is_tall else matrix_OI @ matrix_OI.T
    squares_K, vectors_KK = torch.linalg.eigh(gram_KK)
    singular_K = squares_K.clamp(min=0).sqrt().flip(0)
    left_OK = vectors_KK.flip(1)
    if is_tall:
        # Those were right singular vectors. The Gram matrix of the other side would be O x O.
        left_OK = torch.nn.functional.normalize(matrix_OI @ left_OK, dim=0)
    return singular_K, left_OK[:, singular_K > PRECISION * singular_K[0]]


def product_values(b_OR: Tensor, a_RI: Tensor) -> Tensor:
    """Give the singular values of B A, R of them at most, without forming the product.

    With B = P S and A^T = Q T, where P and Q have orthonormal columns, B A = P (S T^T) Q^T has the
    singular values of S T^T, which is R x R.
    """
    core_B = torch.linalg.qr(b_OR.double(), mode="r").R
    core_A = torch.linalg.qr(a_RI.double().T, mode="r").R
    singular_R: Tensor = torch.linalg.svdvals(core_B @ core_A.T)
    return singular_R


def gaussian(name: str, outputs: int, inputs: int, device: torch.device) -> Tensor:
    """Draw a Gaussian matrix of Frobenius norm 1, always the same one for a name and a shape.

    It is drawn on the CPU, in float32, so that every device computes with the same numbers.
    """
    digest = hashlib.sha256(name.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    noise_OI = torch.randn(outputs, inputs, generator=generator).to(device).double()
    norm: Tensor = torch.linalg.vector_norm(noise_OI)
    return noise_OI / norm
