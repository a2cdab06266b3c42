"""What a request has to wait for: processors, slots, and a share of a network link."""

from __future__ import annotations

import heapq
import importlib
import itertools
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import simpy

__all__ = ("Link", "MissingSimpyError", "Processor", "Slots", "new_environment")


class MissingSimpyError(RuntimeError):
    """The library for discrete-event simulation is not installed."""


def new_environment() -> simpy.Environment:
    """Return a clock at zero with an empty list of events.

    Raises
    ------
    MissingSimpyError
        If simpy is not installed.
    """
    try:
        module = importlib.import_module("simpy")
    except ImportError as error:
        raise MissingSimpyError(
            "bench simulate needs simpy: pip install 'lsst-daf-butler-dcache[bench]'"
        ) from error
    environment: simpy.Environment = module.Environment()
    return environment


class Processor:
    """Equal servers that take work in the order of its arrival.

    Parameters
    ----------
    count : `int`
        How many pieces of work are done at the same time.

    Notes
    -----
    Since work is never given back, its end is known when it arrives, and no event is needed for its turn.
    """

    __slots__ = ("_free", "_taken", "count")

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = [0.0] * count
        self._taken = 0.0

    def finish(self, now: float, seconds: float) -> float:
        """Take work and return when it will be done.

        Parameters
        ----------
        now : `float`
            The time; never earlier than that of the last call.
        seconds : `float`
            How long it keeps one server busy.
        """
        end = max(now, self._free[0]) + seconds
        heapq.heapreplace(self._free, end)
        self._taken += seconds
        return end

    def left(self, now: float) -> float:
        """Return the seconds of work that are still to be done, over all servers."""
        return sum(free - now for free in self._free if free > now)

    def done(self, now: float) -> float:
        """Return the seconds of work that have been done since the beginning, over all servers."""
        return self._taken - self.left(now)

    def forget(self, now: float) -> None:
        """Drop all work."""
        self._taken -= self.left(now)
        self._free = [now] * self.count


class Slots:
    """A number of places, given in the order of asking.

    Parameters
    ----------
    environment : `simpy.Environment`
        The clock.
    count : `int`
        How many places there are.
    queue : `float`, optional
        How many may wait for one.

    Attributes
    ----------
    used : `int`
        Places in use.
    """

    def __init__(self, environment: simpy.Environment, count: int, queue: float = float("inf")) -> None:
        self._environment = environment
        self.count = count
        self._queue = queue
        self._waiting: deque[simpy.Event] = deque()
        self.used = 0
        self._used_seconds = 0.0
        self._at = 0.0

    def _note(self) -> None:
        now = self._environment.now
        self._used_seconds += self.used * (now - self._at)
        self._at = now

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    @property
    def used_seconds(self) -> float:
        """Integral over the places in use since the beginning."""
        self._note()
        return self._used_seconds

    def take(self) -> simpy.Event | None:
        """Take a place; return `None` if there was one, else the event that somebody gives one up.

        Raises
        ------
        OverflowError
            If too many wait already.
        """
        if self.used < self.count:
            self._note()
            self.used += 1
            return None
        if len(self._waiting) >= self._queue:
            raise OverflowError("the queue is full")
        event = self._environment.event()
        self._waiting.append(event)
        return event

    def give_up(self, event: simpy.Event) -> bool:
        """Stop waiting; return whether there was still no place (else it has to be freed)."""
        try:
            self._waiting.remove(event)
        except ValueError:
            return False
        return True

    def free(self) -> None:
        """Give a place to whoever has waited longest."""
        if self._waiting:
            self._waiting.popleft().succeed()
        else:
            self._note()
            self.used -= 1


class Link:
    """A network link that all transfers share equally.

    Parameters
    ----------
    environment : `simpy.Environment`
        The clock.
    bytes_per_second : `float`
        What it carries.

    Notes
    -----
    Everybody gets the same share, so the order in which transfers end is that of the bytes which each still
    had to come when it began, counted in bytes that one transfer has got since the beginning of time
    ("virtual time"). A transfer costs a step in a heap, however many there are.
    """

    def __init__(self, environment: simpy.Environment, bytes_per_second: float) -> None:
        self._environment = environment
        self._rate = bytes_per_second
        self._flows: list[tuple[float, int, simpy.Event]] = []
        self._numbers = itertools.count()
        self._virtual = 0.0
        self._at = 0.0
        self._wake_at = float("inf")
        self._carried = 0.0

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self._rate

    def send(self, size: float) -> simpy.Event:
        """Begin a transfer and return the event of its end: its value is whether everything came.

        Parameters
        ----------
        size : `float`
            Bytes.
        """
        self._advance()
        event = self._environment.event()
        heapq.heappush(self._flows, (self._virtual + size, next(self._numbers), event))
        self._plan()
        return event

    def set_rate(self, bytes_per_second: float) -> None:
        """Carry another number of bytes per second from now on."""
        self._advance()
        self._rate = bytes_per_second
        self._plan()

    def drop(self) -> None:
        """Cut off all transfers."""
        self._advance()
        flows, self._flows = self._flows, []
        for _, _, event in flows:
            event.succeed(False)

    @property
    def carried(self) -> float:
        """Bytes since the beginning."""
        self._advance()
        return self._carried

    def _advance(self) -> None:
        now = self._environment.now
        if self._flows and now > self._at:
            self._virtual += (now - self._at) * self._rate / len(self._flows)
            self._carried += (now - self._at) * self._rate
        self._at = now

    def _plan(self) -> None:
        """Wake up when the next transfer ends, unless that is planned; later ones plan when they wake."""
        if not self._flows:
            return
        left = (self._flows[0][0] - self._virtual) * len(self._flows) / self._rate
        due = self._environment.now + max(0.0, left)
        if due < self._wake_at:
            self._wake_at = due
            timeout = self._environment.timeout(due - self._environment.now)
            assert timeout.callbacks is not None
            timeout.callbacks.append(self._wake)

    def _wake(self, _: simpy.Event) -> None:
        if self._environment.now < self._wake_at:
            return  # planned before an earlier one was
        self._wake_at = float("inf")
        self._advance()
        # What is missing may be less than a clock of 1e-15 relative steps can tell.
        enough = self._virtual + 1e-6 * max(1.0, self._virtual * 1e-6)
        while self._flows and self._flows[0][0] <= enough:
            heapq.heappop(self._flows)[2].succeed(True)
        self._plan()
