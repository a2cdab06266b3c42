"""A new file in the form of Python's binary files: what is written goes to the server as it comes.

Some writers (zipfile, HDF5) go back in what they have written. They show it at once, by a ``seek`` that local
files allow: as long as nothing was sent the file then becomes one that is kept on this machine until the end.
"""

from __future__ import annotations

import io
import os
from typing import Any

from .model import FileInfo
from .new_file import NewFile
from .spooled_upload import SpooledUpload
from .store.protocol import RemoteWriter, Store

__all__ = ("StreamedUpload",)


class StreamedUpload(NewFile, io.BufferedIOBase):
    """A file that is being written from its beginning to its end, and published when it is closed.

    Parameters
    ----------
    store : `~lsst.daf.butler_dcache.store.protocol.Store`
        Where the file goes.
    url : `str`
        Its URL.
    overwrite : `bool`, optional
        Whether an existing file may be replaced.
    size : `int`, optional
        Exact size, where it is known: the server is told, and compares.
    directory : `str`, optional
        Local directory for a file whose writer seeks.

    Notes
    -----
    In constant memory, not thread-safe. Seekable until the first MiB is full; later a `seek` is an
    `io.UnsupportedOperation`. `flush` has nothing to do: nobody sees the file before it is published. Nothing
    is published if the ``with`` block raises, if a write failed, or if the object is forgotten without being
    closed, which is a `ResourceWarning`.
    """

    mode = "wb"

    def __init__(
        self,
        store: Store,
        url: str,
        *,
        overwrite: bool = True,
        size: int | None = None,
        directory: str | None = None,
    ) -> None:
        self._store = store
        self._overwrite = overwrite
        self._directory = directory
        self._spool: SpooledUpload | None = None
        self._position = 0
        self._writer: RemoteWriter = store.open_writer(url, overwrite=overwrite, size=size)
        # Last: without a writer there is nothing to end.
        super().__init__(url)

    def writable(self) -> bool:
        """Return `True`, until it is closed."""
        self._check_open()
        return True

    def readable(self) -> bool:
        """Return whether it is kept here, and so can be read back."""
        self._check_open()
        return self._spool is not None

    def seekable(self) -> bool:
        """Return whether all of it is still here."""
        self._check_open()
        return self._spool is not None or not self._writer.has_begun

    def tell(self) -> int:
        """Return the position, which is how much was written if it was never moved."""
        self._check_open()
        return self._position if self._spool is None else self._spool.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; from then on the file is kept on this machine until it is closed.

        Parameters
        ----------
        offset : `int`
            Where to.
        whence : `int`, optional
            From where.

        Raises
        ------
        io.UnsupportedOperation
            If the beginning has gone to the server.
        """
        return self._kept_here().seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        """Cut the file; see `seek`.

        Parameters
        ----------
        size : `int`, optional
            Where; at the position if not given.
        """
        spool = self._kept_here()
        spool.truncate(size)
        return spool.tell() if size is None else size

    def read(self, size: int | None = -1) -> bytes:
        """Read back, where the file is kept here.

        Parameters
        ----------
        size : `int`, optional
            At most so many bytes; all if negative.
        """
        self._check_open()
        if self._spool is None:
            raise io.UnsupportedOperation("not readable")
        return self._spool.read(-1 if size is None else size)

    def write(self, data: Any) -> int:
        """Send the next bytes, or keep them for the next call.

        Parameters
        ----------
        data : bytes-like
            The next bytes.

        Returns
        -------
        count : `int`
            How many they are: all are taken.
        """
        self._check_open()
        if self._spool is not None:
            return self._spool.write(data)
        count = self._writer.write(data)
        self._position += count
        return count

    def flush(self) -> None:
        """Do nothing: what is written so far is nobody's business before the file is published."""
        self._check_open()

    def commit(self) -> FileInfo:
        """See `NewFile.commit`."""
        self._check_open()
        return super().commit()

    def _publish(self) -> FileInfo:
        io.BufferedIOBase.close(self)
        return self._writer.commit() if self._spool is None else self._spool.commit()

    def _drop(self) -> None:
        io.BufferedIOBase.close(self)
        if self._spool is None:
            self._writer.abort()
        else:
            self._spool.discard()

    def _forget(self) -> None:
        io.BufferedIOBase.close(self)
        if self._spool is None:
            self._writer.forget()
        else:
            self._spool.discard()

    def _kept_here(self) -> SpooledUpload:
        self._check_open()
        if self._spool is None:
            written = self._writer.take_back()
            if written is None:
                raise io.UnsupportedOperation("the beginning of the file has gone to the server")
            self._spool = SpooledUpload(
                self._store,
                self._url,
                overwrite=self._overwrite,
                published_by_close=False,
                directory=self._directory,
            )
            self._spool.write(written)
        return self._spool

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
