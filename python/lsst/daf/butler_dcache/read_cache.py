"""Pieces of a file that have been read, within a bound of memory."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict

__all__ = ("ReadCache",)


class ReadCache:
    """Pieces of one file that do not overlap; the one used longest ago goes first.

    Parameters
    ----------
    most_bytes : `int`
        Memory for all pieces. A single one that is larger is kept alone.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._pieces: OrderedDict[int, memoryview] = OrderedDict()
        self._starts: list[int] = []
        self._bytes = 0

    def find(self, position: int) -> memoryview:
        """Return the bytes from a position to the end of their piece; none if they are not here.

        Parameters
        ----------
        position : `int`
            Offset in the file.
        """
        at = bisect_right(self._starts, position) - 1
        if at < 0:
            return memoryview(b"")
        start = self._starts[at]
        self._pieces.move_to_end(start)
        return self._pieces[start][position - start :]

    def next_start(self, position: int) -> int | None:
        """Return where the next piece behind a position begins, if there is one.

        Parameters
        ----------
        position : `int`
            Offset in the file.
        """
        at = bisect_right(self._starts, position)
        return self._starts[at] if at < len(self._starts) else None

    def put(self, start: int, data: bytes) -> None:
        """Keep a piece; what overlaps it must not be here, except behind its beginning.

        Parameters
        ----------
        start : `int`
            Offset in the file.
        data : `bytes`
            The bytes.
        """
        end = start + len(data)
        while (other := self.next_start(start - 1)) is not None and other < end:
            self._drop(other)
        if not data:
            return
        while self._pieces and self._bytes + len(data) > self._most:
            self._drop(next(iter(self._pieces)))
        insort(self._starts, start)
        self._pieces[start] = memoryview(data)
        self._bytes += len(data)

    def clear(self) -> None:
        """Forget all pieces."""
        self._pieces.clear()
        self._starts.clear()
        self._bytes = 0

    def _drop(self, start: int) -> None:
        self._bytes -= len(self._pieces.pop(start))
        del self._starts[bisect_right(self._starts, start) - 1]
