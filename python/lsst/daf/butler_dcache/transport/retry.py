"""What is sent again, and when: a table.

What decides is how far a request came. One that was not sent cannot have had an effect and is sent again,
whatever its method. A 429 is decided before any processing (protocol page, section 1.2), so the same holds.
Reads can be repeated after anything but an answer that will last. Everything else may have had an effect:
whoever knows what it was looks first (`rounds`), or writes under another name. Where several doors serve the
same files, the next is asked at once for what another one may do better (`Rule.elsewhere`).

The table is what the page ``faults`` shows (`table`), and what its tests take for granted.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum

from .deadline import Deadline

__all__ = (
    "READS",
    "RULES",
    "Action",
    "Backoff",
    "Phase",
    "Repetition",
    "Rule",
    "counted",
    "judged",
    "retry_after_seconds",
    "rounds",
    "rule_for",
    "rule_name",
    "table",
    "watched",
)

READS = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})
"""Methods without an effect."""


class Phase(Enum):
    """How far a request came."""

    NOT_SENT = "no byte of the request was accepted"
    AWAY = "the same, and the server has answered this process before"
    STALE = "a kept connection turned out to be closed before a byte of the answer"
    NO_ANSWER = "sent, and the connection was lost before the answer was complete"
    ANSWERED = "the server answered"
    FAILED = "the server answered that it failed, and nothing in its text says that this will last"
    BROKEN = "the body of the answer broke off or stood still"
    UNSETTLED = "it may have had an effect; whether it had is looked at before each repetition"
    REPLACED = "an upload to a temporary name came to nothing; each try has a fresh name"
    SAME = "a request to S3 came to nothing, or nobody knows; sent again, it has the same effect"
    GARBLED = "the answer is not HTTP"
    REFUSED = "the server answered with an error that will last, by its status or by its text"

    __hash__ = object.__hash__
    """That of `enum.Enum` is a call of a Python function, and each request looks into the table."""


class Action(Enum):
    """What is done."""

    RETRY = "again"
    RECONCILE = "look"
    FAIL = "tell"


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


_NEVER = Backoff(0.0, 0.0)


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
        Why it is safe, or necessary.
    source : `str`
        Where that is known from: a section of the protocol page, or of an RFC.
    action : `Action`
        What is done: it is sent again, somebody looks what became of it, or the error is told.
    elsewhere : `bool`
        Whether another door is asked at once, where there is one, instead of this one after a wait.
    seconds : `float`
        How long after the first such failure there may be another attempt; infinite if the number of attempts
        is all that counts.
    """

    phase: Phase
    status: int | None
    reads_only: bool
    attempts: int
    backoff: Backoff
    because: str
    source: str
    action: Action = Action.RETRY
    elsewhere: bool = False
    seconds: float = math.inf


def _retry(
    phase: Phase,
    status: int | None,
    attempts: int,
    waits: tuple[float, float],
    because: str,
    source: str,
    *,
    reads_only: bool = True,
    elsewhere: bool = False,
    seconds: float = math.inf,
) -> Rule:
    backoff = Backoff(*waits)
    return Rule(
        phase, status, reads_only, attempts, backoff, because, source, elsewhere=elsewhere, seconds=seconds
    )


def _once(
    phase: Phase, status: int | None, action: Action, because: str, source: str, *, reads_only: bool = False
) -> Rule:
    return Rule(phase, status, reads_only, 1, _NEVER, because, source, action)


def _same(status: int | None, attempts: int, waits: tuple[float, float], because: str, source: str) -> Rule:
    return _retry(Phase.SAME, status, attempts, waits, because, f"RFC 9110, {source}", reads_only=False)


_RELAY = (0.5, 5.0)
_LOOK = Action.RECONCILE

RULES: tuple[Rule, ...] = (
    _retry(
        Phase.NOT_SENT, None, 4, (0.1, 2.0), "nothing was sent", "11.29", reads_only=False, elsewhere=True
    ),
    # A door takes 10 to 60 s to restart. The time decides: with waits of 5 s at most it is waited for 70 s at
    # least, and those come to 75 s in some 30 attempts.
    _retry(
        Phase.AWAY,
        None,
        50,
        (0.1, 5.0),
        "nothing was sent; a server that restarts comes back",
        "11.29",
        reads_only=False,
        elsewhere=True,
        seconds=75.0,
    ),
    _retry(Phase.STALE, None, 4, (0.0, 0.0), "the server closed an idle connection", "1.1"),
    _once(Phase.STALE, None, _LOOK, "it may have closed it after it had begun", "RFC 9110, 9.2.2"),
    _retry(Phase.NO_ANSWER, None, 4, (0.2, 5.0), "a read has no effect", "11.29", elsewhere=True),
    _once(Phase.NO_ANSWER, None, _LOOK, "a MOVE without an answer may have published", "surprise 23; 11.18"),
    _once(Phase.GARBLED, None, Action.FAIL, "no dCache speaks like that", "RFC 9112, 2.2", reads_only=True),
    _once(Phase.GARBLED, None, _LOOK, "what became of it is unknown", "11.18"),
    # 50 ms doubling up to 10 s, the length of the block after three 401s.
    _retry(
        Phase.ANSWERED, 429, 20, (0.05, 10.0), "decided before any processing", "1.2; 11.3", reads_only=False
    ),
    _retry(Phase.ANSWERED, 502, 4, _RELAY, "a relay did not reach the server", "11.29", elsewhere=True),
    _retry(Phase.ANSWERED, 503, 4, _RELAY, "the server says that it is temporary", "11.29", elsewhere=True),
    _retry(Phase.ANSWERED, 504, 4, _RELAY, "a relay got no answer from the server", "11.29", elsewhere=True),
    *(
        _once(Phase.ANSWERED, status, _LOOK, "behind a relay anything may have happened", "11.18")
        for status in (502, 503, 504)
    ),
    # 500 is dCache's catch-all: a lasting cause stands in the text (`.failures`).
    _retry(Phase.FAILED, None, 3, (0.3, 3.0), "nothing says that it is lasting", "1.7; 11.29"),
    _once(Phase.FAILED, None, _LOOK, "the loser of a race, or a failure after the effect", "surprise 4, 9"),
    _once(Phase.ANSWERED, 401, Action.FAIL, "three block the host; again only with a new token", "1.2; 11.1"),
    _once(Phase.ANSWERED, 507, Action.FAIL, "no space or quota; writers pause", "1.7; 11.29"),
    _once(Phase.REFUSED, None, Action.FAIL, "its status or its text says that it lasts", "1.7; 3.5; 11.29"),
    _retry(Phase.BROKEN, None, 3, (0.1, 2.0), "another pool may have the file", "2.5; 11.11"),
    _retry(
        Phase.UNSETTLED, None, 3, (0.2, 2.0), "looked at first: it did not happen", "11.18", reads_only=False
    ),
    _retry(
        Phase.REPLACED, None, 3, (0.2, 2.0), "nobody else has the name, or will", "11.19", reads_only=False
    ),
    # `..s3.failures` tells which answers these are; the planes repeat what was not sent.
    _same(None, 4, (0.2, 5.0), "the same PUT or DELETE has the same effect", "9.2.2"),
    _same(500, 4, (0.3, 5.0), "InternalError", "15.6.1"),
    _same(502, 4, _RELAY, "a relay did not reach the server", "15.6.3"),
    _same(503, 10, (0.1, 10.0), "SlowDown; the server says that it is temporary", "15.6.4"),
    _same(504, 4, _RELAY, "a relay got no answer from the server", "15.6.5"),
)
"""The first row that fits holds; sources without another name are sections of the protocol page."""

_NO_ROWS: tuple[Rule | None, Rule | None] = None, None
_ROWS = {
    (rule.phase, rule.status): (
        next(one for one in RULES if (one.phase, one.status) == (rule.phase, rule.status)),
        next(
            (
                one
                for one in RULES
                if (one.phase, one.status) == (rule.phase, rule.status) and not one.reads_only
            ),
            None,
        ),
    )
    for rule in RULES
}
"""The row for reads and the one for other methods."""


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
        `None` if that is no failure.
    """
    of_reads, of_others = _ROWS.get((phase, status), _NO_ROWS)
    return of_reads if method in READS else of_others


Watcher = Callable[[Rule], None]

_watchers: tuple[Watcher, ...] = ()
_counters: tuple[Callable[[], None], ...] = ()


@contextmanager
def counted(counter: Callable[[], None]) -> Iterator[None]:
    """Have a callable called whenever something is tried again, as long as the context lasts.

    Parameters
    ----------
    counter : `~collections.abc.Callable`
        Is called in the thread that tries again; it must be quick and must not raise.
    """
    global _counters
    _counters = (*_counters, counter)
    try:
        yield
    finally:
        _counters = tuple(known for known in _counters if known is not counter)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Have a callable called with each row that a failure meets, as long as the context lasts.

    Parameters
    ----------
    watcher : `~collections.abc.Callable`
        Is called in the thread that met the failure; it must be quick and must not raise.
    """
    global _watchers
    _watchers = (*_watchers, watcher)
    try:
        yield
    finally:
        _watchers = tuple(known for known in _watchers if known is not watcher)


def judged(phase: Phase, method: str, status: int | None = None) -> Rule | None:
    """Return what `rule_for` returns, for a failure that has happened: whoever watches is told.

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
        `None` if that is no failure.
    """
    rule = rule_for(phase, method, status)
    if rule is not None:
        _tell(rule)
    return rule


def _tell(rule: Rule) -> None:
    for watcher in _watchers:
        watcher(rule)


def _count() -> None:
    for counter in _counters:
        counter()


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
    except (ValueError, OverflowError):
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
    elsewhere : `bool`, optional
        Whether somebody asks another door if this one fails.
    """

    def __init__(
        self,
        method: str,
        deadline: Deadline,
        draw: Callable[[], float] = random.random,
        elsewhere: bool = False,
    ) -> None:
        self.attempts = 0
        self._method = method
        self._elsewhere = elsewhere
        self._deadline = deadline
        self._draw = draw
        self._counts: dict[Rule, int] = {}
        self._first: dict[Rule, float] = {}
        self.is_over = False
        """Whether the table, and not the deadline, was why there was no other attempt."""

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
        rule = judged(phase, self._method, status)
        if rule is None or rule.action is not Action.RETRY or (self._elsewhere and rule.elsewhere):
            return None
        count = self._counts[rule] = self._counts.get(rule, 0) + 1
        if count >= rule.attempts:
            self.is_over = True
            return None
        asked = retry_after_seconds(headers) if headers is not None else None
        # A little more than asked, drawn for each client, or all come back at the same moment.
        wait = rule.backoff.delay(count, self._draw) if asked is None else asked + self._draw() * 0.1
        if wait >= self._deadline.left:
            return None
        elapsed = self._deadline.elapsed
        if elapsed + wait - self._first.setdefault(rule, elapsed) > rule.seconds:
            self.is_over = True
            return None
        _count()
        return wait


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
    rule = rule_for(phase, method)
    if rule is not None and rule.action is Action.RETRY:
        for count in range(1, rule.attempts):
            wait = rule.backoff.delay(count)
            if wait >= deadline.left:
                break
            yield False
            _tell(rule)
            _count()
            sleep(wait)
    yield True


def rule_name(rule: Rule) -> str:
    """Return what a row is called in tallies: what happened, status, methods.

    Parameters
    ----------
    rule : `Rule`
        One of `RULES`.
    """
    return " ".join([rule.phase.name, *([str(rule.status)] if rule.status else []), _methods(rule)])


def _methods(rule: Rule) -> str:
    if rule.reads_only:
        return "reads"
    return "all" if _ROWS[rule.phase, rule.status][0] is rule else "others"


def table() -> str:
    """Return the table as the page ``faults`` shows it, in Markdown."""
    lines = [
        "| what happened | status | methods | what is done | attempts | first, longest wait (s) "
        "| because | source |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for rule in RULES:
        status = "" if rule.status is None else str(rule.status)
        action = rule.action.value + (", at the next door if there is one" if rule.elsewhere else "")
        if rule.action is Action.RETRY:
            waits = f"{rule.backoff.base_seconds:g}, {rule.backoff.cap_seconds:g}"
            longest = "" if rule.seconds == math.inf else f" in {rule.seconds:g} s"
            bounds = f"{rule.attempts}{longest} | {waits}"
        else:
            bounds = " | "
        cells = (rule.phase.name, status, _methods(rule), action, bounds, rule.because, rule.source)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
