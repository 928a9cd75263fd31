"""Memory is released after an out-of-memory error, and timed steps wait for the device."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from lorasweep.errors import OutOfMemoryError
from lorasweep.model.packed import PackedLinear
from lorasweep.train import packed
from lorasweep.train.device import CatchOutOfMemory, is_out_of_memory, wait_for
from lorasweep.train.packed import PackedEngine
from tests.train.trial import CPU, Trial, engine_for, fresh_model


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("NCCL error: unhandled cuda error ... Cuda failure 2 'out of memory'"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
        ),
        OutOfMemoryError("lane: 3 trials at a time do not fit into the memory of cuda:0"),
        MemoryError(),
    ],
)
def test_out_of_memory_errors_of_every_source_are_recognised(error: Exception):
    assert is_out_of_memory(error)
    with CatchOutOfMemory() as caught:
        raise error
    assert caught.message == str(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of memory"),
    ],
)
def test_an_error_of_another_kind_passes(error: Exception):
    caught = CatchOutOfMemory()
    with pytest.raises(type(error)), caught:
        raise error
    assert caught.message is None


def test_there_is_no_message_if_memory_suffices():
    with CatchOutOfMemory() as caught:
        pass
    assert caught.message is None


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """Turn off the garbage collector, so that only reference counting frees memory."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
def test_activations_of_a_failed_step_are_freed_before_its_error_is_handled(trial: Trial):
    model = fresh_model(trial.folder)
    engine = engine_for(trial, model=model)
    graph: list[weakref.ref[Any]] = []  # whose nodes hold the activations

    def alive() -> bool:
        return any(node() is not None for node in graph)

    def remember(_: Any, __: Any, output: torch.Tensor) -> None:
        graph.append(weakref.ref(output.grad_fn))

    def fail(*_: Any) -> None:
        assert alive()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    for layer in model.base.modules():
        if isinstance(layer, PackedLinear):
            layer.register_forward_hook(remember)
    model.base.lm_head.register_forward_pre_hook(fail)
    lives = True
    try:
        engine.step()
    except OutOfMemoryError:
        lives = alive()
    assert not lives


def test_a_step_waits_for_the_device_only_if_it_is_timed(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
):
    waited: list[torch.device] = []
    monkeypatch.setattr(packed, "wait_for", waited.append)
    engine: PackedEngine = engine_for(trial)
    engine.step()
    assert not waited
    engine.timed = True
    assert not engine.step()  # only a part of an optimizer step, which reads nothing
    assert waited == [CPU]


def test_only_gpus_are_waited_for(monkeypatch: pytest.MonkeyPatch):
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    wait_for(CPU)
    wait_for(torch.device("cuda", 1))
    assert waited == [torch.device("cuda", 1)]
