"""Several doors that serve the same files: which one is used, and what if it does not answer.

Each process has an order of its own in which it likes them, drawn when it begins, and keeps to the first that
is fit (`~..transport.health`), and so to its connections. A request that a door did not get, and a read that
it did not serve, goes to the next one at once. Only when none has served it are they asked again, with the
waits and repetitions of the one table (`~..transport.retry`). What may have had an effect is told instead.

With a single door there is nothing to choose, and nothing is done here.
"""

from __future__ import annotations

import logging
import os
import random
import weakref
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar
from urllib.parse import urlsplit, urlunsplit

from ..config.settings import Origin, origin_of
from ..errors import DeadlineError, DoorUnavailableError, OutcomeUnknownError
from ..transport.deadline import Deadline
from ..transport.health import Health, health_of
from ..transport.retry import READS, Action, Phase, rule_for
from .addresses import origin, to_http

__all__ = ("Doors",)

_log = logging.getLogger(__name__)

_NOT_IN_SERVICE = frozenset({502, 503, 504})


class _HasStatus(Protocol):
    @property
    def status(self) -> int: ...


Answered = TypeVar("Answered")


class _One:
    """One of several doors."""

    def __init__(self, url: str) -> None:
        self.base = url.rstrip("/")
        self.origin: Origin = origin_of(url)
        self.health: Health = health_of(self.origin)


class Doors:
    """The doors of a site.

    Parameters
    ----------
    base_url : `str`
        URL by which the endpoint is known; a door itself if no others are named.
    others : `~collections.abc.Sequence` [ `str` ]
        Base URLs of the doors that take its place (`~..config.settings.EndpointSettings.door_urls`).
    drain : `~collections.abc.Callable`
        Closes the idle connections to a server.

    Notes
    -----
    Thread-safe. A child after ``fork`` likes them in another order.
    """

    def __init__(
        self, base_url: str, others: Sequence[str], drain: Callable[[Origin], None] = lambda origin: None
    ) -> None:
        self._origin = origin(base_url)
        self._drain = drain
        self._liked = tuple(random.sample([_One(url) for url in others], len(others)))
        _all.add(self)

    def place(self, url: str) -> str:
        """Return the URL that goes to the door that is used at this moment.

        Parameters
        ----------
        url : `str`
            URL at this endpoint, in the user's own form.
        """
        asked = to_http(url)
        if not self._liked or origin(asked) != self._origin:
            return asked
        liked = self._liked
        return _at(next((one for one in liked if one.health.is_fit), liked[0]), asked)

    def beside(self, place: str, url: str) -> str:
        """Return a URL at the door that a request goes to.

        Parameters
        ----------
        place : `str`
            Where that request goes.
        url : `str`
            URL at this endpoint, in the user's own form.
        """
        asked = to_http(url)
        if not self._liked or origin(asked) != self._origin:
            return asked
        parts, door = urlsplit(asked), urlsplit(place)
        return urlunsplit((door.scheme, door.netloc, parts.path, parts.query, ""))

    def ask(
        self, method: str, url: str, deadline: Deadline, send: Callable[[str, bool], Answered]
    ) -> Answered:
        """Send a request by a door that is fit, and by another one if that does not serve it.

        Parameters
        ----------
        method : `str`
            HTTP method.
        url : `str`
            URL at this endpoint, in the user's own form.
        deadline : `Deadline`
            When to give up.
        send : `~collections.abc.Callable`
            Sends the request to a place; is told whether another door is asked if that fails, so that nothing
            is repeated there. It raises `DoorUnavailableError` only for a request that was not sent, or for a
            read.

        Returns
        -------
        answer : `object`
            What it returned.
        """
        liked = self._liked
        asked = to_http(url)
        if not liked or origin(asked) != self._origin:
            return send(asked, False)
        for one in liked:
            if len(liked) > 1 and one.health.admits():
                try:
                    answer = self._send(one, asked, send, True)
                except (DoorUnavailableError, DeadlineError) as error:
                    if isinstance(error, DeadlineError) and (deadline.expired or method not in READS):
                        raise
                    _log.info("a door does not answer, the next one is asked: %s", error)
                    continue
                if not _is_better_asked_elsewhere(method, answer):
                    return answer
                _log.info("a door is not in service, the next one is asked: %s", one.base)
                _close(answer)
        return self._insist(method, asked, send)

    def _insist(self, method: str, asked: str, send: Callable[[str, bool], Answered]) -> Answered:
        """Ask all of them again, with all repetitions; those that are fit first."""
        order = sorted(self._liked, key=lambda one: not one.health.is_fit)
        for one in order:
            try:
                answer = self._send(one, asked, send, False)
            except DoorUnavailableError as error:
                if one is order[-1]:
                    raise
                _log.warning("a door does not answer, the next one is asked: %s", error)
                continue
            if one is order[-1] or not _is_better_asked_elsewhere(method, answer):
                return answer
            _close(answer)
        raise AssertionError("the last door returns or raises")

    def _send(
        self, one: _One, asked: str, send: Callable[[str, bool], Answered], elsewhere: bool
    ) -> Answered:
        try:
            answer = send(_at(one, asked), elsewhere)
        except DoorUnavailableError:
            self._failed(one, unreachable=True)
            raise
        except (OutcomeUnknownError, DeadlineError):
            # A door may rightly be silent for a while (protocol page, section 2.1).
            self._failed(one, unreachable=False)
            raise
        if getattr(answer, "status", 0) in _NOT_IN_SERVICE:
            self._failed(one, unreachable=False)
        else:
            one.health.succeeded()
        return answer

    def _failed(self, one: _One, *, unreachable: bool) -> None:
        if one.health.failed(unreachable=unreachable):
            _log.warning("the door %s is left alone for a while", one.base)
            self._drain(one.origin)

    def _after_fork(self) -> None:
        # Or all children of one parent would like the same door best.
        self._liked = tuple(random.sample(self._liked, len(self._liked)))


def _at(one: _One, asked: str) -> str:
    return one.base + asked[asked.index("/", len("https://")) :]


def _is_better_asked_elsewhere(method: str, answer: object) -> bool:
    status = getattr(answer, "status", 0)
    if status not in _NOT_IN_SERVICE:
        return False
    rule = rule_for(Phase.ANSWERED, method, status)
    return rule is not None and rule.action is Action.RETRY


def _close(answer: object) -> None:
    close = getattr(answer, "close", None)
    if close is not None:
        close()


_all: weakref.WeakSet[Doors] = weakref.WeakSet()


def _after_fork() -> None:
    for doors in list(_all):
        doors._after_fork()


os.register_at_fork(after_in_child=_after_fork)
