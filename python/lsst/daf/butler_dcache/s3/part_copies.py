"""Copies that are put together of ranges of the source: above 5 GiB, or on condition to replace nothing.

Theory of operation: each part is a range of one version of the source, which its entity tag makes sure of,
copied by the server; the last request names them in order. Whether that had its effect, if its answer is lost
or says only that the server failed, is found out by looking: the copy carries a word of its own. What does
not come to its end is aborted.
"""

from __future__ import annotations

import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..errors import (
    DcacheError,
    DoorUnavailableError,
    IntegrityError,
    OutcomeUnknownError,
    ProtocolError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServerBusyError,
    ServerError,
)
from ..model import ByteRange
from ..transport.deadline import Deadline
from ..transport.retry import Phase, rounds
from .address import S3Address
from .conditions import CreateOnly
from .endpoint import S3Endpoint
from .listing import Listing, ObjectHead
from .verified_put import WRITER

__all__ = ("Order", "PartCopies", "SourceChangedError")

_PART_BYTES = 1024**3
_MOST_PARTS = 10_000
_PARTS_AT_ONCE = 4
_METADATA = "x-amz-meta-"
_MD5 = re.compile(r"[0-9a-f]{32}")

_UNSETTLED = (
    DoorUnavailableError,
    OutcomeUnknownError,
    ProtocolError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServerBusyError,
    ServerError,
)
"""What the last request may be answered with although it, or one like it before, had its effect."""


class SourceChangedError(Exception):
    """Between the look and the copy the source became another one."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be copied.

    Parameters
    ----------
    original : `ObjectHead`
        The version of the source.
    source, target : `S3Address`
        From where and to where.
    operation : `str`
        What it is done for, for messages.
    deadline : `Deadline`
        When to give up.
    """

    original: ObjectHead
    source: S3Address
    target: S3Address
    operation: str
    deadline: Deadline

    @property
    def size(self) -> int:
        """Bytes of the source."""
        size = self.original.info.size
        assert size is not None, "a HEAD without a size is refused"
        return size

    def send(self, endpoint: S3Endpoint, name: str, **parameters: Any) -> dict[str, Any]:
        """Have the server do a step of it.

        Parameters
        ----------
        endpoint : `S3Endpoint`
            The bucket's endpoint.
        name : `str`
            Name of boto3's method.
        **parameters
            Its parameters; the key of the target is added.

        Returns
        -------
        answer : `dict`
            What boto3 made of the answer.
        """
        return endpoint.call(
            name,
            url=self.target.url,
            operation=self.operation,
            deadline=self.deadline,
            Key=self.target.key,
            **parameters,
        )

    def send_copying(self, endpoint: S3Endpoint, name: str, **parameters: Any) -> dict[str, Any]:
        """Have the server do a step that copies.

        Parameters
        ----------
        endpoint : `S3Endpoint`
            The bucket's endpoint.
        name : `str`
            Name of boto3's method.
        **parameters
            Its parameters; the keys, and which version it must be, are added.

        Returns
        -------
        answer : `dict`
            What boto3 made of the answer.

        Raises
        ------
        SourceChangedError
            Raised if the source is another version by now.
        """
        etag = self.original.info.etag
        condition = {"CopySourceIfMatch": etag} if etag else {}
        place = {"Bucket": self.source.bucket, "Key": self.source.key}
        try:
            return self.send(endpoint, name, CopySource=place, **condition, **parameters)
        except ResourceExistsError as error:
            # 412: the only condition is that the source is what it was.
            raise SourceChangedError from error


class PartCopies:
    """Copies objects of one bucket in parts.

    Parameters
    ----------
    endpoint : `S3Endpoint`
        The bucket's endpoint.
    listing : `Listing`
        Looks into the bucket.
    create_only : `CreateOnly`
        Knows which conditions the server keeps.
    """

    def __init__(self, endpoint: S3Endpoint, listing: Listing, create_only: CreateOnly) -> None:
        self._endpoint = endpoint
        self._listing = listing
        self._create_only = create_only

    def copy(self, order: Order, *, create_only: bool) -> str:
        """Copy an object of at least one byte.

        Parameters
        ----------
        order : `Order`
            What is copied.
        create_only : `bool`
            Whether nothing must be replaced.

        Returns
        -------
        writer : `str`
            The word that the copy carries in its metadata.

        Raises
        ------
        SourceChangedError
            Raised if the source is another version by now.
        DcacheError
            Raised by cause. Nothing is published then, and no parts are left.
        """
        if create_only:
            create_only = self._create_only.prepare(order.target.url, multipart=True, deadline=order.deadline)
        writer = uuid.uuid4().hex
        upload = self._begin(order, writer)
        try:
            parts = self._copy_parts(order, upload)
            self._complete(order, upload, parts, writer, {"IfNoneMatch": "*"} if create_only else {})
        except BaseException:
            self._abort(order, upload)
            raise
        return writer

    def _begin(self, order: Order, writer: str) -> str:
        headers = order.original.headers
        metadata = {
            name[len(_METADATA) :]: value
            for name, value in headers.items()
            if name.lower().startswith(_METADATA)
        }
        metadata[WRITER.removeprefix(_METADATA)] = writer
        kind = headers.get("Content-Type")
        answer = order.send(
            self._endpoint,
            "create_multipart_upload",
            Metadata=metadata,
            **({"ContentType": kind} if kind else {}),
        )
        if not (upload := answer.get("UploadId")):
            raise ProtocolError("the upload has no name", operation=order.operation, url=order.target.url)
        return str(upload)

    def _copy_parts(self, order: Order, upload: str) -> list[dict[str, Any]]:
        length = max(_PART_BYTES, -(-order.size // _MOST_PARTS))

        def part(start: int) -> dict[str, Any]:
            number = start // length + 1
            span = ByteRange(start, min(start + length, order.size))
            answer = order.send_copying(
                self._endpoint,
                "upload_part_copy",
                UploadId=upload,
                PartNumber=number,
                CopySourceRange=span.header(),
            )
            if not (tag := answer.get("CopyPartResult", {}).get("ETag")):
                raise ProtocolError(
                    "the copy of a part has no entity tag", operation=order.operation, url=order.target.url
                )
            return {"PartNumber": number, "ETag": tag}

        starts = range(0, order.size, length)
        with ThreadPoolExecutor(min(_PARTS_AT_ONCE, len(starts)), "dcache-copy") as workers:
            tasks = [workers.submit(part, start) for start in starts]
            try:
                parts = [task.result() for task in tasks]
            except BaseException:
                workers.shutdown(wait=True, cancel_futures=True)
                raise
        # That of a part is its MD5, which that of the copy is not.
        md5, tag = order.original.info.checksums.get("md5"), parts[0]["ETag"].strip('"').lower()
        if len(parts) == 1 and md5 is not None and _MD5.fullmatch(tag) and tag != md5:
            raise IntegrityError(
                f"the object has md5 {md5}, its copy {tag}", operation=order.operation, url=order.target.url
            )
        return parts

    def _complete(
        self,
        order: Order,
        upload: str,
        parts: list[dict[str, Any]],
        writer: str,
        condition: dict[str, Any],
    ) -> None:
        for last in rounds(Phase.UNSETTLED, "POST", order.deadline):
            try:
                order.send(
                    self._endpoint,
                    "complete_multipart_upload",
                    repeat=False,
                    UploadId=upload,
                    MultipartUpload={"Parts": parts},
                    **condition,
                )
                return
            except _UNSETTLED as error:
                head = self._listing.find(order.target, operation=order.operation, deadline=order.deadline)
                if head is not None and head.headers.get(WRITER) == writer:
                    return
                if last or isinstance(error, (ResourceExistsError, ResourceNotFoundError)):
                    raise

    def _abort(self, order: Order, upload: str) -> None:
        try:
            order.send(self._endpoint, "abort_multipart_upload", UploadId=upload)
        except DcacheError:
            # It is not there any more, or clean-orphans finds it; what went wrong before is told.
            return
