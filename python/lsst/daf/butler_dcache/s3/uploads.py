"""One file to one key, verified: it is there as a whole, or what was there before still is.

Theory of operation: S3 shows an object when it has all of it. Up to 16 MiB it is one request; beyond, parts
are sent by several threads (`.multipart`). To repeat a request has no other effect than the first time, with
one exception: one that must not replace anything (``If-None-Match: *``) finds its own object, if the answer
to the first was lost. So it carries a word in its metadata by which it is known again.
"""

from __future__ import annotations

import logging
import uuid
from types import MappingProxyType

from ..errors import DcacheError, OutcomeUnknownError, ResourceExistsError, ServerError
from ..model import EntryKind, FileInfo
from ..transport.deadline import Deadline
from ..transport.upload_body import UploadBody
from .address import parse
from .checksums import announced
from .conditions import CONDITION, CreateOnly
from .endpoint import S3Endpoint
from .multipart import MultipartUpload
from .part_sizes import part_size_bytes
from .verified_put import WRITER, Piece, Stored, date_of, look, put_verified

__all__ = ("Uploads",)

_log = logging.getLogger(__name__)

_AT_ONCE_BYTES = 16 * 1024 * 1024
"""A file of one part would cost three requests instead of one."""
LARGEST_PUT_BYTES = 5 * 1024**3
_THREADS = 4
_CLEAN_UP_SECONDS = 60.0


class Uploads:
    """Writes objects.

    Parameters
    ----------
    endpoint : `S3Endpoint`
        Where to.
    create_only : `CreateOnly`
        Knows whether this server can be told not to replace an object.
    """

    def __init__(self, endpoint: S3Endpoint, create_only: CreateOnly) -> None:
        self._endpoint = endpoint
        self._create_only = create_only

    def put(self, url: str, body: UploadBody, *, create_only: bool = False, deadline: Deadline) -> FileInfo:
        """Write an object.

        Parameters
        ----------
        url : `str`
            Where to.
        body : `UploadBody`
            Its bytes.
        create_only : `bool`, optional
            Whether an object that is there must not be replaced.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        info : `FileInfo`
            Its size, checksums and entity tag, as the server has confirmed them.

        Raises
        ------
        ResourceExistsError
            Raised if there is an object and it must not be replaced.
        UnsupportedError
            Raised if it is too large, or the server cannot be kept from replacing.
        OutcomeUnknownError
            Raised if the answer is lost and a look does not tell whether the object was written.
        DcacheError
            Raised by cause. The key holds what it held before.
        """
        part_size = part_size_bytes(body.length, url=url)
        at_once = body.length <= _AT_ONCE_BYTES
        if create_only and not at_once and body.length <= LARGEST_PUT_BYTES:
            # Slow and all or nothing; but that nobody is overwritten comes first.
            at_once = not self._create_only.multipart_is_exact(url, deadline=deadline)
        if at_once:
            return self._put(url, body, create_only, deadline)
        if create_only:
            # Before everything is sent; and again before it is published, if nobody but us looks.
            self.check(url, multipart=True, deadline=deadline)
        upload = MultipartUpload(self._endpoint, url, threads=_THREADS, deadline=deadline)
        try:
            for start in range(0, body.length, part_size):
                upload.add(_piece(body, start, min(part_size, body.length - start)), deadline)
                upload.wait(_THREADS)
        except BaseException:
            upload.abort()
            raise
        return self.finish(upload, create_only=create_only, deadline=deadline)

    def check(self, url: str, *, multipart: bool, deadline: Deadline) -> None:
        """Refuse before a byte is sent to write what must not replace anything, if that cannot be had.

        Parameters
        ----------
        url : `str`
            Where to.
        multipart : `bool`
            Whether it is uploaded in parts.
        deadline : `Deadline`
            When to give up.

        Raises
        ------
        ResourceExistsError
            Raised if a look, where only that is possible, finds something.
        UnsupportedError
            Raised if the server cannot be kept from replacing.
        """
        self._create_only.prepare(url, multipart=multipart, deadline=deadline)

    def discard(self, url: str) -> None:
        """Remove an object of ours; that it fails is logged, for it has no other consequence.

        Parameters
        ----------
        url : `str`
            A temporary one.
        """
        try:
            with self._endpoint.open(
                "DELETE", parse(url).key, deadline=Deadline(_CLEAN_UP_SECONDS)
            ) as answer:
                if answer.status not in (200, 204, 404):
                    raise self._endpoint.failure(answer, operation="clean up", url=url)
        except DcacheError as error:
            _log.warning("a temporary object is left, which clean-orphans will find: %s", error)

    def begin(self, url: str, *, threads: int, deadline: Deadline) -> MultipartUpload:
        """Begin an object that is still being written.

        Parameters
        ----------
        url : `str`
            Where to.
        threads : `int`
            How many parts are sent at the same time at most.
        deadline : `Deadline`
            Limits the beginning only.

        Returns
        -------
        upload : `MultipartUpload`
            Takes its parts.
        """
        return MultipartUpload(self._endpoint, url, threads=threads, deadline=deadline)

    def finish(self, upload: MultipartUpload, *, create_only: bool, deadline: Deadline) -> FileInfo:
        """End an upload that was begun.

        Parameters
        ----------
        upload : `MultipartUpload`
            All of its parts were added.
        create_only : `bool`
            Whether an object that is there must not be replaced.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        info : `FileInfo`
            The object.

        Raises
        ------
        DcacheError
            Raised by cause, as by `put`. The upload is aborted then.
        """
        try:
            upload.wait(0)
            conditional = create_only and self._create_only.prepare(
                upload.url, multipart=True, deadline=deadline
            )
        except BaseException:
            upload.abort()
            raise
        return upload.complete(deadline, create_only=conditional)

    def _put(self, url: str, body: UploadBody, create_only: bool, deadline: Deadline) -> FileInfo:
        piece = Piece(body, 0, body.length)
        headers: dict[str, str] = {}
        writer = ""
        if create_only and self._create_only.prepare(url, multipart=False, deadline=deadline):
            writer = uuid.uuid4().hex
            headers = {**CONDITION, WRITER: writer}
        try:
            stored = put_verified(self._endpoint, url, piece, headers=headers, deadline=deadline)
        except (OutcomeUnknownError, ResourceExistsError, ServerError) as error:
            # It may be ours: the answer to a request that was repeated may have been lost, or be a relay's.
            stored = self._look(url, piece, writer, error, deadline)
        return FileInfo(
            url=url,
            kind=EntryKind.FILE,
            size=body.length,
            modified=stored.date,
            checksums=MappingProxyType(stored.digests.hexdigests()),
            etag=stored.etag,
        )

    def _look(self, url: str, piece: Piece, writer: str, error: DcacheError, deadline: Deadline) -> Stored:
        """Return what the key holds if that is what was to be written; raise the error if it is not."""
        try:
            headers = look(self._endpoint, url, deadline)
        except DcacheError as second:
            raise error from second
        if headers is None or headers.get("Content-Length") != str(piece.length):
            raise error
        digests = piece.digests(("adler32", "crc64nvme", "md5"))
        own, said = digests.hexdigests(), announced(headers).checksums
        same = [own[name] == said[name] for name in own.keys() & said.keys()]
        # Without a word of ours in it: whoever wrote it, these are the bytes that were to be written.
        is_ours = headers.get(WRITER) == writer if writer else any(same)
        if not is_ours or not all(same):
            raise error
        return Stored(digests, headers.get("ETag", ""), date_of(headers))


def _piece(body: UploadBody, start: int, length: int) -> Piece:
    if not body.is_in_order:
        return Piece(body, start, length)
    memory = bytearray(length)
    body.read_at(start, memoryview(memory))
    return Piece(UploadBody(memory), 0, length)
