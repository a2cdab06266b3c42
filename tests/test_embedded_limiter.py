"""Who the embedded limiter refuses at once, and whom a door would only be late for."""

from __future__ import annotations

import pytest
from lsst.daf.butler_dcache.embedded.limiter import RateLimiter


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_new_client_is_cold(clock: Clock) -> None:
    limiter = RateLimiter(clock=clock)
    assert not limiter.is_warm("c")
    assert limiter.refusal("c") is None
    assert limiter.refusal("c") is not None
    assert not limiter.is_warm("c")


def test_a_client_is_warm_after_a_second(clock: Clock) -> None:
    limiter = RateLimiter(clock=clock)
    limiter.refusal("c")
    clock.now += 1.1
    assert limiter.is_warm("c")
    assert not limiter.is_warm("another")


def test_a_blocked_client_is_not_warm(clock: Clock) -> None:
    """What waits a little for its permit must not wait for the end of a block."""
    limiter = RateLimiter(clock=clock)
    limiter.refusal("c")
    clock.now += 1.1
    for _ in range(3):
        limiter.count_unauthorized("c")
    assert not limiter.is_warm("c")
    clock.now += 10.1
    assert limiter.is_warm("c")


def test_silence_makes_a_client_cold(clock: Clock) -> None:
    limiter = RateLimiter(clock=clock)
    limiter.refusal("c")
    clock.now += 10.1
    assert limiter.refusal("c") is None
    assert not limiter.is_warm("c")
