"""One object, many reads: ranges, several at once, and streams, all of one version.

S3 gives one range per request (Amazon S3 API, GetObject). Ranges that lie near each other come in one, since
a request costs more than some bytes that nobody wants; what remains is asked for by several threads. The
first answer tells which version is read, and all others have to be of it (see `.version`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ..errors import DeadlineError, DoorUnavailableError, IntegrityError, ProtocolError
from ..model import ByteRange, FileInfo
from ..transport.answer import DataAnswer
from ..transport.deadline import Deadline
from ..transport.http1 import count_of
from ..transport.ranges import Part, cut, merged, parse_content_range, pick, read_up_to, skip
from ..transport.retry import Phase, rounds
from .checksums import MODE, Announced
from .downloads import Downloads, key_of
from .endpoint import S3Endpoint
from .version import Version, VersionBody, replaced, version_of

__all__ = ("S3Reader",)

_GAP_BYTES = 128 << 10
"""A gap that costs less than another request."""

_LOOK_BYTES = 10_752
"""What is read of an object when it is opened: most formats begin with what is asked for first."""

_CONNECTIONS = 8
_PIECE_BYTES = 1 << 20


class S3Reader:
    """An object that is open for reading.

    Parameters
    ----------
    endpoint : `S3Endpoint`
        Carries the requests.
    downloads : `Downloads`
        Reads whole objects.
    url : `str`
        The object.
    deadline : `Deadline`, optional
        When to give up, whatever is asked; each operation has its own if not given.

    Notes
    -----
    Nothing is asked yet. Not thread-safe. There is nothing on the server that would have to be given back.
    """

    def __init__(
        self, endpoint: S3Endpoint, downloads: Downloads, url: str, deadline: Deadline | None = None
    ) -> None:
        self._endpoint = endpoint
        self._shared_deadline = deadline
        self._downloads = downloads
        self._url = url
        self._key = key_of(url)
        self._version: Version | None = None
        self._lock = threading.Lock()  # of the version, which the threads of one call may tell
        self._first = b""
        self._closed = False

    def look(self) -> None:
        """Read the first bytes, which shows that there is an object, and its size; they are kept.

        Raises
        ------
        ResourceNotFoundError
            If there is none.
        """
        (self._first,) = self.read_ranges([ByteRange(0, _LOOK_BYTES)])

    @property
    def info(self) -> FileInfo:
        """What is known of the object; asks only if no answer has told its size yet."""
        self._find_size(self._deadline())
        assert self._version is not None, "an answer has told"
        return self._version.info()

    @property
    def known_size(self) -> int | None:
        """Size of the object, if an answer has told it."""
        return None if self._version is None else self._version.size

    def read_tail(self, count: int) -> tuple[int, bytes]:
        """Return the last bytes of the object, which tells its size as well.

        Parameters
        ----------
        count : `int`
            How many, if the object has so many.

        Returns
        -------
        start : `int`
            Offset of the first of them.
        data : `bytes`
            The bytes.
        """
        self._check_open()
        deadline = self._deadline()
        if self.known_size is None and (answer := self._ask(f"bytes=-{count}", deadline)) is not None:
            size = self.known_size
            if size and answer.status == 206:
                span = ByteRange(max(0, size - count), size)
                return span.start, self._take(answer, span, deadline)
            # The whole object, from a server that ignores such ranges, or one that does not tell the size.
            answer.close(False)
        size = self._find_size(deadline)
        start = max(0, size - count)
        return start, self.read_ranges([ByteRange(start, size)])[0] if size else b""

    def read_ranges(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        """Return the bytes of each range, cut where the object ends.

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
            Raised if the object was replaced meanwhile.
        """
        self._check_open()
        deadline = self._deadline()
        first = len(self._first)
        parts: list[Part] = [(ByteRange(0, first), memoryview(self._first))] if first else []
        missing = [one for one in ranges if one.stop > first]
        parts += self._fetch_all(merged(missing, _GAP_BYTES, self.known_size), deadline)
        known = [cut(one, self.known_size) for one in ranges]
        found = iter(pick(parts, [one for one in known if one is not None], self._url))
        return [b"" if one is None else next(found) for one in known]

    def stream(self, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes from an offset to the end of the object.

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
            Raised after the last byte if these are not those of the object.
        """
        self._check_open()
        size = self.known_size
        if size is not None and (start >= size or len(self._first) == size):
            if start < size:
                yield self._first[start:]
            return
        body = self._open_from(start, self._deadline())
        if body is None:
            return
        clean = False
        seen = body.version.digests()
        try:
            view = memoryview(bytearray(_PIECE_BYTES))
            while count := body.fill(view):
                seen.update(view[:count])
                yield bytes(view[:count])
                # The time between two pieces was the caller's own.
                body.renew(self._deadline())
            clean = True
        finally:
            body.close(None if clean else False)
        if start == 0:
            body.version.verify(seen)
        elif (size := body.version.size) is None and body.answer.ends_by_close:
            raise IntegrityError(
                "the server does not tell the size, and ends the body by closing the connection, so that one "
                "that was cut could not be told from a whole one",
                operation="read",
                url=self._url,
            )
        elif size is not None and start + seen.size != size:
            raise IntegrityError(
                f"{start + seen.size} bytes arrived of {size}", operation="read", url=self._url
            )

    def close(self) -> None:
        """End it; a second time is no error."""
        self._closed = True
        self._first = b""

    def _deadline(self) -> Deadline:
        return self._shared_deadline or self._endpoint.deadline()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the reader is closed")

    def _find_size(self, deadline: Deadline) -> int:
        """Return the size; ask for it alone if no answer has told it."""
        if self.known_size is None:
            answer = self._endpoint.open("HEAD", self._key, headers=MODE, deadline=deadline)
            if answer.status != 200:
                raise self._endpoint.failure(answer, operation="read", url=self._url)
            self._learn(answer, count_of(str(answer.headers.get("Content-Length", ""))))
            answer.close()
        size = self.known_size
        if size is None:
            raise ProtocolError("the server does not tell the size", operation="read", url=self._url)
        return size

    def _open_from(self, start: int, deadline: Deadline) -> VersionBody | None:
        """Open a body from an offset to the end of the object; `None` if it ends before."""
        if start:
            answer = self._ask(f"bytes={start}-", deadline)
            return None if answer is None else self._body(answer, start, None, deadline)
        whole = self._downloads.open(self._url, deadline=deadline, version=self._version)
        self._version = whole.version
        return whole

    def _fetch_all(self, wanted: Sequence[ByteRange], deadline: Deadline) -> list[Part]:
        """Return the bytes of ranges that do not touch each other; those beyond the end are left out."""
        if len(wanted) <= 1:
            return [part for one in wanted for part in self._fetch(one, deadline)]
        with ThreadPoolExecutor(min(_CONNECTIONS, len(wanted)), "s3-range") as executor:
            tasks = [executor.submit(self._fetch, one, deadline) for one in wanted]
            try:
                return [part for task in tasks for part in task.result()]
            except BaseException:
                executor.shutdown(wait=False, cancel_futures=True)
                raise
            finally:
                tasks.clear()  # they hold their error, and that holds this frame

    def _fetch(self, wanted: ByteRange, deadline: Deadline) -> list[Part]:
        """Return the part of a range that the object has, if any."""
        for last in rounds(Phase.BROKEN, "GET", deadline):
            answer = self._ask(wanted.header(), deadline)
            if answer is None:
                return []
            try:
                data = self._take(answer, wanted, deadline)
            except (DoorUnavailableError, DeadlineError):
                if last or deadline.expired:
                    raise
            else:
                span = ByteRange(wanted.start, wanted.start + len(data))
                return [(span, memoryview(data))]
        raise AssertionError("the last round returns or raises")

    def _take(self, answer: DataAnswer, wanted: ByteRange, deadline: Deadline) -> bytes:
        """Return the bytes that an answer brings of a range, and close it."""
        body = self._body(answer, wanted.start, wanted.stop, deadline)
        clean = False
        try:
            size = body.version.size
            stop = wanted.stop if size is None else min(wanted.stop, size)
            data = read_up_to(body.fill, stop - wanted.start)
            if len(data) < stop - wanted.start:
                raise ProtocolError("a range is cut", operation="read", url=self._url)
            if len(data) == size:
                seen = body.version.digests()
                seen.update(data)
                body.version.verify(seen)
            clean = True
            return data
        finally:
            body.close(None if clean else False)

    def _body(self, answer: DataAnswer, start: int, stop: int | None, deadline: Deadline) -> VersionBody:
        """Return what brings the bytes from an offset on; the answer is closed if it does not."""
        version = self._version
        assert version is not None, "the answer has told"
        try:
            if answer.status == 200:
                # From a server that ignores ranges.
                body = VersionBody(self._endpoint, version, answer, 0, version.size, deadline)
                skip(body.fill, start)
                return body
            value = str(answer.headers.get("Content-Range", ""))
            span, size = parse_content_range(value, version.size, self._url)
            end = span.stop if size is None else size if stop is None else min(stop, size)
            if span != ByteRange(start, end) or answer.length not in (None, len(span)):
                raise ProtocolError(
                    f"another range arrived, {value!r} with {answer.length} bytes",
                    operation="read",
                    url=self._url,
                )
            return VersionBody(self._endpoint, version, answer, span.start, span.stop, deadline)
        except BaseException:
            answer.close(False)
            raise

    def _ask(self, span: str, deadline: Deadline) -> DataAnswer | None:
        """Return the 206, or the 200 of a server that ignores ranges; `None` if all is beyond the end."""
        condition = {} if self._version is None else self._version.condition
        headers = {"Range": span, **condition}
        answer = self._endpoint.open("GET", self._key, headers=headers, deadline=deadline)
        if answer.status in (200, 206):
            value = str(answer.headers.get("Content-Range", ""))
            self._learn(answer, answer.length if answer.status == 200 else count_of(value.rpartition("/")[2]))
            size = self.known_size
            if answer.status == 200 and size is not None and _first(span) >= size:
                answer.close(False)
                return None
            return answer
        if answer.status == 412 and condition:
            answer.close()
            raise replaced(self._url)
        if answer.status != 416:
            raise self._endpoint.failure(answer, operation="read", url=self._url)
        told = count_of(str(answer.headers.get("Content-Range", "")).rpartition("/")[2])
        answer.read_short()
        answer.close()
        if told is not None:
            self._agree(Version(self._url, self._key, told, "", "", Announced()))
        if self._find_size(deadline) > _first(span):
            raise ProtocolError("the server refuses a range of the object", operation="read", url=self._url)
        return None

    def _learn(self, answer: DataAnswer, size: int | None) -> None:
        """Take what an answer says of the object, and refuse one that is of another version."""
        try:
            self._agree(version_of(self._url, self._key, answer.headers, size))
        except IntegrityError:
            answer.close(False)
            raise

    def _agree(self, found: Version) -> None:
        with self._lock:
            known = self._version or found
            if (
                (known.etag and found.etag and known.etag != found.etag)
                or (
                    known.last_modified and found.last_modified and known.last_modified != found.last_modified
                )
                or (known.size is not None and found.size is not None and known.size != found.size)
            ):
                raise replaced(self._url)
            self._version = replace(
                known,
                size=found.size if known.size is None else known.size,
                etag=known.etag or found.etag,
                last_modified=known.last_modified or found.last_modified,
            )


def _first(span: str) -> int:
    """Return the offset of the first byte that a ``Range`` header asks for; 0 if it counts from the end."""
    return int(span.removeprefix("bytes=").partition("-")[0] or 0)
