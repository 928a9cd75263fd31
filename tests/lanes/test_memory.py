"""What becomes of trials when memory runs out.

It cannot be made to run out on purpose, so the error is raised where it would be.
"""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partialmethod
from typing import Any

import pytest
import torch

from lorasweep.evaluate.measure import Measurement
from lorasweep.lanes.broker import LaneConfig, SlotBroker
from lorasweep.lanes.runner import Runner
from lorasweep.model import packed
from lorasweep.model.adapter import Stack
from lorasweep.spec.trial import TrialSpec
from lorasweep.train.packed import PackedEngine
from tests.lanes.conftest import MakeRunner

pytestmark = pytest.mark.filterwarnings("default")


class Failing:
    """Stand before a function and run out of memory in some calls of it, counted from 1."""

    def __init__(self, function: Any, *calls: int) -> None:
        self.function, self.calls, self.count = function, calls, 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.count += 1
        if self.count in self.calls:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return self.function(*arguments, **named)


@pytest.fixture(scope="module")
def trials(make_runner: MakeRunner) -> list[TrialSpec]:
    return [make_runner().spec.trial({"lr": lr}) for lr in (1e-3, 2e-3, 3e-3)]


def finish(runner: Runner, trials: list[TrialSpec]) -> dict[str, dict[str, Any]]:
    """Let trials train side by side to their last report."""
    for trial in trials:
        runner.admit(runner.prepare(trial))
    ends: dict[str, dict[str, Any]] = {}
    while runner.engine.slots:
        ends |= {r["trial"]: r for r in runner.step() if "status" in r}
    return ends


def told(end: dict[str, Any]) -> dict[str, Any]:
    names = ("status", "learning", "source_accuracy", "response_loss", "train_loss", "step")
    return {name: end[name] for name in names}


@pytest.fixture(scope="module")
def undisturbed(make_runner: MakeRunner, trials: list[TrialSpec]) -> dict[str, dict[str, Any]]:
    return {name: told(end) for name, end in finish(make_runner(), trials).items()}


def test_models_that_cannot_be_measured_together_are_measured_apart(
    make_runner, trials, undisturbed, monkeypatch
):
    failing = Failing(Measurement.scores, 1)
    monkeypatch.setattr(Measurement, "scores", partialmethod(failing))
    ends = finish(make_runner(), trials)
    assert failing.count == 1 + len(trials)
    assert {name: told(end) for name, end in ends.items()} == undisturbed


def test_a_model_that_cannot_be_measured_even_alone_fails_alone(
    make_runner, trials, undisturbed, monkeypatch
):
    failing = Failing(Measurement.scores, 1, 3)
    monkeypatch.setattr(Measurement, "scores", partialmethod(failing))
    ends = finish(make_runner(), trials)
    (failed,) = [end for end in ends.values() if end["status"] == "FAILED"]
    assert failed["error"] == (
        "evaluate.batch_size: what is measured at a time must fit into the memory of cpu, and "
        "16 texts do not; lower it"
    )
    whole = {name: told(end) for name, end in ends.items() if end is not failed}
    assert len(whole) == 2
    assert whole.items() <= undisturbed.items()


class Spent:
    """Hold memory in a first call, run out of it, and see in the second whether it was let go."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.held: list[weakref.ref[torch.Tensor]] = []
        self.was_let_go: bool | None = None

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not self.held:
            cache = torch.zeros(1000)
            self.held.append(weakref.ref(cache))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        self.see()
        return self.function(*arguments, **named)

    def see(self) -> None:
        if self.was_let_go is None:
            self.was_let_go = self.held[0]() is None


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """Let nothing but the counting of references free memory, as in the midst of a step."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
def test_what_a_measurement_held_is_let_go_before_models_are_measured_apart(
    make_runner, trials, monkeypatch
):
    spent = Spent(Measurement.scores)
    monkeypatch.setattr(Measurement, "scores", partialmethod(spent))
    ends = finish(make_runner(), trials)
    assert {end["status"] for end in ends.values()} == {"COMPLETE"}
    assert spent.was_let_go


@pytest.mark.usefixtures("_no_collector")
def test_what_a_step_held_is_let_go_before_a_slot_is_freed(make_runner, trials, monkeypatch):
    from lorasweep.lanes.lane import _Hands, _Step

    runner = make_runner()
    for trial in trials[:2]:
        runner.admit(runner.prepare(trial))
    base = _base(runner)
    base.forward = spent = Spent(base.forward)
    free = Runner.make_room

    def make_room(self: Runner, shortage: str) -> dict[str, Any]:
        spent.see()
        assert sys.exc_info() == (None, None, None)
        return free(self, shortage)

    monkeypatch.setattr(Runner, "make_room", make_room)
    with ThreadPoolExecutor(1) as background:
        (report,), _ = _Hands(runner, background).do(_Step())
    assert spent.was_let_go
    assert report["trial"] == trials[1].id
    assert report["requeue"].startswith(
        "lane: 2 trials at a time do not fit into the memory of cpu"
    )
    assert [*runner.engine.slots] == [trials[0].id]


def in_lane(
    runner: Runner, trials: list[TrialSpec], address: str, slots: int = 3, *, probed: bool = False
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Run this process as a lane, with a real broker; return the trials' ends and lane facts."""
    import ray

    from lorasweep.lanes.lane import _train

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        broker = ray.remote(SlotBroker).options(num_cpus=0).remote()
        ray.get([broker.begin.remote("job", None), broker.join.remote(0, "first life")])
        for trial in trials:
            ray.get(broker.lease.remote(trial.model_dump(mode="json"), "client"))
        lane = LaneConfig(0, broker, slots, probed=probed, judged=False)
        thread = threading.Thread(target=_train, args=[lane, runner], kwargs={"died": False})
        thread.start()
        ends = {}
        for trial in trials:
            number = 0
            end: dict[str, Any] = {}
            while "status" not in end:
                heard = ray.get(broker.report.remote(trial.id, "client", number))
                end, number = heard or {}, number + (heard is not None)
            ends[trial.id] = end
        ray.get(broker.close.remote(False))
        thread.join()
        return ends, ray.get(broker.facts.remote())[0]
    finally:
        ray.shutdown()


def _base(runner: Runner) -> Any:
    """Give the model that the trials of a lane share."""
    assert isinstance(runner.engine, PackedEngine)
    return runner.engine.model.base


@pytest.mark.ray
def test_a_step_that_memory_does_not_hold_takes_a_slot_away_and_nothing_else(
    make_runner, trials, undisturbed, ray_address
):
    runner = make_runner()
    base = _base(runner)
    base.forward = Failing(base.forward, 4)
    ends, facts = in_lane(runner, trials, ray_address)
    assert {name: told(end) for name, end in ends.items()} == undisturbed
    assert facts["slots"] == 2
    assert [note.split("(")[0] for note in facts["notes"]] == [
        "lane: 3 trials at a time do not fit into the memory of cpu "
    ]
    assert facts["notes"][0].endswith("; goes on with 2 slots")


@pytest.mark.ray
def test_a_trial_whose_adapter_memory_does_not_hold_waits_for_another_slot(
    make_runner, trials, undisturbed, ray_address, monkeypatch
):
    monkeypatch.setattr(packed, "Stack", Failing(Stack, 3))
    ends, facts = in_lane(make_runner(), trials, ray_address)
    assert {name: told(end) for name, end in ends.items()} == undisturbed
    assert facts["slots"] == 2
    (note,) = facts["notes"]
    assert note.startswith("lane: 3 adapters do not fit into the memory of cpu")
    assert note.endswith("; goes on with 2 slots")


@pytest.mark.ray
def test_a_trial_too_large_for_any_slot_fails_in_a_sentence_and_the_next_one_trains(
    make_runner, trials, undisturbed, ray_address
):
    runner = make_runner()
    base = _base(runner)
    base.forward = Failing(base.forward, 1)
    large, other = trials[:2]
    ends, facts = in_lane(runner, [large, other], ray_address, slots=1)
    assert ends[large.id]["status"] == "FAILED"
    assert ends[large.id]["error"] == (
        f"trial {large.id}: one micro-batch must fit into the memory of cpu, and does not even "
        "alone; lower train.micro_batch or data.seq_len, or set train.recompute"
    )
    assert told(ends[other.id]) == undisturbed[other.id]
    assert facts["slots"] == 1


@pytest.mark.ray
def test_slots_are_measured_on_those_that_memory_holds(
    make_runner, trials, undisturbed, ray_address, monkeypatch
):
    monkeypatch.setattr(packed, "Stack", Failing(Stack, 3))
    ends, facts = in_lane(make_runner(), trials, ray_address, probed=True)
    assert {name: told(end) for name, end in ends.items()} == undisturbed
    assert facts["tokens_per_s"].keys() == {"1", "2"}
