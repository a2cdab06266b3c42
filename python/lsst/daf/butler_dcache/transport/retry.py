"""What is sent again, and when: a table.

What decides is how far a request came. One that was not sent cannot have had an effect and is sent again,
whatever its method. A 429 is decided before any processing (protocol page, section 1.2), so the same holds.
Reads can be repeated after anything but an answer that will last. Everything else may have had an effect:
whoever knows what it was looks first (`rounds`), or writes under another name.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum

from .deadline import Deadline

__all__ = (
    "READS",
    "RULES",
    "Backoff",
    "Phase",
    "Repetition",
    "Rule",
    "retry_after_seconds",
    "rounds",
    "rule_for",
)

READS = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})
"""Methods without an effect."""


class Phase(Enum):
    """How far a request came."""

    NOT_SENT = "no byte of the request was accepted"
    STALE = "a kept connection turned out to be closed before a byte of the answer"
    NO_ANSWER = "sent, and the connection was lost before the answer was complete"
    ANSWERED = "the server answered"
    FAILED = "the server answered that it failed, and nothing in its text says that this will last"
    BROKEN = "the body of the answer broke off or stood still"
    UNSETTLED = "it may have had an effect; whether it had is looked at before each repetition"
    REPLACED = "an upload to a temporary name came to nothing; each try has a fresh name"


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double, each drawn from the whole interval below (full jitter).

    Parameters
    ----------
    base_seconds : `float`
        Upper end of the first wait.
    cap_seconds : `float`
        Upper end of all later ones.
    """

    base_seconds: float
    cap_seconds: float

    def delay(self, repetition: int, draw: Callable[[], float] = random.random) -> float:
        """Return the wait before a repetition.

        Parameters
        ----------
        repetition : `int`
            1 before the second attempt.
        draw : `~collections.abc.Callable`, optional
            Random number in [0, 1).

        Returns
        -------
        seconds : `float`
            At most the upper end of this wait.
        """
        return draw() * min(self.cap_seconds, self.base_seconds * 2.0 ** min(repetition - 1, 32))


@dataclass(frozen=True, slots=True, eq=False)  # each is the only one of its kind, and counted by many
class Rule:
    """One row of the table.

    Parameters
    ----------
    phase : `Phase`
        How far the request came.
    status : `int` or `None`
        Status of the answer, for requests that were answered.
    reads_only : `bool`
        Whether the row holds for `READS` only.
    attempts : `int`
        How often the request is sent at most, the first time included.
    backoff : `Backoff`
        The waits in between.
    because : `str`
        Why it is safe.
    """

    phase: Phase
    status: int | None
    reads_only: bool
    attempts: int
    backoff: Backoff
    because: str


RULES: tuple[Rule, ...] = (
    Rule(Phase.NOT_SENT, None, False, 4, Backoff(0.1, 2.0), "nothing was sent"),
    Rule(Phase.STALE, None, True, 4, Backoff(0.0, 0.0), "a read; the server closed an idle connection"),
    Rule(Phase.NO_ANSWER, None, True, 4, Backoff(0.2, 5.0), "a read has no effect"),
    # 50 ms doubling up to 10 s, the length of the block after three 401s (protocol page, section 11, item 3).
    Rule(Phase.ANSWERED, 429, False, 20, Backoff(0.05, 10.0), "decided before any processing"),
    Rule(Phase.ANSWERED, 502, True, 4, Backoff(0.5, 5.0), "a read; a relay did not reach the server"),
    Rule(Phase.ANSWERED, 503, True, 4, Backoff(0.5, 5.0), "a read; the server says that it is temporary"),
    Rule(Phase.ANSWERED, 504, True, 4, Backoff(0.5, 5.0), "a read; a relay got no answer from the server"),
    # 500 is dCache's catch-all: a lasting cause stands in the text (protocol page, section 1.7, `.failures`).
    Rule(Phase.FAILED, None, True, 3, Backoff(0.3, 3.0), "a read; nothing says that it is lasting"),
    Rule(Phase.BROKEN, None, True, 3, Backoff(0.1, 2.0), "a read; another pool may have the file"),
    Rule(Phase.UNSETTLED, None, False, 3, Backoff(0.2, 2.0), "looked at first: it has not happened"),
    Rule(Phase.REPLACED, None, False, 3, Backoff(0.2, 2.0), "nobody else knows the name, or will"),
)


def rule_for(phase: Phase, method: str, status: int | None = None) -> Rule | None:
    """Return the row of the table for a failure.

    Parameters
    ----------
    phase : `Phase`
        How far the request came.
    method : `str`
        HTTP method.
    status : `int`, optional
        Status of the answer.

    Returns
    -------
    rule : `Rule` or `None`
        `None` if the request is not sent again.
    """
    for rule in RULES:
        if rule.phase is phase and rule.status == status and not (rule.reads_only and method not in READS):
            return rule
    return None


def retry_after_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return what a ``Retry-After`` header asks for (RFC 9110, section 10.2.3).

    Parameters
    ----------
    headers : `~collections.abc.Mapping`
        Headers of the answer.
    now : `datetime.datetime`, optional
        The present, if it is not to be asked from the clock.

    Returns
    -------
    seconds : `float` or `None`
        `None` if there is no such header or it cannot be read.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


class Repetition:
    """Counts the attempts of one request and says how long to wait before the next.

    Parameters
    ----------
    method : `str`
        HTTP method.
    deadline : `~.deadline.Deadline`
        A wait that would not end before it is not begun.
    draw : `~collections.abc.Callable`, optional
        Random number in [0, 1).
    """

    def __init__(self, method: str, deadline: Deadline, draw: Callable[[], float] = random.random) -> None:
        self.attempts = 0
        self._method = method
        self._deadline = deadline
        self._draw = draw
        self._counts: dict[Rule, int] = {}

    def next_wait(
        self, phase: Phase, status: int | None = None, headers: Mapping[str, str] | None = None
    ) -> float | None:
        """Return the wait before the next attempt.

        Parameters
        ----------
        phase : `Phase`
            How far the last attempt came.
        status : `int`, optional
            Status of its answer.
        headers : `~collections.abc.Mapping`, optional
            Headers of its answer.

        Returns
        -------
        seconds : `float` or `None`
            `None` if the request is not sent again.
        """
        rule = rule_for(phase, self._method, status)
        if rule is None:
            return None
        count = self._counts[rule] = self._counts.get(rule, 0) + 1
        if count >= rule.attempts:
            return None
        asked = retry_after_seconds(headers) if headers is not None else None
        # A little more than asked, drawn for each client, or all come back at the same moment.
        wait = rule.backoff.delay(count, self._draw) if asked is None else asked + self._draw() * 0.1
        return wait if wait < self._deadline.left else None


def rounds(
    phase: Phase, method: str, deadline: Deadline, sleep: Callable[[float], None] = time.sleep
) -> Iterator[bool]:
    """Yield once for each attempt at something, and wait in between.

    Parameters
    ----------
    phase : `Phase`
        What will have happened if another attempt is wanted.
    method : `str`
        HTTP method.
    deadline : `~.deadline.Deadline`
        There is no attempt that would begin after it.
    sleep : `~collections.abc.Callable`, optional
        Waits some seconds.

    Yields
    ------
    is_last : `bool`
        Whether there will be no other.
    """
    repetition = Repetition(method, deadline)
    while True:
        wait = repetition.next_wait(phase)
        yield wait is None
        if wait is None:
            return
        sleep(wait)
