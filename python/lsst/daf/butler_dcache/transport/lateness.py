"""What to do when an answer does not come soon, although its server may rightly be silent for minutes."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ("Lateness",)


class Lateness:
    """Something to do while an answer is waited for, once, by the thread that waits.

    Parameters
    ----------
    seconds : `float`
        How long an answer may take without that.
    act : `~collections.abc.Callable`
        Does it. What it raises ends the waiting, closes the connection and is raised to whoever asked.
    """

    __slots__ = ("_act", "_due", "seconds")

    def __init__(self, seconds: float, act: Callable[[], None]) -> None:
        self.seconds = seconds
        self._act = act
        self._due = 0.0

    def begin(self) -> None:
        """Begin to count: the request is sent now."""
        self._due = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self._due - time.monotonic())

    def act(self) -> None:
        """Do it."""
        self._act()
