"""A remote file that is read, in the form of Python's binary files."""

from __future__ import annotations

import io
import os
import threading
import weakref
from typing import TYPE_CHECKING

from .model import FileInfo
from .read_ahead import LOOK_BYTES, ReadAhead
from .store.protocol import RemoteReader

if TYPE_CHECKING:
    from collections.abc import Buffer

__all__ = ("RemoteFile",)

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
    it, and comes with the last kilobyte. Threads may share it; they share its position, too.
    """

    mode = "rb"

    def __init__(
        self,
        reader: RemoteReader,
        name: str,
        *,
        read_ahead_bytes: int = LOOK_BYTES,
        sequential: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self._reader = reader
        self._bytes = ReadAhead(reader, name, least_bytes=read_ahead_bytes, sequential=sequential)
        self._position = 0
        self._lock = threading.RLock()
        _files.add(self)

    @property
    def info(self) -> FileInfo:
        """What the server said of the file."""
        return self._reader.info

    @property
    def size(self) -> int:
        """Size in bytes."""
        with self._lock:
            return self._bytes.size

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
        with self._lock:
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
        with self._lock:
            self._check_open()
            if size is None or size < 0:
                return self._read_rest()
            left = size
            position = self._position
            pieces: list[memoryview] = []
            while left and (piece := self._bytes.at(position, left)[:left]):
                pieces.append(piece)
                position += len(piece)
                left -= len(piece)
            self._position = position  # only now: who tries again after an error must not find a gap
        if len(pieces) == 1 and isinstance(pieces[0].obj, bytes) and len(pieces[0].obj) == len(pieces[0]):
            return pieces[0].obj  # the very object, without a copy
        return b"".join(pieces)

    def _read_rest(self) -> bytes:
        if not self._bytes.at(self._position, None):
            return b""
        # `io.BytesIO` lets its memory be written to and then hands it out as `bytes` without a copy.
        memory = io.BytesIO(bytes(max(0, self.size - self._position)))
        with memory.getbuffer() as view:
            self._fill(view, to_end=True)
        return memory.getvalue()

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the bytes up to and including the next line feed.

        Parameters
        ----------
        size : `int`, optional
            Largest number of bytes.

        Returns
        -------
        line : `bytes`
            Empty at the end of the file.
        """
        with self._lock:
            return super().readline(size)

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
        with self._lock:
            self._check_open()
            piece = self._bytes.at(self._position, max(size, 1))
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
        with self._lock:
            self._check_open()
            return bytes(self._bytes.at(self._position, 1)[:_PEEK_BYTES])

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
        target = memoryview(buffer).cast("B")
        with self._lock:
            self._check_open()
            return self._fill(target)

    def _fill(self, target: memoryview, to_end: bool = False) -> int:
        filled = 0
        position = self._position
        while left := len(target) - filled:
            piece = self._bytes.at(position, None if to_end else left)[:left]
            if not piece:
                break
            target[filled : filled + len(piece)] = piece
            filled += len(piece)
            position += len(piece)
        self._position = position
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
        with self._lock:
            if self.closed:
                return
            try:
                self._bytes.close()
            finally:
                super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


_files: weakref.WeakSet[RemoteFile] = weakref.WeakSet()


def _after_fork() -> None:
    for file in list(_files):
        # A thread that the child does not have may have held it.
        file._lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
