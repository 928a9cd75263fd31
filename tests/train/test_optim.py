from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorasweep.spec.sweep import TrainSpec
from lorasweep.train.optim import COSINE_FLOOR, DecoupledLion, build_optimizer, schedule_factor

SCHEDULES = ("cosine", "constant", "trapezoidal")


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        ("cosine", 0, 1.0),
        ("cosine", 50, 0.505),  # half-way between the peak and 1% of it
        ("cosine", 99, COSINE_FLOOR + 0.99 * 0.5 * (1 + math.cos(0.99 * math.pi))),
        ("constant", 0, 1.0),
        ("constant", 99, 1.0),
        ("trapezoidal", 0, 1.0),
        ("trapezoidal", 80, 1.0),
        ("trapezoidal", 90, 0.5),
        ("trapezoidal", 99, 0.05),
        ("trapezoidal", 100, 0.0),  # where the last step has led
    ],
)
def test_schedules_without_warm_up_at_chosen_steps(schedule: str, step: int, factor: float):
    assert schedule_factor(schedule, 0.0, 100, step) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        ("cosine", 0, 0.1),
        ("cosine", 9, 1.0),
        ("cosine", 10, 1.0),
        ("cosine", 55, 0.505),
        ("cosine", 99, 0.0103),
        ("constant", 4, 0.5),
        ("constant", 10, 1.0),
        ("trapezoidal", 4, 0.5),
        ("trapezoidal", 80, 1.0),
        ("trapezoidal", 99, 0.05),
    ],
)
def test_schedules_with_warm_up_at_chosen_steps(schedule: str, step: int, factor: float):
    assert schedule_factor(schedule, 0.1, 100, step) == pytest.approx(factor, abs=1e-4)


def test_warm_up_takes_its_share_of_the_steps_despite_rounding():
    for percent in range(1, 100):
        steps = [schedule_factor("constant", percent / 100, 100, step) for step in range(100)]
        assert sum(factor < 1 for factor in steps) == percent - 1


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.99])
def test_a_single_step_takes_the_peak(schedule: str, warmup: float):
    assert schedule_factor(schedule, warmup, 1, 0) == 1.0


@given(
    schedule=st.sampled_from(SCHEDULES),
    warmup=st.floats(0, 0.999),
    steps=st.integers(1, 400),
    data=st.data(),
)
def test_the_rate_of_every_step_is_above_zero_and_at_most_the_peak(schedule, warmup, steps, data):
    step = data.draw(st.integers(0, steps - 1))
    assert 0 < schedule_factor(schedule, warmup, steps, step) <= 1


def _weight(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_lion_equals_a_computation_by_hand():
    weight = _weight(1.0, -2.0, 0.5)
    lion = DecoupledLion([weight], lr=0.1, betas=(0.9, 0.95), weight_decay=0.01)

    # 1st step, at the peak: weights shrink by 1%, then move 0.1 against the gradient's sign.
    weight.grad = torch.tensor([4.0, -1.0, 0.0], dtype=torch.float64)
    lion.step()
    hand = [0.99 - 0.1, -1.98 + 0.1, 0.495]
    assert weight.tolist() == pytest.approx(hand, abs=1e-12)
    # The momentum is 5% of the gradient: 0.2, -0.05, 0.

    # 2nd step, at half the peak: the decay halves with the rate. Of the first weight 0.9 x 0.2
    # outweighs 0.1 x -1, so it still falls; the second turns, as 0.9 x 0.05 < 0.1 x 1.
    lion.param_groups[0]["lr"] = 0.05
    weight.grad = torch.tensor([-1.0, 1.0, -3.0], dtype=torch.float64)
    lion.step()
    hand = [hand[0] * 0.995 - 0.05, hand[1] * 0.995 - 0.05, hand[2] * 0.995 + 0.05]
    assert weight.tolist() == pytest.approx(hand, abs=1e-12)
    momentum = lion.state[weight]["momentum"]
    assert momentum.tolist() == pytest.approx([0.14, 0.0025, -0.15], abs=1e-12)


@pytest.mark.parametrize("peak", [1e-5, 1e-2])
def test_the_decay_of_lion_follows_the_schedule_and_not_the_peak(peak: float):
    weight = _weight(1.0)
    lion = build_optimizer(TrainSpec(optimizer="lion"), [weight], peak, 0.5)
    weight.grad = torch.zeros_like(weight)
    for factor in (1.0, 0.5, 0.0):
        lion.param_groups[0]["lr"] = peak * factor
        lion.step()
    assert weight.item() == pytest.approx(0.5 * 0.75 * 1.0)


def test_the_decay_of_adamw_is_the_learning_rate_times_weight_decay():
    weight = _weight(1.0)
    adamw = build_optimizer(TrainSpec(), [weight], 0.1, 0.5)
    weight.grad = torch.zeros_like(weight)
    for rate in (0.1, 0.05):
        adamw.param_groups[0]["lr"] = rate
        adamw.step()
    assert weight.item() == pytest.approx((1 - 0.1 * 0.5) * (1 - 0.05 * 0.5))


def test_the_first_step_of_adamw_is_one_learning_rate():
    weight = _weight(1.0, 1.0)
    adamw = build_optimizer(TrainSpec(), [weight], 0.1, 0.0)
    weight.grad = torch.tensor([3.0, -0.01], dtype=torch.float64)
    adamw.step()
    assert weight.tolist() == pytest.approx([0.9, 1.1], abs=1e-6)


def test_betas_are_those_of_the_optimizer_unless_they_are_given():
    given_betas = TrainSpec(optimizer="lion", betas=(0.8, 0.7))
    assert build_optimizer(TrainSpec(), [_weight(1)], 0.1, 0).defaults["betas"] == (0.9, 0.999)
    lion = build_optimizer(TrainSpec(optimizer="lion"), [_weight(1)], 0.1, 0)
    assert lion.defaults["betas"] == (0.9, 0.95)
    assert build_optimizer(given_betas, [_weight(1)], 0.1, 0).defaults["betas"] == (0.8, 0.7)


def test_a_weight_without_a_gradient_stays_the_same():
    weight = _weight(1.0)
    build_optimizer(TrainSpec(optimizer="lion"), [weight], 0.1, 0.5).step()
    assert weight.item() == 1.0
