"""Where a downloaded file goes: written once, in place, and by several threads if it is a local file."""

from __future__ import annotations

import os
import stat
import threading
from typing import BinaryIO

from .protocol import Progress

__all__ = ("LocalTarget",)


class LocalTarget:
    """A binary file, from its position on.

    Parameters
    ----------
    file : `~typing.BinaryIO`
        Open for writing.
    progress : `~.protocol.Progress`, optional
        Is told what arrives.
    """

    def __init__(self, file: BinaryIO, progress: Progress | None = None) -> None:
        self._file = file
        self._progress = progress
        self._arrived = 0
        self._lock = threading.Lock()
        self._start = file.tell() if file.seekable() else None
        self._descriptor = _descriptor(file) if self._start is not None else None

    @property
    def is_local(self) -> bool:
        """Whether bytes may come in any order (`put`); then their number is to be announced (`reserve`)."""
        return self._descriptor is not None

    def begin(self, size: int | None) -> None:
        """Be told how many bytes will come.

        Parameters
        ----------
        size : `int` or `None`
            `None` if nobody knows.
        """
        if self._progress is not None and size is not None:
            self._progress.set_size(size)

    def _count(self, number: int) -> None:
        if self._progress is not None:
            with self._lock:
                self._arrived += number
                self._progress.absolute_update(self._arrived)

    def take(self, piece: memoryview) -> None:
        """Write the next bytes.

        Parameters
        ----------
        piece : `memoryview`
            The bytes; not kept.
        """
        self._count(len(piece))
        while piece:
            # An unbuffered file may take a part only.
            piece = piece[self._file.write(piece) :]

    def reserve(self, size: int) -> None:
        """Give the file the length that it will have.

        Parameters
        ----------
        size : `int`
            Bytes that will be put.
        """
        # Its blocks are not allocated: where a file system cannot do that (NFS 3), the C library would write
        # into each of them.
        self._file.truncate((self._start or 0) + size)

    def put(self, offset: int, piece: memoryview) -> None:
        """Write bytes where they belong, from any thread.

        Parameters
        ----------
        offset : `int`
            Of the first of them, from where the file was positioned.
        piece : `memoryview`
            The bytes; not kept.
        """
        if self._descriptor is None:
            raise ValueError("this file takes bytes in order only")
        self._count(len(piece))
        position = (self._start or 0) + offset
        while piece:
            count = os.pwrite(self._descriptor, piece, position)
            piece, position = piece[count:], position + count

    def done(self, size: int) -> None:
        """Position the file behind what was put.

        Parameters
        ----------
        size : `int`
            Number of bytes.
        """
        self._file.seek((self._start or 0) + size)

    def restart(self) -> bool:
        """Forget everything that was written; return `False` if that is not possible."""
        if self._start is None:
            return False
        self._arrived = 0
        self._file.seek(self._start)
        self._file.truncate()
        return True


def _descriptor(file: BinaryIO) -> int | None:
    """Return the descriptor of a plain file that is not open for appending."""
    if not hasattr(os, "pwrite") or "a" in str(getattr(file, "mode", "")):
        return None
    try:
        file.flush()
        descriptor = file.fileno()
        return descriptor if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except (AttributeError, OSError, ValueError):
        return None
