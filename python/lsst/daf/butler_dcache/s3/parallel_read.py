"""A large object over several connections at once.

The answer to the request for the whole object tells size, entity tag and checksum, and goes on to be read
from the first byte upwards. Meanwhile helpers fetch ranges of the same version from the end downwards, until
they meet it: so not a question more is asked than for one stream, and no byte comes twice. Each segment has
its own checksums; together they make those of the object.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from ..errors import DeadlineError, DoorUnavailableError
from ..model import ByteRange
from ..transport.deadline import Deadline
from .checksums import Digests
from .endpoint import S3Endpoint
from .version import Version, VersionBody

__all__ = ("ParallelRead",)

_SEGMENT_BYTES = 16 << 20
_PIECE_BYTES = 1 << 20


class ParallelRead:
    """The segments of one version of an object, read by several threads.

    Parameters
    ----------
    endpoint : `S3Endpoint`
        Carries the requests.
    version : `Version`
        Of known size, with checksums of which parts make the whole.
    put : `~collections.abc.Callable`
        Takes an offset and the bytes that belong there, from any thread, and does not keep them.
    memory : `memoryview`, optional
        Where all bytes are to be; then ``put`` is told of bytes that are there already.
    """

    def __init__(
        self,
        endpoint: S3Endpoint,
        version: Version,
        put: Callable[[int, memoryview], object],
        memory: memoryview | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._version = version
        self._size = version.size or 0
        self._put = put
        self._memory = memory
        self._lock = threading.Lock()
        self._low = 0
        self._high = -(-self._size // _SEGMENT_BYTES)
        self._sums: dict[int, Digests] = {}
        self._reading: set[VersionBody] = set()
        self._failed = False

    def run(self, first: VersionBody, connections: int, deadline: Deadline) -> Digests:
        """Fetch everything.

        Parameters
        ----------
        first : `VersionBody`
            Brings the object from its first byte on; the caller closes it.
        connections : `int`
            How many are used.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        seen : `Digests`
            Of the whole object.

        Raises
        ------
        DoorUnavailableError
            Raised if a range was not to be had; what was put until then is of no use.
        """
        helpers: list[Future[None]] = []
        with ThreadPoolExecutor(connections - 1, "s3-range") as executor:
            try:  # from here on, since an interrupt may come while the threads are started
                helpers += [executor.submit(self._help, deadline) for _ in range(connections - 1)]
                try:
                    self._read_up(first)
                except (DoorUnavailableError, DeadlineError):
                    # The others may be waiting for a server that says nothing.
                    if self._give_up():
                        raise
                while helpers:
                    helpers.pop().result()
            except BaseException:
                self._give_up()
                raise
            finally:
                # They hold their error, which holds this frame, and with it the memory of callers.
                helpers.clear()
        seen = self._version.digests("adler32")
        for start in sorted(self._sums):
            seen.append(self._sums[start])
        return seen

    def _read_up(self, first: VersionBody) -> None:
        """Read the answer that has begun, until others have read what follows."""
        buffer = self._buffer()
        while (number := self._take(from_end=False)) is not None:
            self._fetch(first, number, buffer)

    def _help(self, deadline: Deadline) -> None:
        """Read ranges, the last one first."""
        buffer = self._buffer()
        while (number := self._take(from_end=True)) is not None:
            try:
                body = VersionBody.of_range(self._endpoint, self._version, self._span(number), deadline)
                if body is None:
                    raise DoorUnavailableError(
                        "a range was not given", operation="read", url=self._version.url
                    )
                try:
                    self._fetch(body, number, buffer)
                finally:
                    body.close()
            except BaseException:
                if self._give_up():
                    raise

    def _give_up(self) -> bool:
        """Have everybody end; return whether this is the first failure, the others being its effect."""
        with self._lock:
            is_first, self._failed = not self._failed, True
            for body in self._reading:
                body.give_up()
        return is_first

    def _buffer(self) -> memoryview:
        return memoryview(bytearray(_PIECE_BYTES if self._memory is None else 0))

    def _take(self, *, from_end: bool) -> int | None:
        """Return the number of a segment that nobody has taken."""
        with self._lock:
            if self._failed or self._low >= self._high:
                return None
            if from_end:
                self._high -= 1
                return self._high
            self._low += 1
            return self._low - 1

    def _span(self, number: int) -> ByteRange:
        start = number * _SEGMENT_BYTES
        return ByteRange(start, min(start + _SEGMENT_BYTES, self._size))

    def _fetch(self, body: VersionBody, number: int, buffer: memoryview) -> None:
        span = self._span(number)
        seen = self._version.digests("adler32")
        with self._lock:
            self._reading.add(body)
        try:
            while (left := len(span) - seen.size) and not self._failed:
                offset, wanted = span.start + seen.size, min(left, _PIECE_BYTES)
                view = buffer[:wanted] if self._memory is None else self._memory[offset : offset + wanted]
                if body.fill(view) < wanted:
                    raise DoorUnavailableError("a range was cut", operation="read", url=body.url)
                seen.update(view)
                self._put(offset, view)
        finally:
            # Before its connection is given back: others may use that then.
            with self._lock:
                self._reading.discard(body)
        self._sums[span.start] = seen
