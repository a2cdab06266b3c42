"""A remote file as the source of an upload: the bytes go from one connection to the other."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Self

from ..errors import ProtocolError
from ..transport.deadline import Deadline
from ..webdav.download import Downloads
from ..webdav.whole_answer import Download
from .protocol import Progress

__all__ = ("RemoteSource",)


class RemoteSource(io.RawIOBase):
    """A file at a server, readable from its start as often as is needed.

    Parameters
    ----------
    downloads : `Downloads`
        Opens it.
    url : `str`
        The file.
    deadline : `Deadline`
        When to give up.
    progress : `.protocol.Progress`, optional
        Is told how much was read.

    Notes
    -----
    What is read is verified, and its last piece is given away only when all of it was, so that an upload of
    other bytes than those of the file is never complete.
    """

    def __init__(
        self, downloads: Downloads, url: str, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        super().__init__()
        self._downloads = downloads
        self._url = url
        self._deadline = deadline
        self._progress = progress
        self._position = 0
        self._download: Download | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._ready = b""
        self._following: bytes | None = None
        self.length = 0
        self._open()
        if progress is not None:
            progress.set_size(self.length)

    def _open(self) -> None:
        self._let_go()
        download = self._download = self._downloads.open(self._url, deadline=self._deadline)
        if download.size is None:
            raise ProtocolError("the server does not tell the size", operation="copy", url=self._url)
        self.length = download.size
        self._position = 0
        self._pieces = download.pieces()
        self._ready, self._following = b"", next(self._pieces, None)

    def _let_go(self) -> None:
        if self._download is not None:
            self._download.close(None if self._position == self.length else False)
            self._download = None

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """End the reading."""
        self._let_go()
        super().close()

    def readable(self) -> bool:
        """Return `True`."""
        return True

    def seekable(self) -> bool:
        """Return `True`: it can be read anew."""
        return True

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to the start, or look how long it is.

        Parameters
        ----------
        offset : `int`
            Must be 0.
        whence : `int`, optional
            From the start or from the end.
        """
        if offset != 0 or whence not in (os.SEEK_SET, os.SEEK_END):
            raise io.UnsupportedOperation("a remote file is read from its beginning")
        if whence == os.SEEK_END:
            return self.length
        if self._position != 0:
            self._open()
        return 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, fewer than asked for where a piece ends.

        Parameters
        ----------
        size : `int`, optional
            At most so many; all that are left if negative.
        """
        if size < 0:
            return self.readall()
        if not self._ready and self._following is not None:
            self._ready, self._following = self._following, next(self._pieces, None)
        piece, self._ready = self._ready[:size], self._ready[size:]
        self._position += len(piece)
        if self._progress is not None:
            self._progress.absolute_update(self._position)
        return piece

    def readall(self) -> bytes:
        """Return all that is left."""
        pieces = []
        while piece := self.read(1 << 20):
            pieces.append(piece)
        return b"".join(pieces)
