"""What a file that is read here and there, or from its beginning to its end, fetches of it, and keeps.

A read here and there fetches what was asked for. Reads that follow one another fetch more and more ahead, and
in the end become one stream. Reads of one length at equal distances, as of the rows of a cutout, fetch the
next ones too: as many as there were before, by one request of several ranges.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from .errors import IntegrityError
from .model import Adler32, ByteRange
from .read_cache import ReadCache
from .store.protocol import RemoteReader

__all__ = ("LOOK_BYTES", "ReadAhead")

_TINY_BYTES = 512
LOOK_BYTES = 10_752
"""What a tiny read fetches: it looks at a structure, whose contents follow."""

_TAIL_BYTES = 1024
"""What is fetched of the end of a file when its size is asked for: the last words of zip and Parquet."""

_WHOLE_AFTER_BYTES = 64 * 1024
"""A file that is read in order from its first byte on so far is taken for one that is read to its end."""

_STREAM_WHOLE_AFTER_BYTES = 4 * 1024 * 1024
_STREAM_PART_AFTER_BYTES = 64 * 1024 * 1024
"""After so many bytes in order the rest of the file comes in one answer."""

_SKIP_BYTES = 1024 * 1024
"""A jump ahead in a stream that is cheaper than a new request."""

_CACHE_BYTES = 16 * 1024 * 1024

_SURE_STEPS = 2
_MOST_STEPS = 256
_STEPS_BYTES = 4 * 1024 * 1024
"""After so many equal steps the next ones are fetched: not more of them, and not more bytes."""


class ReadAhead:
    """The bytes of a file at any position, with as few requests as its reader's habits allow.

    Parameters
    ----------
    reader : `~lsst.daf.butler_dcache.store.protocol.RemoteReader`
        The open file; closed together with this object.
    name : `str`
        For messages.
    least_bytes : `int`
        Least number of bytes that a request for a tiny read asks for.
    sequential : `bool`
        Whether the file will be read from its beginning to its end.

    Notes
    -----
    What was fetched is kept within 16 MiB. A file that is read in order from its first byte to its last is
    verified by checksum. Not thread-safe.
    """

    def __init__(self, reader: RemoteReader, name: str, *, least_bytes: int, sequential: bool) -> None:
        self._reader = reader
        self._name = name
        self._least = least_bytes
        self._sequential = sequential
        self._cache = ReadCache(_CACHE_BYTES)
        self._run_start = self._run_end = 0  # bytes that were fetched in order
        self._in_order = Adler32()  # of the bytes from the first on
        self._stream: Iterator[bytes] | None = None
        self._stream_position = 0
        self._window = memoryview(b"")  # the last piece of the stream
        self._window_start = 0
        self._damage = ""  # why nothing of it is given any more
        # The last read and how it came about: of which length, at which distance from the one before, and how
        # many there were in a row that were so.
        self._last = self._last_end = self._length = self._step = self._steps = 0

    @property
    def size(self) -> int:
        """Size of the file in bytes; asked for with its last kilobyte if no answer has told it."""
        known = self._reader.known_size
        if known is None:
            start, data = self._reader.read_tail(_TAIL_BYTES)
            known = start + len(data)
            self._take(start, data)
        return known

    def close(self) -> None:
        """Forget everything and give the mover back."""
        self._drop_stream()
        self._cache.clear()
        self._reader.close()

    def at(self, position: int, wanted: int | None) -> memoryview:
        """Return bytes at a position, at least one unless the file ends; fetch some if there are none.

        Parameters
        ----------
        position : `int`
            Offset in the file.
        wanted : `int` or `None`
            How many would be useful; `None` is all that are left.
        """
        if self._damage:
            raise IntegrityError(self._damage, operation="read", url=self._name)
        if wanted is not None and position + wanted != self._last_end:  # else it is the rest of the last one
            self._note(position, wanted)
        if 0 <= position - self._window_start < len(self._window):
            return self._window[position - self._window_start :]
        found = self._cache.find(position)
        if found:
            return found
        known = self._reader.known_size
        if known is not None and position >= known:
            return memoryview(b"")
        return self._fetch(position, wanted)

    def _note(self, position: int, length: int) -> None:
        step = position - self._last
        same = step == self._step and length == self._length
        self._steps = self._steps + 1 if same else 1
        self._last, self._last_end, self._length, self._step = position, position + length, length, step

    def _next_steps(self) -> list[ByteRange]:
        """Return what will be read after the last read if it goes on so."""
        size, step, length = self._reader.known_size, self._step, self._length
        if self._steps < _SURE_STEPS or size is None or not 0 < length < abs(step):
            return []
        most = min(self._steps, _MOST_STEPS, _STEPS_BYTES // length)
        starts = (self._last + number * step for number in range(1, most + 1))
        return [
            ByteRange(start, min(start + length, size))
            for start in starts
            if 0 <= start < size and not self._cache.find(start)
        ]

    def _fetch(self, position: int, wanted: int | None) -> memoryview:
        """Return bytes from a position on, from the server; none if the file ends before."""
        if self._stream is not None and 0 <= position - self._stream_position <= _SKIP_BYTES:
            return self._advance_stream(position)
        self._drop_stream()
        ahead = self._ahead(position)
        if wanted is None or ahead is None:
            self._stream = iter(self._reader.stream(position))
            self._stream_position = position
            return self._advance_stream(position)
        steps = [] if ahead else self._next_steps()
        least = self._least if wanted < _TINY_BYTES and not steps else 0
        stop = position + max(wanted, least, ahead)
        behind = self._cache.next_start(position)
        if behind is not None:
            stop = min(stop, behind)
        data, *more = self._reader.read_ranges([ByteRange(position, stop), *steps])
        if position != self._run_end:
            self._run_start = position
        self._run_end = position + len(data)
        self._take(position, data)
        for one, piece in zip(steps, more, strict=True):
            self._take(one.start, piece)
        return memoryview(data)

    def _ahead(self, position: int) -> int | None:
        """Return how many bytes are worth fetching because of what was read in order; `None` is all."""
        if position != self._run_end:
            return 0
        run = self._run_end - self._run_start
        if self._run_start:
            # Within a file, as for the tiles of a cutout, at most a fifth is fetched in vain.
            return run // 5 if run < _STREAM_PART_AFTER_BYTES else None
        if run >= _STREAM_WHOLE_AFTER_BYTES or self._sequential:
            return None
        return 2 * run if run >= _WHOLE_AFTER_BYTES else run // 2

    def _take(self, start: int, data: bytes) -> None:
        """Keep what was fetched, and verify the file if all of it has come by in order."""
        self._cache.put(start, data)
        if start == self._in_order.size:
            self._in_order.update(data)
            if data and self._in_order.size == self._reader.known_size:
                self._verify()

    def _advance_stream(self, position: int) -> memoryview:
        stream, self._stream = self._stream, None
        assert stream is not None
        for chunk in stream:
            start = self._stream_position
            self._stream_position += len(chunk)
            self._run_end = self._stream_position
            if start == self._in_order.size and start > 0:  # one from 0 on is verified by the reader
                self._in_order.update(chunk)
            if self._stream_position > position:
                self._window, self._window_start = memoryview(chunk), start
                self._stream = stream  # one that raised gives nothing any more
                if self._stream_position >= self.size:
                    # Only behind its last chunk does a stream compare checksums.
                    self._exhaust_stream()
                return self._window[position - start :]
        if position < self.size:
            raise IntegrityError(
                f"it ended before its size of {self.size} bytes", operation="read", url=self._name
            )
        return memoryview(b"")

    def _verify(self) -> None:
        expected = self._reader.info.checksums.get("adler32")
        if expected is not None and self._in_order.hexdigest() != expected:
            # Whoever tries again must not get the rest of what has been found wrong.
            self._damage = (
                f"the bytes that arrived have adler32 {self._in_order.hexdigest()}, the file has {expected}"
            )
            raise IntegrityError(self._damage, operation="read", url=self._name)

    def _exhaust_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                for _ in stream:
                    pass
            except IntegrityError as error:
                self._damage = error.message
                raise
            if self._in_order.size == self.size:
                self._verify()

    def _drop_stream(self) -> None:
        self._window = memoryview(b"")
        stream, self._stream = self._stream, None
        if isinstance(stream, Generator):
            stream.close()
