"""A file that is written piece by piece, and goes to an S3 endpoint part by part.

Theory of operation: up to the size of one part it is kept, so that a small file is a single request and one
whose writer seeks can be taken back. Beyond, full parts are sent by threads while the next one is filled;
their memory is used again, and never more of it than `.part_sizes.StreamedParts` says. Nobody sees the parts
before the file is committed. A server that cannot be told not to replace an object where parts are put
together gets them under a temporary key, and a copy that it can be told so of.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

from ..errors import (
    DcacheError,
    IntegrityError,
    ResourceIsDirectoryError,
    StoreFullError,
    UnsupportedError,
)
from ..model import FileInfo
from ..s3.address import parse
from ..s3.conditions import temporary_address
from ..s3.copying import Copies
from ..s3.multipart import MultipartUpload
from ..s3.part_sizes import StreamedParts
from ..s3.uploads import LARGEST_PUT_BYTES, Uploads
from ..s3.verified_put import Piece
from ..transport.deadline import Deadline
from ..transport.upload_body import UploadBody
from .size_cache import SizeCache
from .space import Space

__all__ = ("S3Writer",)


class S3Writer:
    """Implements `.protocol.RemoteWriter`.

    Parameters
    ----------
    uploads : `Uploads`
        Who uploads.
    copies : `Copies`
        Who publishes what could not be uploaded under its own key.
    url : `str`
        Name of the file.
    overwrite : `bool`
        Whether an existing file may be replaced.
    size : `int` or `None`
        Exact size, if it is known: parts are made as large as it needs.
    deadline : `~collections.abc.Callable`
        Makes the deadline of one call. There is none for the time between two calls.
    sizes : `SizeCache`
        Remembers what was written.
    space : `Space`
        Remembers that there was none.

    Notes
    -----
    Not thread-safe. In a child process it is of no use and does no harm: the upload belongs to the parent.
    """

    def __init__(
        self,
        uploads: Uploads,
        copies: Copies,
        url: str,
        *,
        overwrite: bool,
        size: int | None,
        deadline: Callable[[], Deadline],
        sizes: SizeCache,
        space: Space,
    ) -> None:
        space.check(url, size)
        if url.endswith("/"):
            raise ResourceIsDirectoryError("a file's name does not end in '/'", operation="write", url=url)
        self._uploads = uploads
        self._copies = copies
        self._url = url
        self._overwrite = overwrite
        self._size = size
        self._plan = StreamedParts(size, url)
        self._deadline = deadline
        self._sizes = sizes
        self._space = space
        self._process = os.getpid()
        self._held = bytearray()
        self._upload: MultipartUpload | None = None
        self._number = 0
        self._part = memoryview(b"")
        self._filled = 0
        self._spare: list[memoryview] = []
        self._written = 0
        self._over = False
        if not overwrite:
            uploads.check(url, multipart=False, deadline=deadline())

    @property
    def has_begun(self) -> bool:
        """See `.protocol.RemoteWriter`."""
        return self._upload is not None

    def take_back(self) -> bytes | None:
        """See `.protocol.RemoteWriter`."""
        self._usable()
        if self._upload is not None:
            return None
        held = bytes(self._held)
        self._give_up()
        return held

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """See `.protocol.RemoteWriter`."""
        self._usable()
        view = memoryview(data).cast("B")
        count = len(view)
        if self._size is not None and self._written + count > self._size:
            self._fail(self._other_size(f"at least {self._written + count}"))
        if self._upload is None and self._written + count <= self._plan.size_of(1):
            self._held += view
        else:
            try:
                upload = self._upload or self._begin()
                if (
                    upload.url != self._url
                    and max(self._size or 0, self._written + count) > LARGEST_PUT_BYTES
                ):
                    # One PUT would have to publish it; this is known before most of it was sent.
                    self._uploads.check(self._url, multipart=True, deadline=self._deadline())
                self._fill(view)
            except BaseException as error:
                self._fail(error)
        self._written += count
        return count

    def commit(self) -> FileInfo:
        """See `.protocol.RemoteWriter`."""
        self._usable()
        try:
            if self._size not in (None, self._written):
                raise self._other_size(str(self._written))
            with self._sizes.change(self._url) as change:
                info = self._publish()
                change.done(info)
        except BaseException as error:
            self._fail(error)
        self._space.accepted()
        self._over = True
        return info

    def abort(self) -> None:
        """See `.protocol.RemoteWriter`."""
        upload = self._give_up()
        if upload is not None:
            upload.abort()

    def forget(self) -> None:
        """See `.protocol.RemoteWriter`."""
        upload = self._give_up()
        if upload is not None:
            upload.forget()

    def _begin(self) -> MultipartUpload:
        deadline = self._deadline()
        target = self._url
        if not self._overwrite:
            try:
                self._uploads.check(target, multipart=True, deadline=deadline)
            except UnsupportedError:
                target = temporary_address(parse(target)).url
        upload = self._uploads.begin(target, threads=self._plan.under_way(1), deadline=deadline)
        self._upload = upload
        held, self._held = self._held, bytearray()
        self._fill(memoryview(held))
        return upload

    def _fill(self, view: memoryview) -> None:
        """Copy bytes to the part that is filled; send it when it is full and more is to come."""
        while view:
            if self._filled == len(self._part):
                self._send()
                self._next_part()
            piece = view[: len(self._part) - self._filled]
            self._part[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            view = view[len(piece) :]

    def _next_part(self) -> None:
        """Get memory for the next part, that of one which was sent if possible."""
        assert self._upload is not None
        size = self._plan.size_of(self._number + 1)
        self._number += 1
        for piece in self._upload.wait(self._plan.under_way(self._number)):
            if piece.content is not None:
                self._spare.append(piece.content)
        self._spare = [memory for memory in self._spare if len(memory) == size]
        self._part = self._spare.pop() if self._spare else memoryview(bytearray(size))
        self._filled = 0

    def _send(self) -> None:
        if self._filled:
            assert self._upload is not None
            part = self._part[: self._filled]
            self._part = memoryview(b"")
            self._filled = 0
            self._upload.add(Piece(UploadBody(part), 0, len(part)), self._deadline())

    def _publish(self) -> FileInfo:
        deadline = self._deadline()
        upload = self._upload
        if upload is None:
            body = UploadBody(self._held)
            return self._uploads.put(self._url, body, create_only=not self._overwrite, deadline=deadline)
        self._send()
        self._part, self._spare = memoryview(b""), []
        if upload.url == self._url:
            return self._uploads.finish(upload, create_only=not self._overwrite, deadline=deadline)
        info = self._uploads.finish(upload, create_only=False, deadline=deadline)
        try:
            published = self._copies.copy(upload.url, self._url, overwrite=False, deadline=deadline)
        finally:
            self._uploads.discard(upload.url)
        return dataclasses.replace(published, checksums={**info.checksums, **published.checksums})

    def _fail(self, error: BaseException) -> None:
        """Clean up and raise."""
        if isinstance(error, StoreFullError):
            self._space.refused(self._size, error)
        upload = self._give_up()
        if upload is not None:
            upload.abort()
        raise error

    def _give_up(self) -> MultipartUpload | None:
        """Send no more; return what there is to clean up, which in a child process is nothing."""
        upload = None if self._over or self._process != os.getpid() else self._upload
        self._over = True
        self._held = bytearray()
        self._part, self._spare = memoryview(b""), []
        return upload

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
