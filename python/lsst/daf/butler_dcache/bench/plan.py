"""What is measured next: rows in turn, until their figures are sharp enough or the time is spent.

Each row, in the order of their priority, has its share of the time that is left: one repetition in any case,
one more for the clients of this package with all their requests recorded, and then again as long as one of
its intervals is wider than it should be. What rows leave of their shares is for those after them; what all
of them leave is for those whose intervals are still wide. What the time does not reach is left out and named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .peers.registry import OURS
from .result import Result

__all__ = ("PRECISION", "Entry", "Plan", "Turn")

PRECISION = 0.05
"""Half the width of an interval that is narrow enough."""
_MOST_REPETITIONS = 40


@dataclass
class Entry:
    """A row at a server, and how far it is.

    Parameters
    ----------
    result : `Result`
        What was measured.
    peers : `list` [`str`]
        Who takes part; one who fails does not any more.
    repetitions : `int`
        How many there were.
    seconds : `float`
        What the last one took.
    is_observed : `bool`
        Whether there was one with all requests recorded.
    revived : `set` [`str`]
        Peers whose process died and was started again.
    """

    result: Result
    peers: list[str] = field(default_factory=list)
    repetitions: int = 0
    seconds: float = 0.0
    is_observed: bool = False
    revived: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Turn:
    """One repetition of one row."""

    entry: Entry
    peers: tuple[str, ...]
    observe: bool


class Plan:
    """The order of repetitions at one server.

    Parameters
    ----------
    results : `~collections.abc.Sequence` [`Result`]
        The rows, most important first.
    repetitions : `int` or `None`
        How often each is measured; `None`: until it is known well enough.
    """

    def __init__(self, results: Sequence[Result], repetitions: int | None) -> None:
        self.entries = [Entry(result, list(result.row.peers)) for result in results]
        self._repetitions = repetitions
        self._current: Entry | None = None
        self._share_ends = 0.0
        """Seconds that are left when the present row has had its share."""

    def next(self, seconds_left: float) -> Turn | None:
        """Return what is to be done now.

        Parameters
        ----------
        seconds_left : `float`
            Of the time for this server.

        Returns
        -------
        turn : `Turn` or `None`
            `None` if all is known, or nothing fits any more.
        """
        if seconds_left <= 0:
            return None
        entry = self._current
        if entry is None or not self._goes_on(entry, seconds_left):
            waiting = [entry for entry in self.entries if entry.peers and not entry.repetitions]
            if not waiting:
                waiting = [entry for entry in self.entries if self._is_wanted(entry, seconds_left)]
                waiting.sort(key=lambda entry: entry.repetitions)
            if not waiting:
                return None
            entry = self._current = waiting[0]
            self._share_ends = seconds_left * (1 - 1 / len(waiting))
        own = tuple(peer for peer in entry.peers if peer in OURS)
        observe = bool(own and entry.repetitions and not entry.is_observed)
        return Turn(entry, own if observe else tuple(entry.peers), observe)

    def _goes_on(self, entry: Entry, seconds_left: float) -> bool:
        """Whether the present row has another turn."""
        if not entry.peers or entry.seconds > seconds_left:
            return False
        if not entry.is_observed and any(peer in OURS for peer in entry.peers):
            return True
        # At least half of another one lies within the share.
        has_share = self._repetitions is not None or seconds_left - entry.seconds / 2 >= self._share_ends
        return has_share and self._is_wanted(entry, seconds_left)

    def _is_wanted(self, entry: Entry, seconds_left: float) -> bool:
        if not entry.peers or entry.seconds > seconds_left:
            return False
        if self._repetitions is not None:
            return entry.repetitions < self._repetitions
        return entry.repetitions < _MOST_REPETITIONS and not entry.result.precision() <= PRECISION
