"""What a server tells of a third-party copy while it runs (protocol page, section 5.3).

A marker is some lines from ``Perf Marker`` to ``End``, and comes every five seconds; the last line of the
body is the verdict. XRootD writes the same without a ``State``. That markers come does not mean that bytes
move: a copy that waits for a mover, or whose source has gone to sleep, sends them as well, and dCache 12.0.1
forever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..errors import OutcomeUnknownError, ProtocolError

__all__ = ("Marker", "Markers", "StandstillError", "Vigil")

_LONGEST_LINE = 64 * 1024
_WAIT_SECONDS = 180.0
"""Patience before the first byte and after the last: dCache itself gives up on a broken file after 110 s."""
_QUEUE_SECONDS = 540.0
"""Patience with a pool that has enough to do; shorter than the life of what the other side is shown."""


class StandstillError(OutcomeUnknownError):
    """The servers say that a copy is under way, and nothing moves."""


@dataclass(frozen=True)
class Marker:
    """How far a copy is.

    Parameters
    ----------
    state : `str`
        What dCache says that it does; empty from others.
    moved : `int` or `None`
        Bytes that have arrived; `None` as long as nobody moves any.
    """

    state: str
    moved: int | None


class Markers:
    """Reads a stream of markers, in whatever pieces it comes.

    Attributes
    ----------
    verdict : `str`
        The line that begins with ``success`` or ``failure``; empty as long as there is none.
    """

    def __init__(self) -> None:
        self.verdict = ""
        self._rest = b""
        self._state = ""
        self._stripe = ""
        self._stripes: dict[str, int] = {}

    def feed(self, piece: bytes) -> Iterator[Marker]:
        """Take what has come, and yield the markers that are complete.

        Parameters
        ----------
        piece : `bytes`
            The next bytes; none at the end of the stream, whose last line may lack its end.

        Yields
        ------
        marker : `Marker`
            One per block, in their order.

        Raises
        ------
        ProtocolError
            If a line does not end.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            raise ProtocolError("a marker of the third-party copy has no end", operation="copy")
        for line in [*lines, *([] if piece else [self._rest])]:
            text = line.decode(errors="replace").strip()
            if text.lower().startswith(("success", "failure")):
                self.verdict = text
            elif text == "Perf Marker":
                self._state, self._stripe = "", "0"
            elif text == "End":
                yield Marker(self._state, sum(self._stripes.values()) if self._stripes else None)
            else:
                self._take(*(part.strip() for part in text.partition(":")[::2]))

    def _take(self, name: str, value: str) -> None:
        if name == "State":
            self._state = value
        elif name == "Stripe Index":
            self._stripe = value
        elif name == "Stripe Bytes Transferred" and value.isascii() and value.isdecimal():
            self._stripes[self._stripe] = int(value)


class Vigil:
    """Watches a copy: tells how far it is, and sees when it stands still.

    Parameters
    ----------
    size : `int`
        Bytes that have to arrive.
    stall_seconds : `float` or `None`
        For how long no byte may arrive while they do; `None` lets it take its time.
    tell : `~collections.abc.Callable`, optional
        Is told how many bytes have arrived; what it raises ends the copy.
    clock : `~collections.abc.Callable`, optional
        Seconds that only grow; tests move it.
    """

    def __init__(
        self,
        size: int,
        stall_seconds: float | None,
        tell: Callable[[int], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.size = size
        self._stall_seconds = stall_seconds
        self._tell = tell
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Begin anew, as a copy that is tried again does."""
        self._last: Marker | None = None
        self._since = self._clock()

    def saw(self, marker: Marker) -> None:
        """Take note of a marker.

        Parameters
        ----------
        marker : `Marker`
            The next one.

        Raises
        ------
        StandstillError
            If all has been as it is for too long.
        """
        if self._tell is not None:
            self._tell(min(marker.moved or 0, self.size))  # what it raises cancels, so it is asked each time
        last, self._last = self._last, marker
        if last is None or last != marker:
            self._since = self._clock()
            return
        moves = marker.state in ("", "Running") and marker.moved is not None and marker.moved < self.size
        queues = marker.state == "Queued on pool"
        patience = self._stall_seconds if moves else _QUEUE_SECONDS if queues else _WAIT_SECONDS
        waited = self._clock() - self._since
        if patience is not None and waited > patience:
            what = f"{marker.moved} of {self.size} bytes" if moves else marker.state or "all bytes"
            raise StandstillError(
                f"the third-party copy has stood still for {waited:.0f} s ({what})", operation="copy"
            )

    def waits(self) -> None:
        """Say again how far it is, so that whoever is told can end a copy of which nothing is heard."""
        if self._tell is not None:
            self._tell(min((self._last and self._last.moved) or 0, self.size))

    def ends(self) -> None:
        """Say that everything has arrived."""
        if self._tell is not None:
            self._tell(self.size)
