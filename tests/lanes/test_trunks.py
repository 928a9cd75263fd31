"""A longer run that goes on from a shorter one's trunk is the run that it would be by itself."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lorasweep.data.shard import Shard
from lorasweep.errors import LorasweepError
from lorasweep.lanes.messages import LaneMessage, TrialFailed, from_config
from lorasweep.spec.sweep import SweepSpec
from lorasweep.store.paths import SweepPaths
from lorasweep.train.progress import Position
from lorasweep.tune.search import OrderedSearch, build_search
from lorasweep.tune.sequence import Outcome, TrialSequence
from tests.lanes.conftest import MakeSweep, run_here
from tests.workers import two_workers

__all__ = ["two_workers"]

DURATIONS = (0.5, 1.0, 2.0)


@pytest.fixture(scope="module")
def spec(make_sweep: MakeSweep) -> SweepSpec:
    return make_sweep(
        space={"epochs": list(DURATIONS), "lr": [1e-3, 1e-2]},
        hyperparameters={"batch_size": 4, "rank": 4},
        train={"schedule": "trapezoidal", "warmup_steps": 2},
        search={"algorithm": "grid", "scheduler": "none", "confirm": 0},
    )


def run(spec: SweepSpec, root: Path, durations: tuple[float, ...]) -> dict[float, int]:
    """Train one configuration for each of some durations; give the steps that each took here."""
    runner = run_here(spec, root)
    taken = {}
    for duration in durations:
        trial = spec.trial({"epochs": duration, "lr": 1e-2})
        runner.admit(runner.prepare(trial))
        taken[duration] = 0
        while trial.id in runner.engine.slots:
            runner.step()
            taken[duration] += 1
    return taken


def adapter(spec: SweepSpec, root: Path, duration: float) -> dict[str, torch.Tensor]:
    trial = spec.trial({"epochs": duration, "lr": 1e-2})
    file = SweepPaths(root).trial(trial.id).adapter / "adapter_model.safetensors"
    weights: dict[str, torch.Tensor] = load_file(file)
    return weights


def test_a_branch_of_a_trunk_equals_the_same_run_by_itself_and_costs_less(spec, tmp_path):
    together, apart = tmp_path / "together", tmp_path / "apart"
    shared = run(spec, together, DURATIONS)
    alone = run(spec, apart, DURATIONS[-1:])
    assert shared[2.0] < alone[2.0] / 2 + alone[2.0] * 0.2
    assert shared[0.5] < shared[1.0] < shared[2.0]
    left, right = adapter(spec, together, 2.0), adapter(spec, apart, 2.0)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def admit(steps: tuple[int, int], shard: Shard) -> list[LaneMessage]:
    """Admit a trial on a lane's workers, each of which found its state at a step of its own."""
    from lorasweep.lanes.lane import StepExecutor

    place, engine = SimpleNamespace(position=Position(steps[shard.worker])), SimpleNamespace()
    engine.device, engine.slots = torch.device("cpu"), {}
    runner: Any = SimpleNamespace(shard=shard, engine=engine, admit=lambda _: [])
    ready: Future[Any] = Future()
    ready.set_result(place)
    if steps[shard.worker] < 0:
        ready = Future()
        ready.set_exception(LorasweepError("damaged"))
    nobody: Any = None
    executor = StepExecutor(runner, nobody)
    executor.ready["trial"] = ready
    return executor.admit("trial")


def test_workers_that_found_different_states_of_a_trial_refuse_it(two_workers):
    assert two_workers(admit, (40, 40)) == [[], []]
    for (failed,) in two_workers(admit, (0, 40)):
        sentence = "the same state of trial trial, and they found those of steps 0, 40;"
        assert sentence in failed.error
    (one,), (other,) = two_workers(admit, (40, -1))
    assert "those of steps 40, none" in one.error
    assert other == TrialFailed(trial="trial", error="damaged")


def test_trials_of_other_configurations_share_no_trunk(spec):
    one, other = (spec.trial({"epochs": 1.0, "lr": lr}) for lr in (1e-3, 1e-2))
    longer = spec.trial({"epochs": 2.0, "lr": 1e-3})
    assert spec.trunk(one) == spec.trunk(longer) != spec.trunk(other)
    assert one.id != longer.id


def test_without_a_fixed_warm_up_there_is_no_trunk(spec):
    changed = spec.model_copy(
        update={"train": spec.train.model_copy(update={"warmup_steps": None})}
    )
    assert changed.trunk(changed.trial({"epochs": 1.0})) is None


def search_of(spec: SweepSpec) -> OrderedSearch:
    return OrderedSearch(build_search(spec, []), spec, TrialSequence(window=99), {})


def test_a_grid_lets_a_longer_run_wait_for_the_shorter_one_that_it_goes_on_from(spec):
    search = search_of(spec)
    first, second = search.suggest("a"), search.suggest("b")
    chosen = [from_config(config).trial.hyperparameters for config in (first, second)]
    assert [one.epochs for one in chosen] == [0.5, 0.5]
    assert search.suggest("c") is None  # both configurations' shortest runs are under way
    search.finish("b", Outcome("COMPLETE", 0.5))
    third = from_config(search.suggest("c")).trial.hyperparameters
    assert (third.epochs, third.lr) == (1.0, chosen[1].lr)
    search.finish("a", Outcome("DIVERGED", None))
    assert from_config(search.suggest("d")).trial.hyperparameters.epochs == 1.0
