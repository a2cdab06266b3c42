"""A file that is being changed, in the form of Python's binary files.

A program that reads back or changes what it has written needs all of it at hand: `SpooledUpload` gathers it
and publishes it in one piece. What is only written goes through `.streamed_upload.StreamedUpload`.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import sys
import tempfile
import warnings
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from .model import FileInfo
from .store.protocol import Store

if TYPE_CHECKING:
    from typing import Self

__all__ = ("SpooledUpload", "TextUpload", "leaves_by_error")

_SPOOL_BYTES = 8 * 1024 * 1024
_MOST_FRAMES = 64


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
        publish_on_close: bool = True,
        directory: str | None = None,
    ) -> None:
        super().__init__(max_size=_SPOOL_BYTES, mode="w+b", dir=directory)
        self._store = store
        self._url = url
        self._overwrite = overwrite
        self._publish_on_close = publish_on_close
        self._settled = False
        self._handled = sys.exception()
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
        self._settled = True
        try:
            self.seek(0)
            self.info = self._store.write(self._url, cast(BinaryIO, self), overwrite=self._overwrite)
        finally:
            super().close()
        return self.info

    def discard(self) -> None:
        """Close without publishing."""
        self._settled = True
        super().close()

    def close(self) -> None:
        """Publish, if that was not done, and close."""
        if self._settled or not self._publish_on_close:
            return
        if leaves_by_error(sys._getframe(1), self._handled):
            self.discard()
        else:
            self.commit()

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
        if not hasattr(self, "_settled"):
            return
        if not self._settled and self._publish_on_close:
            warnings.warn(
                f"forgotten without being closed, so not published: {self._url}",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
        self.discard()


class TextUpload(io.TextIOWrapper):
    """Text layer above an upload that publishes nothing if its ``with`` block raises or it is forgotten."""

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

    def __del__(self) -> None:
        # io.IOBase closes what is forgotten, and the upload with it, which has its own way to be forgotten.
        with contextlib.suppress(ValueError):
            self.detach()


def leaves_by_error(frame: FrameType | None, handled: BaseException | None) -> bool:
    """Tell whether a ``with`` block is being left by an error.

    Parameters
    ----------
    frame : `types.FrameType`
        Who calls.
    handled : `BaseException` or `None`
        An error that was being dealt with before there was anything to leave.
    """
    if sys.exception() is None:
        return False
    for _ in range(_MOST_FRAMES):
        if frame is None:
            return False
        code = frame.f_code
        if code.co_name == "__exit__":
            values = frame.f_locals
            given = [values.get(name) for name in code.co_varnames[1 : code.co_argcount]]
            if code.co_flags & inspect.CO_VARARGS:
                given += values.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], ())
            if any(isinstance(value, BaseException) and value is not handled for value in given):
                return True
        frame = frame.f_back
    return False
