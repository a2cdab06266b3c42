"""Pacing: no faster than a door allows.

A door that limits its clients (dCache from 11.2 on) counts all requests of a host: 250/s, in a bucket that is
made at the first request, starts empty and is thrown away after 10 s without one (protocol page, section
1.2). A client that begins with two requests at once is refused at least one of them. So the first request
travels alone, the second follows no sooner than 10 ms after it, and from then on a bucket of our own, smaller
in rate and burst, keeps below.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..config.settings import EndpointSettings
from .deadline import Deadline

__all__ = ("Pacer", "pacer_for")

_WARM_UP_SECONDS = 0.010
_FORGOTTEN_AFTER_SECONDS = 9.0
"""A little less than the 10 s after which the door forgets a client."""
_ALONE_AT_MOST_SECONDS = 1.0
"""A first request may be a GET that waits for tape; the door has counted it long before."""
_BURST = 8.0


class Pacer:
    """The rate at which one process sends requests to one endpoint.

    Parameters
    ----------
    requests_per_second : `float`
        Highest lasting rate; 0 lets everything pass.
    clock : `~collections.abc.Callable`, optional
        Seconds that only grow.
    sleep : `~collections.abc.Callable`, optional
        Waits for some seconds.

    Notes
    -----
    Thread-safe. A child process gets fresh state after ``fork``.
    """

    def __init__(
        self,
        requests_per_second: float = 200.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = requests_per_second
        self._clock = clock
        self._sleep = sleep
        self.forget()

    def forget(self) -> None:
        """Begin anew, as after a long silence."""
        self._lock = threading.Lock()
        self._last = float("-inf")  # when the last request started or ended
        self._first: float | None = None  # when the request started that travels alone
        self._next = float("-inf")  # nobody starts before
        self._tokens = 0.0
        self._filled = 0.0

    @contextmanager
    def slot(self, deadline: Deadline) -> Iterator[None]:
        """Wait until a request may be sent; it is over when the block ends.

        Parameters
        ----------
        deadline : `~.deadline.Deadline`
            Limits the wait.

        Yields
        ------
        nothing : `None`
            The request is sent inside the block.

        Raises
        ------
        DeadlineError
            If the deadline passes first.
        """
        if self._rate <= 0:
            yield
            return
        first = self._wait(deadline)
        try:
            yield
        finally:
            with self._lock:
                self._last = self._clock()
                if first and self._first is not None:
                    self._open(self._last)

    def _wait(self, deadline: Deadline) -> bool:
        while True:
            with self._lock:
                now = self._clock()
                pause = self._pause(now)
                if pause <= 0:
                    self._last = now
                    return self._first is not None
            self._sleep(deadline.limit(pause))

    def _pause(self, now: float) -> float:
        """Take a token, or return the time until it is worth asking again."""
        if self._first is None and now - self._last > _FORGOTTEN_AFTER_SECONDS:
            self._first = now
            self._next = now + _ALONE_AT_MOST_SECONDS
            return 0.0
        if self._first is not None:
            if now < self._next:
                return min(self._next - now, _WARM_UP_SECONDS / 2)
            self._open(now)
        if now < self._next:
            return self._next - now
        self._tokens = min(_BURST, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens > 1 - 1e-6:  # what is missing may be less than the clock can tell
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate

    def _open(self, now: float) -> None:
        """The first request has been counted: the others follow after the warm-up."""
        started = self._first
        self._first = None
        self._next = max(now, (started or now) + _WARM_UP_SECONDS)
        self._tokens = 1.0
        self._filled = self._next


_pacers: dict[str, Pacer] = {}
_registry_lock = threading.Lock()


def pacer_for(settings: EndpointSettings, url: str | None = None) -> Pacer:
    """Return the pacer that all users of a server share in this process.

    Parameters
    ----------
    settings : `~..config.settings.EndpointSettings`
        The endpoint.
    url : `str`, optional
        Base URL of a server of the endpoint with a limiter of its own, such as the frontend; the door if not
        given.

    Returns
    -------
    pacer : `Pacer`
        The same for the same server and rate.
    """
    key = f"{url or settings.base_url} {settings.requests_per_second:g}"
    with _registry_lock:
        if key not in _pacers:
            _pacers[key] = Pacer(settings.requests_per_second)
        return _pacers[key]


def _after_fork() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()
    for pacer in _pacers.values():
        pacer.forget()


os.register_at_fork(after_in_child=_after_fork)
