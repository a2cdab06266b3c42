"""One file, many reads: ranges, several in one request, and streams.

Every 206 is checked: its ``Content-Range`` against what was asked for, and against the file (see `.session`).
A door that proxies reads is asked for ``a-b`` inside the known size alone, one range at a time: the rest it
answers wrongly (protocol page, section 2.3). The size of the file comes with the first range; a pool is never
asked for it alone (a HEAD would be one request more and harms the URL of an upload, section 2.5).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType

from ..errors import DeadlineError, DoorUnavailableError, IntegrityError, ProtocolError
from ..model import Adler32, ByteRange, EntryKind, FileInfo
from ..transport.answer import DataAnswer
from ..transport.deadline import Deadline
from ..transport.http1 import count_of
from ..transport.ranges import Part, cut, merged, parse_content_range, pick, read_up_to, skip, wanted_of
from ..transport.retry import Phase, rounds
from .door import Door
from .download import Downloads
from .multipart import parts_of
from .session import ReadSession

__all__ = ("WebdavReader",)

_MOST_RANGES = 300
_MOST_RANGES_ELSEWHERE = 100
_MOST_CHARACTERS = 6000
"""A pool takes 8 KiB of headers (protocol page, section 3.1), and does not answer a request with more."""

_GAP_BYTES = 256
"""A gap that costs less than the head of another part."""

_PIECE_BYTES = 1 << 20
_MOST_BREAKS = 3
"""How often a stream may break off before it has brought a piece more."""


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
    deadline : `Deadline`, optional
        When to give up, whatever is asked; each operation has its own if not given.

    Notes
    -----
    Not thread-safe. `close` gives the mover back; so does losing the object.
    """

    def __init__(self, door: Door, downloads: Downloads, url: str, deadline: Deadline | None = None) -> None:
        self._session = ReadSession(door, downloads, url, deadline)
        self._url = url

    @property
    def info(self) -> FileInfo:
        """Size and checksum of the file; asks for its last byte if no read has told them yet."""
        if self._session.size is None:
            self.read_tail(1)
        adler32 = self._session.adler32
        return FileInfo(
            url=self._url,
            kind=EntryKind.FILE,
            size=self._session.size,
            checksums=MappingProxyType({} if adler32 is None else {"adler32": adler32}),
        )

    @property
    def known_size(self) -> int | None:
        """Size of the file, if an answer has told it."""
        return self._session.size

    def read_tail(self, count: int) -> tuple[int, bytes]:
        """Return the last bytes of the file, which tells its size as well.

        Parameters
        ----------
        count : `int`
            How many, if the file has so many.

        Returns
        -------
        start : `int`
            Offset of the first of them.
        data : `bytes`
            The bytes.
        """
        session = self._session
        with session.lock:
            if session.size is not None:
                start = max(0, session.size - count)
                return start, self.read_ranges([ByteRange(start, session.size)])[0] if session.size else b""
            deadline = session.deadline()
            answer = self._ask(f"bytes=-{count}", deadline)
            if answer is None:
                # Of a file with any byte at all there is a last one.
                session.size = 0
                return 0, b""
            size = session.size
            if size is None:
                answer.close(False)
                raise ProtocolError("the server does not tell the size", operation="read", url=self._url)
            if size == 0:
                # The whole of an empty file, from a server that ignores ranges.
                answer.close()
                return 0, b""
            wanted = ByteRange(max(0, size - count), size)
            return wanted.start, pick(self._take(answer, [wanted]), [wanted], self._url)[0]

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
        with self._session.lock:
            deadline = self._session.deadline()
            parts: list[Part] = []
            for batch in self._batches(merged(ranges, _GAP_BYTES, self._session.size)):
                parts += self._fetch(batch, deadline)
            known = [cut(one, self._session.size) for one in ranges]
            found = iter(pick(parts, [one for one in known if one is not None], self._url))
            return [b"" if one is None else next(found) for one in known]

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
        session = self._session
        seen, position, resumed_at, breaks = Adler32(), start, start, 0
        while session.size is None or position < session.size:
            with session.lock:
                answer = self._ask(f"bytes={position}-{self._last_byte()}", session.deadline())
                if answer is None:
                    break
                self._check_start(answer, position)
            clean = False
            try:
                view = memoryview(bytearray(_PIECE_BYTES))
                while True:
                    with session.lock:
                        # The time between two pieces is the caller's own.
                        answer.renew(session.deadline())
                        count, is_cut = _what_comes(answer, view)
                    if not count:
                        break
                    if start == 0:
                        seen.update(view[:count])
                    position += count
                    yield bytes(view[:count])
                    if is_cut:
                        raise DoorUnavailableError(
                            f"the connection was lost after {position} bytes", operation="read", url=self._url
                        )
                clean = True
            except (DoorUnavailableError, DeadlineError):
                breaks = breaks + 1 if position - resumed_at < _PIECE_BYTES else 1
                if breaks > _MOST_BREAKS:
                    raise
                resumed_at = position
            finally:
                with session.lock:
                    if clean or not session.set_aside(answer):
                        answer.close(None if clean else False)
        if session.size is None:
            session.size = position
        if position != max(session.size, start):
            raise IntegrityError(
                f"{position} bytes arrived of {session.size}", operation="read", url=self._url
            )
        if start == 0 and session.adler32 is not None and seen.hexdigest() != session.adler32:
            raise IntegrityError(
                f"the bytes that arrived have adler32 {seen.hexdigest()}, the file has {session.adler32}",
                operation="read",
                url=self._url,
            )

    def _check_start(self, answer: DataAnswer, position: int) -> None:
        try:
            if answer.status == 200 and position > 0:
                raise ProtocolError("the server ignored the range", operation="read", url=self._url)
            if answer.status == 206:
                span, _ = parse_content_range(_content_range(answer), self._session.size, self._url)
                if span.start != position:
                    raise ProtocolError("the answer begins elsewhere", operation="read", url=self._url)
                if answer.length is not None and answer.length != len(span):
                    raise self._wrong_length(answer, answer.length)
        except ProtocolError:
            answer.close(False)
            raise

    def close(self) -> None:
        """Give the mover back; a second time is no error."""
        self._session.close()

    def _last_byte(self) -> str:
        # A door that proxies must not be asked beyond the end.
        size = self._session.size
        return "" if self._session.at_pool or size is None else str(size - 1)

    def _batches(self, ranges: list[ByteRange]) -> Iterator[list[ByteRange]]:
        """Yield as many ranges as one request can carry."""
        most = _MOST_RANGES if self._session.is_dcache else _MOST_RANGES_ELSEWHERE
        if not self._session.at_pool:
            most = 1
        batch: list[ByteRange] = []
        room = _MOST_CHARACTERS
        for one in ranges:
            length = len(_text(one)) + 1
            if batch and (len(batch) == most or length > room):
                yield batch
                batch, room = [], _MOST_CHARACTERS
            batch.append(one)
            room -= length
        if batch:
            yield batch

    def _fetch(self, wanted: Sequence[ByteRange], deadline: Deadline) -> list[Part]:
        """Return the parts that answer some ranges; none of them if all are beyond the end."""
        span = "bytes=" + ",".join(map(_text, wanted))
        for last in rounds(Phase.BROKEN, "GET", deadline):
            answer = self._ask(span, deadline)
            if answer is None:
                return []
            try:
                return self._take(answer, wanted)
            except (DoorUnavailableError, DeadlineError):
                # The body broke off; the same file may be had in another way.
                if last or deadline.expired or not self._session.at_pool:
                    raise
        raise AssertionError("the last round returns or raises")

    def _take(self, answer: DataAnswer, wanted: Sequence[ByteRange]) -> list[Part]:
        """Return the parts that an answer holds, and close it."""
        clean = False
        try:
            if answer.status == 200:
                return self._part_of_all(answer, wanted)
            if "multipart/byteranges" in str(answer.headers.get("Content-Type", "")).lower():
                parts = []
                for some, total in parts_of(answer.readinto, wanted, self._session.size, self._url):
                    self._session.learn(answer, total)
                    parts += some
            else:
                span, _ = parse_content_range(_content_range(answer), self._session.size, self._url)
                if answer.length is not None and answer.length != len(span):
                    raise self._wrong_length(answer, answer.length)
                if span.start < wanted[0].start or span.stop > wanted[-1].stop:
                    raise ProtocolError("another range arrived", operation="read", url=self._url)
                parts = wanted_of(answer.readinto, span, wanted, self._url)
                if answer.length is None and answer.read_short(1):
                    raise self._wrong_length(answer, len(span) + 1)
            clean = True
            return parts
        finally:
            answer.close(None if clean else False)

    def _part_of_all(self, answer: DataAnswer, wanted: Sequence[ByteRange]) -> list[Part]:
        """Return what is wanted of the whole file that came instead, and no more of it in memory."""
        parts: list[Part] = []
        position = 0
        for one in wanted:
            position += skip(answer.readinto, one.start - position)
            data = read_up_to(answer.readinto, len(one)) if position == one.start else b""
            position += len(data)
            if data:
                parts.append((ByteRange(one.start, position), memoryview(data)))
            if position < one.stop and self._session.size is None and not answer.ends_by_close:
                self._session.learn(answer, position)
        return parts

    def _wrong_length(self, answer: DataAnswer, length: int) -> ProtocolError:
        return ProtocolError(
            f"{length} bytes arrived for {_content_range(answer)!r}", operation="read", url=self._url
        )

    def _ask(self, span: str, deadline: Deadline) -> DataAnswer | None:
        """Return the 206, or the 200 of a server that ignores ranges; `None` if all is beyond the end."""
        session = self._session
        answer = session.get(span, deadline)
        if answer.status == 416:
            answer.read_short()
            answer.close()
            size = count_of(_content_range(answer).rpartition("/")[2])
            if session.size is None and size is not None:
                session.learn(answer, size)
            if session.size is None and not span.startswith("bytes=-"):
                # dCache's 416 does not tell the size, and an empty file has no range at all.
                self.read_tail(1)
            elif session.size:
                raise ProtocolError("the server refuses a range of the file", operation="read", url=self._url)
            first = span[6:].partition("-")[0]
            if session.size is not None and first and int(first) < session.size:
                raise ProtocolError("the server refuses a range of the file", operation="read", url=self._url)
            return None
        if answer.status not in (200, 206):
            body = answer.read_short()
            answer.close(False)
            raise session.failed(answer, body, deadline)
        size = answer.length
        if answer.status == 206:
            size = count_of(_content_range(answer).rpartition("/")[2])
        session.learn(answer, size)
        if answer.status == 200 and answer.ends_by_close and session.size is None and session.adler32 is None:
            answer.close(False)
            raise IntegrityError(
                "the server announces neither length nor checksum, so that a cut could not be noticed",
                operation="read",
                url=self._url,
            )
        return answer


def _text(one: ByteRange) -> str:
    return f"{one.start}-{one.stop - 1}"


def _what_comes(answer: DataAnswer, view: memoryview) -> tuple[int, bool]:
    """Fill memory; return how many bytes came, and whether the answer broke off after them."""
    before = answer.received
    try:
        return answer.fill(view), False
    except (DoorUnavailableError, DeadlineError):
        if answer.received == before:
            raise
        return answer.received - before, True


def _content_range(answer: DataAnswer) -> str:
    return str(answer.headers.get("Content-Range", ""))
