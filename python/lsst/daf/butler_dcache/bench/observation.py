"""What the requests of this process consisted of, seen by the client itself.

The phases of a request follow one another, so that their sums say where the time goes:

=============  ===========================================================================================
turn           waiting for its turn, at the pace that the door allows
name           finding the addresses of a server's name
tcp            connecting to one of them
tls            the handshake
door           waiting for the head of the answer of a door, of a frontend or of an S3 service
mover          waiting for the head of the answer of a pool: until the mover has begun, and has the file open
first_byte     from the head of an answer to the first bytes of its body
transfer       sending a request, and reading the body of its answer behind the first bytes
commit         waiting for the answer to a PUT whose body was sent: until the bytes are safe, and known
publish        MOVE and COPY, and the end of an S3 upload in parts, from sending to the end of the answer
=============  ===========================================================================================

A phase that a request did not have is not counted: a kept connection has neither name nor handshake. Requests
that run side by side each count, so that the sum of an operation's phases may be longer than the operation.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Self

from ..transport.exchange import Exchange, add_observer, remove_observer
from ..transport.retry import counted
from .histogram import Histogram

__all__ = ("COUNTS", "PHASES", "Observation", "phases")

COUNTS = (
    "door_requests",
    "pool_requests",
    "connections",
    "handshakes",
    "resumed",
    "retries",
    "refused",
    "hedges",
    "errors",
)
"""What is counted, see `Observation.counted`."""
PHASES = ("turn", "name", "tcp", "tls", "door", "mover", "first_byte", "transfer", "commit", "publish")
"""In the order in which they come."""

_REFUSALS = (429, 503)


class Observation:
    """Sums up all exchanges of this process, by whatever thread, as long as the context lasts.

    Notes
    -----
    Thread-safe. A child after ``fork`` goes on with an observation of its own that begins with nothing.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._histograms: dict[str, Histogram] = {}

    def __enter__(self) -> Self:
        self._stack.enter_context(counted(self._again))
        add_observer(self._see)
        self._stack.callback(remove_observer, self._see)
        _observations.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        _observations.discard(self)

    def counted(self) -> dict[str, int]:
        """Return what was counted.

        Returns
        -------
        counts : `dict` [`str`, `int`]
            ``door_requests`` and ``pool_requests``: requests that were sent, each attempt for itself.
            ``connections``: those opened that carried one; ``handshakes`` of TLS that were made in full, and
            ``resumed`` ones. ``retries``: how often something was tried again, be it a request or what takes
            several. ``refused``: answers 429 and 503. ``hedges``: second requests for what was late.
            ``errors``: attempts without an answer, and other answers from 500 on.
        """
        with self._lock:
            return {name: self._counts[name] for name in COUNTS}

    def histograms(self) -> dict[str, Histogram]:
        """Return the times of the phases.

        Returns
        -------
        histograms : `dict` [`str`, `Histogram`]
            By ``phase.<name>``, those of `PHASES` that occurred. Mean times count, divided by the number of
            operations, are the seconds of an operation.
        """
        with self._lock:
            copies = {}
            for name in PHASES:
                if name in self._histograms:
                    copies[f"phase.{name}"] = copy = Histogram()
                    copy.add(self._histograms[name])
            return copies

    def _again(self) -> None:
        with self._lock:
            self._counts["retries"] += 1

    def _see(self, exchange: Exchange) -> None:
        with self._lock:
            for name in _counted(exchange):
                self._counts[name] += 1
            for name, seconds in phases(exchange):
                histogram = self._histograms.get(name)
                if histogram is None:
                    histogram = self._histograms[name] = Histogram()
                histogram.record(seconds)


def _counted(exchange: Exchange) -> Iterator[str]:
    if exchange.connection:
        yield f"{exchange.role}_requests"
    if exchange.opening is not None:
        yield "connections"
        if exchange.opening.tls_seconds is not None:
            yield "resumed" if exchange.opening.is_resumed else "handshakes"
    if exchange.is_hedge:
        yield "hedges"
    if exchange.status in _REFUSALS:
        yield "refused"
    elif exchange.status is None or exchange.status >= 500:
        yield "errors"


def phases(exchange: Exchange) -> Iterator[tuple[str, float]]:
    """Yield what an exchange consisted of.

    Parameters
    ----------
    exchange : `~..transport.exchange.Exchange`
        What happened.

    Yields
    ------
    name : `str`
        One of `PHASES`.
    seconds : `float`
        How long it took.
    """
    if exchange.role == "door":
        yield "turn", exchange.turn_seconds
    if (opening := exchange.opening) is not None:
        yield "name", opening.name_seconds
        yield "tcp", opening.tcp_seconds
        if opening.tls_seconds is not None:
            yield "tls", opening.tls_seconds
    if not exchange.connection:
        return
    waiting, commit = exchange.waiting_seconds, exchange.commit_seconds
    body = exchange.sending_seconds + exchange.reading_seconds
    if exchange.method in ("MOVE", "COPY") or (exchange.method == "POST" and "uploadId=" in exchange.url):
        yield "publish", waiting + commit + body
        return
    if exchange.method != "PUT":  # a short question has a body as well
        waiting, commit = waiting + commit, 0.0
    if waiting:
        yield "door" if exchange.role == "door" else "mover", waiting
    if commit:
        yield "commit", commit
    if exchange.received:
        yield "first_byte", exchange.first_byte_seconds
    yield "transfer", body - exchange.first_byte_seconds


_observations: weakref.WeakSet[Observation] = weakref.WeakSet()


def _after_fork() -> None:
    for observation in list(_observations):
        observation._begin()


os.register_at_fork(after_in_child=_after_fork)
