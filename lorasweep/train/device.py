"""What a device does that a caller must know: its memory runs out, and it computes in its own time.

An error holds the frames that it has passed, and so the activations of what failed. Whoever is to
make room must therefore be done with the error first.
"""

from __future__ import annotations

from types import TracebackType

import torch

from lorasweep.errors import in_a_line

# As CUDA, its libraries, NCCL and the allocator of the CPU say it, in lower case.
_PHRASES = ("out of memory", "allocate memory", "_status_alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether the device, or the machine itself, has no memory left."""
    if isinstance(error, MemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(phrase in said for phrase in _PHRASES)


class Attempt:
    """Stand around what memory may not hold, and let its memory go where it does not.

    An error of another kind passes.

    shortage: what was said when memory ran out, in one line; None where it did not.
    """

    shortage: str | None = None

    def __enter__(self) -> Attempt:
        """Begin."""
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Keep the text of an error of memory, and nothing that it holds."""
        if error is None or not is_out_of_memory(error):
            return False
        self.shortage = in_a_line(error, 200)
        return True


def wait_for(device: torch.device) -> None:
    """Wait until a device has computed all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_cache(device: torch.device) -> None:
    """Give a device's memory back that torch holds for nothing."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
