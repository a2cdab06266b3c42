"""Pacing and repetition, on a clock of the tests' own."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime

import pytest
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.errors import DeadlineError
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.pacing import Pacer, pacer_for
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


class Bucket:
    """dCache's limiter for one client: 250/s, empty at first, forgotten after 10 s (protocol page, 1.2)."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.last: float | None = None
        self.tokens = 0.0
        self.refused = 0

    def request(self) -> None:
        now = self.clock()
        if self.last is None or now - self.last > 10:
            self.last, self.tokens = now, 0.0
            return
        self.tokens = min(250.0, self.tokens + (now - self.last) * 250)
        self.last = now
        if self.tokens >= 1:
            self.tokens -= 1
        else:
            self.refused += 1


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run(pacer: Pacer, clock: Clock, count: int, each_takes: float = 0.0) -> list[float]:
    starts = []
    for _ in range(count):
        with pacer.slot(Deadline(1000, clock)):
            starts.append(clock())
            clock.now += each_takes
    return starts


def test_the_first_request_is_alone(clock: Clock) -> None:
    starts = run(Pacer(200, clock, clock.sleep), clock, 3)
    assert starts[0] == 1000.0
    assert starts[1] - starts[0] > 0.0099


def test_the_rate_is_kept(clock: Clock) -> None:
    starts = run(Pacer(200, clock, clock.sleep), clock, 1000)
    assert 4.9 <= starts[-1] - starts[0] <= 5.1
    for at in range(len(starts) - 200):
        assert starts[at + 200] - starts[at] > 0.95


def test_slow_requests_are_not_held_back(clock: Clock) -> None:
    starts = run(Pacer(200, clock, clock.sleep), clock, 10, each_takes=0.02)
    assert [round(b - a, 6) for a, b in itertools.pairwise(starts)] == [0.02] * 9


def test_a_limiter_like_dcaches_refuses_nothing(clock: Clock) -> None:
    pacer, bucket = Pacer(200, clock, clock.sleep), Bucket(clock)
    for pause in (0.0, 0.5, 9.5, 12.0, 0.02, 11.0):
        clock.now += pause
        for _ in range(300):
            with pacer.slot(Deadline(1000, clock)):
                bucket.request()
    assert bucket.refused == 0


def test_without_pacing_the_same_limiter_refuses(clock: Clock) -> None:
    bucket = Bucket(clock)
    for _ in range(2):
        with Pacer(0, clock, clock.sleep).slot(Deadline(1, clock)):
            bucket.request()
    assert bucket.refused == 1


def test_others_wait_for_the_first(clock: Clock) -> None:
    pacer = Pacer(200, clock, clock.sleep)
    with pacer.slot(Deadline(100, clock)):
        clock.now += 0.5
        with pacer.slot(Deadline(100, clock)):
            # The first is still under way: it has a second, after which the door has surely counted it.
            assert clock() == pytest.approx(1001.0, abs=0.011)


def test_the_end_of_the_first_lets_the_others_go() -> None:
    pacer = Pacer(200)
    entered = threading.Event()

    def second() -> None:
        with pacer.slot(Deadline(10)):
            entered.set()

    with pacer.slot(Deadline(10)):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(5)
    thread.join()


def test_waiting_ends_with_the_deadline(clock: Clock) -> None:
    pacer = Pacer(0.1, clock, clock.sleep)
    run(pacer, clock, 2)
    with pytest.raises(DeadlineError), pacer.slot(Deadline(3, clock)):
        pytest.fail("the request was sent")


def test_one_pacer_per_endpoint() -> None:
    one = EndpointSettings("https://pacing.example.org:1/")
    assert pacer_for(one) is pacer_for(EndpointSettings("https://pacing.example.org:1/", retries=9))
    assert pacer_for(one) is not pacer_for(EndpointSettings("https://pacing.example.org:2/"))
    assert pacer_for(one) is not pacer_for(one, "https://pacing.example.org:3880/")


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
