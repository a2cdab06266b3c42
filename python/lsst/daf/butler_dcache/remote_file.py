"""Remote files in the form of Python's binary files.

A store reads ranges of a file over one redirect, and writes files whose length it knows. Here that becomes
what programs expect of `open`: `RemoteFile` reads and seeks, `SpooledUpload` gathers what is written and
publishes it in one piece.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from .model import ByteRange, FileInfo
from .store.protocol import RemoteReader, Store

if TYPE_CHECKING:
    from collections.abc import Buffer
    from typing import Self

__all__ = ("RemoteFile", "SpooledUpload", "TextUpload")

_READ_AHEAD_BYTES = 64 * 1024
_SKIP_BYTES = 1024 * 1024
_SPOOL_BYTES = 8 * 1024 * 1024


class RemoteFile(io.RawIOBase):
    """A remote file, open for reading: complete, seekable, and economical with requests.

    Parameters
    ----------
    reader : `~lsst.daf.butler_dcache.store.protocol.RemoteReader`
        The open file; closed together with this object.
    name : `str`
        What `name` says, usually the URL.
    read_ahead_bytes : `int`, optional
        Least number of bytes that a request asks for; a file that is not larger is read, and verified, whole.

    Notes
    -----
    Reads that follow one another become one stream, reads here and there become ranges of what was asked for.
    A stream from the first byte to the last is verified by checksum. Not thread-safe.
    """

    mode = "rb"

    def __init__(self, reader: RemoteReader, name: str, *, read_ahead_bytes: int = _READ_AHEAD_BYTES) -> None:
        super().__init__()
        self.name = name
        self._reader = reader
        self._read_ahead = read_ahead_bytes
        self._position = 0
        self._window = memoryview(b"")
        self._window_start = 0
        self._stream: Iterator[bytes] | None = None
        self._stream_position = 0
        self._last_fetch_end = 0
        size = reader.info.size
        self.size = 0 if size is None else size

    @property
    def info(self) -> FileInfo:
        """What the server said of the file when it was opened."""
        return self._reader.info

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
        """Move the position; no request is sent.

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
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}
        if whence not in bases:
            raise ValueError(f"invalid whence: {whence}")
        position = bases[whence] + offset
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
        left = max(self.size - self._position, 0)
        wanted = left if size is None or size < 0 else min(size, left)
        pieces: list[memoryview] = []
        while wanted > 0:
            piece = self._available(wanted)[:wanted]
            pieces.append(piece)
            self._position += len(piece)
            wanted -= len(piece)
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
        if size == 0 or self._position >= self.size:
            return b""
        piece = self._available(size if size > 0 else 1)
        if size > 0:
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
        return b"" if self._position >= self.size else bytes(self._available(1))

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
        wanted = min(len(target), max(self.size - self._position, 0))
        filled = 0
        while filled < wanted:
            piece = self._available(wanted - filled)[: wanted - filled]
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

    def _available(self, wanted: int) -> memoryview:
        """Return the bytes at the position that are in memory; fetch some if there are none."""
        offset = self._position - self._window_start
        if not 0 <= offset < len(self._window):
            self._fetch(wanted)
            offset = self._position - self._window_start
        return self._window[offset:]

    def _fetch(self, wanted: int) -> None:
        position = self._position
        if self._stream is not None:
            if 0 <= position - self._stream_position <= _SKIP_BYTES and self._advance_stream():
                return
            self._drop_stream()
        if self.size <= self._read_ahead or (position == 0 and wanted >= self.size):
            self._start_stream(0)
        elif position > 0 and position == self._last_fetch_end:
            self._start_stream(position)
        else:
            stop = min(position + max(wanted, self._read_ahead), self.size)
            (data,) = self._reader.read_ranges([ByteRange(position, stop)])
            self._set_window(data, position)
            return
        if not self._advance_stream():
            raise EOFError(f"{self.name} ended before its size of {self.size} bytes")

    def _start_stream(self, position: int) -> None:
        self._stream = iter(self._reader.stream(position))
        self._stream_position = position

    def _advance_stream(self) -> bool:
        """Read on until the window holds the position; `False` if the stream ends before."""
        assert self._stream is not None
        whole = self.size <= self._read_ahead
        kept: list[bytes] = []
        for chunk in self._stream:
            start = self._stream_position
            self._stream_position += len(chunk)
            if whole:
                kept.append(chunk)
            elif self._stream_position > self._position:
                self._set_window(chunk, start)
                if self._stream_position >= self.size:
                    # Only behind its last chunk does a stream compare checksums.
                    self._exhaust_stream()
                return True
        self._stream = None
        if whole:
            self._set_window(b"".join(kept), 0)
            return len(self._window) > self._position
        return False

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


class SpooledUpload(tempfile.SpooledTemporaryFile[bytes]):
    """A file that is being written: seekable, kept on this machine, published in one piece when closed.

    Parameters
    ----------
    store : `~lsst.daf.butler_dcache.store.protocol.Store`
        Where the file goes.
    url : `str`
        Its URL.
    overwrite : `bool`, optional
        Whether an existing file may be replaced.
    publish_on_close : `bool`, optional
        If `False`, only `commit` publishes.
    directory : `str`, optional
        Local directory for what does not fit in memory.

    Notes
    -----
    The whole file is there before the first byte is sent, so that its length is announced: dCache holds a
    killed upload of unknown length as a good file (protocol page, section 3.8). Nothing is published if the
    ``with`` block raises, or if the object is forgotten without being closed.
    """

    def __init__(
        self,
        store: Store,
        url: str,
        *,
        overwrite: bool = True,
        publish_on_close: bool = True,
        directory: str | None = None,
    ) -> None:
        super().__init__(max_size=_SPOOL_BYTES, mode="w+b", dir=directory)
        self._store = store
        self._url = url
        self._overwrite = overwrite
        self._publish_on_close = publish_on_close
        self.info: FileInfo | None = None
        """What was published."""

    @property
    def name(self) -> str:
        """URL of the file."""
        return self._url

    def load(self) -> None:
        """Fetch the present contents, for modes that change a file; the position is the end."""
        self._store.download(self._url, cast(BinaryIO, self))
        self.seek(0, os.SEEK_END)

    def commit(self) -> FileInfo:
        """Publish what was written and close.

        Returns
        -------
        info : `~lsst.daf.butler_dcache.model.FileInfo`
            The published file.
        """
        # Whatever comes of it: there is no second attempt by close() or by the garbage collector.
        self._publish_on_close = False
        try:
            self.seek(0)
            self.info = self._store.write(self._url, cast(BinaryIO, self), overwrite=self._overwrite)
        finally:
            super().close()
        return self.info

    def discard(self) -> None:
        """Close without publishing."""
        self._publish_on_close = False
        super().close()

    def close(self) -> None:
        """Publish, if that was not done, and close."""
        if self._publish_on_close and not self.closed:
            self.commit()
        else:
            super().close()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        # io.IOBase closes what is forgotten, which would publish half a file.
        if hasattr(self, "_publish_on_close"):
            self.discard()


class TextUpload(io.TextIOWrapper):
    """Text layer above a `SpooledUpload` that publishes nothing if its ``with`` block raises."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            upload: Any = self.buffer
            upload.discard()
        self.close()
