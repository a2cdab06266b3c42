"""A remote file that is read, in the form of Python's binary files."""

from __future__ import annotations

import io
import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from .errors import IntegrityError
from .model import Adler32, ByteRange, FileInfo
from .read_cache import ReadCache
from .store.protocol import RemoteReader

if TYPE_CHECKING:
    from collections.abc import Buffer

__all__ = ("RemoteFile",)

_TINY_BYTES = 512
_LOOK_BYTES = 10_752
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
_PEEK_BYTES = 8192


class RemoteFile(io.RawIOBase):
    """A remote file, open for reading: complete, seekable, and economical with requests.

    Parameters
    ----------
    reader : `~lsst.daf.butler_dcache.store.protocol.RemoteReader`
        The open file; closed together with this object.
    name : `str`
        What `name` says, usually the URL.
    read_ahead_bytes : `int`, optional
        Least number of bytes that a request for a tiny read asks for.
    sequential : `bool`, optional
        Whether the file will be read from its beginning to its end.

    Notes
    -----
    A read here and there fetches what was asked for. Reads that follow one another fetch more and more ahead,
    and in the end become one stream. What was fetched is kept within 16 MiB. A file that is read in order
    from its first byte to its last is verified by checksum. The size is asked for only if no answer has told
    it, and comes with the last kilobyte. Not thread-safe.
    """

    mode = "rb"

    def __init__(
        self,
        reader: RemoteReader,
        name: str,
        *,
        read_ahead_bytes: int = _LOOK_BYTES,
        sequential: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self._reader = reader
        self._read_ahead = read_ahead_bytes
        self._sequential = sequential
        self._position = 0
        self._cache = ReadCache(_CACHE_BYTES)
        self._run_start = self._run_end = 0  # bytes that were fetched in order
        self._in_order = Adler32()  # of the bytes from the first on
        self._stream: Iterator[bytes] | None = None
        self._stream_position = 0
        self._window = memoryview(b"")  # the last piece of the stream
        self._window_start = 0

    @property
    def info(self) -> FileInfo:
        """What the server said of the file."""
        return self._reader.info

    @property
    def size(self) -> int:
        """Size in bytes."""
        known = self._reader.known_size
        if known is None:
            start, data = self._reader.read_tail(_TAIL_BYTES)
            known = start + len(data)
            self._take(start, data)
        return known

    def readable(self) -> bool:
        """Return `True`."""
        return True

    def seekable(self) -> bool:
        """Return `True`."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position; a request is sent only if the size is needed and not known.

        Parameters
        ----------
        offset : `int`
            Where to, counted from ``whence``.
        whence : `int`, optional
            `os.SEEK_SET`, `os.SEEK_CUR` or `os.SEEK_END`.

        Returns
        -------
        position : `int`
            The new position; it may lie behind the end.

        Raises
        ------
        ValueError
            If the position would be negative, ``whence`` is another number, or the file is closed.
        """
        self._check_open()
        if whence == os.SEEK_SET:
            position = offset
        elif whence == os.SEEK_CUR:
            position = self._position + offset
        elif whence == os.SEEK_END:
            position = self.size + offset
        else:
            raise ValueError(f"invalid whence: {whence}")
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        return position

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes: as many as asked for, unless the file ends before.

        Parameters
        ----------
        size : `int`, optional
            Number of bytes; all that are left if negative or `None`.

        Returns
        -------
        data : `bytes`
            Empty at the end of the file.
        """
        self._check_open()
        if size is None or size < 0:
            return self._read_rest()
        left = size
        start = self._position
        pieces: list[memoryview] = []
        try:
            while left and (piece := self._available(left)[:left]):
                pieces.append(piece)
                self._position += len(piece)
                left -= len(piece)
        except BaseException:
            # Who tries again must not find a gap.
            self._position = start
            raise
        if len(pieces) == 1 and isinstance(pieces[0].obj, bytes) and len(pieces[0].obj) == len(pieces[0]):
            return pieces[0].obj  # the very object, without a copy
        return b"".join(pieces)

    def _read_rest(self) -> bytes:
        if not self._available(None):
            return b""
        # `io.BytesIO` lets its memory be written to and then hands it out as `bytes` without a copy.
        memory = io.BytesIO(bytes(max(0, self.size - self._position)))
        with memory.getbuffer() as view:
            self._fill(view, None)
        return memory.getvalue()

    def readall(self) -> bytes:
        """Return all bytes that are left."""
        return self.read(-1)

    def read1(self, size: int = -1, /) -> bytes:
        """Return bytes with at most one request; see `io.BufferedIOBase.read1`.

        Parameters
        ----------
        size : `int`, optional
            Largest number of bytes.

        Returns
        -------
        data : `bytes`
            Empty at the end of the file.
        """
        self._check_open()
        piece = self._available(max(size, 1))
        if size >= 0:
            piece = piece[:size]
        self._position += len(piece)
        return bytes(piece)

    def peek(self, size: int = 0, /) -> bytes:
        """Return bytes that lie ready without moving the position.

        Parameters
        ----------
        size : `int`, optional
            Ignored, as in `io.BufferedReader.peek`.

        Returns
        -------
        data : `bytes`
            At least one byte, unless the file ends here.
        """
        self._check_open()
        return bytes(self._available(1)[:_PEEK_BYTES])

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill a buffer; see `io.RawIOBase.readinto`.

        Parameters
        ----------
        buffer : writable buffer
            Filled completely, unless the file ends before.

        Returns
        -------
        count : `int`
            Number of bytes; 0 at the end of the file.
        """
        self._check_open()
        target = memoryview(buffer).cast("B")
        return self._fill(target, len(target))

    def _fill(self, target: memoryview, wanted: int | None) -> int:
        filled = 0
        start = self._position
        try:
            while filled < len(target):
                piece = self._available(None if wanted is None else wanted - filled)[: len(target) - filled]
                if not piece:
                    break
                target[filled : filled + len(piece)] = piece
                filled += len(piece)
                self._position += len(piece)
        except BaseException:
            self._position = start
            raise
        return filled

    def readinto1(self, buffer: Buffer, /) -> int:
        """Fill a buffer with at most one request; see `io.BufferedIOBase.readinto1`.

        Parameters
        ----------
        buffer : writable buffer
            Where to.

        Returns
        -------
        count : `int`
            Number of bytes.
        """
        target = memoryview(buffer).cast("B")
        data = self.read1(len(target))
        target[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file and give the mover back."""
        if self.closed:
            return
        try:
            self._drop_stream()
            self._cache.clear()
            self._reader.close()
        finally:
            super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _available(self, wanted: int | None) -> memoryview:
        """Return bytes at the position, at least one unless the file ends; fetch some if there are none.

        Parameters
        ----------
        wanted : `int` or `None`
            How many would be useful; `None` is all that are left.
        """
        position = self._position
        if 0 <= position - self._window_start < len(self._window):
            return self._window[position - self._window_start :]
        found = self._cache.find(position)
        if found:
            return found
        known = self._reader.known_size
        if known is not None and position >= known:
            return memoryview(b"")
        return self._fetch(wanted)

    def _fetch(self, wanted: int | None) -> memoryview:
        """Return bytes from the position on, from the server; none if the file ends before."""
        position = self._position
        if self._stream is not None and 0 <= position - self._stream_position <= _SKIP_BYTES:
            return self._advance_stream()
        self._drop_stream()
        ahead = self._ahead()
        if wanted is None or ahead is None:
            self._stream = iter(self._reader.stream(position))
            self._stream_position = position
            return self._advance_stream()
        least = self._read_ahead if wanted < _TINY_BYTES else 0
        stop = position + max(wanted, least, ahead)
        behind = self._cache.next_start(position)
        if behind is not None:
            stop = min(stop, behind)
        (data,) = self._reader.read_ranges([ByteRange(position, stop)])
        if position != self._run_end:
            self._run_start = position
        self._run_end = position + len(data)
        self._take(position, data)
        return memoryview(data)

    def _ahead(self) -> int | None:
        """Return how many bytes are worth fetching because of what was read in order; `None` is all."""
        if self._position != self._run_end:
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

    def _advance_stream(self) -> memoryview:
        stream, self._stream = self._stream, None
        assert stream is not None
        for chunk in stream:
            start = self._stream_position
            self._stream_position += len(chunk)
            self._run_end = self._stream_position
            if start == self._in_order.size and start > 0:  # one from 0 on is verified by the reader
                self._in_order.update(chunk)
            if self._stream_position > self._position:
                self._window, self._window_start = memoryview(chunk), start
                self._stream = stream  # one that raised gives nothing any more
                if self._stream_position >= self.size:
                    # Only behind its last chunk does a stream compare checksums.
                    self._exhaust_stream()
                return self._window[self._position - start :]
        if self._position < self.size:
            raise IntegrityError(
                f"it ended before its size of {self.size} bytes", operation="read", url=self.name
            )
        return memoryview(b"")

    def _verify(self) -> None:
        expected = self._reader.info.checksums.get("adler32")
        if expected is not None and self._in_order.hexdigest() != expected:
            raise IntegrityError(
                f"the bytes that arrived have adler32 {self._in_order.hexdigest()}, the file has {expected}",
                operation="read",
                url=self.name,
            )

    def _exhaust_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            for _ in stream:
                pass
            if self._in_order.size == self.size:
                self._verify()

    def _drop_stream(self) -> None:
        self._window = memoryview(b"")
        stream, self._stream = self._stream, None
        if isinstance(stream, Generator):
            stream.close()
