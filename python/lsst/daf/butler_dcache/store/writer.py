"""A file that is written piece by piece, and streams to its pool under a temporary name.

The first bytes are kept, so that a small file is one that `Publisher.write` can do better: length known, one
request at the door where it relays, everything repeatable. Beyond that the file is sent as it is written,
never more of it in memory than one piece. An upload that announces no length and is cut may be held as good
by dCache (protocol page, section 3.8): under the temporary name alone, which says what it is.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from ..errors import DcacheError, IntegrityError, UnsupportedError
from ..model import FileInfo
from ..transport.deadline import Deadline
from ..transport.upload_body import UploadBody
from ..webdav.upload import StreamedPut
from .publication import Publisher
from .size_cache import SizeCache

__all__ = ("StreamingWriter",)

_log = logging.getLogger(__name__)

_HELD_BYTES = 1024 * 1024
_PIECE_BYTES = 256 * 1024
"""Smaller writes are gathered: a chunk and a system call each would cost more than the copy."""


class StreamingWriter:
    """Implements `.protocol.RemoteWriter`.

    Parameters
    ----------
    publisher : `Publisher`
        Who uploads and publishes.
    url : `str`
        Name of the file.
    overwrite : `bool`
        Whether an existing file may be replaced.
    size : `int` or `None`
        Exact size, if it is known.
    held_bytes : `int`
        Files up to this size are not streamed; at least 1 MiB is kept.
    deadline : `~collections.abc.Callable`
        Makes the deadline of one call. There is none for the time between two calls.
    sizes : `SizeCache`
        Remembers what was written.

    Notes
    -----
    Not thread-safe. In a child process it is of no use and does no harm: the upload belongs to the parent.
    """

    def __init__(
        self,
        publisher: Publisher,
        url: str,
        *,
        overwrite: bool,
        size: int | None,
        held_bytes: int,
        deadline: Callable[[], Deadline],
        sizes: SizeCache,
    ) -> None:
        publisher.check(url, overwrite=overwrite)
        self._publisher = publisher
        self._url = url
        self._overwrite = overwrite
        self._size = size
        self._held_bytes = max(held_bytes, _HELD_BYTES)
        self._deadline = deadline
        self._sizes = sizes
        self._process = os.getpid()
        self._held = bytearray()
        self._put: StreamedPut | None = None
        self._written = 0
        self._over = False

    @property
    def has_begun(self) -> bool:
        """See `.protocol.RemoteWriter`."""
        return self._put is not None

    def take_back(self) -> bytes | None:
        """See `.protocol.RemoteWriter`."""
        self._usable()
        if self._put is not None:
            return None
        held = bytes(self._held)
        self._give_up()
        return held

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """See `.protocol.RemoteWriter`."""
        self._usable()
        view = memoryview(data).cast("B")
        if self._size is not None and self._written + len(view) > self._size:
            self._fail(self._other_size(f"at least {self._written + len(view)}"))
        if self._put is not None or len(self._held) + len(view) > self._held_bytes:
            try:
                self._send(view)
            except BaseException as error:
                self._fail(error)
        else:
            self._held += view
        self._written += len(view)
        return len(view)

    def commit(self) -> FileInfo:
        """See `.protocol.RemoteWriter`."""
        self._usable()
        deadline = self._deadline()
        try:
            if self._size not in (None, self._written):
                raise self._other_size(str(self._written))
            with self._sizes.change(self._url) as change:
                info = self._publish(deadline)
                change.done(info)
        except BaseException as error:
            self._fail(error)
        self._over = True
        return info

    def abort(self) -> None:
        """See `.protocol.RemoteWriter`."""
        put = self._give_up()
        if put is not None:
            nothing = UnsupportedError("given up by the writer", operation="write", url=self._url)
            self._publisher.clean_up(put.url, self._url, nothing)
            for note in nothing.__notes__[1:]:
                _log.warning("%s", note)

    def forget(self) -> None:
        """See `.protocol.RemoteWriter`."""
        put = self._give_up()
        if put is None:
            return
        # A collector may run while this very thread holds any lock of ours.
        error = UnsupportedError("forgotten by the writer", operation="write", url=self._url)
        try:
            threading.Thread(
                target=self._publisher.clean_up,
                args=(put.url, self._url, error),
                name="dcache-forgotten-upload",
                daemon=False,  # the end of the program waits for it, for its deadline at the longest
            ).start()
        except RuntimeError:
            # The interpreter ends; the temporary name says what is left.
            return

    def _send(self, view: memoryview) -> None:
        deadline = self._deadline()
        if self._put is None:
            self._put = self._publisher.begin(self._url, self._size, deadline=deadline)
        if len(self._held) + len(view) < _PIECE_BYTES:
            self._held += view
            return
        if self._held:
            self._put.send(self._held, deadline)
            self._held.clear()
        if len(view) < _PIECE_BYTES:
            self._held += view
        else:
            self._put.send(view, deadline)

    def _publish(self, deadline: Deadline) -> FileInfo:
        if self._put is None:
            body = UploadBody(self._held)
            return self._publisher.write(self._url, body, overwrite=self._overwrite, deadline=deadline)
        if self._held:
            self._put.send(self._held, deadline)
        return self._publisher.finish(self._put, self._url, overwrite=self._overwrite, deadline=deadline)

    def _fail(self, error: BaseException) -> None:
        """Clean up and raise."""
        put = self._give_up()
        if put is not None:
            self._publisher.clean_up(put.url, self._url, error)
        raise error

    def _give_up(self) -> StreamedPut | None:
        """Send no more; return what there is to clean up, which in a child process is nothing."""
        put = None if self._over or self._process != os.getpid() else self._put
        self._over = True
        self._held = bytearray()
        if put is not None:
            put.abandon()
        return put

    def _usable(self) -> None:
        if self._process != os.getpid():
            raise UnsupportedError(
                "a file that is being written belongs to the process that opened it",
                operation="write",
                url=self._url,
            )
        if self._over:
            raise UnsupportedError("the upload has ended, or failed before", operation="write", url=self._url)

    def _other_size(self, written: str) -> DcacheError:
        return IntegrityError(
            f"{self._size} bytes were announced, {written} written", operation="write", url=self._url
        )
