"""One record per exchange, whatever the plane: for the log, for counters, for tests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ("Exchange", "add_observer", "hedging", "is_observed", "purpose", "record", "remove_observer")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and what came of it.

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
        From the first byte sent, or the connection asked for, to the end of the answer.
    reused : `bool`
        Whether it travelled on a kept connection.
    attempt : `int`
        1 for the first time that the request was sent.
    connection : `int`
        Number of the connection within this process; 0 if there was none.
    is_hedge : `bool`
        Whether it was a second request for what another one was late with.
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


def record(exchange: Exchange) -> None:
    """Log an exchange and show it to all observers.

    Parameters
    ----------
    exchange : `Exchange`
        What happened.
    """
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
