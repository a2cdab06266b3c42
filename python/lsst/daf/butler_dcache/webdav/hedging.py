"""A second request for first bytes that are late, and whichever answers first is taken.

Off by default. What is late is what 95 of the last 100 reads were not. The second way to the bytes begins at
the door, like the first, and has its own URL at a pool: a URL that two parties use is ended by either
(protocol page, section 2.5). The connection of whichever loses is closed, which gives its mover back; if it
has not come as far as that, it is closed as soon as it has. Not more than one read in twenty is asked for
twice, and the records of exchanges say which requests these were.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ..errors import DcacheError, NearlineError
from ..transport.answer import DataAnswer
from ..transport.connection import Connection
from ..transport.exchange import hedging

__all__ = ("Begun", "Hedger", "Lane")

_SHARE = 0.05
_QUANTILE = 0.95
_FEWEST = 40
_SAMPLES = 200


class Begun(NamedTuple):
    """How a read began.

    Parameters
    ----------
    answer : `DataAnswer` or `None`
        The answer, its body unread.
    at_pool : `bool`
        Whether a pool gave it.
    error : `DcacheError` or `None`
        Why the pool did not answer.
    """

    answer: DataAnswer | None
    at_pool: bool
    error: DcacheError | None = None


class Lane:
    """One of two ways to the same bytes."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.result: Begun | None = None
        self.error: BaseException | None = None
        self.is_over = False
        self.has_lost = False

    @property
    def decides(self) -> bool:
        """Whether it brings the bytes, or knows that neither will."""
        answer = None if self.result is None else self.result.answer
        return isinstance(self.error, NearlineError) or (answer is not None and answer.status in (200, 206))

    def lose(self) -> None:
        """Close it, or have it closed as soon as it has an answer.

        A URL that the door has given is used all the same: without, its mover would wait for 300 s.
        """
        self.has_lost = True
        if self.result is not None and self.result.answer is not None:
            self.result.answer.close(False)
        elif self.connection is not None:
            self.connection.interrupt()


class Hedger:
    """Decides when a read is asked for a second time, and lets the two race.

    Parameters
    ----------
    clock : `~collections.abc.Callable`, optional
        Monotonic time in seconds.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: deque[float] = deque(maxlen=_SAMPLES)
        self._reads = 0
        self._hedges = 0

    @property
    def patience(self) -> float:
        """How long first bytes may take in seconds; without end as long as too little is known."""
        known = sorted(self._seconds)
        return known[math.ceil(_QUANTILE * len(known)) - 1] if len(known) >= _FEWEST else math.inf

    @property
    def has_budget(self) -> bool:
        """Whether another one of twenty may be asked for twice."""
        return self._hedges + 1 <= _SHARE * self._reads

    def race(self, begin: Callable[[Lane], Begun]) -> Begun:
        """Begin a read, and if that is late begin it once more.

        Parameters
        ----------
        begin : `~collections.abc.Callable`
            Goes all the way to an answer with its first bytes.

        Returns
        -------
        begun : `Begun`
            The first that brings the bytes; if there is none, what the first way came to.

        Raises
        ------
        NearlineError
            Raised as soon as either way finds out that the file is on tape only.
        """
        self._reads += 1
        started = self._clock()
        change = threading.Condition()
        lanes = [Lane()]

        def go(lane: Lane) -> None:
            try:
                # No other thread waits for it: an error is told by whoever waits for the lane.
                with hedging() if lane is not lanes[0] else contextlib.nullcontext():
                    lane.result = begin(lane)
            except BaseException as error:
                lane.error = error
            with change:
                lane.is_over = True
                if lane.has_lost:
                    lane.lose()
                change.notify_all()

        def start() -> None:
            threading.Thread(target=go, args=(lanes[-1],), name="dcache-hedge", daemon=True).start()

        start()
        winner: Lane | None = None
        try:
            with change:
                patience = self.patience
                change.wait_for(lambda: lanes[0].is_over, None if patience == math.inf else patience)
                if not lanes[0].is_over and self.has_budget:
                    self._hedges += 1
                    lanes.append(Lane())
                    start()
                change.wait_for(
                    lambda: (
                        any(lane.decides for lane in lanes if lane.is_over)
                        or all(lane.is_over for lane in lanes)
                    )
                )
                winner = next((lane for lane in lanes if lane.is_over and lane.decides), lanes[0])
        finally:
            with change:
                for lane in lanes:
                    if lane is not winner:
                        lane.lose()
        if winner.error is not None:
            raise winner.error
        self._seconds.append(self._clock() - started)
        assert winner.result is not None, "it is over, and without an error"
        return winner.result
