"""Copies that the server makes by itself, and renames, which S3 does not have.

Theory of operation: ``CopyObject`` copies up to 5 GiB, of one version of the source (its entity tag is the
condition) and atomically; more is put together of ranges of the source (`.part_copies`). Afterwards size and
checksums of both are compared, as far as both have some: an object that was uploaded in parts, or copied so,
has an entity tag that is no checksum.

Creating, and never replacing, is a condition on the last step. ``CopyObject`` knows one at AWS only, and
since 2025; ``CompleteMultipartUpload`` does where `.conditions` says so. Where neither does, or there is not
one byte, of which no part can be made, the bytes go through this process into one conditional PUT.

A rename is a copy and, when that has been verified, the removal of the version that was copied. Whoever looks
in between sees both.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, cast

from ..errors import (
    IntegrityError,
    ProtocolError,
    ResourceExistsError,
    ResourceIsDirectoryError,
    ResourceNotFoundError,
    UnsupportedError,
    UploadDisplacedError,
)
from ..model import ByteRange, FileInfo
from ..transport.deadline import Deadline
from ..transport.retry import Phase, rounds
from ..transport.upload_body import UploadBody
from .address import S3Address, parse
from .conditions import CreateOnly
from .downloads import Downloads
from .endpoint import S3Endpoint
from .listing import Listing, ObjectHead
from .part_copies import Order, PartCopies, SourceChangedError
from .reader import S3Reader
from .removal import Removal
from .uploads import Uploads
from .verified_put import WRITER

__all__ = ("Copies",)

_MOST_BY_COPY_OBJECT = 5 * 1024**3
_MOST_IN_MEMORY = 16 * 1024**2
_READ_AHEAD = 8 * 1024**2


class Copies:
    """Copies and renames objects of one bucket.

    Parameters
    ----------
    endpoint : `S3Endpoint`
        The bucket's endpoint.
    listing : `Listing`
        Looks into the bucket.
    downloads : `Downloads`
        Reads what the server cannot copy on our condition.
    uploads : `Uploads`
        Writes it.
    create_only : `CreateOnly`
        Knows which conditions the server keeps.
    removal : `Removal`
        Removes what was renamed.
    """

    def __init__(
        self,
        endpoint: S3Endpoint,
        listing: Listing,
        downloads: Downloads,
        uploads: Uploads,
        create_only: CreateOnly,
        removal: Removal,
    ) -> None:
        self._endpoint = endpoint
        self._listing = listing
        self._downloads = downloads
        self._uploads = uploads
        self._create_only = create_only
        self._removal = removal
        self._parts = PartCopies(endpoint, listing, create_only)

    def copy(self, source: str, target: str, *, overwrite: bool, deadline: Deadline) -> FileInfo:
        """Copy an object and verify the copy.

        Parameters
        ----------
        source, target : `str`
            Names of two objects.
        overwrite : `bool`
            Whether an object that is there is replaced.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        info : `FileInfo`
            The copy.

        Raises
        ------
        ResourceNotFoundError
            Raised if there is no source.
        ResourceExistsError
            Raised if the name is taken and must not be replaced.
        IntegrityError
            Raised if the copy is not what was copied; it stays, and so does the source.
        UploadDisplacedError
            Raised if another writer replaced the copy before it could be verified, or the source over and
            over.
        UnsupportedError
            Raised if the server cannot be kept from replacing.
        """
        return self._copy(parse(source), parse(target), overwrite, deadline, "copy")[1]

    def move(self, source: str, target: str, *, overwrite: bool, deadline: Deadline) -> None:
        """Give an object another name.

        Parameters
        ----------
        source, target : `str`
            Names of two objects.
        overwrite : `bool`
            Whether an object that is there is replaced.
        deadline : `Deadline`
            When to give up.

        Raises
        ------
        UploadDisplacedError
            Raised if somebody wrote the source meanwhile: it stays, and the copy has what was there before.
        DcacheError
            As by `copy`. The source stays.
        """
        old = parse(source)
        original, _ = self._copy(old, parse(target), overwrite, deadline, "move")
        # AWS and SeaweedFS keep the condition of the removal, radosgw 16 ignores it: there nothing but this
        # look protects what another writer puts under the old name in the meantime.
        head = self._listing.find(old, operation="move", deadline=deadline)
        if head is None:
            return
        if not _same_tag(head.info.etag, original.etag):
            raise self._changed(old, "move")
        try:
            self._removal.delete(old, etag=original.etag, deadline=deadline)
        except ResourceExistsError as error:
            raise self._changed(old, "move") from error
        except (ProtocolError, UnsupportedError):
            self._removal.delete(old, deadline=deadline)  # it does not take a condition

    def _copy(
        self, source: S3Address, target: S3Address, overwrite: bool, deadline: Deadline, operation: str
    ) -> tuple[FileInfo, FileInfo]:
        """Copy; return what was copied and the copy."""
        if target.is_directory:
            raise ResourceIsDirectoryError(
                "a directory is no name for a file", operation=operation, url=target.url
            )
        for last in rounds(Phase.UNSETTLED, "PUT", deadline):
            original = self._original(source, deadline, operation)
            order = Order(original, source, target, operation, deadline)
            try:
                return original.info, self._replace(order) if overwrite else self._create(order)
            except SourceChangedError as error:
                if last:
                    raise self._changed(source, operation) from error
        raise AssertionError("the last round returns or raises")

    def _original(self, source: S3Address, deadline: Deadline, operation: str) -> ObjectHead:
        found = None
        if not source.is_directory:
            found = self._listing.find(source, operation=operation, deadline=deadline)
        if found is None:
            if self._listing.holds(source, operation=operation, deadline=deadline):
                raise ResourceIsDirectoryError(
                    "directories are not copied", operation=operation, url=source.url
                )
            raise ResourceNotFoundError("no such object", operation=operation, url=source.url)
        return found

    def _replace(self, order: Order) -> FileInfo:
        if order.size > _MOST_BY_COPY_OBJECT:
            return self._verified(order, writer=self._parts.copy(order, create_only=False))
        answer = order.send_copying(self._endpoint, "copy_object")
        return self._verified(order, etag=answer.get("CopyObjectResult", {}).get("ETag", ""))

    def _create(self, order: Order) -> FileInfo:
        target, deadline = order.target, order.deadline
        if self._listing.find(target, operation=order.operation, deadline=deadline) is not None:
            # Before anything is copied; that it stays so is the condition's affair.
            raise ResourceExistsError("the object exists", operation=order.operation, url=target.url)
        if order.size and self._create_only.multipart_is_exact(target.url, deadline=deadline):
            return self._verified(order, writer=self._parts.copy(order, create_only=True))
        return self._through_us(order)

    def _through_us(self, order: Order) -> FileInfo:
        url, deadline = order.target.url, order.deadline
        if order.size <= _MOST_IN_MEMORY:
            body = UploadBody(self._downloads.read(order.source.url))
            return self._uploads.put(url, body, create_only=True, deadline=deadline)
        reader = S3Reader(self._endpoint, self._downloads, order.source.url)
        try:
            reader.look()
            if not _same_tag(reader.info.etag, order.original.info.etag):
                raise SourceChangedError
            file = io.BufferedReader(_ObjectFile(reader.read_ranges, order.size), _READ_AHEAD)
            body = UploadBody(cast(Any, file))
            info = self._uploads.put(url, body, create_only=True, deadline=deadline)
        finally:
            reader.close()
        self._compare(order, info)
        return info

    def _verified(self, order: Order, *, etag: str = "", writer: str = "") -> FileInfo:
        head = self._listing.find(order.target, operation=order.operation, deadline=order.deadline)
        is_ours = head is not None and (
            head.headers.get(WRITER) == writer if writer else _same_tag(head.info.etag, etag)
        )
        if head is None or not is_ours:
            raise UploadDisplacedError(
                "another writer replaced or removed the copy at once",
                operation=order.operation,
                url=order.target.url,
            )
        self._compare(order, head.info)
        return head.info

    def _compare(self, order: Order, copy: FileInfo) -> None:
        original = order.original.info
        old, new = dict(original.checksums), dict(copy.checksums)
        old["size"], new["size"] = str(original.size), str(copy.size)
        for name in old.keys() & new.keys():
            if old[name] != new[name]:
                raise IntegrityError(
                    f"the object has {name} {old[name]}, its copy {new[name]}",
                    operation=order.operation,
                    url=order.target.url,
                    hint="Remove the copy.",
                )

    def _changed(self, source: S3Address, operation: str) -> UploadDisplacedError:
        return UploadDisplacedError(
            "somebody writes the object meanwhile; it stays", operation=operation, url=source.url
        )


class _ObjectFile(io.RawIOBase):
    """An object as a file that can seek."""

    def __init__(self, read_ranges: Callable[[list[ByteRange]], list[bytes]], size: int) -> None:
        super().__init__()
        self._read_ranges = read_ranges
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        stop = min(self._position + len(view), self._size)
        if stop <= self._position:
            return 0
        (data,) = self._read_ranges([ByteRange(self._position, stop)])
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def _same_tag(first: str, second: str) -> bool:
    # SeaweedFS 4.48 gives the entity tag of a copy without its quotes.
    return first.strip('"') == second.strip('"')
