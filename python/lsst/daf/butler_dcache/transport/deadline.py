"""The time that an operation may take."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import DeadlineError

__all__ = ("Deadline",)


class Deadline:
    """A moment after which an operation must not wait any longer.

    Parameters
    ----------
    seconds : `float`
        Time from now.
    clock : `~collections.abc.Callable`, optional
        Seconds that only grow; tests move it.
    is_fixed : `bool`, optional
        Whether somebody wants it so; if not, a large file may take its time.
    """

    __slots__ = ("_clock", "_end", "is_fixed", "seconds")

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.monotonic, *, is_fixed: bool = True
    ) -> None:
        self.seconds = seconds
        self.is_fixed = is_fixed
        self._clock = clock
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left; negative when it has passed."""
        return self._end - self._clock()

    @property
    def expired(self) -> bool:
        """Whether it has passed."""
        return self.left <= 0

    @property
    def elapsed(self) -> float:
        """Seconds since it was set."""
        return self.seconds - self.left

    def extend(self, seconds: float) -> None:
        """Allow more time, for something that somebody wanted to be waited for.

        Parameters
        ----------
        seconds : `float`
            How much more.
        """
        self.seconds += seconds
        self._end += seconds

    def allow(self, seconds: float) -> None:
        """Allow so much time altogether, unless it is fixed or allows more anyway.

        Parameters
        ----------
        seconds : `float`
            How much a file needs.
        """
        if not self.is_fixed:
            self.extend(max(0.0, seconds - self.seconds))

    def remaining(self) -> float:
        """Return the seconds that are left.

        Returns
        -------
        seconds : `float`
            More than 0.

        Raises
        ------
        DeadlineError
            If it has passed.
        """
        left = self._end - self._clock()
        if left <= 0:
            raise self._passed()
        return left

    def limit(self, seconds: float) -> float:
        """Return how long a single wait of at most ``seconds`` may last.

        Parameters
        ----------
        seconds : `float`
            The wait's own limit.

        Returns
        -------
        seconds : `float`
            That, or what is left if it is less.

        Raises
        ------
        DeadlineError
            If nothing is left.
        """
        left = self._end - self._clock()
        if left <= 0:
            raise self._passed()
        return min(left, seconds)

    def _passed(self) -> DeadlineError:
        return DeadlineError(
            f"the {self.seconds:g} s allowed for the operation are over", elapsed_seconds=self.elapsed
        )
