"""A large object over several connections at once.

The answer to the request for the whole object tells size, entity tag and checksum, and goes on to be read
from the first byte upwards. If its first bytes come slowly, helpers fetch ranges of the same version from the
end downwards meanwhile, until they meet it: so not a question more is asked than for one stream, and no byte
comes twice. Each segment has its own checksums; together they make those of the object.
"""

from __future__ import annotations

import threading
import time
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
"""Least that a helper asks for; as long as much is left it is more, so that there are few requests."""

_PIECE_BYTES = 1 << 20

_TRIAL_BYTES = 64 << 20
"""These come by one connection, ..."""
_FAST_BYTES_PER_SECOND = 100e6
"""... and all others too if it is so fast. SeaweedFS takes 0.3 s for these and 0.04 s for as many of those
that follow; for several connections it needs twice the CPU time."""


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
        self._low = 0  # what is between these has been taken by nobody
        self._high = self._size
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
        began = time.monotonic()
        with ThreadPoolExecutor(connections - 1, "s3-range") as executor:
            try:  # from here on, since an interrupt may come while the threads are started
                try:
                    self._read_up(first, _TRIAL_BYTES)
                    if _FAST_BYTES_PER_SECOND * (time.monotonic() - began) >= _TRIAL_BYTES:
                        helpers += [
                            executor.submit(self._help, 2 * connections, deadline)
                            for _ in range(connections - 1)
                        ]
                    self._read_up(first, self._size)
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

    def _read_up(self, first: VersionBody, stop: int) -> None:
        """Read the answer that has begun, so far or until others have read what follows."""
        buffer = self._buffer()
        while self._low < stop and (span := self._take_first()) is not None:
            self._fetch(first, span, buffer)

    def _help(self, share: int, deadline: Deadline) -> None:
        """Read ranges, the last one first."""
        buffer = self._buffer()
        while (span := self._take_last(share)) is not None:
            try:
                body = VersionBody.of_range(self._endpoint, self._version, span, deadline)
                if body is None:
                    raise DoorUnavailableError(
                        "a range was not given", operation="read", url=self._version.url
                    )
                try:
                    self._fetch(body, span, buffer)
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

    def _take_first(self) -> ByteRange | None:
        """Return the next bytes that nobody has taken."""
        with self._lock:
            if self._failed or self._low >= self._high:
                return None
            start, self._low = self._low, min(self._low + _PIECE_BYTES, self._high)
            return ByteRange(start, self._low)

    def _take_last(self, share: int) -> ByteRange | None:
        """Return the last bytes that nobody has taken: a share of them, or what is worth a request."""
        with self._lock:
            if self._failed or self._low >= self._high:
                return None
            count = max((self._high - self._low) // share, _SEGMENT_BYTES)
            stop, self._high = self._high, max(self._high - count, self._low)
            return ByteRange(self._high, stop)

    def _fetch(self, body: VersionBody, span: ByteRange, buffer: memoryview) -> None:
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
