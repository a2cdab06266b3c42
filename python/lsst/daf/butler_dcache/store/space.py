"""Remembers for a short while that a store has no space, so that a process does not hammer on it.

A full store says so to each upload, after it has made an entry and chosen a pool for it, and a process has
many threads that write. From the second refusal in a row on nobody asks for a while, which doubles up to a
minute; then one upload finds out. One refusal alone may be a matter of that file, and smaller ones than were
refused are always tried: a quota, or the largest upload that a macaroon allows, may have room for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

from ..errors import StoreFullError

__all__ = ("Space",)

_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 60.0


class Space:
    """What the refusals of late say of an endpoint's space.

    Parameters
    ----------
    clock : `~collections.abc.Callable`, optional
        Monotonic time in seconds.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._refusals = 0
        self._smallest = 0
        self._until = 0.0
        self._since = ""
        self._said = "", "", ""

    def after_fork(self) -> None:
        """Make the lock of a forked child its own."""
        self._lock = threading.Lock()

    def check(self, url: str, length: int | None) -> None:
        """Raise if there was no space a moment ago.

        Parameters
        ----------
        url : `str`
            What shall be written.
        length : `int` or `None`
            Its size, if it is known.

        Raises
        ------
        StoreFullError
            Raised without asking the server.
        """
        if self._refusals == 0:
            return
        with self._lock:
            wait = self._until - self._clock()
            if self._refusals == 0 or wait <= 0 or (length is not None and length < self._smallest):
                return
            refusals, since = self._refusals, self._since
            message, reason, hint = self._said
        raise StoreFullError(
            f"not sent: the server has had no space since {since} ({refusals} uploads refused), and is asked "
            f"again in {wait:.1f} s: {message}",
            operation="write",
            url=url,
            reason=reason,
            hint=hint,
        )

    def refused(self, length: int | None, error: StoreFullError) -> None:
        """Take note of an upload for which there was no space.

        Parameters
        ----------
        length : `int` or `None`
            Its size, if it is known.
        error : `StoreFullError`
            What the server said.
        """
        with self._lock:
            if self._refusals == 0:
                self._since = datetime.now().astimezone().strftime("%H:%M:%S")
            self._said = error.message, error.reason, error.hint
            self._smallest = length or 0 if self._refusals == 0 else min(self._smallest, length or 0)
            self._refusals += 1
            if self._refusals > 1:
                pause = _FIRST_SECONDS * 2.0 ** min(self._refusals - 2, 16)
                self._until = self._clock() + min(pause, _LONGEST_SECONDS)

    def accepted(self) -> None:
        """Take note of an upload for which there was."""
        if self._refusals == 0:
            return
        with self._lock:
            self._refusals, self._until = 0, 0.0
