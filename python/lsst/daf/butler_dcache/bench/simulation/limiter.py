"""The rate limiter at a door (protocol page, section 1.2; dCache ``RateLimitedHandlerList.java``).

A bucket for the door and one for each client address, both of Guava's ``SmoothBursty`` kind: a request that
is let through delays the next one by a permit's time, and up to a second's worth of permits is kept. A
client's bucket starts empty and is thrown away after 10 s without use. The third 401 within pauses below 20 s
blocks a client for 10 s.
"""

from __future__ import annotations

__all__ = ("DoorLimiter",)

_FORGOTTEN_SECONDS = 10.0
_FAILURES_SECONDS = 20.0
_BLOCK_SECONDS = 10.0
_FAILURES = 3


class _Bucket:
    __slots__ = ("due", "kept", "made", "rate", "used")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.kept = 0.0
        self.due = self.used = self.made = now

    def take(self, now: float) -> bool:
        self.used = now
        if now < self.due:
            return False
        self.kept = min(self.rate, self.kept + (now - self.due) * self.rate)
        owed = max(0.0, 1.0 - self.kept)
        self.kept = max(0.0, self.kept - 1.0)
        self.due = now + owed / self.rate
        return True


class DoorLimiter:
    """Says whether a request is let through.

    Parameters
    ----------
    rate : `float`, optional
        Requests per second of the whole door.
    share : `float`, optional
        Fraction of that which one client address may use.
    """

    def __init__(self, rate: float = 1000.0, share: float = 0.25) -> None:
        self._share_rate = rate * share
        self._door = _Bucket(rate, 0.0)
        self._clients: dict[str, _Bucket] = {}
        self._refused: dict[str, tuple[int, float]] = {}
        self._blocked: dict[str, float] = {}

    def admits(self, client: str, now: float) -> bool:
        """Let a request through, or not.

        Parameters
        ----------
        client : `str`
            Address.
        now : `float`
            The time, in seconds.
        """
        if self._blocked and self.block_left(client, now) > 0:
            return False
        bucket = self._clients.get(client)
        if bucket is None or now - bucket.used > _FORGOTTEN_SECONDS:
            bucket = self._clients[client] = _Bucket(self._share_rate, now)
        return bucket.take(now) and self._door.take(now)

    def block_left(self, client: str, now: float) -> float:
        """Return for how many seconds a client is still blocked because of its 401s."""
        return max(0.0, self._blocked.get(client, 0.0) - now)

    def debt(self, client: str, now: float) -> float:
        """Return the seconds until the next request of a client would be let through."""
        bucket = self._clients.get(client)
        return 0.0 if bucket is None else max(0.0, bucket.due - now)

    def is_warm(self, client: str, now: float) -> bool:
        """Return whether a client has been at it for longer than a second, and is not blocked."""
        bucket = self._clients.get(client)
        return bucket is not None and now - bucket.made > 1.0 and self.block_left(client, now) <= 0

    def count_unauthorized(self, client: str, now: float) -> None:
        """Note a 401 that was sent to a client."""
        count, used = self._refused.get(client, (0, now))
        count = 1 if now - used > _FAILURES_SECONDS else count + 1
        if count >= _FAILURES:
            self._blocked[client] = now + _BLOCK_SECONDS
            count = 0
        self._refused[client] = (count, now)
