"""Whether a server that others can stand in for is fit to be asked: a circuit breaker.

A server that cannot be reached, or fails three times in a row, is left alone for a while that doubles. Then
one request of this process finds out; the others wait for what comes of it. A server that has come back gets
its share again little by little, so that not all of its clients return at the same moment; processes return
at different ones, since each draws how long it waits.

A healthy server costs one look at an attribute.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable

from ..config.settings import Origin

__all__ = ("Health", "health_of")

_STRIKES = 3
_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 60.0
_TRIAL_SECONDS = 30.0
"""After which a trial that nobody has heard of counts as none."""
_RETURN_SECONDS = 5.0

_lock = threading.Lock()
"""Taken for those servers only that are not healthy."""


class Health:
    """What is known of one server.

    Parameters
    ----------
    clock : `~collections.abc.Callable`, optional
        Monotonic time in seconds.
    draw : `~collections.abc.Callable`, optional
        Random number in [0, 1).

    Notes
    -----
    Thread-safe, and usable in a child after ``fork``.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, draw: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._draw = draw
        self._is_fit = True
        self._strikes = 0
        self._openings = 0
        self._closed_until = 0.0
        self._trial_until: float | None = None
        self._returned_at: float | None = None

    @property
    def is_fit(self) -> bool:
        """Whether there is nothing to be said against it."""
        return self._is_fit

    def admits(self) -> bool:
        """Tell whether a request may go there; whoever is told so sends one and says what came of it."""
        if self._is_fit:
            return True
        with _lock:
            now = self._clock()
            if self._returned_at is not None:
                share = (now - self._returned_at) / _RETURN_SECONDS
                if share < 1.0:
                    return self._draw() < share
                self._is_fit, self._returned_at, self._openings = True, None, 0
                return True
            if now < self._closed_until or (self._trial_until is not None and now < self._trial_until):
                return False
            self._trial_until = now + _TRIAL_SECONDS
            return True

    def succeeded(self) -> None:
        """Take note of an answer, whatever it says of the request."""
        if self._is_fit and not self._strikes:
            return
        with _lock:
            self._strikes = 0
            if not self._is_fit and self._returned_at is None:
                self._returned_at, self._trial_until = self._clock(), None

    def failed(self, *, unreachable: bool) -> bool:
        """Take note of a request that the server did not serve.

        Parameters
        ----------
        unreachable : `bool`
            Whether there is no way to it; otherwise it answered that it is not in service.

        Returns
        -------
        opened : `bool`
            Whether it is left alone from now on, and was not before.
        """
        with _lock:
            now = self._clock()
            was_left_alone = not self._is_fit and self._returned_at is None
            if was_left_alone and self._trial_until is None:
                return False  # sent before it was known, or because there was no other
            self._strikes += _STRIKES if unreachable else 1
            if self._strikes < _STRIKES and not was_left_alone:
                return False
            self._strikes = 0
            pause = min(_LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** min(self._openings, 16))
            self._openings += 1
            self._closed_until = now + pause * (0.5 + self._draw())
            self._is_fit, self._trial_until, self._returned_at = False, None, None
            return not was_left_alone


_known: dict[Origin, Health] = {}


def health_of(origin: Origin) -> Health:
    """Return what this process knows of a server, whoever asks.

    Parameters
    ----------
    origin : `tuple`
        Scheme, host and port.

    Returns
    -------
    health : `Health`
        The same for the same server.
    """
    with _lock:
        return _known.setdefault(origin, Health())


def _after_fork() -> None:
    global _lock
    # Another thread of the parent may have held it.
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
