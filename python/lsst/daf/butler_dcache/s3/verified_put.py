"""One request that stores bytes, an object or a part of one, and is sure that they arrived.

Theory of operation: the checksum is sent with the bytes, so that the server refuses what arrives otherwise,
and a server that knows the kind of checksum says it again in its answer. One that does not is asked to verify
a ``Content-MD5``, and answers with the MD5 as entity tag where it does not encrypt. Which of them it is shows
with the first upload, which carries both; a server that refuses a header which it does not know gets none
from then on. CRC64NVME costs 0.05 CPU seconds per GiB, MD5 1.4.

The adler32 is taken as well: that is what dCache has of every file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from types import MappingProxyType

from ..errors import DcacheError, IntegrityError, ProtocolError, UnsupportedError
from ..redaction import redact_url
from ..transport.answer import DataAnswer
from ..transport.deadline import Deadline
from ..transport.upload_body import UploadBody
from .address import parse
from .checksums import MODE, Digests, announced, header_name
from .endpoint import S3Endpoint

__all__ = ("WRITER", "Piece", "Stored", "date_of", "look", "put_verified")

WRITER = "x-amz-meta-dcb-writer"
"""Header that tells whose upload an object is."""

_PIECE_BYTES = 256 * 1024
_AT_ONCE_BYTES = 1024 * 1024
_ALGORITHMS = {
    "unknown": ("adler32", "crc64nvme", "md5"),
    "crc64nvme": ("adler32", "crc64nvme"),
    "crc32c": ("adler32", "crc32c"),
    "md5": ("adler32", "md5"),
}
_REFUSED_HEADER = frozenset({400, 501})


class Piece:
    """Consecutive bytes of what is uploaded.

    Parameters
    ----------
    body : `UploadBody`
        All that is uploaded.
    start, length : `int`
        Which of its bytes.

    Attributes
    ----------
    content : `memoryview` or `None`
        The bytes themselves, if they are in memory.

    Notes
    -----
    Those of a file are read where they are, twice: for the checksum and to be sent. So they take no memory.
    """

    is_given_up = False
    """Set by another thread: it shall not be sent to its end."""

    def __init__(self, body: UploadBody, start: int, length: int) -> None:
        self._body = body
        self.start = start
        self.length = length
        self.content = None if body.content is None else body.content[start : start + length]

    def digests(self, algorithms: tuple[str, ...]) -> Digests:
        """Return checksums of the bytes.

        Parameters
        ----------
        algorithms : `tuple` [ `str` ]
            Which.
        """
        digests = Digests(*algorithms)
        if self.content is None and self.length <= _AT_ONCE_BYTES:
            memory = bytearray(self.length)
            self._body.read_at(self.start, memoryview(memory))
            self.content = memoryview(memory)
        if self.content is not None:
            for at in range(0, self.length, _PIECE_BYTES):  # the second checksum finds them in the cache
                digests.update(self.content[at : at + _PIECE_BYTES])
            return digests
        stream, view = _PieceStream(self), memoryview(bytearray(_PIECE_BYTES))
        while count := stream.readinto(view):
            digests.update(view[:count])
        return digests

    def wire(self) -> memoryview | io.RawIOBase:
        """Return what the transport sends, once."""
        return _PieceStream(self) if self.content is None else self.content

    def read_at(self, offset: int, view: memoryview) -> None:
        """Fill memory with the bytes at some place.

        Parameters
        ----------
        offset : `int`
            Within the piece.
        view : `memoryview`
            Where they go.
        """
        if self.is_given_up:
            raise UnsupportedError("the upload was given up", operation="write")
        self._body.read_at(self.start + offset, view)


class _PieceStream(io.RawIOBase):
    """A piece of a file as a file."""

    def __init__(self, piece: Piece) -> None:
        super().__init__()
        self._piece = piece
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._piece.length}[whence]
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer)[: self._piece.length - self._position]
        if view:
            self._piece.read_at(self._position, view)
            self._position += len(view)
        return len(view)


@dataclass(frozen=True, slots=True)
class Stored:
    """What is known of bytes that arrived.

    Parameters
    ----------
    digests : `Digests`
        Their size and checksums.
    etag : `str`
        Entity tag that the server gave, with its quotes; empty if it gave none.
    date : `datetime.datetime`
        When it answered, by its own clock if it says.
    """

    digests: Digests
    etag: str
    date: datetime


def put_verified(
    endpoint: S3Endpoint,
    url: str,
    piece: Piece,
    *,
    query: Mapping[str, str] = MappingProxyType({}),
    headers: Mapping[str, str] = MappingProxyType({}),
    kind: str | None = None,
    deadline: Deadline,
) -> Stored:
    """Send bytes and compare what the server says of them.

    Parameters
    ----------
    endpoint : `S3Endpoint`
        Where to.
    url : `str`
        The object.
    piece : `Piece`
        The bytes.
    query, headers : `~collections.abc.Mapping`, optional
        Further parts of the request.
    kind : `str`, optional
        Kind of the checksum, where that is settled: ``crc64nvme`` or ``md5``.
    deadline : `Deadline`
        When to give up.

    Returns
    -------
    stored : `Stored`
        What arrived.

    Raises
    ------
    IntegrityError
        Raised if other bytes arrived, the second time as well.
    DcacheError
        Raised by cause.
    """
    key = parse(url).key
    learning = kind is None and endpoint.knowledge.checksum == "unknown"
    kind = kind or endpoint.knowledge.checksum
    is_damaged = False
    while True:
        digests = piece.digests(_ALGORITHMS[kind])
        sums = {header_name(name): digests.base64(name) for name in _ALGORITHMS[kind][1:]}
        try:
            with endpoint.open(
                "PUT", key, query=query, headers={**headers, **sums}, body=piece.wire(), deadline=deadline
            ) as answer:
                if answer.status != 200:
                    raise endpoint.failure(answer, operation="write", url=url)
                _compare(answer, piece, digests, sums, url)
                if learning:
                    seen = kind == "unknown" and header_name("crc64nvme") in answer.headers
                    endpoint.knowledge.checksum = "crc64nvme" if seen else "md5"
                return Stored(digests, answer.headers.get("ETag", ""), date_of(answer.headers))
        except DcacheError as error:
            if isinstance(error, IntegrityError) and not is_damaged and not deadline.expired:
                # Once more: something between here and there changed the bytes, or the answer.
                is_damaged = True
            elif kind == "unknown" and error.status in _REFUSED_HEADER:
                kind = "md5"  # some gateways refuse what they do not know
            else:
                error.operation, error.url = "write", redact_url(url)
                raise


def _compare(answer: DataAnswer, piece: Piece, digests: Digests, sums: Mapping[str, str], url: str) -> None:
    if not answer.body_sent:
        raise ProtocolError(
            "the server does not wait for the body of an upload",
            operation="write",
            url=url,
            status=answer.status,
        )
    if all(answer.headers.get(name) == value for name, value in sums.items()):
        return  # that is what a server which knows the checksum says
    own, said = digests.hexdigests(), announced(answer.headers).checksums
    if not own.keys() & said.keys() and "md5" in said:
        own = piece.digests(("md5",)).hexdigests()
    for name in own.keys() & said.keys():
        if said[name] != own[name]:
            raise IntegrityError(
                f"the bytes that were sent have {name} {own[name]}, those that arrived {said[name]}",
                operation="write",
                url=url,
                hint="The write can be repeated.",
            )


def date_of(headers: Mapping[str, str]) -> datetime:
    """Return when an answer was given.

    Parameters
    ----------
    headers : `~collections.abc.Mapping`
        Its headers; without a legible ``Date`` it is now.
    """
    return _date(headers.get("Date", "")) or datetime.now(UTC)


@lru_cache(maxsize=16)
def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def look(endpoint: S3Endpoint, url: str, deadline: Deadline) -> Mapping[str, str] | None:
    """Return what the server says of an object, `None` if there is none.

    Parameters
    ----------
    endpoint : `S3Endpoint`
        Whom to ask.
    url : `str`
        The object.
    deadline : `Deadline`
        When to give up.
    """
    with endpoint.open("HEAD", parse(url).key, headers=MODE, deadline=deadline) as answer:
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise endpoint.failure(answer, operation="write", url=url)
        return answer.headers
