"""The arithmetic of pacing: who may send when, as a state that processes can share.

A door that limits its clients counts all requests of a host: 250/s, in a bucket that is made at the first
request, starts empty and is thrown away after 10 s without one (protocol page, section 1.2; dCache
``RateLimitedHandlerList.java``). Ours does the same a little below: what it holds is never more than what
the door holds, so that nothing is refused and a pause is not lost.

The first request to a server of which nothing is known travels alone, until its answer says what the server
is. From then on each request takes a ticket; credit grows with time, and a ticket is called when the credit
has reached its number. An urgent request takes one unit of credit away from all who wait and goes as soon as
it is earned again. Nothing here waits, asks a clock or knows of processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = ("LIMITED_RATE", "Bucket", "Kind", "Turn")

LIMITED_RATE = 248.0
"""Requests per second to a door that limits at 250."""
_CAPACITY = 200.0
"""The door keeps 250, and fills up while requests that have left are still under way: for 200 ms at most."""
_FORGOTTEN_AFTER_SECONDS = 9.0
"""A little less than the 10 s after which the door forgets a client."""
_WARM_UP_SECONDS = 0.010
"""The second request is sent no sooner than this after the first, ..."""
_AFTER_ANSWER_SECONDS = 0.005
"""... and than this after its answer: the door gives a new client one request each 4 ms."""
_ALONE_AT_MOST_SECONDS = 1.0
"""A first request may be a GET that waits for tape, or its sender may be dead ..."""
_SECOND_ALONE_SECONDS = 0.050
"""... so another one goes alone for so long, which is enough for being counted."""
_POLL_SECONDS = 0.005
_DECREASE = 0.7
_DECREASE_AGAIN_AFTER_SECONDS = 0.25
"""What is refused meanwhile was under way before the last decrease."""
_INCREASE_PER_SECOND = 20.0
_FLOOR_RATE = 10.0
_FREE_RATE = 1000.0
"""Where nobody says that there is a limit, pacing ends when this rate is reached without a refusal."""
_ENOUGH = 1e-6
"""What is missing may be less than a clock can tell."""


class Kind(IntEnum):
    """What is known of a server."""

    UNKNOWN = 0
    LIMITED = 1
    """It says that it is a dCache with a limiter."""
    REFUSING = 2
    """It has no limit that is known, but refused a request."""
    FREE = 3


class Turn:
    """One request's place.

    Parameters
    ----------
    cost : `float`, optional
        Units of credit that it takes: more than one for a sender with a ceiling below `LIMITED_RATE`.
    urgent : `bool`, optional
        Whether it goes before those that are not.
    always : `bool`, optional
        Whether it is paced even if the server is free.
    presumed : `Kind`, optional
        What its sender knows of the server from earlier answers.
    """

    __slots__ = ("always", "cost", "due", "epoch", "is_first", "presumed", "ticket", "urgent")

    def __init__(
        self,
        cost: float = 1.0,
        urgent: bool = False,
        always: bool = False,
        presumed: Kind = Kind.UNKNOWN,
    ) -> None:
        self.cost = cost
        self.urgent = urgent
        self.always = always
        self.presumed = presumed
        self.is_first = False
        self.epoch = -1
        self.ticket: float | None = None
        self.due: float | None = None


@dataclass(slots=True)
class Bucket:
    """The state of one server; all times are of one clock.

    Parameters
    ----------
    epoch : `int`
        Counts how often everything was forgotten, tickets included.
    kind : `int`
        A `Kind`.
    second : `int`
        Whether a second request is alone, since the first was not answered in time.
    credit : `float`
        Tickets up to this number are called, as of ``at``.
    tail : `float`
        The last ticket.
    at : `float`
        When ``credit`` and ``rate`` were worked out.
    rate : `float`
        Units of credit per second.
    last : `float`
        When the last request was sent.
    alone_until : `float`
        Nobody else sends before; 0 if nobody is alone.
    refused_at : `float`
        When the rate was last decreased.
    urgent_at : `float`
        When the last urgent request that had to wait is due.
    """

    epoch: int = 0
    kind: int = Kind.UNKNOWN
    second: int = 0
    credit: float = 0.0
    tail: float = 0.0
    at: float = 0.0
    rate: float = LIMITED_RATE
    last: float = float("-inf")
    alone_until: float = 0.0
    refused_at: float = float("-inf")
    urgent_at: float = float("-inf")

    def enter(self, turn: Turn, now: float, patience: float = float("inf")) -> float:
        """Ask whether a request may be sent, and take a ticket if not yet.

        Parameters
        ----------
        turn : `Turn`
            The request, the same one each time.
        now : `float`
            The time.
        patience : `float`, optional
            How long it can wait; one that would have to wait longer takes no ticket.

        Returns
        -------
        seconds : `float`
            0 if it is to be sent now, else when to ask again.
        """
        self._advance(now)
        if turn.epoch != self.epoch or self._is_late(turn, now):
            turn.ticket = turn.due = None
        if now - self.last > max(_FORGOTTEN_AFTER_SECONDS, turn.cost / LIMITED_RATE):
            self._forget()
            if turn.presumed != Kind.FREE or turn.always:
                return self._go_alone(turn, now, _ALONE_AT_MOST_SECONDS)
            self.kind = Kind.FREE
        if self.kind == Kind.FREE and not turn.always:
            self.last = now
            return 0.0
        if self.alone_until:
            if now < self.alone_until:
                return min(self.alone_until - now, _POLL_SECONDS)
            if not self.second:
                self.second = 1
                return self._go_alone(turn, now, _SECOND_ALONE_SECONDS)
            self._open(now)
        wait = self._queue(turn, now, patience)
        if wait <= 0:
            self.last = now
            return 0.0
        return wait

    def take_more(self, cost: float, at_most: int) -> int:
        """Take credit that nobody waits for, for requests that follow at once.

        Parameters
        ----------
        cost : `float`
            Units of credit that each takes.
        at_most : `int`
            How many there may be.

        Returns
        -------
        count : `int`
            How many there are.
        """
        count = max(0, min(at_most, int((self.credit - self.tail) / cost)))
        self.tail += count * cost
        return count

    def answered(self, turn: Turn | None, now: float, kind: Kind, refused: bool) -> None:
        """Note an answer.

        Parameters
        ----------
        turn : `Turn` or `None`
            Its request, unless it was not paced.
        now : `float`
            The time.
        kind : `Kind`
            What the answer says of the server.
        refused : `bool`
            Whether the server had too much to do.
        """
        self._advance(now)
        if kind == Kind.LIMITED or self.kind == Kind.UNKNOWN:
            self.kind = kind
        if turn is not None and turn.is_first and turn.epoch == self.epoch and self.alone_until:
            self._open(now)
        if not refused:
            return
        if self.kind in (Kind.UNKNOWN, Kind.FREE):
            self.kind, self.rate = Kind.REFUSING, LIMITED_RATE
        if now - self.refused_at >= _DECREASE_AGAIN_AFTER_SECONDS:
            self.rate = max(_FLOOR_RATE, self.rate * _DECREASE)
            self.refused_at = now
        self.credit = min(self.credit, self.tail)  # the door has nothing left, either

    def unanswered(self, turn: Turn) -> None:
        """Note that a request has no answer: if it was the first one, another has to be.

        Parameters
        ----------
        turn : `Turn`
            The request.
        """
        if turn.is_first and turn.epoch == self.epoch and self.alone_until:
            self.last = float("-inf")

    def _advance(self, now: float) -> None:
        passed = now - self.at
        if passed < 0:
            if passed < -1:  # of another boot, or another clock
                self._forget()
                self.at, self.last, self.urgent_at, self.refused_at = now, *(3 * (float("-inf"),))
            return
        ceiling = _FREE_RATE if self.kind == Kind.REFUSING else LIMITED_RATE
        rate = min(self.rate, ceiling)
        rising = min(passed, (ceiling - rate) / _INCREASE_PER_SECOND)
        higher = rate + rising * _INCREASE_PER_SECOND
        gained = (rate + higher) / 2 * rising + higher * (passed - rising)
        self.credit = min(self.credit + gained, self.tail + _CAPACITY)
        self.rate, self.at = higher, now
        if self.kind == Kind.REFUSING and higher >= _FREE_RATE:
            self.kind = Kind.FREE

    def _forget(self) -> None:
        self.epoch += 1
        self.kind = Kind.UNKNOWN
        self.second = 0
        self.alone_until = 0.0

    def _go_alone(self, turn: Turn, now: float, at_most: float) -> float:
        turn.is_first, turn.epoch, turn.ticket = True, self.epoch, None
        self.last, self.alone_until = now, now + at_most
        self.tail += turn.cost
        self.credit = self.tail
        return 0.0

    def _open(self, now: float) -> None:
        """The first request has been counted: the door gives one more as soon as the warm-up is over."""
        self.alone_until, self.second = 0.0, 0
        warm = max(now + _AFTER_ANSWER_SECONDS, self.last + _WARM_UP_SECONDS)
        self.credit = self.tail + 1.0 - (warm - now) * self.rate

    def _is_late(self, turn: Turn, now: float) -> bool:
        """Whether its place was called so long ago that the door no longer keeps it: the host stood still."""
        keeps = max(_CAPACITY, turn.cost)
        if turn.due is not None:
            return (now - turn.due) * self.rate > keeps
        return turn.ticket is not None and self.credit - turn.ticket > keeps

    def _queue(self, turn: Turn, now: float, patience: float) -> float:
        if turn.due is not None:
            return turn.due - now if turn.due - now > _ENOUGH else 0.0
        ticket = turn.ticket
        if ticket is None:
            ticket = self.tail + turn.cost
            if turn.urgent and self.credit < self.tail:
                due = max(now, self.urgent_at) + turn.cost / self.rate
                if due - now <= patience:
                    self.credit -= turn.cost
                    turn.due = self.urgent_at = due
                    turn.epoch = self.epoch
                return due - now
            if (ticket - self.credit) / self.rate > patience:
                return (ticket - self.credit) / self.rate
            turn.ticket, turn.epoch = ticket, self.epoch
            self.tail = ticket
        missing = ticket - self.credit
        return 0.0 if missing <= _ENOUGH else missing / self.rate
