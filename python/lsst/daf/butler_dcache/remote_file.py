"""A remote file that is read, in the form of Python's binary files."""

from __future__ import annotations

import io
import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from .errors import IntegrityError
from .model import Adler32, ByteRange, FileInfo
from .store.protocol import RemoteReader

if TYPE_CHECKING:
    from collections.abc import Buffer

__all__ = ("RemoteFile",)

_READ_AHEAD_BYTES = 64 * 1024
_SKIP_BYTES = 1024 * 1024


class RemoteFile(io.RawIOBase):
    """A remote file, open for reading: complete, seekable, and economical with requests.

    Parameters
    ----------
    reader : `~lsst.daf.butler_dcache.store.protocol.RemoteReader`
        The open file; closed together with this object.
    name : `str`
        What `name` says, usually the URL.
    read_ahead_bytes : `int`, optional
        Least number of bytes that a request asks for.
    sequential : `bool`, optional
        Whether the file will be read from its beginning to its end.

    Notes
    -----
    Reads that follow one another become one stream, reads here and there become ranges of what was asked for.
    What arrives of a file in one piece from the first byte to the last is verified by checksum. The size is
    asked for only if no answer has told it. Not thread-safe.
    """

    mode = "rb"

    def __init__(
        self,
        reader: RemoteReader,
        name: str,
        *,
        read_ahead_bytes: int = _READ_AHEAD_BYTES,
        sequential: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self._reader = reader
        self._read_ahead = read_ahead_bytes
        self._sequential = sequential
        self._size: int | None = None
        self._position = 0
        self._window = memoryview(b"")
        self._window_start = 0
        self._stream: Iterator[bytes] | None = None
        self._stream_position = 0
        self._last_fetch_end = 0

    @property
    def info(self) -> FileInfo:
        """What the server said of the file."""
        return self._reader.info

    @property
    def size(self) -> int:
        """Size in bytes."""
        if self._size is None:
            self._size = self._reader.info.size or 0
        return self._size

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
        left = None if size is None or size < 0 else size
        pieces: list[memoryview] = []
        while left != 0 and (piece := self._available(left)[:left]):
            pieces.append(piece)
            self._position += len(piece)
            if left is not None:
                left -= len(piece)
        return b"".join(pieces)

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
        return bytes(self._available(1))

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
        filled = 0
        while filled < len(target) and (piece := self._available(len(target) - filled)):
            piece = piece[: len(target) - filled]
            target[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._position += len(piece)
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
            self._window = memoryview(b"")
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
        if not 0 <= self._position - self._window_start < len(self._window):
            if self._size is not None and self._position >= self._size:
                return memoryview(b"")
            self._fetch(wanted)
        return self._window[self._position - self._window_start :]

    def _fetch(self, wanted: int | None) -> None:
        """Set the window so that it holds the position, or ends there if the file does."""
        position = self._position
        if self._stream is not None:
            if 0 <= position - self._stream_position <= _SKIP_BYTES:
                self._advance_stream()
                return
            self._drop_stream()
        if wanted is None or self._sequential or 0 < position == self._last_fetch_end:
            self._stream = iter(self._reader.stream(position))
            self._stream_position = position
            self._advance_stream()
            return
        (data,) = self._reader.read_ranges([ByteRange(position, position + max(wanted, self._read_ahead))])
        self._set_window(data, position)
        if position == 0 and len(data) == self.size:
            self._verify(data)

    def _advance_stream(self) -> None:
        assert self._stream is not None
        for chunk in self._stream:
            start = self._stream_position
            self._stream_position += len(chunk)
            if self._stream_position > self._position:
                self._set_window(chunk, start)
                if self._stream_position >= self.size:
                    # Only behind its last chunk does a stream compare checksums.
                    self._exhaust_stream()
                return
        self._stream = None
        self._set_window(b"", self._position)
        if self._position < self.size:
            raise IntegrityError(
                f"it ended before its size of {self.size} bytes", operation="read", url=self.name
            )

    def _verify(self, data: bytes) -> None:
        expected = self._reader.info.checksums.get("adler32")
        seen = Adler32()
        seen.update(data)
        if expected is not None and seen.hexdigest() != expected:
            raise IntegrityError(
                f"the bytes that arrived have adler32 {seen.hexdigest()}, the file has {expected}",
                operation="read",
                url=self.name,
            )

    def _exhaust_stream(self) -> None:
        if self._stream is not None:
            for _ in self._stream:
                pass
            self._stream = None

    def _drop_stream(self) -> None:
        stream, self._stream = self._stream, None
        if isinstance(stream, Generator):
            stream.close()

    def _set_window(self, data: bytes, start: int) -> None:
        self._window = memoryview(data)
        self._window_start = start
        self._last_fetch_end = start + len(data)
