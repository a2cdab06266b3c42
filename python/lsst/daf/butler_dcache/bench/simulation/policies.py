"""What a client does when a request fails, and how it paces itself.

Ours is not described here but used: `~...transport.retry` says what is repeated after which wait, and
`~...transport.bucket` who of a host may send when, with the simulation's clock and random numbers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

from ...transport.retry import Action, Phase, Rule, rule_for

__all__ = ("POLICIES", "Attempts", "Policy")

_UPSTREAM_REPEATS = 3
_UPSTREAM_STATUS = frozenset({429, 500, 502, 503, 504})
_UPSTREAM_NEVER = frozenset({"MOVE", "POST"})
_UPSTREAM_LONGEST_SECONDS = 120.0


class Attempts(Protocol):
    """Counts the failures of one request."""

    def wait(self, phase: Phase, status: int | None, retry_after: float | None, now: float) -> float | None:
        """Return the seconds before the next attempt, or `None` if there is none.

        Parameters
        ----------
        phase : `~...transport.retry.Phase`
            How far the request came.
        status : `int` or `None`
            Status of the answer.
        retry_after : `float` or `None`
            Seconds that the answer asked for.
        now : `float`
            Time of the simulation in seconds.
        """
        ...


class _Never:
    def wait(self, phase: Phase, status: int | None, retry_after: float | None, now: float) -> float | None:
        return None


class _Ours:
    def __init__(self, method: str, draw: random.Random) -> None:
        self._method, self._draw = method, draw
        self._counts: dict[Rule, int] = {}
        self._first: dict[Rule, float] = {}

    def wait(self, phase: Phase, status: int | None, retry_after: float | None, now: float) -> float | None:
        if status == 500:  # without a text that says that it lasts (`~...transport.failures`)
            phase, status = Phase.FAILED, None
        rule = rule_for(phase, self._method, status)
        if rule is None or rule.action is not Action.RETRY:
            return None
        count = self._counts[rule] = self._counts.get(rule, 0) + 1
        if count >= rule.attempts:
            return None
        if retry_after is not None:
            return retry_after + self._draw.random() * 0.1
        wait = rule.backoff.delay(count, self._draw.random)
        return wait if now + wait - self._first.setdefault(rule, now) <= rule.seconds else None


class _Upstream:
    """urllib3's ``Retry`` as upstream sets it: 3 repetitions.

    The first is at once, the others after 2 and 4 times a factor of 1 to 3 s.
    """

    def __init__(self, method: str, draw: random.Random) -> None:
        self._is_repeated = method not in _UPSTREAM_NEVER
        self._factor = 1.0 + 2.0 * draw.random()
        self._count = 0

    def wait(self, phase: Phase, status: int | None, retry_after: float | None, now: float) -> float | None:
        # Without a connection nothing was sent, and urllib3 repeats whatever the method is.
        lasts = phase is Phase.ANSWERED and status not in _UPSTREAM_STATUS
        if phase is not Phase.NOT_SENT and (lasts or not self._is_repeated):
            return None
        self._count += 1
        if self._count > _UPSTREAM_REPEATS:
            return None
        if retry_after is not None:
            return retry_after
        if self._count == 1:
            return 0.0
        return min(_UPSTREAM_LONGEST_SECONDS, self._factor * 2.0 ** (self._count - 1))


@dataclass(frozen=True, slots=True)
class Policy:
    """How a client deals with failures.

    Parameters
    ----------
    name : `str`
        ``none``, ``upstream``, ``ours`` or ``ours-unpaced``.
    title : `str`
        For tables.
    is_paced : `bool`
        Whether the processes of a host share a bucket for each door.
    looks_first : `bool`
        Whether what may have had an effect is looked at and repeated, whole operations included.
    """

    name: str
    title: str
    is_paced: bool
    looks_first: bool

    def attempts(self, method: str, draw: random.Random) -> Attempts:
        """Return a counter for one request.

        Parameters
        ----------
        method : `str`
            HTTP method.
        draw : `random.Random`
            Random numbers.
        """
        if self.name == "none":
            return _Never()
        return _Upstream(method, draw) if self.name == "upstream" else _Ours(method, draw)


POLICIES = {
    policy.name: policy
    for policy in (
        Policy("none", "nothing is repeated", False, False),
        Policy("upstream", "upstream's repetitions, no pacing", False, False),
        Policy("ours-unpaced", "our repetitions, no pacing", False, True),
        Policy("ours", "our repetitions, a bucket per host", True, True),
    )
}
"""By name."""
