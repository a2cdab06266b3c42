"""What to do when an answer does not come soon, although its server may rightly be silent for minutes."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ("Lateness",)


class Lateness:
    """Something to do while an answer is waited for, by the thread that waits.

    Parameters
    ----------
    seconds : `float`
        How long an answer may take without that.
    act : `~collections.abc.Callable`
        Does it, and returns after how many seconds it is to be done again if there is still no answer, or
        `None`. What it raises ends the waiting, closes the connection and is raised to whoever asked.
    """

    __slots__ = ("_act", "_due", "seconds")

    def __init__(self, seconds: float, act: Callable[[], float | None]) -> None:
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

    def act(self) -> bool:
        """Do it; return whether it is to be done again."""
        again = self._act()
        if again is None:
            return False
        self._due = time.monotonic() + again
        return True
