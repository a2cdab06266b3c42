"""What is measured next: rows in turn, until their figures are sharp enough or the time is spent.

First each row once, in the order of their priority; what the time does not reach is left out and named. Then
each once more for the clients of this package, with all their requests recorded. Then again and again, always
the row with the fewest repetitions, as long as one of its intervals is wider than it should be and a
repetition still fits into the time.
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
    """

    result: Result
    peers: list[str] = field(default_factory=list)
    repetitions: int = 0
    seconds: float = 0.0
    is_observed: bool = False


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
        for entry in self.entries:
            if not entry.repetitions and entry.peers:
                return Turn(entry, tuple(entry.peers), observe=False)
        fitting = [entry for entry in self.entries if entry.peers and entry.seconds <= seconds_left]
        for entry in fitting:
            own = tuple(peer for peer in entry.peers if peer in OURS)
            if own and not entry.is_observed:
                return Turn(entry, own, observe=True)
        wanted = [entry for entry in fitting if self._is_wanted(entry)]
        if not wanted:
            return None
        entry = min(wanted, key=lambda entry: entry.repetitions)
        return Turn(entry, tuple(entry.peers), observe=False)

    def _is_wanted(self, entry: Entry) -> bool:
        if self._repetitions is not None:
            return entry.repetitions < self._repetitions
        return entry.repetitions < _MOST_REPETITIONS and not entry.result.precision() <= PRECISION
