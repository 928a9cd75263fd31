from __future__ import annotations

import pytest

from lorasweep.spec.sweep import TrainSpec
from lorasweep.spec.trial import FullHyperparameters, LoraHyperparameters
from lorasweep.train.optim import learning_rate


@pytest.mark.parametrize("kind", [LoraHyperparameters, FullHyperparameters])
def test_the_learning_rate_is_the_peak_times_the_schedule(kind):
    hyperparameters, train = kind(lr=0.5, warmup=0.1), TrainSpec(schedule="constant")
    rates = [learning_rate(hyperparameters, train, 20, step) for step in range(20)]
    assert rates == [0.25] + [0.5] * 19


@pytest.mark.parametrize("schedule", ["constant", "trapezoidal"])
def test_with_warm_up_steps_runs_of_different_durations_start_alike(schedule):
    hyperparameters = FullHyperparameters(lr=1.0, warmup=0.5)
    train = TrainSpec(schedule=schedule, warmup_steps=4)
    short, long = (
        [learning_rate(hyperparameters, train, steps, step) for step in range(16)]
        for steps in (20, 200)
    )
    assert short == long == [0.25, 0.5, 0.75, 1.0] + [1.0] * 12


def test_zero_warm_up_steps_mean_no_warm_up():
    hyperparameters = FullHyperparameters(lr=1.0, warmup=0.5)
    assert learning_rate(hyperparameters, TrainSpec(warmup_steps=0), 10, 0) == 1.0
