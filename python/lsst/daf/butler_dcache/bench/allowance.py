"""How much a real server is asked for at most."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from .work import Work

__all__ = ("Allowance", "Guard", "GuardError")

_REQUESTS = {"get": 2, "put": 3, "write_sequential": 3, "look": 1, "remove": 2, "rename": 2, "presign": 0}
"""How many requests to the door an operation may cost a client."""
_READ_AHEAD_BYTES = 1024 * 1024
"""How much the least thrifty client asks for at a time, when it reads a part of a file."""


class GuardError(Exception):
    """More was wanted of a real server than its guard lets through; the text says what."""


@dataclass(frozen=True)
class Guard:
    """How much a real server is asked for at most.

    Parameters
    ----------
    max_bytes : `int`
        Bytes that go to it or come from it, in the whole run.
    max_requests : `int`
        Requests to the door, in the whole run; how many a client needs is estimated beforehand, rather too
        many.
    max_rate : `float`
        Requests to the door per second, of all clients together. The default is a little less than what
        dCache lets one host send (protocol page, section 1.2).
    """

    max_bytes: int = 50 * 1024**3
    max_requests: int = 100_000
    max_rate: float = 200.0


class Allowance:
    """What is left of what a guard lets through. Thread-safe.

    Parameters
    ----------
    guard : `Guard`
        How much that is.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._lock = threading.Lock()
        self._bytes = self._requests = 0
        self._next = 0.0

    def refusal(self, work: Work) -> str:
        """Return why a client may not do this now; empty if it may, and then it counts as done.

        Parameters
        ----------
        work : `~.work.Work`
            What it is to do.
        """
        if work.rate > self.rate_limit(work):
            return (
                f"{work.rate:g} operations a second are more than the guard lets through "
                f"({self._guard.max_rate:g} requests a second)"
            )
        try:
            self.spend(work.total_bytes, _requests(work))
        except GuardError as error:
            return str(error)
        return ""

    def rate_limit(self, work: Work) -> float:
        """Return how many operations a second all clients together may begin.

        Parameters
        ----------
        work : `~.work.Work`
            What they do.
        """
        return self._guard.max_rate / max(1.0, _requests(work) / (work.count * work.processes))

    def spend(self, byte_count: int, request_count: int) -> None:
        """Count what will be asked for.

        Parameters
        ----------
        byte_count, request_count : `int`
            How much.

        Raises
        ------
        GuardError
            If it is more than is left.
        """
        with self._lock:
            if self._bytes + byte_count > self._guard.max_bytes:
                raise GuardError(
                    f"{byte_count} bytes after {self._bytes} are more than the guard lets through "
                    f"({self._guard.max_bytes} bytes in all)"
                )
            if self._requests + request_count > self._guard.max_requests:
                raise GuardError(
                    f"{request_count} requests after {self._requests} are more than the guard lets through "
                    f"({self._guard.max_requests} requests in all)"
                )
            self._bytes += byte_count
            self._requests += request_count

    def look_after(self, count: int) -> None:
        """Count requests that must be, such as those that clean up, and wait until they may be sent.

        Parameters
        ----------
        count : `int`
            How many.
        """
        with self._lock:
            self._requests += count
        self.pace(count)

    def pace(self, count: int) -> None:
        """Wait until so many requests of our own may be sent.

        Parameters
        ----------
        count : `int`
            How many.
        """
        with self._lock:
            begin = max(time.monotonic(), self._next)
            self._next = begin + count / self._guard.max_rate
        time.sleep(max(0.0, begin - time.monotonic()))


def _requests(work: Work) -> int:
    """How many requests to the door a client may need, rather too many."""
    each = _REQUESTS.get(work.operation, 1)
    match work.operation:
        case "mix":
            each = sum(_REQUESTS.get(step.operation, 1) * step.count for step in work.steps)
        case "exists_many" | "delete":
            each = 2 * work.batch
        case "walk":
            each = 2 * (work.directory_count + work.batch // 100) + 1
        case "read_vector" | "read_scattered" | "read_random":
            each = 2 + work.batch
        case "header" | "hdu" | "cutout" | "column" | "column_by_name" | "member" | "read_sequential":
            each = 4 + work.operation_bytes // _READ_AHEAD_BYTES
    return each * work.count * work.processes
