from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from lorasweep.evaluate.sandbox import cores
from lorasweep.evaluate.sandbox.cores import max_parallel_programs
from tests.evaluate.taught import CPU

GPU = torch.device("cuda")


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a node of 64 cores and no GPUs, without limits."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(cores, "DEVICES", tmp_path)
    monkeypatch.setattr(cores, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return tmp_path


def test_a_worker_alone_on_a_node_has_all_its_cores(node: Path):
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
        (node / name).touch()
    assert max_parallel_programs(GPU) == 64


@pytest.mark.parametrize(("workers", "gpus", "share"), [(4, 4, 16), (1, 8, 8), (3, 0, 21)])
def test_workers_of_a_node_share_its_cores(
    node: Path, monkeypatch: pytest.MonkeyPatch, workers: int, gpus: int, share: int
):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(workers))
    for number in range(gpus):
        (node / f"nvidia{number}").touch()
    assert max_parallel_programs(GPU) == share


@pytest.mark.parametrize(
    ("quota", "share"), [("max 100000", 64), ("650000 100000", 6), ("50000 100000", 1)]
)
def test_a_container_may_have_fewer_cores(node: Path, quota: str, share: int):
    (node / "cpu.max").write_text(f"{quota}\n", encoding="ascii")
    assert max_parallel_programs(GPU) == share


@pytest.mark.usefixtures("node")
def test_without_a_gpu_a_worker_has_the_cores_that_it_computes_with():
    assert max_parallel_programs(CPU) == torch.get_num_threads()
