"""The bytes of files: in memory while they are few, else in a folder.

Thousands of small files are made in a test run, and on a busy disk each costs a millisecond.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

__all__ = ["Content", "Replica"]


class Replica(Protocol):
    """Bytes that stay readable whatever happens to the entry."""

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``."""

    def duplicate(self) -> Replica:
        """Return another one, which is closed by itself."""

    def close(self) -> None:
        """Give it back."""


class _MemoryReplica:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def pread(self, size: int, offset: int) -> bytes:
        return self._data[offset : offset + size]

    def duplicate(self) -> _MemoryReplica:
        return self

    def close(self) -> None:
        pass


class _FileReplica:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def pread(self, size: int, offset: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def duplicate(self) -> _FileReplica:
        return _FileReplica(os.dup(self._descriptor))

    def close(self) -> None:
        os.close(self._descriptor)


class Content:
    """What one entry holds.

    Parameters
    ----------
    path : `pathlib.Path`
        The file for what is too large for memory.
    memory_limit : `int`
        Bytes up to which there is no file; 0 writes files always.
    """

    def __init__(self, path: Path, memory_limit: int) -> None:
        self._path = path
        self._limit = memory_limit
        self._data: bytes | None = None

    @property
    def name(self) -> str:
        """Name of the file."""
        return self._path.name

    def write(self, pieces: Iterable[bytes]) -> None:
        """Replace everything; what came before a failing iterable fails is kept."""
        held: list[bytes] = []
        size = 0
        stream = iter(pieces)
        try:
            for piece in stream:
                held.append(piece)
                size += len(piece)
                if size > self._limit:
                    self._spill(held, stream)
                    return
        finally:
            if size <= self._limit:
                self._data = b"".join(held)

    def _spill(self, held: list[bytes], rest: Iterator[bytes]) -> None:
        self._data = None
        with self._path.open("wb") as file:
            file.writelines(held)
            held.clear()
            for piece in rest:
                file.write(piece)

    def open(self) -> BinaryIO:
        """Return the bytes as a file to read."""
        return self._path.open("rb") if self._data is None else io.BytesIO(self._data)

    def replica(self) -> Replica:
        """Return the bytes for a mover.

        Raises
        ------
        FileNotFoundError
            Raised if they are gone.
        """
        if self._data is not None:
            return _MemoryReplica(self._data)
        return _FileReplica(os.open(self._path, os.O_RDONLY))

    def remove(self) -> None:
        """Forget the bytes; replicas stay readable."""
        self._data = None
        self._path.unlink(missing_ok=True)
