"""End a session cleanly on Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Self

from ray.tune import Stopper


class Interrupt(Stopper):  # type: ignore[misc]
    """Stop all of Tune's trials once a person or the system asks for it, or none can succeed.

    What runs is not journalled as ended, so the same command goes on from there. A second signal
    ends the process at once.
    """

    def __init__(self) -> None:
        """Have nothing asked yet.

        asked: whether a person or the system asks for the end.
        given_up: whether the sweep ends because its trials fail.
        wake: called, once, when all trials are about to be stopped; it lets those that wait for
            something come back, since a waiting one cannot stop.
        """
        self.asked = self.given_up = False
        self.wake: Callable[[], None] | None = None
        self._handlers: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handlers": {}, "wake": None}

    @property
    def ending(self) -> bool:
        """Tell whether trials are being stopped, for either reason."""
        return self.asked or self.given_up

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no trial by itself."""
        return False

    def stop_all(self) -> bool:
        """Tell Tune whether to stop everything."""
        if self.ending and self.wake is not None:
            self.wake()
            self.wake = None
        return self.ending
