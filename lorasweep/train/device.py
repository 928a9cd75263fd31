"""Devices: catching out-of-memory errors, waiting for queued kernels, and freeing torch's cache."""

from __future__ import annotations

from types import TracebackType

import torch

from lorasweep.errors import in_a_line

# As CUDA, its libraries, NCCL and the CPU allocator phrase it, in lower case.
_PHRASES = ("out of memory", "allocate memory", "_status_alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Check whether an error means that the device or the host ran out of memory."""
    if isinstance(error, MemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(phrase in message for phrase in _PHRASES)


class CatchOutOfMemory:
    """Catch out-of-memory errors and release the memory their traceback holds.

    A traceback refers to the frames it passed, and these to the activations of the failed step.
    Memory can be freed only once the error itself is gone, so its text alone is kept. Errors of
    other kinds pass.

    message: of the error, in one line; None where memory sufficed.
    """

    message: str | None = None

    def __enter__(self) -> CatchOutOfMemory:
        """Begin."""
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Swallow an out-of-memory error, keeping its message."""
        if error is None or not is_out_of_memory(error):
            return False
        self.message = in_a_line(error, 200)
        return True


def wait_for(device: torch.device) -> None:
    """Wait until a device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_cache(device: torch.device) -> None:
    """Return the unused memory of torch's caching allocator to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
