"""A file of unknown length: spooled here, uploaded with its length when it is complete.

An upload that announces no length and is cut leaves a truncated file that dCache holds as good (protocol
page, section 3.8), so the bytes wait in memory or, beyond some MiB, in a temporary file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import BinaryIO, cast

from ..model import FileInfo

__all__ = ("SpoolingWriter",)

_IN_MEMORY_BYTES = 16 * 1024 * 1024


class SpoolingWriter:
    """A file that is being written.

    Parameters
    ----------
    publish : `~collections.abc.Callable`
        Writes a file that is positioned at its start.
    """

    def __init__(self, publish: Callable[[BinaryIO], FileInfo]) -> None:
        self._publish = publish
        self._spool = cast(BinaryIO, tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES))  # noqa: SIM115

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Keep the next bytes and return how many.

        Parameters
        ----------
        data : bytes-like
            The next bytes of the file.
        """
        view = memoryview(data).cast("B")
        self._spool.write(view)
        return len(view)

    def commit(self) -> FileInfo:
        """Upload, verify and publish the file."""
        try:
            self._spool.seek(0)
            return self._publish(self._spool)
        finally:
            self._spool.close()

    def abort(self) -> None:
        """Forget the bytes; nothing was sent. A second time, or after `commit`, it is no error."""
        self._spool.close()
