"""What some work costs, told so that a slow or a busy machine changes nothing."""

import gc
import time
from collections.abc import Callable

# What `_yardstick` took where the bounds were set, on a core that runs ten million plain additions
# in 0.6 s.
_THERE_S = 0.08


def seconds(work: Callable[[], object]) -> float:
    """Measure CPU seconds at the best of five, as the machine would take that set the bounds.

    Only this thread's time counts, and none of what Python spends on the garbage of other tests.
    """
    return _least(work) / _least(_yardstick) * _THERE_S


def _yardstick() -> None:
    made = {str(i): (i, i * 0.5) for i in range(200_000)}
    sorted(made.values(), key=lambda pair: -pair[1])


def _least(work: Callable[[], object]) -> float:
    spent = []
    for _ in range(5):
        gc.collect(0)
        gc.disable()
        try:
            began = time.thread_time()
            work()
            spent.append(time.thread_time() - began)
        finally:
            gc.enable()
    return min(spent)
