"""Jobs that cannot fit are refused, those that fit are counted, and so are slots and trials."""

import pytest

from lorasweep.errors import ResourceError
from lorasweep.lanes.capacity import (
    MAX_SLOTS,
    Capacity,
    JobResources,
    capacity,
    fit,
    window,
)
from lorasweep.lanes.cluster import Cluster
from lorasweep.spec.sweep import ResourcesSpec, SweepSpec, parse_sweep


def cluster(cpus: float, gpus: float = 0) -> Cluster:
    return Cluster(cpus=cpus, gpus=gpus, dashboard=None, own=True)


@pytest.mark.parametrize(
    ("resources", "room", "concurrent"),
    [
        (ResourcesSpec(), cluster(2), 2),
        (ResourcesSpec(workers=2), cluster(5), 2),
        (ResourcesSpec(cpus=0.5), cluster(2), 4),
        (ResourcesSpec(), cluster(64, gpus=8), 8),
        (ResourcesSpec(workers=4), cluster(64, gpus=8), 2),
        (ResourcesSpec(gpus=0), cluster(64, gpus=8), 64),
        (ResourcesSpec(gpus=0.5), cluster(64, gpus=2), 4),
        (ResourcesSpec(max_concurrent=3), cluster(8), 3),
        (ResourcesSpec(max_concurrent=99), cluster(8), 8),
    ],
)
def test_as_many_trials_run_as_fit(resources, room, concurrent):
    assert fit(resources, room).jobs == concurrent


@pytest.mark.parametrize(
    ("resources", "room", "sentence"),
    [
        (ResourcesSpec(workers=3), cluster(2), "one trial of 3 workers needs 3 CPUs"),
        (ResourcesSpec(cpus=4), cluster(2), "needs 4 CPUs and the cluster has 2"),
        (ResourcesSpec(gpus=1), cluster(2), "must be 0 or auto where the cluster has no GPU"),
        (ResourcesSpec(workers=4, gpus=1), cluster(64, gpus=2), "needs 4 GPUs"),
    ],
)
def test_a_shape_that_can_never_fit_is_refused_in_one_sentence(resources, room, sentence):
    with pytest.raises(ResourceError, match=sentence):
        fit(resources, room)


def test_a_worker_is_not_split_over_nodes():
    room = Cluster(cpus=4, gpus=0, dashboard=None, own=False, nodes=((2, 0), (2, 0)))
    assert fit(ResourcesSpec(cpus=2), room).jobs == 2
    assert fit(ResourcesSpec(cpus=1.5), room).jobs == 2
    assert fit(ResourcesSpec(cpus=1.5, workers=2), room).jobs == 1
    with pytest.raises(ResourceError, match="on one node for each"):
        fit(ResourcesSpec(cpus=3), room)


def test_gpus_are_used_where_there_are_some():
    assert fit(ResourcesSpec(), cluster(8, gpus=2)).per_worker == {
        "CPU": 1.0,
        "GPU": 1.0,
    }
    assert fit(ResourcesSpec(), cluster(8)).per_worker == {"CPU": 1.0}


def sweep(slots: int | str = "auto", **search: object) -> SweepSpec:
    content = {"space": {"lr": True}, "slots": slots, "search": search}
    return parse_sweep(content)


@pytest.mark.parametrize(
    ("spec", "lanes", "planned", "expected"),
    [
        # A search that learns from its trials has a third of them under way.
        (sweep(), 1, 12, Capacity(1, 3, 4)),
        (sweep(), 1, 30, Capacity(1, MAX_SLOTS, 10)),
        (sweep(), 4, 30, Capacity(4, 2, 10)),
        (sweep(), 2, 16, Capacity(2, 2, 5)),
        (sweep(), 64, 6, Capacity(6, 1, 6)),
        (sweep(algorithm="random"), 1, 12, Capacity(1, 3, 4)),  # asha learns, too
        # One that does not fills all slots, and makes a quarter more ready.
        (sweep(algorithm="random", scheduler="none"), 1, 12, Capacity(1, MAX_SLOTS, 10)),
        (sweep(algorithm="grid", scheduler="none"), 2, 99, Capacity(2, MAX_SLOTS, 20)),
        # As given.
        (sweep(4), 1, 12, Capacity(1, 4, 5)),
        (sweep(16), 2, 99, Capacity(2, 16, 40)),
    ],
)
def test_slots_and_trials_under_way(spec, lanes, planned, expected):
    assert capacity(spec, JobResources(1, 1.0, 1.0, lanes), planned, cpus=128) == expected


def test_few_cores_have_few_trials_under_way():
    grid = sweep(algorithm="grid", scheduler="none")
    one, two = JobResources(1, 1.0, 0.0, 2), JobResources(1, 2.0, 0.0, 1)
    assert capacity(grid, one, 32, cpus=2) == Capacity(2, 1, 3)
    assert capacity(grid, two, 32, cpus=2) == Capacity(1, 2, 3)
    assert capacity(grid, JobResources(1, 1.0, 1.0, 1), 32, cpus=8) == Capacity(1, MAX_SLOTS, 10)
    assert capacity(sweep(4), one, 32, cpus=2) == Capacity(2, 4, 10)


def test_no_more_trials_are_under_way_than_asked_for():
    content = {"space": {"lr": True}, "slots": 8, "resources": {"max_concurrent": 3}}
    assert capacity(parse_sweep(content), JobResources(1, 1.0, 0.0, 16), 100, cpus=64) == Capacity(
        3, 1, 3
    )


@pytest.mark.parametrize(
    ("spec", "in_flight", "planned", "sees"),
    [
        (sweep(), 3, 30, 5),  # a slow trial is overtaken by two
        (sweep(), 3, 12, 4),  # though not where that is more than a third of the search
        (sweep(), 3, 6, 3),
        (sweep(), 1, 30, 1),
        (sweep(algorithm="random", scheduler="none"), 3, 30, 30),  # nothing waits for nothing
        (sweep(algorithm="grid", scheduler="none"), 3, 2, 3),
    ],
)
def test_how_far_back_a_trial_sees(spec, in_flight, planned, sees):
    assert window(spec, in_flight, planned) == sees
