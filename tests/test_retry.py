"""What is repeated and when, and deadlines, on a clock of the tests' own."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsst.daf.butler_dcache.errors import DeadlineError
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.retry import (
    READS,
    RULES,
    Action,
    Backoff,
    Phase,
    Repetition,
    Rule,
    judged,
    retry_after_seconds,
    rounds,
    rule_for,
    rule_name,
    table,
    watched,
)

PAGE = Path(__file__).parents[1] / "doc" / "lsst.daf.butler_dcache" / "faults.md"


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


def action(phase: Phase, method: str, status: int | None = None) -> Action:
    rule = rule_for(phase, method, status)
    assert rule is not None
    return rule.action


@pytest.mark.parametrize("method", ["PUT", "MOVE", "DELETE", "MKCOL", "COPY", "POST", "PROPPATCH"])
def test_what_may_have_had_an_effect_is_not_repeated(method: str) -> None:
    assert method not in READS
    for phase in (Phase.NO_ANSWER, Phase.STALE, Phase.GARBLED, Phase.FAILED):
        assert action(phase, method) is Action.RECONCILE
    for status in (502, 503, 504):
        assert action(Phase.ANSWERED, method, status) is Action.RECONCILE
    for phase in (Phase.NOT_SENT, Phase.AWAY):
        assert action(phase, method) is Action.RETRY
    assert action(Phase.ANSWERED, method, 429) is Action.RETRY
    assert action(Phase.ANSWERED, method, 401) is Action.FAIL
    assert action(Phase.ANSWERED, method, 507) is Action.FAIL


@pytest.mark.parametrize("method", sorted(READS))
def test_reads_are_repeated(method: str) -> None:
    for phase in (Phase.NOT_SENT, Phase.AWAY, Phase.STALE, Phase.NO_ANSWER, Phase.FAILED, Phase.BROKEN):
        assert action(phase, method) is Action.RETRY
    for status in (429, 502, 503, 504):
        assert action(Phase.ANSWERED, method, status) is Action.RETRY
    for status in (200, 302, 400, 403, 404, 409, 412, 416, 500, 501):
        assert rule_for(Phase.ANSWERED, method, status) is None


def test_every_row_is_reached_and_bounded(clock: Clock) -> None:
    for rule in RULES:
        method = next(one for one in ("GET", "MOVE") if rule_for(rule.phase, one, rule.status) is rule)
        repetition = Repetition(method, Deadline(1e6, clock), draw=lambda: 0.999)
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


@pytest.mark.parametrize("seconds", [0.0, 10.0])
def test_a_server_that_restarts_is_waited_for(clock: Clock, seconds: float) -> None:
    """Whatever is drawn, for 70 s at least, and not much longer if each attempt takes its time."""
    for seed in range(100):
        begun = clock.now
        repetition = Repetition("MOVE", Deadline(3600, clock), random.Random(seed).random)
        while (wait := repetition.next_wait(Phase.AWAY)) is not None:
            clock.now += wait + seconds
        assert repetition.is_over
        assert 70 <= clock.now - begun <= 75 + seconds


def test_the_deadline_comes_before_patience(clock: Clock) -> None:
    repetition = Repetition("GET", Deadline(8, clock), lambda: 0.5)
    begun = clock.now
    while (wait := repetition.next_wait(Phase.AWAY)) is not None:
        clock.now += wait
    assert clock.now - begun < 8
    assert not repetition.is_over


def test_retry_after() -> None:
    now = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
    assert retry_after_seconds({"Retry-After": "9"}) == 9
    assert retry_after_seconds({"Retry-After": "Tue, 24 Nov 2026 12:00:07 GMT"}, now) == 7
    assert retry_after_seconds({"Retry-After": "Tue, 24 Nov 2026 11:00:07 GMT"}, now) == 0
    for value in ("", "soon", "-3", "1.5", "٣"):
        assert retry_after_seconds({"Retry-After": value}, now) is None
    assert retry_after_seconds({}) is None


def test_the_page_shows_the_table() -> None:
    """After a change of the table: replace that of the page by what `table` returns."""
    assert table() in PAGE.read_text(encoding="utf-8")


def test_every_row_says_where_it_is_known_from() -> None:
    for rule in RULES:
        assert rule.because
        assert re.fullmatch(r"(((surprise )?[\d.]+(, \d+)*|RFC 911\d, [\d.]+)(; )?)+", rule.source), (
            rule.source
        )


METHODS = st.sampled_from(
    ["GET", "HEAD", "PROPFIND", "OPTIONS", "PUT", "MOVE", "DELETE", "MKCOL", "POST", "COPY"]
)
FAILURES = st.tuples(
    st.sampled_from(Phase),
    st.one_of(st.none(), st.sampled_from([200, 401, 404, 429, 500, 502, 503, 504, 507])),
)


@given(METHODS, st.lists(FAILURES, max_size=200), st.floats(0, 0.999), st.floats(0.1, 1000), st.booleans())
def test_any_run_of_failures_ends(
    method: str, failures: list[tuple[Phase, int | None]], draw: float, seconds: float, elsewhere: bool
) -> None:
    """By attempts and by time, and what may have had an effect is never sent again without a look."""
    clock = Clock()
    deadline = Deadline(seconds, clock)
    repetition = Repetition(method, deadline, lambda: draw, elsewhere=elsewhere)
    repeated = 0
    for phase, status in failures:
        wait = repetition.next_wait(phase, status)
        if wait is None:
            continue
        rule = rule_for(phase, method, status)
        assert rule is not None
        assert rule.action is Action.RETRY
        assert not (elsewhere and rule.elsewhere)
        harmless = (Phase.NOT_SENT, Phase.AWAY, Phase.UNSETTLED, Phase.REPLACED, Phase.SAME)
        assert method in READS or phase in harmless or status == 429
        assert 0 <= wait < deadline.left
        clock.now += wait
        repeated += 1
    assert deadline.left > -1e-6  # the waits are rounded when they are added
    assert repeated <= sum(rule.attempts - 1 for rule in RULES)


@given(st.integers(0, 10**12), st.integers(-(10**6), 10**6))
def test_retry_after_in_either_form(seconds: int, offset: int) -> None:
    now = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
    assert retry_after_seconds({"Retry-After": str(seconds)}, now) == float(str(seconds)[:9])
    moment = format_datetime(now + timedelta(seconds=offset), usegmt=True)
    assert retry_after_seconds({"Retry-After": moment}, now) == max(0, offset)


@given(st.text(max_size=40))
def test_any_retry_after(value: str) -> None:
    seconds = retry_after_seconds({"Retry-After": value})
    assert seconds is None or seconds >= 0


def test_a_wait_that_is_asked_for_beyond_the_time_is_not_begun(clock: Clock) -> None:
    repetition = Repetition("PUT", Deadline(5, clock), draw=lambda: 0.0)
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert repetition.next_wait(Phase.ANSWERED, 429, {"Retry-After": moment}) is None


class TestWatching:
    def test_each_failure_that_is_judged_is_told(self, clock: Clock) -> None:
        seen: list[Rule] = []
        repetition = Repetition("GET", Deadline(60, clock))
        with watched(seen.append):
            assert repetition.next_wait(Phase.ANSWERED, 200) is None
            assert repetition.next_wait(Phase.ANSWERED, 503) is not None
            assert judged(Phase.GARBLED, "MOVE") is rule_for(Phase.GARBLED, "MOVE")
        repetition.next_wait(Phase.ANSWERED, 503)
        assert list(map(rule_name, seen)) == ["ANSWERED 503 reads", "GARBLED others"]

    def test_rounds_tell_of_repetitions_only(self, clock: Clock) -> None:
        seen: list[Rule] = []
        with watched(seen.append):
            every = rounds(Phase.REPLACED, "PUT", Deadline(60, clock), lambda seconds: None)
            next(every)
            assert seen == []
            assert list(every) == [False, True]
        assert list(map(rule_name, seen)) == ["REPLACED all", "REPLACED all"]

    def test_every_row_can_be_met_and_has_a_name_of_its_own(self) -> None:
        met = {rule_for(rule.phase, method, rule.status) for rule in RULES for method in ("GET", "PUT")}
        assert met - {None} == set(RULES)
        assert len(set(map(rule_name, RULES))) == len(RULES)
