"""A shape that cannot fit is refused, and what fits is counted."""

import pytest

from lorasweep.errors import ResourceError
from lorasweep.spec.sweep import ResourcesSpec
from lorasweep.tune.cluster import Cluster, connect, fit


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
    assert fit(resources, room).max_concurrent == concurrent


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
    assert fit(ResourcesSpec(cpus=2), room).max_concurrent == 2
    assert fit(ResourcesSpec(cpus=1.5), room).max_concurrent == 2
    assert fit(ResourcesSpec(cpus=1.5, workers=2), room).max_concurrent == 1
    with pytest.raises(ResourceError, match="on one node for each"):
        fit(ResourcesSpec(cpus=3), room)


def test_gpus_are_used_where_there_are_some():
    assert fit(ResourcesSpec(), cluster(8, gpus=2)).per_worker == {"CPU": 1.0, "GPU": 1.0}
    assert fit(ResourcesSpec(), cluster(8)).per_worker == {"CPU": 1.0}


def test_an_address_at_which_nothing_listens_is_refused_at_once():
    with pytest.raises(ResourceError, match=r"no Ray cluster answers at .127\.0\.0\.1:1."):
        connect("127.0.0.1:1", "demo")
