"""End a session on Ctrl-C or SIGTERM without losing trained steps."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Self

from ray.tune import Stopper


class Interrupt(Stopper):  # type: ignore[misc]
    """Tune stopper that ends all trials after a signal, or if none can succeed.

    Trials that it stops are not journalled as ended, so the same command resumes them. A second
    signal ends the process at once.

    requested: whether the session ends because of a signal.
    given_up: whether the session ends because its trials fail.
    wake: called once before all trials are stopped; it wakes the trials that wait for a report,
        because Tune cannot stop one in the midst of a call.
    """

    def __init__(self) -> None:
        """Start without a reason to end."""
        self.requested = self.given_up = False
        self.wake: Callable[[], None] | None = None
        self._handlers: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handlers": {}, "wake": None}

    @property
    def ending(self) -> bool:
        """Whether all trials are being stopped, for either reason."""
        return self.requested or self.given_up

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no single trial."""
        return False

    def stop_all(self) -> bool:
        """Whether Tune is to stop every trial; wakes those that wait."""
        if self.ending and self.wake is not None:
            self.wake()
            self.wake = None
        return self.ending
