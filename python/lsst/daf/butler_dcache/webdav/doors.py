"""Several doors that serve the same files: which one is used, and what if it does not answer.

Each process has an order of its own in which it likes them, drawn when it begins, and keeps to the first that
is fit (`~..transport.health`), and so to its connections. A request that a door did not get, and a read that
it did not serve, goes to the next one at once. Only when none has served it are they all asked again, round
and round, with the waits and repetitions of the one table (`~..transport.retry`): the patience for doors that
restart is for all of them together. What may have had an effect is told instead.

With a single door there is nothing to choose, and nothing is done here.
"""

from __future__ import annotations

import logging
import os
import random
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

from ..config.settings import Origin, origin_of
from ..errors import DcacheError, DeadlineError, DoorUnavailableError, OutcomeUnknownError
from ..transport.deadline import Deadline
from ..transport.health import Health, health_of
from ..transport.presence import is_away, waited_in_vain
from ..transport.retry import READS, Action, Phase, Repetition, rule_for
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
    sleep : `~collections.abc.Callable`, optional
        Waits some seconds before all doors are asked once more.

    Notes
    -----
    Thread-safe. A child after ``fork`` likes them in another order.
    """

    def __init__(
        self,
        base_url: str,
        others: Sequence[str],
        drain: Callable[[Origin], None] = lambda origin: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._origin = origin(base_url)
        self._drain = drain
        self._sleep = sleep
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
        if len(liked) == 1:
            return self._send(liked[0], asked, send, False)
        begun = deadline.elapsed
        repetition = Repetition(method, deadline)
        failure: DoorUnavailableError | DeadlineError | None = None
        answer: Answered | None = None
        while True:
            for one in self._in_order():
                _close(answer)
                failure = answer = None
                repetition.attempts += 1
                try:
                    answer = self._send(one, asked, send, True)
                except DoorUnavailableError as error:
                    failure = error
                    _log.info("a door does not answer, the next one is asked: %s", error)
                except DeadlineError as error:
                    if deadline.expired or method not in READS:
                        raise
                    failure = error
                    _log.info("a door is silent, the next one is asked: %s", error)
                else:
                    if not _is_better_asked_elsewhere(method, answer):
                        return answer
                    _log.info("a door is not in service, the next one is asked: %s", one.base)
            wait = self._wait(method, answer, failure, repetition)
            if wait is not None:
                self._sleep(wait)
            elif failure is None:
                return cast(Answered, answer)
            else:
                failure.attempts, failure.elapsed_seconds = repetition.attempts, deadline.elapsed - begun
                try:
                    raise failure
                finally:
                    del failure  # whose traceback holds this frame

    def _in_order(self) -> Iterator[_One]:
        """Yield all of them, those that had better be left alone at last: there are no others."""
        left_alone = []
        for one in self._liked:
            if one.health.admits():
                yield one
            else:
                left_alone.append(one)
        yield from left_alone

    def _wait(
        self, method: str, answer: object, failure: DcacheError | None, repetition: Repetition
    ) -> float | None:
        """Return how long to wait before all are asked once more, `None` if they are not."""
        if any(is_away(one.origin) for one in self._liked):
            wait = repetition.next_wait(Phase.AWAY)
            if wait is None and repetition.is_over:
                for one in self._liked:
                    waited_in_vain(one.origin)
            return wait
        if isinstance(failure, DeadlineError):
            return None
        if failure is not None:
            return repetition.next_wait(Phase.NO_ANSWER if method in READS else Phase.NOT_SENT)
        headers = getattr(answer, "headers", None)
        return repetition.next_wait(Phase.ANSWERED, getattr(answer, "status", None), headers)

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
