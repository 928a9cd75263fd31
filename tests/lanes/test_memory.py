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
from lorasweep.lanes.broker import SlotBroker
from lorasweep.lanes.messages import (
    LaneConfig,
    LaneFacts,
    SweepJob,
    TrialEnded,
    TrialFailed,
    TrialRequeued,
    is_final,
)
from lorasweep.lanes.runner import Runner
from lorasweep.model import packed
from lorasweep.model.adapter import Stack
from lorasweep.spec.trial import TrialSpec
from lorasweep.train.packed import PackedEngine
from tests.lanes.conftest import MakeRunner

pytestmark = pytest.mark.filterwarnings("default")

Ends = dict[str, TrialEnded | TrialFailed]


class Failing:
    """Function that runs out of memory in some of its calls, counted from 1."""

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


def finish(runner: Runner, trials: list[TrialSpec]) -> Ends:
    """Train trials side by side to their last report."""
    for trial in trials:
        runner.admit(runner.prepare(trial))
    ends: Ends = {}
    while runner.engine.slots:
        ends |= {r.trial: r for r in runner.step() if isinstance(r, TrialEnded | TrialFailed)}
    return ends


def results(ends: Ends) -> dict[str, dict[str, Any]]:
    """Results that must not depend on memory, of the trials that have scores."""
    names = {"status", "scores", "train_loss", "step"}
    scored = {name: end for name, end in ends.items() if isinstance(end, TrialEnded)}
    return {name: end.model_dump(include=names) for name, end in scored.items()}


@pytest.fixture(scope="module")
def undisturbed(make_runner: MakeRunner, trials: list[TrialSpec]) -> dict[str, dict[str, Any]]:
    return results(finish(make_runner(), trials))


def test_models_that_cannot_be_measured_together_are_measured_apart(
    make_runner, trials, undisturbed, monkeypatch
):
    failing = Failing(Measurement.scores, 1)
    monkeypatch.setattr(Measurement, "scores", partialmethod(failing))
    ends = finish(make_runner(), trials)
    assert failing.count == 1 + len(trials)
    assert results(ends) == undisturbed


def test_a_model_that_cannot_be_measured_even_alone_fails_alone(
    make_runner, trials, undisturbed, monkeypatch
):
    failing = Failing(Measurement.scores, 1, 3)
    monkeypatch.setattr(Measurement, "scores", partialmethod(failing))
    ends = finish(make_runner(), trials)
    (failed,) = [end for end in ends.values() if isinstance(end, TrialFailed)]
    assert failed.error == (
        "evaluate.batch_size: what is measured at a time must fit into the memory of cpu, and "
        "16 texts do not; lower it"
    )
    assert len(results(ends)) == 2
    assert results(ends).items() <= undisturbed.items()


class Spent:
    """Function that runs out of memory at first, and later checks that its memory was freed."""

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
    """Disable garbage collection, so that only reference counts free memory, as in a step."""
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
    assert {end["status"] for end in results(ends).values()} == {"COMPLETE"}
    assert len(results(ends)) == len(trials)
    assert spent.was_let_go


@pytest.mark.usefixtures("_no_collector")
def test_what_a_step_held_is_let_go_before_a_slot_is_freed(make_runner, trials, monkeypatch):
    from lorasweep.lanes.lane import StepExecutor
    from lorasweep.lanes.planner import LaneStep

    runner = make_runner()
    for trial in trials[:2]:
        runner.admit(runner.prepare(trial))
    base = _base(runner)
    base.forward = spent = Spent(base.forward)
    free = Runner.make_room

    def make_room(self: Runner, shortage: str) -> TrialRequeued | TrialFailed:
        spent.see()
        assert sys.exc_info() == (None, None, None)
        return free(self, shortage)

    monkeypatch.setattr(Runner, "make_room", make_room)
    with ThreadPoolExecutor(1) as background:
        (message,), _ = StepExecutor(runner, background).execute(LaneStep())
    assert spent.was_let_go
    assert isinstance(message, TrialRequeued)
    assert message.trial == trials[1].id
    assert message.reason.startswith("lane: 2 trials at a time do not fit into the memory of cpu")
    assert [*runner.engine.slots] == [trials[0].id]


def in_lane(
    runner: Runner, trials: list[TrialSpec], address: str, slots: int = 3, *, probed: bool = False
) -> tuple[Ends, LaneFacts]:
    """Run this process as a lane, with a real broker; return the trials' ends and lane facts."""
    import ray

    from lorasweep.lanes.lane import train

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        broker = ray.remote(SlotBroker).options(num_cpus=0).remote()
        job = SweepJob(runner.spec, str(runner.paths.root), None, None, 1.0)
        ray.get([broker.start.remote(job, None), broker.join.remote(0, "first life")])
        for trial in trials:
            ray.get(broker.lease.remote(trial, "client"))
        lane = LaneConfig(0, broker, slots, probed=probed, judged=False)
        thread = threading.Thread(target=train, args=[lane, runner], kwargs={"died": False})
        thread.start()
        ends: Ends = {}
        for trial in trials:
            number, report = 0, None
            while report is None or not is_final(report):
                report = ray.get(broker.next_report.remote(trial.id, "client", number))
                number += report is not None
            ends[trial.id] = report
        ray.get(broker.close.remote(False))
        thread.join()
        return ends, ray.get(broker.facts.remote())[0]
    finally:
        ray.shutdown()


def _base(runner: Runner) -> Any:
    """The model that the trials of a lane share."""
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
    assert results(ends) == undisturbed
    assert facts.slots == 2
    assert [note.split("(")[0] for note in facts.notes] == [
        "lane: 3 trials at a time do not fit into the memory of cpu "
    ]
    assert facts.notes[0].endswith("; continues with 2 slots")


@pytest.mark.ray
def test_a_trial_whose_adapter_memory_does_not_hold_waits_for_another_slot(
    make_runner, trials, undisturbed, ray_address, monkeypatch
):
    monkeypatch.setattr(packed, "Stack", Failing(Stack, 3))
    ends, facts = in_lane(make_runner(), trials, ray_address)
    assert results(ends) == undisturbed
    assert facts.slots == 2
    (note,) = facts.notes
    assert note.startswith("lane: 3 adapters do not fit into the memory of cpu")
    assert note.endswith("; continues with 2 slots")


@pytest.mark.ray
def test_a_trial_too_large_for_any_slot_fails_in_a_sentence_and_the_next_one_trains(
    make_runner, trials, undisturbed, ray_address
):
    runner = make_runner()
    base = _base(runner)
    base.forward = Failing(base.forward, 1)
    large, other = trials[:2]
    ends, facts = in_lane(runner, [large, other], ray_address, slots=1)
    failed = ends[large.id]
    assert isinstance(failed, TrialFailed)
    assert failed.error == (
        f"trial {large.id}: one micro-batch must fit into the memory of cpu, and does not even "
        "alone; lower train.micro_batch or data.seq_len, or set train.recompute"
    )
    assert results(ends) == {other.id: undisturbed[other.id]}
    assert facts.slots == 1


@pytest.mark.ray
def test_slots_are_measured_on_those_that_memory_holds(
    make_runner, trials, undisturbed, ray_address, monkeypatch
):
    monkeypatch.setattr(packed, "Stack", Failing(Stack, 3))
    ends, facts = in_lane(make_runner(), trials, ray_address, probed=True)
    assert results(ends) == undisturbed
    assert facts.tokens_per_s.keys() == {"1", "2"}
