"""Which way of a copy between servers did not work a moment ago."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from enum import Enum

__all__ = ("ClosedWays", "Way", "closed")

_CLOSED_SECONDS = 600.0


class Way(Enum):
    """Who moves the bytes."""

    PULL = "pull"
    PUSH = "push"


class ClosedWays:
    """Which way did not work between which servers, for ten minutes; shared by all threads of a process.

    Parameters
    ----------
    clock : `~collections.abc.Callable`, optional
        Seconds that only grow; tests move it.

    Notes
    -----
    What is to be replaced has a memory of its own: some S3 servers cannot be told not to replace.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Begin anew, as a child process does."""
        self._lock = threading.Lock()
        self._until: dict[tuple[str, str, Way, bool], float] = {}
        self._warned: set[tuple[str, str]] = set()

    def is_closed(self, pair: tuple[str, str], way: Way, overwrite: bool) -> bool:
        """Return whether a way is not to be tried.

        Parameters
        ----------
        pair : `tuple` [`str`, `str`]
            The servers, from where and to where.
        way : `Way`
            Who would move the bytes.
        overwrite : `bool`
            Whether an existing file may be replaced.
        """
        return self._clock() < self._until.get((*pair, way, overwrite), 0.0)

    def close(self, pair: tuple[str, str], way: Way, overwrite: bool) -> None:
        """Have a way not tried for ten minutes.

        Parameters
        ----------
        pair : `tuple` [`str`, `str`]
            The servers, from where and to where.
        way : `Way`
            Who did not move the bytes.
        overwrite : `bool`
            Whether an existing file might be replaced.
        """
        with self._lock:
            self._until[*pair, way, overwrite] = self._clock() + _CLOSED_SECONDS

    def warns(self, pair: tuple[str, str]) -> bool:
        """Return whether nobody has been warned of a pair of servers yet.

        Parameters
        ----------
        pair : `tuple` [`str`, `str`]
            The servers, from where and to where.
        """
        with self._lock:
            is_new = pair not in self._warned
            self._warned.add(pair)
        return is_new


closed = ClosedWays()
os.register_at_fork(after_in_child=closed.forget)
