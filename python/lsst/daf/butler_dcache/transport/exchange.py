"""One record per exchange, whatever the plane: for the log, for counters, for tests."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from ..redaction import redact_url

__all__ = (
    "Course",
    "Exchange",
    "Opening",
    "add_observer",
    "hedging",
    "is_observed",
    "purpose",
    "remove_observer",
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opening:
    """How a connection came into being.

    Parameters
    ----------
    name_seconds : `float`
        Finding the addresses of the server's name.
    tcp_seconds : `float`
        Connecting to one of them; those before it that did not answer included.
    tls_seconds : `float` or `None`
        The handshake; `None` without TLS.
    is_resumed : `bool`
        Whether the handshake went on with an earlier session.
    """

    name_seconds: float
    tcp_seconds: float
    tls_seconds: float | None = None
    is_resumed: bool = False


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and what came of it.

    One that was sent several times has a record for each attempt. Its phases follow one another: waiting for
    its turn, opening a connection, sending, waiting for the answer, the body; what little is not in one of
    them is our own.

    Parameters
    ----------
    plane : `str`
        ``control`` or ``data``.
    method : `str`
        HTTP method.
    url : `str`
        Redacted URL.
    status : `int` or `None`
        Status of the answer; `None` if there was none.
    reason : `str`
        Reason phrase, or what went wrong.
    sent, received : `int`
        Bytes of the bodies.
    seconds : `float`
        From the first byte sent, or the connection asked for, to the end of the answer, which is when its
        reader closes it.
    reused : `bool`
        Whether it travelled on a kept connection.
    attempt : `int`
        1 for the first time that the request was sent.
    connection : `int`
        Number of the connection within this process; 0 if there was none, so that nothing was sent.
    is_hedge : `bool`
        Whether it was a second request for what another one was late with.
    role : `str`
        ``door`` for the endpoint's own servers, which are doors, frontends and S3 services; ``pool`` for
        those that they redirect to.
    opening : `Opening` or `None`
        Of the connection, if this was its first exchange.
    turn_seconds : `float`
        Waiting until it might be sent at the pace that the server allows.
    sending_seconds : `float`
        Giving head and body of the request to the kernel, or to TLS; what the caller did between the pieces
        of a body is left out.
    waiting_seconds : `float`
        Waiting for a head: of the answer or, where the server is asked whether it wants the body, of a 100.
    commit_seconds : `float`
        Waiting for the head of the answer after a body.
    first_byte_seconds : `float`
        Waiting for the first bytes of the body behind its head.
    reading_seconds : `float`
        Reading the body, the wait for its first bytes included; what its reader did in between is left out.
    """

    plane: str
    method: str
    url: str
    status: int | None
    reason: str
    sent: int
    received: int
    seconds: float
    reused: bool
    attempt: int
    connection: int = 0
    is_hedge: bool = False
    role: str = "door"
    opening: Opening | None = None
    turn_seconds: float = 0.0
    sending_seconds: float = 0.0
    waiting_seconds: float = 0.0
    commit_seconds: float = 0.0
    first_byte_seconds: float = 0.0
    reading_seconds: float = 0.0


Observer = Callable[[Exchange], None]

_observers: tuple[Observer, ...] = ()


def add_observer(observer: Observer) -> None:
    """Have a callable called with each `Exchange` of this process, in the thread that made it.

    Parameters
    ----------
    observer : `~collections.abc.Callable`
        It must be quick and must not raise.
    """
    global _observers
    _observers = (*_observers, observer)


def remove_observer(observer: Observer) -> None:
    """Undo `add_observer`; an unknown observer is not an error.

    Parameters
    ----------
    observer : `~collections.abc.Callable`
        What was added.
    """
    global _observers
    _observers = tuple(known for known in _observers if known != observer)


class _Purpose(threading.local):
    is_hedge = False


purpose = _Purpose()
"""What this thread sends its requests for."""


@contextmanager
def hedging() -> Iterator[None]:
    """Have the requests of this thread recorded as second ones."""
    purpose.is_hedge = True
    try:
        yield
    finally:
        purpose.is_hedge = False


def is_observed() -> bool:
    """Tell whether anybody would see a record, so that it is worth making."""
    return bool(_observers) or _log.isEnabledFor(logging.DEBUG)


class Course:
    """The course of an attempt: a stopwatch that is looked at wherever a phase ends.

    Whoever sends a request has none if nobody observes, for looking at the clock a dozen times costs a
    percent of a short request.

    Attributes
    ----------
    connection : `int`
        Number of the connection; 0 as long as there is none.
    reused : `bool`
        Whether it had carried another request before.
    opening : `Opening` or `None`
        Of the connection, if it had not.
    """

    turn = opened = sending = waiting = commit = first_byte = reading = elsewhere = 0.0

    def __init__(self) -> None:
        self.connection = 0
        self.reused = False
        self.opening: Opening | None = None
        self._begun = self._at = time.monotonic()

    def goes(self) -> None:
        """Note that its turn has come."""
        self.lap("turn")
        self._begun = self._at

    def goes_by(self, connection: int, reused: bool, opening: Opening | None) -> None:
        """Note that there is a connection.

        Parameters
        ----------
        connection : `int`
            Its number.
        reused : `bool`
            Whether it has carried another request before.
        opening : `Opening` or `None`
            How it came into being.
        """
        self.connection, self.reused = connection, reused
        self.opening = None if reused else opening

    def lap(
        self, phase: Literal["turn", "opened", "sending", "waiting", "commit", "reading", "elsewhere"]
    ) -> None:
        """Count what has passed since the last look at the clock as time of a phase.

        Parameters
        ----------
        phase : `str`
            Which one; ``elsewhere`` is the caller's.
        """
        now = time.monotonic()
        setattr(self, phase, getattr(self, phase) + now - self._at)
        self._at = now

    def has_first_byte(self) -> None:
        """Note that the first bytes of the body have come, which is while it is read."""
        self.first_byte = time.monotonic() - self._at

    def record(
        self,
        plane: str,
        method: str,
        url: str,
        *,
        status: int | None,
        reason: str,
        sent: int,
        received: int,
        attempt: int,
        is_hedge: bool,
        own: bool,
    ) -> None:
        """Log the exchange and show it to all observers.

        Parameters
        ----------
        plane, method, url, reason : `str`
            As in `Exchange`; the URL is redacted here.
        status : `int` or `None`
            As in `Exchange`.
        sent, received, attempt : `int`
            As in `Exchange`.
        is_hedge : `bool`
            As in `Exchange`.
        own : `bool`
            Whether the server was the endpoint's own.
        """
        _show(
            Exchange(
                plane,
                method,
                redact_url(url),
                status,
                reason,
                sent,
                received,
                time.monotonic() - self._begun,
                self.reused,
                attempt,
                self.connection,
                is_hedge,
                "door" if own else "pool",
                self.opening,
                self.turn,
                self.sending,
                self.waiting,
                self.commit,
                self.first_byte,
                self.reading,
            )
        )


def _show(exchange: Exchange) -> None:
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug(
            "%s %s %s -> %s %s (sent %d, received %d bytes, %.4f s, connection %d%s, attempt %d%s)",
            exchange.plane,
            exchange.method,
            exchange.url,
            exchange.status,
            exchange.reason,
            exchange.sent,
            exchange.received,
            exchange.seconds,
            exchange.connection,
            " kept" if exchange.reused else "",
            exchange.attempt,
            ", hedge" if exchange.is_hedge else "",
        )
    for observer in _observers:
        observer(exchange)
