"""How the cost of some work grows, told so that a slow or a busy machine changes nothing."""

import gc
import time
from collections.abc import Callable


def growth(small: Callable[[], object], large: Callable[[], object]) -> float:
    """Measure how many times as much CPU time `large` takes as `small`, each at its best of five.

    Only this thread's time counts, and none of what Python spends on the garbage of other tests.
    """
    return _least(large) / _least(small)


def _least(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(5):
        gc.collect(0)
        gc.disable()
        try:
            began = time.thread_time()
            work()
            seconds.append(time.thread_time() - began)
        finally:
            gc.enable()
    return min(seconds)
