"""Pacing: all processes of a host together no faster than a server allows, and a free server not at all.

A dCache from 11.2 on, known by its ``Server`` header, limits the requests of a host; so does whoever says so
by ``requests_per_second``. Anybody else is asked as fast as we can until the first 429 or 503. See the
decision page ``pacing``, and `~.bucket` for the arithmetic.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Self

from ..config.runtime import runtime_folders
from ..config.settings import EndpointSettings, origin_of
from ..errors import DeadlineError
from .bucket import LIMITED_RATE, Bucket, Kind, Turn
from .deadline import Deadline
from .shared_bucket import SharedBucket

__all__ = ("UNPACED", "Pacer", "Slot", "pacer_for")

_URGENT = frozenset({"MOVE", "POST"})
"""What publishes, or is needed for it: a rename by the door or the frontend, a macaroon for it."""
_REFUSALS = frozenset({429, 503})
_FREE_SECONDS = 1.0
"""How long a process relies on what it saw of a free server; another may have been refused meanwhile."""
_AHEAD_AT_MOST = 16
"""Requests for which a busy process takes credit at once: a use of the shared state costs as much CPU time as
a tenth of a small read, ..."""
_AHEAD_SECONDS = 0.020
"""... and for how long that credit lasts: the door gains 5 requests meanwhile, and has room for 50 more than
our bucket holds."""
_DCACHE = re.compile(r"dCache/(\d+)\.(\d+)")
_FIRST_WITH_LIMITER = (11, 2)


class Slot:
    """Leave to send one request: the request is sent inside the context.

    Parameters
    ----------
    pacer : `Pacer`
        Who gave it.
    turn : `~.bucket.Turn`, optional
        The place that the request had; none where nothing is paced.
    """

    __slots__ = ("_is_answered", "_pacer", "_turn")

    def __init__(self, pacer: Pacer, turn: Turn | None = None) -> None:
        self._pacer = pacer
        self._turn = turn
        self._is_answered = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._turn is not None and self._turn.is_first and not self._is_answered:
            self._pacer._note_unanswered(self._turn)

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Say what the answer was, as soon as its head is there.

        Parameters
        ----------
        status : `int`
            Its status; an interim one will do.
        headers : `~collections.abc.Mapping`
            Its headers.
        """
        turn, pacer = self._turn, self._pacer
        is_first = turn is not None and turn.is_first
        if is_first or status in _REFUSALS or pacer._presumed is Kind.UNKNOWN:
            pacer._note_answer(turn, status, headers)
        if turn is not None:
            self._is_answered = True


class Pacer:
    """The requests of one process to one server.

    Parameters
    ----------
    requests_per_second : `float`, optional
        Ceiling that somebody set; 0 lets everything pass. By default what the server says decides.
    bucket : `~.shared_bucket.SharedBucket`, optional
        What is shared with others; nothing by default.
    clock : `~collections.abc.Callable`, optional
        Seconds that only grow, the same in all who share.
    sleep : `~collections.abc.Callable`, optional
        Waits for some seconds.

    Notes
    -----
    Thread-safe, and usable in a child after ``fork``.
    """

    def __init__(
        self,
        requests_per_second: float | None = None,
        bucket: SharedBucket | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = requests_per_second
        self._bucket = SharedBucket() if bucket is None else bucket
        self._clock = clock
        self._sleep = sleep
        self._cost = LIMITED_RATE / requests_per_second if requests_per_second else 1.0
        self._at_once = Slot(self)
        self._ahead, self._ahead_at_most, self._ahead_until = 0, 0, float("-inf")
        self._free_until = float("inf") if requests_per_second == 0 else float("-inf")
        # Nobody asks what a server is that is not paced in any case.
        self._presumed = Kind.FREE if requests_per_second == 0 else Kind.UNKNOWN

    def slot(self, deadline: Deadline, method: str = "GET") -> Slot:
        """Wait until a request may be sent.

        Parameters
        ----------
        deadline : `~.deadline.Deadline`
            Limits the wait.
        method : `str`, optional
            HTTP method: what publishes an upload goes first.

        Returns
        -------
        slot : `Slot`
            Is to be used at once, by ``with``.

        Raises
        ------
        DeadlineError
            If it could not be sent before the deadline; at once, if that is known.
        """
        now = self._clock()
        if now < self._free_until or self._use_ahead(now):
            return self._at_once
        turn = Turn(self._cost, method in _URGENT, self._rate is not None, self._presumed)
        while True:
            with self._bucket.mutex, self._bucket as bucket:
                now = self._clock()
                wait = bucket.enter(turn, now, deadline.left)
                if wait <= 0 and bucket.kind == Kind.FREE and self._rate is None:
                    self._free_until = now + _FREE_SECONDS
                    return self._at_once
                if wait <= 0 and not turn.is_first:
                    self._take_ahead(bucket, now)
                rate = bucket.rate
            if wait <= 0:
                return Slot(self, turn)
            if wait >= deadline.left:
                raise DeadlineError(
                    f"pacing: at most {rate / self._cost:.3g} requests per second are sent to this server, "
                    f"and this one's turn comes after the {deadline.seconds:g} s allowed for the operation",
                    elapsed_seconds=deadline.elapsed,
                )
            self._sleep(wait)

    def _use_ahead(self, now: float) -> bool:
        """Whether the request goes on credit that was taken before."""
        if now >= self._ahead_until:
            return False
        with self._bucket.mutex:
            if self._ahead <= 0:
                return False
            self._ahead -= 1
            return True

    def _take_ahead(self, bucket: Bucket, now: float) -> None:
        """Take more if the last time was so short ago, less if not; in the bucket's context."""
        if now < self._ahead_until:
            self._ahead_at_most = min(_AHEAD_AT_MOST, 2 * self._ahead_at_most + 1)
        else:
            self._ahead_at_most //= 2
        self._ahead = bucket.take_more(self._cost, self._ahead_at_most)
        self._ahead_until = now + _AHEAD_SECONDS

    def describe(self) -> str:
        """Return in words how fast requests are sent, and with whom that is shared."""
        if self._rate == 0:
            return "switched off (requests_per_second: 0)"
        path = self._bucket.path
        together = (
            f"shared by this user's processes on this host ({path})"
            if path is not None
            else f"this process alone, the others do not know of it ({self._bucket.problem})"
        )
        if self._rate is None and self._clock() < self._free_until:
            return f"none until the server refuses a request; {together}"
        return f"at most {self._rate or LIMITED_RATE:g} requests a second; {together}"

    def _note_answer(self, turn: Turn | None, status: int, headers: Mapping[str, str]) -> None:
        if self._rate == 0:
            return
        kind = _kind_of(status, headers)
        if kind is not Kind.UNKNOWN:
            self._presumed = kind
        refused = status in _REFUSALS
        if refused or kind is Kind.LIMITED:
            self._free_until = self._ahead_until = float("-inf")
        with self._bucket.mutex, self._bucket as bucket:
            bucket.answered(turn, self._clock(), kind, refused)

    def _note_unanswered(self, turn: Turn) -> None:
        with self._bucket.mutex, self._bucket as bucket:
            bucket.unanswered(turn)


UNPACED = Pacer(0)
"""Of servers that nobody paces, such as pools."""


def _kind_of(status: int, headers: Mapping[str, str]) -> Kind:
    server = headers.get("Server") or ""
    if not server.startswith("dCache"):
        # A failure may be the word of a proxy in front of the door, and an interim answer has no headers.
        return Kind.FREE if 200 <= status < 500 and status != 429 else Kind.UNKNOWN
    version = _DCACHE.match(server)
    if version is not None and (int(version[1]), int(version[2])) < _FIRST_WITH_LIMITER:
        return Kind.FREE
    return Kind.LIMITED


_pacers: dict[tuple[str, float | None], Pacer] = {}
_buckets: dict[str, SharedBucket] = {}
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
        The same for the same server and ceiling; those of one server share its state whatever their ceilings.
    """
    _, host, port = origin_of(url or settings.base_url)
    server = f"{host}:{port}"
    with _registry_lock:
        bucket = _buckets.get(server)
        if bucket is None:
            bucket = _buckets[server] = SharedBucket(server, runtime_folders())
        key = server, settings.requests_per_second
        pacer = _pacers.get(key)
        if pacer is None:
            pacer = _pacers[key] = Pacer(settings.requests_per_second, bucket)
        return pacer


def _after_fork() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()
    for pacer in list(_pacers.values()):
        pacer._ahead_until = float("-inf")  # that credit is the parent's


os.register_at_fork(after_in_child=_after_fork)
