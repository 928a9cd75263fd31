import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorasweep.evaluate.spectra.svd import (
    decompose,
    effective_rank,
    explaining_rank,
    gaussian,
    intruders,
    product_values,
    singular_values,
)

CPU = torch.device("cpu")
SIZES = st.integers(1, 12)


def orthonormal(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(rows, columns, dtype=torch.float64, generator=generator)).Q


def planted(singular, outputs, inputs, seed=0):
    """Make a matrix that has these singular values."""
    values = torch.tensor(singular, dtype=torch.float64)
    left, right = (
        orthonormal(outputs, len(values), seed),
        orthonormal(inputs, len(values), seed + 1),
    )
    return left * values @ right.T


def drawn(rows, columns, seed):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("outputs", "inputs"), [(6, 6), (6, 9), (9, 6)])
def test_the_singular_values_are_those_that_a_matrix_was_made_with(outputs, inputs):
    matrix = planted([5.0, 3.0, 1.0, 0.5], outputs, inputs)
    expected = torch.tensor([5.0, 3.0, 1.0, 0.5, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(singular_values(matrix), expected, atol=5e-7, rtol=0)
    torch.testing.assert_close(decompose(matrix)[0], expected, atol=5e-7, rtol=0)


@given(SIZES, SIZES, st.integers(0, 9))
@settings(max_examples=40)
def test_values_and_vectors_are_those_of_numpy(outputs, inputs, seed):
    matrix = drawn(outputs, inputs, seed)
    left, expected, _ = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    near = {"rtol": 0, "atol": 1e-7 * expected[0]}
    np.testing.assert_allclose(singular_values(matrix).numpy(), expected, **near)
    values, vectors = decompose(matrix)
    np.testing.assert_allclose(values.numpy(), expected, **near)
    # A vector and its opposite are the same one.
    cosines = np.abs((vectors.numpy() * left[:, : vectors.shape[1]]).sum(axis=0))
    np.testing.assert_allclose(cosines, 1, atol=1e-6)


def test_a_vector_of_no_singular_value_is_left_out():
    assert decompose(planted([2.0, 1.0], 7, 5))[1].shape == (7, 2)
    assert decompose(planted([2.0, 1.0], 5, 7))[1].shape == (5, 2)
    assert decompose(torch.zeros(5, 3))[1].shape == (5, 0)


@pytest.mark.parametrize(
    ("singular", "share", "rank"),
    [
        ([3.0, 1.0], 0.9, 1),  # 9 of 10: the share exactly
        ([3.0, 1.1], 0.9, 2),
        ([1.0] * 10, 0.9, 9),
        ([0.1] * 10, 0.9, 9),  # as binary fractions the nine are a little less
        ([1.0] * 10, 1.0, 10),
        ([7.0], 0.9, 1),
        ([7.0, 0.0, 0.0], 0.9, 1),
        ([0.0, 0.0], 0.9, 0),
        ([], 0.9, 0),
    ],
)
def test_the_rank_is_the_smallest_that_explains_the_share(singular, share, rank):
    assert explaining_rank(torch.tensor(singular), share=share) == rank


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=20), st.floats(0.1, 0.99))
def test_no_smaller_rank_explains_the_share(values, share):
    values = sorted(values, reverse=True)
    rank = explaining_rank(torch.tensor(values, dtype=torch.float64), share=share)
    total = math.fsum(v * v for v in values)
    assert math.fsum(v * v for v in values[:rank]) >= share * total * (1 - 1e-8)
    assert math.fsum(v * v for v in values[: rank - 1]) < share * total


@pytest.mark.parametrize("k", [1, 2, 7])
def test_equal_singular_values_have_the_effective_rank_of_their_number(k):
    assert effective_rank(torch.tensor([0.3] * k + [0.0] * 3)) == pytest.approx(k)


def test_the_effective_rank_is_the_exponential_of_the_entropy():
    p = [0.5, 0.25, 0.25]
    expected = math.exp(-sum(x * math.log(x) for x in p))
    assert effective_rank(4 * torch.tensor(p)) == pytest.approx(expected)
    assert effective_rank(torch.zeros(3)) == 0


@given(SIZES, SIZES, st.integers(1, 14), st.integers(0, 9))
@settings(max_examples=40)
def test_a_product_has_the_singular_values_of_the_formed_product(outputs, inputs, rank, seed):
    b, a = drawn(outputs, rank, seed), drawn(rank, inputs, seed + 1)
    values = product_values(b, a).numpy()
    expected = np.linalg.svd((b.double() @ a.double()).numpy(), compute_uv=False)
    assert len(values) == min(outputs, inputs, rank)
    np.testing.assert_allclose(values, expected[: len(values)], atol=1e-12 * expected[0])
    assert explaining_rank(torch.tensor(values)) <= rank


def count(base, tuned, **limits):
    return intruders(decompose(base)[1], decompose(tuned)[1], **limits)


@pytest.mark.parametrize("shape", [(30, 30), (30, 50), (50, 30)])
def test_a_matrix_has_no_intruder_to_itself(shape):
    base = drawn(shape[0], shape[1], 0)
    assert count(base, base) == 0
    assert count(base, 2 * base) == 0
    low = planted([2.0, 1.0], shape[0], shape[1])
    assert count(low, low) == 0


@pytest.mark.parametrize("shape", [(200, 200), (200, 300), (300, 200)])
def test_a_strong_random_direction_is_one_intruder(shape):
    base = drawn(shape[0], shape[1], 0)
    strong = 10 * torch.linalg.matrix_norm(base, 2) * planted([1.0], shape[0], shape[1], seed=3)
    tuned = base + strong
    assert count(base, tuned, top=1) == 1
    assert count(base, tuned) == 1
    assert count(base, tuned, top=1, cosine=0.01) == 0


def test_stronger_directions_of_the_base_itself_are_no_intruders():
    base = planted(list(range(20, 0, -1)), 40, 30)
    left = decompose(base)[1]
    tuned = base + 100 * left[:, 15:16] @ drawn(1, 30, 5).double()
    assert count(base, tuned, top=1) == 0


def test_in_a_zero_base_everything_is_an_intruder():
    assert count(torch.zeros(8, 5), drawn(8, 5, 0), top=3) == 3
    assert count(torch.zeros(8, 5), torch.zeros(8, 5)) == 0


def test_the_noise_of_a_name_is_always_the_same():
    noise = gaussian("layers.0.up_proj", 40, 30, CPU)
    assert noise.shape == (40, 30)
    assert torch.linalg.matrix_norm(noise) == pytest.approx(1)
    torch.testing.assert_close(gaussian("layers.0.up_proj", 40, 30, CPU), noise, rtol=0, atol=0)
    other = gaussian("layers.1.up_proj", 40, 30, CPU)
    assert abs((noise * other).sum()) < 0.2


def test_the_noise_is_gaussian():
    values = gaussian("any", 200, 100, CPU).flatten() * math.sqrt(20_000)
    assert abs(values.mean()) < 0.03
    assert (values**4).mean() == pytest.approx(3, abs=0.2)
