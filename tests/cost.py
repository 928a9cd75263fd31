"""Measure the cost of work, independent of how slow or busy the machine is."""

import gc
import time
from collections.abc import Callable

# Seconds of `_yardstick` where the bounds were set, on a core that runs ten million additions in
# 0.6 s.
_YARDSTICK_S = 0.08


def seconds(work: Callable[[], object]) -> float:
    """Measure CPU seconds, best of five, scaled to the machine on which the bounds were set.

    Only this thread's time counts, without collecting the garbage of other tests.
    """
    return _least(work) / _least(_yardstick) * _YARDSTICK_S


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
