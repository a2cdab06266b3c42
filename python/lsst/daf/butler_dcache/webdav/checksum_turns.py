"""Whose turn it is to ask a data server of XRootD for a checksum.

XRootD computes a checksum that it has not stored in a job, and the table of its jobs (``XrdOucTable``, up to
6.2.1 at least) loses the place of a job that ends after a later one: the place stays taken for a quarter of
an hour, and a job that was waiting for its turn there is never run. With the places gone each further
question is put off by 30 s, again and again; a lost one is never answered. One question at a time does no
harm, so that is what this process asks of each data server. Others may ask at the same time, so an answer is
not waited for long either, and a server that is silent or does not compute is left alone for a while.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..config.settings import Origin

__all__ = ("PATIENCE_SECONDS", "ChecksumTurns", "turns")

PATIENCE_SECONDS = 3.0
"""For the first byte of an answer with a checksum; a server reads some hundred megabytes in that time."""

_WAIT_SECONDS = 0.1
_REST_SECONDS = 300.0


class ChecksumTurns:
    """One turn per data server, shared by all threads of a process.

    Parameters
    ----------
    clock : `~collections.abc.Callable`, optional
        Seconds that only grow; tests move it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Begin anew, as a child process does."""
        self._guard = threading.Lock()
        self._locks: dict[Origin, threading.Lock] = {}
        self._rests: dict[Origin, float] = {}

    @contextmanager
    def turn(self, server: Origin) -> Iterator[bool]:
        """Hold the turn at a server for as long as the context lasts.

        Parameters
        ----------
        server : `Origin`
            The data server.

        Yields
        ------
        ours : `bool`
            Whether to ask: `False` if too many others want to, or the server is left alone.
        """
        with self._guard:
            lock = self._locks.setdefault(server, threading.Lock())
            rests = self._clock() < self._rests.get(server, 0.0)
        if rests or not lock.acquire(timeout=_WAIT_SECONDS):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def rest(self, server: Origin) -> None:
        """Leave a server alone that did not answer, or computes no checksums.

        Parameters
        ----------
        server : `Origin`
            The data server.
        """
        with self._guard:
            self._rests[server] = self._clock() + _REST_SECONDS


turns = ChecksumTurns()
"""Those of this process."""

os.register_at_fork(after_in_child=turns.forget)
