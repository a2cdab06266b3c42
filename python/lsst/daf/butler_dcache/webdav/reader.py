"""One file, many reads: one redirect, and one connection to the pool that is held as long as it is read.

Theory of operation (protocol page, sections 2.5 and 3.3): the URL that the door gives lives as long as a
connection that has used it, and serves any number of range requests; closing the connection gives the mover
back. Several ranges travel in one request. Every 206 is checked: its ``Content-Range`` against what was asked
for and against the size of the file, and its adler32, which is that of the whole file, against the first one
seen: so no answer is ever mixed from two versions of a file. When the URL dies we go back to the door once
and continue only with the same file.

A door that proxies reads is asked for ``a-b`` inside the known size alone, one at a time: the rest it answers
wrongly (section 2.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType

from ..errors import (
    DoorUnavailableError,
    IntegrityError,
    ProtocolError,
)
from ..model import Adler32, ByteRange, EntryKind, FileInfo
from ..transport.answer import DataAnswer
from ..transport.connection import Connection
from ..transport.deadline import Deadline
from ..transport.failures import failure, is_mover_gone
from .door import Door
from .download import Downloads, digests
from .multipart import Part, parse_content_range, parts_of, pick

__all__ = ("WebdavReader",)

_MOST_RANGES = 100
"""Ranges of one request: far below the 8 KiB that a pool takes for all headers."""

_GAP_BYTES = 256
"""A gap that costs less than the head of another part."""

_PIECE_BYTES = 1 << 20


class WebdavReader:
    """A file that is open for reading.

    Parameters
    ----------
    door : `Door`
        Who knows where the file is.
    downloads : `Downloads`
        Asks it.
    url : `str`
        The file.

    Notes
    -----
    Not thread-safe. `close` gives the mover back; so does losing the object.
    """

    def __init__(self, door: Door, downloads: Downloads, url: str) -> None:
        self._door = door
        self._downloads = downloads
        self._url = url
        self._size: int | None = None
        self._adler32: str | None = None
        self._connection: Connection | None = None
        self._abandoned: DataAnswer | None = None
        self._closed = False
        self._place = ""
        deadline = door.deadline()
        self._locate(deadline)
        if self._place and door.dialect != "dcache":
            # XRootD redirects whatever the name; only the data server knows whether there is a file. Its
            # size is needed as well: XRootD 5 sends too few bytes for a range beyond the end.
            self._ask_size(deadline)

    def _locate(self, deadline: Deadline) -> None:
        """Ask the door for a URL; a door that proxies is found out by one byte."""
        answer, place = self._downloads.locate(self._url, deadline=deadline, span="bytes=0-0")
        self._place = place
        if answer is None:
            return
        # The door sends the bytes itself, so it will be asked again and again; it needs the size.
        answer.close(False)
        self._place = ""
        entry = self._door.propfind(self._url, 0, operation="read", deadline=deadline)[0]
        self._same_file(entry.size, entry.checksums.get("adler32"))

    @property
    def info(self) -> FileInfo:
        """Size and checksum of the file; asks the pool if no read has told them yet."""
        if self._size is None:
            self._ask_size(self._door.deadline())
        checksums = {} if self._adler32 is None else {"adler32": self._adler32}
        return FileInfo(
            url=self._url, kind=EntryKind.FILE, size=self._size, checksums=MappingProxyType(checksums)
        )

    def _ask_size(self, deadline: Deadline) -> None:
        answer = self._open("HEAD", {}, deadline)
        answer.read()
        answer.close()
        length = str(answer.headers.get("Content-Length", ""))
        if answer.status != 200 or not length.isdigit():
            raise self._failed(answer, b"", deadline)
        self._same_file(int(length), digests(answer).get("adler32"))

    def read_ranges(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        """Return the bytes of each range, cut where the file ends.

        Parameters
        ----------
        ranges : `~collections.abc.Sequence` [ `ByteRange` ]
            What to read.

        Returns
        -------
        data : `list` [ `bytes` ]
            In the order of ``ranges``.

        Raises
        ------
        IntegrityError
            Raised if the file was replaced meanwhile.
        """
        if not ranges:
            return []
        deadline = self._door.deadline()
        parts: list[Part] = []
        for batch in _batches(self._merged(ranges), 1 if not self._place else _MOST_RANGES):
            parts += self._fetch(batch, deadline)
        cut = [self._cut(one) for one in ranges]
        found = iter(pick(parts, [one for one in cut if one is not None], self._url))
        return [b"" if one is None else next(found) for one in cut]

    def stream(self, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes from an offset to the end of the file.

        Parameters
        ----------
        start : `int`, optional
            Offset of the first byte; from 0 on the bytes are verified by checksum.

        Yields
        ------
        piece : `bytes`
            Next bytes.

        Raises
        ------
        IntegrityError
            Raised after the last byte if these are not those of the file.
        """
        deadline = self._door.deadline()
        seen, position, resumed_at = Adler32(), start, -1
        while self._size is None or position < self._size:
            answer = self._ask_range(f"bytes={position}-{self._last_byte()}", deadline)
            if answer is None:
                break
            if answer.status == 200 and position > 0:
                answer.close(False)
                raise ProtocolError("the server ignored the range", operation="read", url=self._url)
            clean = False
            try:
                if answer.status == 206:
                    span, _ = parse_content_range(_content_range(answer), self._size, self._url)
                    if span.start != position:
                        raise ProtocolError("the answer begins elsewhere", operation="read", url=self._url)
                for piece in answer.iter_chunks(_PIECE_BYTES):
                    seen.update(piece)
                    position += len(piece)
                    yield piece
                clean = True
            except DoorUnavailableError:
                if resumed_at == position:
                    raise
                resumed_at = position
            finally:
                if clean or not self._set_aside(answer):
                    answer.close(None if clean else False)
        if self._size is None:
            self._size = position
        if position != max(self._size, start):
            raise IntegrityError(f"{position} bytes arrived of {self._size}", operation="read", url=self._url)
        if start == 0 and self._adler32 is not None and seen.hexdigest() != self._adler32:
            raise IntegrityError(
                f"the bytes that arrived have adler32 {seen.hexdigest()}, the file has {self._adler32}",
                operation="read",
                url=self._url,
            )

    def close(self) -> None:
        """Give the mover back; a second time is no error."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        # A connection that is kept for others would keep the mover busy (protocol page, section 2.5).
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._end_abandoned()

    def _set_aside(self, answer: DataAnswer) -> bool:
        """Keep an answer that nobody reads on until the next one is there, if that is of use.

        Its connection takes no further request, but with it the URL would die, and the next read would have
        to begin at the door.
        """
        if self._closed or not self._place or not answer.connection.usable:
            return False
        self._end_abandoned()
        self._abandoned, self._connection = answer, None
        return True

    def _end_abandoned(self) -> None:
        abandoned, self._abandoned = self._abandoned, None
        if abandoned is not None:
            abandoned.close(False)

    def _last_byte(self) -> str:
        # A door that proxies must not be asked beyond the end.
        return "" if self._place or self._size is None else str(self._size - 1)

    def _merged(self, ranges: Sequence[ByteRange]) -> list[ByteRange]:
        """Return what has to be asked for: in order, neighbours in one, nothing beyond the end."""
        merged: list[ByteRange] = []
        for one in sorted((cut for r in ranges if (cut := self._cut(r))), key=lambda one: one.start):
            if merged and one.start <= merged[-1].stop + _GAP_BYTES:
                merged[-1] = ByteRange(merged[-1].start, max(merged[-1].stop, one.stop))
            else:
                merged.append(one)
        return merged

    def _cut(self, one: ByteRange) -> ByteRange | None:
        stop = one.stop if self._size is None else min(one.stop, self._size)
        return ByteRange(one.start, stop) if one.start < stop else None

    def _fetch(self, wanted: Sequence[ByteRange], deadline: Deadline) -> list[Part]:
        """Return the parts that answer some ranges; none of them if all are beyond the end."""
        answer = self._ask_range(
            "bytes=" + ",".join(f"{one.start}-{one.stop - 1}" for one in wanted), deadline
        )
        if answer is None:
            return []
        body = answer.read()
        answer.close()
        if answer.status == 200:
            return [(ByteRange(0, len(body)), memoryview(body))] if body else []
        if "multipart/byteranges" in str(answer.headers.get("Content-Type", "")).lower():
            parts = []
            for part, total in parts_of(body, self._size, self._url):
                self._same_file(total, None)
                parts.append(part)
        else:
            span, _ = parse_content_range(_content_range(answer), self._size, self._url)
            if len(span) != len(body):
                raise ProtocolError(
                    f"{len(body)} bytes arrived for {_content_range(answer)!r}",
                    operation="read",
                    url=self._url,
                )
            parts = [(span, memoryview(body))]
        return parts

    def _ask_range(self, value: str, deadline: Deadline) -> DataAnswer | None:
        """Return the 206, or the 200 of a server that ignores ranges; `None` if all is beyond the end."""
        answer = self._open("GET", {"Range": value}, deadline)
        if answer.status == 416:
            answer.read()
            answer.close()
            if self._size is None:
                # 416 does not tell the size here, and an empty file has no range at all.
                self._ask_size(deadline)
                if self._size is not None and int(value[6:].partition("-")[0]) < self._size:
                    raise ProtocolError(
                        "the server refuses a range of the file", operation="read", url=self._url
                    )
                return None
            raise ProtocolError("the server refuses a range of the file", operation="read", url=self._url)
        if answer.status not in (200, 206):
            body = answer.read()
            answer.close(False)
            raise self._failed(answer, body, deadline)
        size: int | None = None
        if answer.status == 206:
            total = _content_range(answer).rpartition("/")[2]
            size = int(total) if total.isdigit() else None
        elif str(answer.headers.get("Content-Length", "")).isdigit():
            size = int(answer.headers["Content-Length"])
        try:
            self._same_file(size, digests(answer).get("adler32"))
        except IntegrityError:
            answer.close(False)
            raise
        return answer

    def _same_file(self, size: int | None, adler32: str | None) -> None:
        """Take what an answer says of the file, and refuse one that is of another."""
        if (self._size is not None and size is not None and size != self._size) or (
            self._adler32 is not None and adler32 is not None and adler32 != self._adler32
        ):
            raise IntegrityError(
                "the file was replaced while it was read",
                operation="read",
                url=self._url,
                hint="Open it again to read the new one.",
            )
        self._size = size if self._size is None else self._size
        self._adler32 = adler32 if self._adler32 is None else self._adler32

    def _open(self, method: str, headers: dict[str, str], deadline: Deadline) -> DataAnswer:
        """Ask the pool, or the door that proxies; go back to the door once if the URL has died."""
        if self._closed:
            raise ValueError("the reader is closed")
        for may_return in (True, False):
            try:
                answer = self._send(method, {**self._proof(), **headers}, deadline)
            except DoorUnavailableError:
                if not may_return or not self._place:
                    raise
            else:
                if not self._place or not is_mover_gone(answer) or not may_return:
                    return answer
                answer.close(False)
            self._drop()
            self._locate(deadline)
        raise AssertionError("the second round returns or raises")

    def _proof(self) -> dict[str, str]:
        # XRootD would read the whole file for a checksum that it has not stored.
        return {"Want-Digest": "adler32"} if self._door.dialect == "dcache" else {}

    def _send(self, method: str, headers: dict[str, str], deadline: Deadline) -> DataAnswer:
        if not self._place:
            return self._door.open(method, self._url, headers=headers, deadline=deadline)
        answer = self._door.data.open(
            method, self._place, headers=headers, deadline=deadline, connection=self._connection
        )
        self._connection = answer.hold()
        self._end_abandoned()
        return answer

    def _failed(self, answer: DataAnswer, body: bytes, deadline: Deadline) -> Exception:
        return failure(
            answer,
            operation="read",
            url=self._url,
            body=body,
            method="GET",
            at_pool=bool(self._place),
            elapsed_seconds=deadline.elapsed,
        )


def _batches(ranges: list[ByteRange], most: int) -> Iterator[list[ByteRange]]:
    for first in range(0, len(ranges), most):
        yield ranges[first : first + most]


def _content_range(answer: DataAnswer) -> str:
    return str(answer.headers.get("Content-Range", ""))
