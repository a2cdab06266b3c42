"""A large file over several connections at once: plain ranges of one URL, verified as a whole.

A pool that encrypts is slow on one connection (protocol page, section 3.1), and so is our own decryption. All
connections send nothing but ranges and stay open until the last of them has ended (section 2.5). Each range
gets its own adler32; those of all ranges make that of the file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from ..errors import DoorUnavailableError, ProtocolError
from ..model import Adler32, ByteRange
from ..transport.answer import DataAnswer
from ..transport.connection import Connection
from ..transport.data import DataPlane
from ..transport.deadline import Deadline
from ..transport.ranges import parse_content_range

__all__ = ("ParallelDownload",)

_SEGMENT_BYTES = 32 << 20
_PIECE_BYTES = 1 << 20


class ParallelDownload:
    """The ranges of one file, fetched by several threads.

    Parameters
    ----------
    data : `DataPlane`
        Carries the requests.
    place : `str`
        URL at the pool, which nobody else uses.
    url : `str`
        The file, for messages.
    size : `int`
        Its size in bytes.
    put : `~collections.abc.Callable`
        Takes an offset and the bytes that belong there, from any thread, and does not keep them.
    """

    def __init__(
        self, data: DataPlane, place: str, url: str, size: int, put: Callable[[int, memoryview], object]
    ) -> None:
        self._data = data
        self._place = place
        self._url = url
        self._size = size
        self._put = put
        self._lock = threading.Lock()
        self._next = 0
        self._failed = False
        self._connections: list[Connection] = []
        self._sums: dict[int, Adler32] = {}

    def run(self, connections: int, deadline: Deadline) -> Adler32:
        """Fetch everything.

        Parameters
        ----------
        connections : `int`
            How many are used.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        seen : `Adler32`
            Of the whole file.

        Raises
        ------
        DoorUnavailableError
            Raised if a connection broke or the URL died; what was put until then is of no use.
        """
        try:
            with ThreadPoolExecutor(connections, "dcache-range") as executor:
                try:  # from here on, since an interrupt may come while the threads are started
                    tasks = [executor.submit(self._work, deadline) for _ in range(connections)]
                    for task in wait(tasks, return_when=FIRST_EXCEPTION).done:
                        task.result()
                except BaseException:
                    # The others may be waiting for a server that says nothing.
                    self._give_up()
                    raise
        finally:
            # Only now: each of them keeps the URL alive for the others.
            for connection in self._connections:
                connection.close()
        seen = Adler32()
        for start in sorted(self._sums):
            seen.append(self._sums[start])
        return seen

    def _give_up(self) -> None:
        with self._lock:
            self._failed = True
            for connection in self._connections:
                connection.interrupt()

    def _connect(self, deadline: Deadline) -> Connection:
        connection = self._data.connect(self._place, deadline=deadline)
        with self._lock:
            self._connections.append(connection)
            if self._failed:
                connection.interrupt()
        return connection

    def _work(self, deadline: Deadline) -> None:
        buffer = memoryview(bytearray(_PIECE_BYTES))
        connection: Connection | None = None
        while (segment := self._take()) is not None:
            connection = connection or self._connect(deadline)
            headers = {"Range": segment.header()}
            answer = self._data.open(
                "GET", self._place, headers=headers, deadline=deadline, connection=connection
            )
            try:
                self._sums[segment.start] = self._fetch(answer, segment, buffer)
            finally:
                answer.close()

    def _take(self) -> ByteRange | None:
        with self._lock:
            if self._failed or self._next >= self._size:
                return None
            start, self._next = self._next, min(self._next + _SEGMENT_BYTES, self._size)
            return ByteRange(start, self._next)

    def _fetch(self, answer: DataAnswer, segment: ByteRange, buffer: memoryview) -> Adler32:
        if answer.status != 206:
            # The URL has died, or the server does not do ranges: one stream will tell.
            raise DoorUnavailableError(
                "a range was not given", operation="read", url=self._url, status=answer.status
            )
        span, _ = parse_content_range(str(answer.headers.get("Content-Range", "")), self._size, self._url)
        if span != segment or answer.length != len(segment):
            raise ProtocolError("another range arrived", operation="read", url=self._url, status=206)
        seen = Adler32()
        while count := answer.fill(buffer):
            if self._failed:
                break
            seen.update(buffer[:count])
            self._put(segment.start + seen.size - count, buffer[:count])
        return seen
