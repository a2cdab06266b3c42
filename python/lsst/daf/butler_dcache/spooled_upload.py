"""A file that is being changed, in the form of Python's binary files.

A program that reads back or changes what it has written needs all of it at hand: `SpooledUpload` gathers it
and publishes it in one piece. What is only written goes through `.streamed_upload.StreamedUpload`.
"""

from __future__ import annotations

import os
import tempfile
from typing import BinaryIO, cast

from .model import FileInfo
from .new_file import NewFile
from .store.protocol import Store

__all__ = ("SpooledUpload",)

_SPOOL_BYTES = 8 * 1024 * 1024


class SpooledUpload(NewFile, tempfile.SpooledTemporaryFile[bytes]):
    """A file that is being written: seekable, kept on this machine, published in one piece when closed.

    Parameters
    ----------
    store : `~lsst.daf.butler_dcache.store.protocol.Store`
        Where the file goes.
    url : `str`
        Its URL.
    overwrite : `bool`, optional
        Whether an existing file may be replaced.
    published_by_close : `bool`, optional
        If `False`, `close` leaves the file as it is, for a later `commit` or `discard`.
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
        published_by_close: bool = True,
        directory: str | None = None,
    ) -> None:
        tempfile.SpooledTemporaryFile.__init__(self, max_size=_SPOOL_BYTES, mode="w+b", dir=directory)
        NewFile.__init__(self, url, published_by_close=published_by_close)
        self._store = store
        self._overwrite = overwrite

    def load(self) -> None:
        """Fetch the present contents, for modes that change a file; the position is the end."""
        self._store.download(self._url, cast(BinaryIO, self))
        self.seek(0, os.SEEK_END)

    def _publish(self) -> FileInfo:
        try:
            self.seek(0)
            return self._store.write(self._url, cast(BinaryIO, self), overwrite=self._overwrite)
        finally:
            self._drop()

    def _drop(self) -> None:
        tempfile.SpooledTemporaryFile.close(self)
