"""The rate limiter in front of door and frontend (protocol page, section 1.2; dCache
``RateLimitedHandlerList.java``).

Two things surprise its clients. The bucket of a new client starts *empty*, so the second request within 4 ms
of the very first gets 429; and three 401s within 20 s block the client for 10 s, correct requests included.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

__all__ = ["RateLimiter"]


class _Bucket:
    """Guava's ``SmoothBursty``: a permit taken now delays the next one; up to a second's worth is stored."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._stored = 0.0
        self.next = now
        self.used = self.made = now

    def take(self, now: float) -> bool:
        self.used = now
        if now > self.next:
            self._stored = min(self._rate, self._stored + (now - self.next) * self._rate)
            self.next = now
        if self.next > now:
            return False
        spent = min(1.0, self._stored)
        self._stored -= spent
        self.next += (1.0 - spent) / self._rate
        return True


class _Failures:
    def __init__(self, now: float) -> None:
        self.count = 0
        self.used = now
        self.blocked_until = 0.0


class RateLimiter:
    """Decides before anything else whether a client is served. Thread-safe.

    Parameters
    ----------
    rate : `float`
        Requests per second of the whole server.
    share : `float`
        Fraction of that which one client may use.
    time_scale : `float`
        Factor on the windows (10 s without use, 20 s for failures, 10 s of block), not on the rates.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        rate: float = 1000.0,
        share: float = 0.25,
        time_scale: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate, self._share, self._scale, self._clock = rate, share, time_scale, clock
        self._lock = threading.Lock()
        self._all = _Bucket(rate, clock())
        self._clients: dict[str, _Bucket] = {}
        self._failures: dict[str, _Failures] = {}

    def refusal(self, client: str) -> int | None:
        """Return `None` if a request is let through, else the seconds to name in ``Retry-After``."""
        now = self._clock()
        with self._lock:
            failures = self._failures.get(client)
            if failures is not None and failures.blocked_until > now:
                return int((failures.blocked_until - now) / self._scale)
            bucket = self._clients.get(client)
            if bucket is None or now - bucket.used > 10.0 * self._scale:
                bucket = self._clients[client] = _Bucket(self._rate * self._share, now)
            if bucket.take(now) and self._all.take(now):
                return None
            return random.randint(1, 9)

    def debt(self, client: str) -> float:
        """Return the seconds until the next request of a client would be let through; at most 4 ms."""
        with self._lock:
            bucket = self._clients.get(client)
            return 0.0 if bucket is None else max(0.0, bucket.next - self._clock())

    def is_warm(self, client: str) -> bool:
        """Return whether a client has been at it for longer than the second that fills its bucket."""
        with self._lock:
            bucket = self._clients.get(client)
            return bucket is not None and self._clock() - bucket.made > 1.0 and not self._is_blocked(client)

    def _is_blocked(self, client: str) -> bool:
        failures = self._failures.get(client)
        return failures is not None and failures.blocked_until > self._clock()

    def count_unauthorized(self, client: str) -> None:
        """Note a 401 that was sent to a client; the third in a row of pauses below 20 s blocks it."""
        now = self._clock()
        with self._lock:
            failures = self._failures.get(client)
            if failures is None or now - failures.used > 20.0 * self._scale:
                failures = self._failures[client] = _Failures(now)
            failures.used = now
            failures.count += 1
            if failures.count >= 3:
                failures.blocked_until = now + 10.0 * self._scale
                failures.count = 0
