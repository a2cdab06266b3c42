"""An object that is uploaded in parts, several at the same time, and appears when they are put together.

Theory of operation: each part is one request, repeated alone where it fails; nobody sees any of them before
``CompleteMultipartUpload`` names them in order. Where the server knows CRC64NVME, it is told the value of the
whole object then, made from those of the parts, and compares; else its entity tag, the MD5 of the MD5s of the
parts, is compared here. Both stand in its answer, so that nothing more is asked. An answer without them
(radosgw 16) costs a HEAD.

Whether an upload was completed, if the answer is lost, is found out by looking: it carries a word of its own
in its metadata. What is not completed is aborted, for the server keeps parts, and charges for them, for ever.
A process that is killed leaves them, and so does a beginning whose answer is lost: ``clean-orphans`` finds
them.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import uuid
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import MappingProxyType
from typing import Any

from ..errors import (
    DcacheError,
    DeadlineError,
    DoorUnavailableError,
    IntegrityError,
    OutcomeUnknownError,
    ProtocolError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServerBusyError,
    ServerError,
    UnsupportedError,
    UploadDisplacedError,
)
from ..model import EntryKind, FileInfo
from ..redaction import redact_url
from ..transport.deadline import Deadline
from ..transport.retry import Phase, rounds
from .address import parse
from .checksums import Digests, announced, to_hexadecimal
from .endpoint import S3Endpoint
from .verified_put import WRITER, Piece, Stored, date_of, look, put_verified

__all__ = ("MultipartUpload",)

_log = logging.getLogger(__name__)

_REFUSED = range(400, 500)
_METADATA = WRITER.removeprefix("x-amz-meta-")
_COMPOSITE = re.compile(r"[0-9a-fA-F]{32}-[0-9]+$")
_ENCRYPTION = "x-amz-server-side-encryption"
"""With a key of its own the server's tags are no MD5s."""
_ABORT_SECONDS = 60.0
_AMBIGUOUS = (DoorUnavailableError, OutcomeUnknownError, ProtocolError, ServerBusyError, ServerError)


class MultipartUpload:
    """An object on its way, in parts.

    Parameters
    ----------
    endpoint : `S3Endpoint`
        Where to.
    url : `str`
        The object.
    threads : `int`
        How many parts are sent at the same time at most.
    deadline : `Deadline`
        Limits the beginning only.

    Notes
    -----
    `add`, `complete` and `abort` belong to one thread. End it with one of the latter two: `complete` aborts
    if it fails, and `add` does not.
    """

    def __init__(self, endpoint: S3Endpoint, url: str, *, threads: int, deadline: Deadline) -> None:
        self._endpoint = endpoint
        self.url = url
        self._key = parse(url).key
        self._writer = uuid.uuid4().hex
        self._stored: dict[int, Stored] = {}
        self._under_way: dict[Future[Stored], tuple[int, Piece]] = {}
        self._count = 0
        self._is_over = False
        self._upload_id, self._kind = self._create(deadline)
        self._executor = ThreadPoolExecutor(threads, "dcache-part")

    def add(self, piece: Piece, deadline: Deadline) -> None:
        """Begin to send the next part.

        Parameters
        ----------
        piece : `Piece`
            Its bytes, which must stay as they are until it is sent.
        deadline : `Deadline`
            Limits its sending.
        """
        self._count += 1
        number = self._count
        try:
            task = self._executor.submit(self._send, number, piece, deadline)
        except RuntimeError as error:
            raise UnsupportedError(
                "no part is sent while the interpreter ends", operation="write", url=self.url
            ) from error
        self._under_way[task] = number, piece

    def wait(self, most: int) -> list[Piece]:
        """Wait until few enough parts are being sent.

        Parameters
        ----------
        most : `int`
            How many may be.

        Returns
        -------
        pieces : `list` [ `Piece` ]
            Those that have been sent since the last call.

        Raises
        ------
        DcacheError
            Raised by cause if one of them failed.
        """
        sent: list[Piece] = []
        done = {task for task in self._under_way if task.done()}
        while True:
            for task in done:
                number, piece = self._under_way.pop(task)
                self._stored[number] = task.result()
                sent.append(piece)
            if len(self._under_way) <= most:
                return sent
            done = wait(self._under_way, return_when=FIRST_COMPLETED).done

    def complete(self, deadline: Deadline, *, create_only: bool = False) -> FileInfo:
        """Put the parts together, and verify the whole.

        Parameters
        ----------
        deadline : `Deadline`
            When to give up.
        create_only : `bool`, optional
            Whether the server is told not to replace an object; it must be known to do as it is told.

        Returns
        -------
        info : `FileInfo`
            The object that is there now.

        Raises
        ------
        DcacheError
            Raised by cause. The upload is aborted then.
        """
        try:
            self.wait(0)
            self._executor.shutdown()
            info = self._complete(deadline, create_only)
        except BaseException:
            self.abort()
            raise
        self._is_over = True
        return info

    def abort(self) -> None:
        """Break off: the server forgets the parts. That it fails is logged, for it has no other consequence.

        Notes
        -----
        A second time, or after `complete`, it does nothing. Parts that are being sent are waited for, or the
        server would keep them.
        """
        if self._is_over:
            return
        self._is_over = True
        for _, piece in self._under_way.values():
            piece.is_given_up = True
        self._executor.shutdown(wait=True, cancel_futures=True)
        try:
            self._endpoint.call(
                "abort_multipart_upload",
                url=self.url,
                operation="clean up",
                deadline=Deadline(_ABORT_SECONDS),
                Key=self._key,
                UploadId=self._upload_id,
            )
        except ResourceNotFoundError:
            return
        except DcacheError as error:
            _log.warning("parts of an upload are left, which clean-orphans will find: %s", error)

    def forget(self) -> None:
        """As `abort`, from the garbage collector: nothing is waited for."""
        # A collector may run while this very thread holds any lock of ours.
        try:
            threading.Thread(target=self.abort, name="dcache-forgotten-upload", daemon=False).start()
        except RuntimeError:
            return  # the interpreter ends

    def _create(self, deadline: Deadline) -> tuple[str, str]:
        """Return the upload's name, and the kind of checksum that its parts have."""
        known = self._endpoint.knowledge.checksum
        plain: dict[str, Any] = {"Metadata": {_METADATA: self._writer}}
        summed = {**plain, "ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"}
        try:
            answer = self._call("create_multipart_upload", deadline, **(plain if known == "md5" else summed))
        except (ProtocolError, UnsupportedError) as error:
            if known != "unknown":
                raise
            _log.info("the server refuses to be asked for a checksum: %s", error)
            answer = self._call("create_multipart_upload", deadline, **plain)
        kind = "crc64nvme" if answer.get("ChecksumAlgorithm") == "CRC64NVME" else "md5"
        if not (upload_id := answer.get("UploadId")):
            raise ProtocolError("the answer names no upload", operation="write", url=self.url)
        return str(upload_id), kind

    def _send(self, number: int, piece: Piece, deadline: Deadline) -> Stored:
        query = {"partNumber": str(number), "uploadId": self._upload_id}
        try:
            return put_verified(
                self._endpoint, self.url, piece, query=query, kind=self._kind, deadline=deadline
            )
        except ResourceNotFoundError as error:
            raise self._is_gone(error) from error
        except OutcomeUnknownError as error:
            # Whatever became of it, nobody will see it.
            kind = DeadlineError if isinstance(error.__cause__, DeadlineError) else DoorUnavailableError
            raise kind(
                f"the upload did not come to its end, and nothing was published: {error.message}",
                operation="write",
                url=self.url,
                attempts=error.attempts,
                elapsed_seconds=deadline.elapsed,
            ) from error

    def _complete(self, deadline: Deadline, create_only: bool) -> FileInfo:
        stored = [self._stored[number] for number in range(1, self._count + 1)]
        whole = Digests("adler32", *(("crc64nvme",) if self._kind == "crc64nvme" else ()))
        parts: list[dict[str, Any]] = []
        for number, part in enumerate(stored, 1):
            entry: dict[str, Any] = {"PartNumber": number, "ETag": part.etag}
            if self._kind == "crc64nvme":
                entry["ChecksumCRC64NVME"] = part.digests.base64("crc64nvme")
            parts.append(entry)
            whole.append(part.digests)
        parameters: dict[str, Any] = {"MultipartUpload": {"Parts": parts}}
        if self._kind == "crc64nvme":
            parameters |= {
                "ChecksumCRC64NVME": whole.base64("crc64nvme"),
                "ChecksumType": "FULL_OBJECT",
                "MpuObjectSize": whole.size,
            }
        if create_only:
            parameters["IfNoneMatch"] = "*"
        lost: DcacheError | None = None
        for last in rounds(Phase.UNSETTLED, "POST", deadline):
            try:
                answer = self._call("complete_multipart_upload", deadline, repeat=False, **parameters)
            except (ResourceExistsError, ResourceNotFoundError) as error:
                # The words of a second request, if the first had its effect.
                if lost is not None and (info := self._look(whole, deadline)) is not None:
                    return info
                if isinstance(error, ResourceExistsError):
                    raise
                raise self._is_gone(error) from error
            except _AMBIGUOUS as error:
                if error.status in _REFUSED:
                    raise
                lost = error
                if (info := self._look(whole, deadline)) is not None:
                    _log.info("the answer to the end of an upload was lost, but it has happened: %s", error)
                    return info
                if last:
                    raise
            else:
                return self._verified(answer, whole, deadline)
        raise AssertionError("the last round returns or raises")

    def _verified(self, answer: dict[str, Any], whole: Digests, deadline: Deadline) -> FileInfo:
        said = to_hexadecimal(answer.get("ChecksumCRC64NVME", ""), "crc64nvme")
        own = whole.hexdigests()
        etag = answer.get("ETag", "")
        if said is not None and "crc64nvme" in own:
            if said != own["crc64nvme"]:
                raise self._other_bytes("crc64nvme", own["crc64nvme"], said)
        elif not etag or etag.strip('"') != self._etag():
            info = self._look(whole, deadline)
            if info is None:
                raise UploadDisplacedError(
                    "the object was published, and another writer replaced it at once",
                    operation="write",
                    url=self.url,
                )
            return info
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return self._info(whole, etag, {name.title(): value for name, value in headers.items()})

    def _look(self, whole: Digests, deadline: Deadline) -> FileInfo | None:
        """Return what the name holds if it is ours; raise if that is damaged, or cannot be found out."""
        try:
            headers = look(self._endpoint, self.url, deadline)
        except DcacheError as error:
            raise OutcomeUnknownError(
                "it could not be found out whether the upload was completed",
                operation="write",
                url=self.url,
                elapsed_seconds=deadline.elapsed,
            ) from error
        if headers is None or headers.get(WRITER) != self._writer:
            return None
        if (size := headers.get("Content-Length", "")) != str(whole.size):
            raise self._other_bytes("size", str(whole.size), size)
        own, said = whole.hexdigests(), announced(headers).checksums
        etag = headers.get("ETag", "")
        tag = self._etag()
        is_encrypted = any(name.lower().startswith(_ENCRYPTION) for name in headers)
        if tag is not None and _COMPOSITE.match(etag.strip('"')) and not is_encrypted:
            own["ETag"], said["ETag"] = tag, etag.strip('"')
        for name in own.keys() & said.keys():
            if own[name] != said[name]:
                raise self._other_bytes(name, own[name], said[name])
        return self._info(whole, etag, headers)

    def _etag(self) -> str | None:
        """Return the entity tag that an object of these parts has, `None` if theirs are not MD5s."""
        try:
            digests = [bytes.fromhex(self._stored[number].etag.strip('"')) for number in sorted(self._stored)]
        except ValueError:
            return None
        return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"

    def _info(self, whole: Digests, etag: str, headers: Any) -> FileInfo:
        return FileInfo(
            url=self.url,
            kind=EntryKind.FILE,
            size=whole.size,
            modified=date_of(headers),
            checksums=MappingProxyType(whole.hexdigests()),
            etag=etag,
        )

    def _call(self, name: str, deadline: Deadline, *, repeat: bool = True, **parameters: Any) -> Any:
        if name != "create_multipart_upload":
            parameters["UploadId"] = self._upload_id
        try:
            return self._endpoint.call(
                name,
                url=self.url,
                operation="write",
                deadline=deadline,
                repeat=repeat,
                Key=self._key,
                **parameters,
            )
        except DcacheError as error:
            error.operation, error.url = "write", redact_url(self.url)
            raise

    def _is_gone(self, error: DcacheError) -> UploadDisplacedError:
        return UploadDisplacedError(
            f"the upload was aborted by somebody else: {error.message}",
            operation="write",
            url=self.url,
            status=error.status,
            hint="A lifecycle rule or clean-orphans may have taken it for one that was left.",
        )

    def _other_bytes(self, what: str, own: str, theirs: str) -> IntegrityError:
        return IntegrityError(
            f"the parts that were sent have {what} {own}, the object {theirs}",
            operation="write",
            url=self.url,
        )
