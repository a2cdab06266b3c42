"""Pacing, on a clock of the tests' own, against a limiter written from the protocol page."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.errors import DeadlineError
from lsst.daf.butler_dcache.transport.bucket import Bucket, Kind, Turn
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.pacing import Pacer, pacer_for
from lsst.daf.butler_dcache.transport.shared_bucket import SharedBucket

DCACHE = {"Server": "dCache/11.2.4"}
NGINX = {"Server": "nginx/1.24"}


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


class Limiter:
    """dCache's for one client: 250/s, empty at first, at most a second's worth, forgotten after 10 s.

    Written from the protocol page, section 1.2, and what Guava says of its ``SmoothBursty``.
    """

    def __init__(self) -> None:
        self.used: float | None = None
        self.free_at = 0.0
        self.stored = 0.0
        self.refused = 0
        self.passed = 0

    def request(self, now: float) -> int:
        if self.used is None or now - self.used > 10:
            self.free_at, self.stored = now, 0.0
        self.used = now
        if now > self.free_at:
            self.stored = min(250.0, self.stored + (now - self.free_at) * 250)
            self.free_at = now
        if self.free_at > now:
            self.refused += 1
            return 429
        spent = min(1.0, self.stored)
        self.stored -= spent
        self.free_at += (1 - spent) / 250
        self.passed += 1
        return 200


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run(
    pacer: Pacer,
    clock: Clock,
    count: int,
    limiter: Limiter | None = None,
    headers: dict[str, str] = DCACHE,
    each_takes: float = 0.001,
) -> list[float]:
    """Send requests one after the other; return when."""
    starts = []
    for _ in range(count):
        with pacer.slot(Deadline(1000, clock)) as slot:
            starts.append(clock())
            status = 200 if limiter is None else limiter.request(clock())
            clock.now += each_takes
            slot.answered(status, headers)
    return starts


class TestDcache:
    """Doors that limit their clients."""

    def test_the_first_request_is_alone(self, clock: Clock) -> None:
        starts = run(Pacer(None, None, clock, clock.sleep), clock, 3)
        assert starts[0] == 1000.0
        assert 0.0099 < starts[1] - starts[0] < 0.012

    def test_nobody_goes_before_the_answer_to_the_first(self, clock: Clock) -> None:
        pacer = Pacer(None, None, clock, clock.sleep)
        with pacer.slot(Deadline(100, clock)) as first:
            with pytest.raises(DeadlineError, match="pacing"):
                pacer.slot(Deadline(0.2, clock))
            clock.now += 0.3
            first.answered(200, DCACHE)
        with pacer.slot(Deadline(100, clock)):
            assert clock() == pytest.approx(1000.505, abs=0.011)

    def test_a_first_request_without_an_answer_leaves_its_place_to_the_next(self, clock: Clock) -> None:
        pacer = Pacer(None, None, clock, clock.sleep)
        with pytest.raises(ConnectionError), pacer.slot(Deadline(100, clock)):
            raise ConnectionError
        starts = run(pacer, clock, 2)
        assert starts[0] == 1000.0
        assert starts[1] - starts[0] > 0.0099

    def test_a_first_request_that_takes_long_holds_nobody_up(self, clock: Clock) -> None:
        """A GET that waits for tape; the door has counted it, or else its sender is dead."""
        pacer, limiter = Pacer(None, None, clock, clock.sleep), Limiter()
        with pacer.slot(Deadline(100, clock)):
            starts = run(pacer, clock, 100, limiter)
        assert starts[0] == pytest.approx(1001.0)
        assert starts[-1] < 1001.6
        assert limiter.refused == 0

    def test_the_rate_is_kept_and_nothing_is_refused(self, clock: Clock) -> None:
        pacer, limiter = Pacer(None, None, clock, clock.sleep), Limiter()
        starts = run(pacer, clock, 2000, limiter)
        assert 8.04 < starts[-1] - starts[0] < 8.10
        assert limiter.refused == 0

    def test_what_the_door_kept_in_a_pause_is_used(self, clock: Clock) -> None:
        pacer, limiter = Pacer(None, None, clock, clock.sleep), Limiter()
        run(pacer, clock, 10, limiter)
        clock.now += 2
        starts = run(pacer, clock, 1000, limiter, each_takes=0.0)
        assert starts[199] == starts[0]
        assert starts[-1] - starts[0] == pytest.approx(800 / 248, abs=0.01)
        assert limiter.refused == 0

    def test_pauses_of_all_lengths(self, clock: Clock) -> None:
        pacer, limiter = Pacer(None, None, clock, clock.sleep), Limiter()
        for pause in (0.0, 0.5, 8.9, 9.5, 12.0, 0.02, 11.0):
            clock.now += pause
            run(pacer, clock, 300, limiter)
        assert limiter.refused == 0

    def test_without_pacing_the_same_limiter_refuses(self, clock: Clock) -> None:
        limiter = Limiter()
        run(Pacer(0, None, clock, clock.sleep), clock, 2, limiter, each_takes=0.0)
        assert limiter.refused == 1

    def test_slow_requests_are_not_held_back(self, clock: Clock) -> None:
        starts = run(Pacer(None, None, clock, clock.sleep), clock, 10, each_takes=0.02)
        assert [round(b - a, 6) for a, b in itertools.pairwise(starts[1:])] == [0.02] * 8

    @pytest.mark.parametrize("server", ["dCache/11.2.0", "dCache/12.0.1", "dCache/13.0.0-SNAPSHOT", "dCache"])
    def test_who_limits(self, clock: Clock, server: str) -> None:
        starts = run(
            Pacer(None, None, clock, clock.sleep), clock, 500, headers={"Server": server}, each_takes=0.0
        )
        assert starts[-1] - starts[0] > 1.5

    def test_two_users_who_do_not_know_of_each_other_come_to_terms(self, clock: Clock) -> None:
        """Both get their share, and few requests are refused."""
        limiter = Limiter()
        pacers = [Pacer(None, None, clock, clock.sleep) for _ in range(2)]
        turns = [0.0, 0.0]
        passed = [0, 0]
        end = clock.now + 60
        buckets = [Bucket(), Bucket()]
        assert len(pacers) == len(buckets)
        waiting = [Turn(), Turn()]
        while clock.now < end:
            who = min((0, 1), key=lambda user: turns[user])
            clock.now = max(clock.now, turns[who])
            wait = buckets[who].enter(waiting[who], clock.now)
            if wait > 0:
                turns[who] = clock.now + wait
                continue
            status = limiter.request(clock.now)
            buckets[who].answered(waiting[who], clock.now, Kind.LIMITED, status == 429)
            passed[who] += status == 200
            waiting[who] = Turn()
            turns[who] = clock.now + 1e-4
        assert sum(passed) > 0.85 * 250 * 60
        assert min(passed) > 0.3 * sum(passed)
        assert limiter.refused < 0.05 * sum(passed)


class TestAhead:
    """Credit that a busy process takes for several requests at once."""

    @pytest.fixture
    def bucket(self, monkeypatch: pytest.MonkeyPatch) -> SharedBucket:
        bucket = SharedBucket()
        self.uses = 0
        enter = Bucket.enter

        def count(*args: Any) -> float:
            self.uses += 1
            return enter(*args)

        monkeypatch.setattr(Bucket, "enter", count)
        return bucket

    def test_a_busy_process_seldom_looks_at_what_is_shared(self, clock: Clock, bucket: SharedBucket) -> None:
        pacer, limiter = Pacer(None, bucket, clock, clock.sleep), Limiter()
        run(pacer, clock, 1, limiter)
        clock.now += 1
        self.uses = 0
        run(pacer, clock, 150, limiter)
        assert self.uses < 15
        assert limiter.refused == 0

    def test_one_that_is_not_takes_nothing_ahead(self, clock: Clock, bucket: SharedBucket) -> None:
        pacer = Pacer(None, bucket, clock, clock.sleep)
        run(pacer, clock, 1)
        clock.now += 1
        with bucket as state:
            before = state.tail
        run(pacer, clock, 20, each_takes=0.03)
        with bucket as state:
            assert state.tail - before == 20

    def test_it_ends_with_a_refusal(self, clock: Clock, bucket: SharedBucket) -> None:
        pacer = Pacer(None, bucket, clock, clock.sleep)
        run(pacer, clock, 1)
        clock.now += 1
        run(pacer, clock, 15)
        with pacer.slot(Deadline(1, clock)) as slot:
            slot.answered(429, DCACHE)
        self.uses = 0
        run(pacer, clock, 1)
        assert self.uses > 0


class TestOthers:
    """Servers that say nothing of a limit."""

    def test_a_free_server_is_not_held_back(self, clock: Clock) -> None:
        pacer = Pacer(None, None, clock, clock.sleep)
        starts = run(pacer, clock, 5000, headers=NGINX, each_takes=0.0001)
        assert starts[-1] - starts[0] == pytest.approx(0.4999)
        clock.now += 60  # who was free before is not looked at again
        starts = run(pacer, clock, 5000, headers=NGINX, each_takes=0.0001)
        assert starts[-1] - starts[0] == pytest.approx(0.4999)

    @pytest.mark.parametrize("server", ["dCache/11.1.10", "dCache/9.2.30", "XrootD/v6.2.1", ""])
    def test_who_does_not_limit(self, clock: Clock, server: str) -> None:
        headers = {"Server": server} if server else {}
        starts = run(Pacer(None, None, clock, clock.sleep), clock, 5000, headers=headers, each_takes=0.0)
        assert starts[-1] == starts[0]

    @pytest.mark.parametrize("status", [429, 503])
    def test_pacing_begins_with_a_refusal_and_ends(self, clock: Clock, status: int) -> None:
        pacer = Pacer(None, None, clock, clock.sleep)
        run(pacer, clock, 10, headers=NGINX)
        with pacer.slot(Deadline(1, clock)) as slot:
            slot.answered(status, NGINX)
        starts = run(pacer, clock, 200, headers=NGINX, each_takes=0.0)
        assert 0.9 < starts[-1] - starts[0] < 1.3
        clock.now += 8
        run(pacer, clock, 1, headers=NGINX)
        for _ in range(6):
            clock.now += 8
            run(pacer, clock, 1, headers=NGINX)
        starts = run(pacer, clock, 5000, headers=NGINX, each_takes=0.0)
        assert starts[-1] == starts[0]

    def test_a_server_that_turns_out_to_limit(self, clock: Clock) -> None:
        """It was upgraded, or its answers came through a proxy so far."""
        pacer = Pacer(None, None, clock, clock.sleep)
        run(pacer, clock, 10, headers=NGINX)
        with pacer.slot(Deadline(1, clock)) as slot:
            slot.answered(429, DCACHE)
        starts = run(pacer, clock, 200, each_takes=0.0)
        assert starts[-1] - starts[0] > 0.8


class TestConfigured:
    """``requests_per_second`` as somebody wants it."""

    def test_the_ceiling_holds_for_any_server(self, clock: Clock) -> None:
        starts = run(Pacer(50, None, clock, clock.sleep), clock, 501, headers=NGINX, each_takes=0.0)
        assert starts[-1] - starts[0] == pytest.approx(10.0, rel=0.01)

    def test_a_ceiling_above(self, clock: Clock) -> None:
        starts = run(Pacer(480, None, clock, clock.sleep), clock, 4801, headers=DCACHE, each_takes=0.0)
        assert starts[-1] - starts[0] == pytest.approx(10.0, rel=0.01)

    def test_less_than_one_in_the_time_of_a_silence(self, clock: Clock) -> None:
        starts = run(Pacer(0.05, None, clock, clock.sleep), clock, 4)
        assert [b - a for a, b in itertools.pairwise(starts)] == pytest.approx([20.0] * 3, abs=0.1)

    def test_others_with_another_ceiling_share_what_there_is(self, clock: Clock) -> None:
        """A request of whoever has a low ceiling costs more, so that theirs and all together are kept."""
        bucket, limiter = SharedBucket(), Limiter()
        slow, usual = Pacer(60, bucket, clock, clock.sleep), Pacer(None, bucket, clock, clock.sleep)
        run(usual, clock, 1, limiter)
        began = clock.now
        for _ in range(200):
            run(slow, clock, 1, limiter)
            run(usual, clock, 1, limiter)
        assert clock.now - began == pytest.approx(200 * (1 / 60 + 1 / 248), rel=0.02)
        assert limiter.refused == 0

    def test_switched_off(self, clock: Clock) -> None:
        pacer = Pacer(0, None, clock, clock.sleep)
        with pacer.slot(Deadline(1, clock)) as slot:
            slot.answered(429, DCACHE)
        starts = run(pacer, clock, 1000, each_takes=0.0)
        assert starts[-1] == starts[0]
        assert "switched off" in pacer.describe()


class TestPlaces:
    """Who goes when several wait."""

    def warm(self) -> Bucket:
        bucket, first = Bucket(), Turn()
        assert bucket.enter(first, 1000.0) == 0
        bucket.answered(first, 1000.001, Kind.LIMITED, False)
        return bucket

    def departures(self, bucket: Bucket, turns: list[Turn], now: float, until: float) -> list[Turn]:
        gone: list[Turn] = []
        left = list(turns)
        while left and now < until:
            for turn in list(left):
                if bucket.enter(turn, now) <= 0:
                    gone.append(turn)
                    left.remove(turn)
            now += 0.0005
        return gone

    def test_first_come_first_served(self) -> None:
        bucket = self.warm()
        turns = [Turn() for _ in range(100)]
        for turn in turns:
            bucket.enter(turn, 1000.002)
        assert self.departures(bucket, turns[::-1], 1000.002, 1002) == turns

    def test_what_publishes_goes_first(self) -> None:
        bucket = self.warm()
        reads = [Turn() for _ in range(100)]
        for turn in reads:
            bucket.enter(turn, 1000.01)
        moves = [Turn(urgent=True) for _ in range(5)]
        gone = self.departures(bucket, reads + moves, 1000.1, 1002)
        assert gone.index(moves[-1]) < 30
        assert [turn for turn in gone if not turn.urgent] == reads

    def test_who_cannot_wait_takes_no_place(self) -> None:
        bucket = self.warm()
        for _ in range(100):
            bucket.enter(Turn(), 1000.01)
        tail = bucket.tail
        for turn in (Turn(), Turn(urgent=True)):
            assert bucket.enter(turn, 1000.01, 0.001) > 0.001
        assert bucket.tail == tail
        assert bucket.urgent_at < 1000

    def test_waiting_ends_with_the_deadline(self, clock: Clock) -> None:
        pacer = Pacer(0.1, None, clock, clock.sleep)
        run(pacer, clock, 2)
        now = clock.now
        with pytest.raises(DeadlineError, match=r"pacing: at most 0\.1 requests per second"):
            pacer.slot(Deadline(3, clock))
        assert clock.now - now <= 3

    def test_threads(self) -> None:
        pacer = Pacer()
        entered = threading.Event()

        def second() -> None:
            with pacer.slot(Deadline(10)):
                entered.set()

        with pacer.slot(Deadline(10)) as slot:
            thread = threading.Thread(target=second)
            thread.start()
            assert not entered.wait(0.05)
            slot.answered(200, DCACHE)
            assert entered.wait(5)
        thread.join()


class Crowd(RuleBasedStateMachine):
    """Any number of processes; requests arrive late, answers come later still; pauses and deaths."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.bucket = Bucket()
        self.limiter = Limiter()
        self.waiting: list[tuple[float, int, Turn]] = []  # when each asks next
        self.under_way: list[tuple[float, int, bool, Turn]] = []  # arrivals and answers
        self.numbers = itertools.count()
        self.slowest = 0.0
        self.ahead = 0

    def live(self, seconds: float, draw: Callable[[], float]) -> None:
        """Let time pass, and all happen that happens in it, in its order."""
        end = self.now + seconds
        while True:
            queue: list[Any] = [one[0] for one in (*self.waiting[:1], *self.under_way[:1])]
            if not queue or min(queue) > end:
                break
            self.now = max(self.now, min(queue))
            if self.under_way and self.under_way[0][0] <= self.now:
                _, _, has_arrived, turn = heapq.heappop(self.under_way)
                if has_arrived:
                    self.bucket.answered(turn, self.now, Kind.LIMITED, False)
                else:
                    self.limiter.request(self.now)
                    self.later(self.under_way, self.slowest * draw(), True, turn)
                continue
            turn = heapq.heappop(self.waiting)[-1]
            wait = self.bucket.enter(turn, self.now)
            if wait > 0:
                self.later(self.waiting, wait + 0.002 * draw(), turn)  # who sleeps wakes late
            else:
                self.later(self.under_way, self.slowest * draw(), False, turn)
                more = 0 if turn.is_first else self.bucket.take_more(turn.cost, self.ahead)
                for _ in range(more):
                    self.later(self.under_way, (self.slowest + 0.02) * draw(), False, Turn(turn.cost))
        self.now = end

    def later(self, queue: list[Any], seconds: float, *what: object) -> None:
        heapq.heappush(queue, (self.now + seconds, next(self.numbers), *what))

    @rule(
        count=st.sampled_from([1, 2, 10, 64, 300]),
        urgent=st.booleans(),
        cost=st.sampled_from([1.0, 1.0, 4.8]),
        slowest=st.sampled_from([0.0, 0.0005, 0.02, 0.17]),
        ahead=st.sampled_from([0, 1, 16]),
        seconds=st.floats(0, 3),
        seed=st.integers(0, 1000),
    )
    def come(
        self, count: int, urgent: bool, cost: float, slowest: float, ahead: int, seconds: float, seed: int
    ) -> None:
        self.slowest, self.ahead = slowest, ahead
        for _ in range(count):
            self.later(self.waiting, 0.0, Turn(cost, urgent))
        self.live(seconds, random.Random(seed).random)

    @rule(seconds=st.sampled_from([0.0041, 0.5, 2.0, 8.5, 9.5, 11.0, 30.0]), seed=st.integers(0, 1000))
    def pause(self, seconds: float, seed: int) -> None:
        self.live(seconds, random.Random(seed).random)

    @rule(seconds=st.floats(0.1, 20.0))
    def stand_still(self, seconds: float) -> None:
        """The whole host, while what is under way goes on."""
        waiting, self.waiting = self.waiting, []
        self.live(seconds, lambda: 0.5)
        self.waiting = waiting

    @precondition(lambda self: self.waiting)
    @rule()
    def die(self) -> None:
        self.waiting = self.waiting[::2]
        heapq.heapify(self.waiting)

    @invariant()
    def nothing_is_refused(self) -> None:
        assert self.limiter.refused == 0

    def teardown(self) -> None:
        """Whoever is left gets its turn, in the time that it needs at most."""
        places = sum(turn.cost for *_, turn in self.waiting)
        lost = max(0.0, self.bucket.tail - self.bucket.credit)  # places of the dead, and of the urgent
        self.slowest = 0.01
        self.live(2.0 + (places + lost) / 248, lambda: 0.5)
        assert not self.waiting
        assert self.limiter.refused == 0


TestCrowd = Crowd.TestCase
TestCrowd.settings = hypothesis_settings(max_examples=40, stateful_step_count=12, deadline=None)


def test_one_pacer_per_server() -> None:
    one = EndpointSettings("https://pacing.example.org:1/")
    assert pacer_for(one) is pacer_for(EndpointSettings("https://pacing.example.org:1/", retries=9))
    assert pacer_for(one) is not pacer_for(EndpointSettings("https://pacing.example.org:2/"))
    assert pacer_for(one) is not pacer_for(one, "https://pacing.example.org:3880/")


def test_the_state_of_a_server_does_not_depend_on_settings() -> None:
    slow = pacer_for(EndpointSettings("https://pacing.example.org:4/", requests_per_second=5))
    usual = pacer_for(EndpointSettings("https://pacing.example.org:4/"))
    assert slow is not usual
    with slow.slot(Deadline(10)) as slot:
        slot.answered(200, DCACHE)
    # Five in a second share a bucket with us, and have just had one of them.
    with pytest.raises(DeadlineError, match="pacing"):
        list(itertools.starmap(usual.slot, [(Deadline(0.002),)] * 20))
