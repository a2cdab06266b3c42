"""What is repeated and when, and deadlines, on a clock of the tests' own."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from lsst.daf.butler_dcache.errors import DeadlineError
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.retry import (
    READS,
    RULES,
    Backoff,
    Phase,
    Repetition,
    retry_after_seconds,
    rule_for,
)


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_deadline(clock: Clock) -> None:
    deadline = Deadline(5, clock)
    clock.now += 2
    assert (deadline.remaining(), deadline.limit(10), deadline.limit(1)) == (3, 3, 1)
    assert deadline.elapsed == 2
    assert not deadline.expired
    clock.now += 3
    assert deadline.expired
    with pytest.raises(DeadlineError) as caught:
        deadline.remaining()
    assert isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize("method", ["PUT", "MOVE", "DELETE", "MKCOL", "COPY", "POST", "PROPPATCH"])
def test_what_may_have_had_an_effect_is_not_repeated(method: str) -> None:
    assert method not in READS
    assert rule_for(Phase.NO_ANSWER, method) is None
    assert rule_for(Phase.STALE, method) is None
    assert rule_for(Phase.ANSWERED, method, 503) is None
    assert rule_for(Phase.NOT_SENT, method) is not None
    assert rule_for(Phase.ANSWERED, method, 429) is not None


@pytest.mark.parametrize("method", sorted(READS))
def test_reads_are_repeated(method: str) -> None:
    for phase in (Phase.NOT_SENT, Phase.STALE, Phase.NO_ANSWER):
        assert rule_for(phase, method) is not None
    for status in (429, 503):
        assert rule_for(Phase.ANSWERED, method, status) is not None
    for status in (200, 302, 400, 401, 403, 404, 409, 412, 416, 500, 501, 507):
        assert rule_for(Phase.ANSWERED, method, status) is None


def test_every_row_is_reached_and_bounded(clock: Clock) -> None:
    for rule in RULES:
        repetition = Repetition("GET", Deadline(1e6, clock), draw=lambda: 0.999)
        waits = 0
        while (wait := repetition.next_wait(rule.phase, rule.status)) is not None:
            assert wait <= rule.backoff.cap_seconds
            waits += 1
        assert waits == rule.attempts - 1


def test_backoff_doubles_with_full_jitter() -> None:
    backoff = Backoff(0.05, 10.0)
    assert [backoff.delay(n, lambda: 1.0) for n in (1, 2, 3, 8, 9, 50)] == [0.05, 0.1, 0.2, 6.4, 10.0, 10.0]
    assert backoff.delay(9, lambda: 0.0) == 0.0


def test_no_wait_beyond_the_deadline(clock: Clock) -> None:
    repetition = Repetition("GET", Deadline(3, clock), draw=lambda: 0.5)
    assert repetition.next_wait(Phase.ANSWERED, 429, {"Retry-After": "2"}) == pytest.approx(2.05)
    clock.now += 2.05
    assert repetition.next_wait(Phase.ANSWERED, 429, {"Retry-After": "2"}) is None


def test_retry_after() -> None:
    now = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
    assert retry_after_seconds({"Retry-After": "9"}) == 9
    assert retry_after_seconds({"Retry-After": "Tue, 24 Nov 2026 12:00:07 GMT"}, now) == 7
    assert retry_after_seconds({"Retry-After": "Tue, 24 Nov 2026 11:00:07 GMT"}, now) == 0
    for value in ("", "soon", "-3", "1.5", "٣"):
        assert retry_after_seconds({"Retry-After": value}, now) is None
    assert retry_after_seconds({}) is None
