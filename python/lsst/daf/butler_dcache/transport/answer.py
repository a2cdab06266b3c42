"""The answer of the data plane: a head, and a body that is read by whoever wants it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Self

from ..errors import DeadlineError, DoorUnavailableError, ProtocolError
from ..redaction import redact_url
from .connection import Connection, ConnectionLostError
from .deadline import Deadline
from .http1 import Framing, Head, chunk_size, framing_of, keeps_connection
from .lateness import Lateness
from .request import Request
from .stalls import Progress

__all__ = ("DataAnswer",)

_DRAIN_BYTES = 64 * 1024
_AT_ONCE_BYTES = 256 * 1024 * 1024
_PIECE_BYTES = 256 * 1024
_SHORT_BYTES = 64 * 1024
_MAX_TRAILERS = 100
_MAX_LINE_BYTES = 8 * 1024
_ENDLESS = (Framing.CHUNKED, Framing.CLOSE)


class DataAnswer:
    """Status, headers and the body that is still to be read.

    Parameters
    ----------
    head : `~.http1.Head`
        Head of the answer.
    request : `~.request.Request`
        What it is the answer to.
    connection : `~.connection.Connection`
        Where the body comes from.
    deadline : `~.deadline.Deadline`
        Limits the reading.
    release : `~collections.abc.Callable`
        Takes the connection back.

    Attributes
    ----------
    status : `int`
        HTTP status.
    reason : `str`
        Reason phrase; a pool tells the cause of an error nowhere else.
    headers : `~.http1.Headers`
        Header fields, looked up without regard to case.
    length : `int` or `None`
        Announced length of the body; `None` if its end is told otherwise.
    connection : `~.connection.Connection`
        Where the body comes from.

    Notes
    -----
    Not thread-safe. `close` it, or use it in a ``with`` block: a connection whose body was not read to its
    end is closed then, which at a dCache pool ends the transfer (protocol page, section 2.5).
    """

    _first_chunk = True
    _received = 0
    _held = False
    _closed = False

    def __init__(
        self,
        head: Head,
        request: Request,
        connection: Connection,
        deadline: Deadline,
        release: Callable[[Connection], None],
    ) -> None:
        self._head = head
        self.status = head.status
        self.reason = head.reason
        self.headers = head.headers
        self.connection = connection
        self._request = request
        self._deadline = deadline
        self._release = release
        self._framing, self._left = framing_of(request.method, head)
        self.length: int | None = None if self._framing in _ENDLESS else self._left
        self._done = self._framing is Framing.NONE
        connection.is_unread = not self._done
        if request.floor is not None and request.method == "GET" and head.status in (200, 206):
            connection.progress = Progress(request.floor)

    @property
    def url(self) -> str:
        """What was asked for, unredacted: a pool URL is a capability."""
        return self._request.url

    @property
    def attempts(self) -> int:
        """How often the request was sent."""
        return self._request.attempt

    @property
    def continued(self) -> bool:
        """Whether the server asked for the body with a 100 (only with ``expect=True``)."""
        return self._request.continued

    @property
    def body_sent(self) -> bool:
        """Whether the whole body of the request was sent."""
        return self._request.complete

    @property
    def ends_by_close(self) -> bool:
        """Whether only the end of the connection tells that of the body, so that a cut one looks whole."""
        return self._framing is Framing.CLOSE

    @property
    def received(self) -> int:
        """How many bytes of the body have come, of a call that failed as well."""
        return self._received

    @property
    def connection_id(self) -> int:
        """Number of the connection within this process."""
        return self.connection.number

    def renew(self, deadline: Deadline, lateness: Lateness | None = None) -> None:
        """Limit the reading anew, for a body that is read as somebody wants it.

        Parameters
        ----------
        deadline : `~.deadline.Deadline`
            Takes the place of that of the request.
        lateness : `~.lateness.Lateness`, optional
            What to do while the next bytes do not come.
        """
        self._deadline = deadline
        if lateness is not None:
            lateness.begin()
        self.connection.lateness = lateness

    def readinto(self, view: memoryview) -> int:
        """Read what is there straight into the caller's memory.

        Parameters
        ----------
        view : `memoryview`
            Of bytes, writable.

        Returns
        -------
        count : `int`
            Number of bytes, at least 1, or 0 at the end of the body.

        Raises
        ------
        DoorUnavailableError
            If the connection ends before the body.
        DeadlineError
            If the deadline passes, or nothing comes for too long.
        ProtocolError
            If the framing is malformed.
        """
        if self._done or not view:
            return 0
        course = self._request.course
        if course is not None:
            course.lap("elsewhere")
        try:
            return self._read_some(view)
        except ConnectionLostError as error:
            raise self._cut(error) from error
        except (DeadlineError, ProtocolError) as error:
            self._give_up(error)
            raise
        finally:
            if course is not None:
                course.lap("reading")

    def fill(self, view: memoryview) -> int:
        """Read until the memory is full or the body ends.

        Parameters
        ----------
        view : `memoryview`
            Of bytes, writable.

        Returns
        -------
        count : `int`
            Number of bytes; less than asked for at the end of the body only.
        """
        at, size = 0, len(view)
        course = self._request.course
        if course is not None:
            course.lap("elsewhere")
        try:
            while at < size and not self._done:
                at += self._read_some(view[at:] if at else view)
        except ConnectionLostError as error:
            raise self._cut(error) from error
        except (DeadlineError, ProtocolError) as error:
            self._give_up(error)
            raise
        finally:
            if course is not None:
                course.lap("reading")
        return at

    def read(self) -> bytes:
        """Return the rest of the body."""
        if self._framing is Framing.LENGTH and not self._done and self._left <= _AT_ONCE_BYTES:
            # `io.BytesIO` lets its memory be written to and then hands it out as `bytes` without a copy.
            memory = io.BytesIO(bytes(self._left))
            with memory.getbuffer() as view:
                self.fill(view)
            return memory.getvalue()
        return b"".join(self.iter_chunks(_PIECE_BYTES))

    def read_short(self, limit: int = _SHORT_BYTES) -> bytes:
        """Return the rest of a body of which not more than its beginning is wanted, such as that of an error.

        Parameters
        ----------
        limit : `int`, optional
            Largest number of bytes.

        Returns
        -------
        text : `bytes`
            The beginning, if the body is longer.
        """
        memory = bytearray(limit if self.length is None else min(limit, self._left))
        return bytes(memory[: self.fill(memoryview(memory))])

    def read_some(self, limit: int = _PIECE_BYTES) -> bytes:
        """Return what is there, for bodies that come slowly.

        Parameters
        ----------
        limit : `int`, optional
            Largest number of bytes.

        Returns
        -------
        piece : `bytes`
            At least 1 byte, or none at the end of the body.
        """
        memory = bytearray(limit)
        count = self.readinto(memoryview(memory))
        return bytes(memory[:count])

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        """Yield the rest of the body in pieces of ``size`` bytes, the last one shorter.

        Parameters
        ----------
        size : `int`
            Bytes of a piece.

        Yields
        ------
        piece : `bytes`
            The next bytes.
        """
        memory = bytearray(size)
        view = memoryview(memory)
        while count := self.fill(view):
            yield bytes(view[:count])

    def hold(self) -> Connection:
        """Take the connection out of the plane's care; the caller closes it.

        Returns
        -------
        connection : `~.connection.Connection`
            To be given to further calls of `DataPlane.open`, after this answer was read and closed.
        """
        self._held = True
        return self.connection

    def entrust(self) -> None:
        """Undo `hold`: the plane takes care of the connection again."""
        self._held = False

    def close(self, reuse: bool | None = None) -> None:
        """Finish: keep the connection if the body was read and both sides allow it, else close it.

        Parameters
        ----------
        reuse : `bool`, optional
            `False` closes the connection in any case, which ends what it keeps alive at a pool.
        """
        if self._closed:
            return
        self._closed = True
        connection = self.connection
        keep = (
            reuse is not False
            and self._request.may_keep
            and not self._request.ends_connection
            and keeps_connection(self._head)
        )
        if keep and not self._done and self._framing is Framing.LENGTH and self._left <= _DRAIN_BYTES:
            try:
                self.fill(memoryview(bytearray(self._left)))
            except (DoorUnavailableError, DeadlineError):
                keep = False
        if not (keep and self._done and connection.usable):
            connection.close()
        else:
            connection.is_unread = False
            connection.lateness = None
            if not self._held:
                self._release(connection)
        if self._request.course is not None:
            self._request.record(self.status, self.reason, self._received)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read_some(self, view: memoryview) -> int:
        framing = self._framing
        if framing is Framing.CHUNKED and self._left == 0 and not self._next_chunk():
            self._done = True
            return 0
        if framing is not Framing.CLOSE and self._left < len(view):
            view = view[: self._left]
        count = self.connection.read_into(view, self._deadline, self._request.silence)
        if count == 0:
            self.connection.usable = False
            if framing is not Framing.CLOSE:
                raise ConnectionLostError("the server closed it")
            self._done = True
            return 0
        if not self._received and self._request.course is not None:
            self._request.course.has_first_byte()
        self._received += count
        if framing is not Framing.CLOSE:
            self._left -= count
            self._done = self._left == 0 and framing is Framing.LENGTH
        return count

    def _next_chunk(self) -> bool:
        if not self._first_chunk and self._line():
            raise ProtocolError("a chunk of the answer does not end where it should")
        self._first_chunk = False
        self._left = chunk_size(self._line())
        if self._left:
            return True
        for _ in range(_MAX_TRAILERS):
            if not self._line():
                return False
        raise ProtocolError("the answer has too many trailers")

    def _line(self) -> bytes:
        return self.connection.read_line(_MAX_LINE_BYTES, self._deadline, self._request.silence)

    def _cut(self, error: ConnectionLostError) -> DoorUnavailableError:
        return DoorUnavailableError(
            f"the connection was lost after {self._received} bytes of the body: {error}",
            operation=self._request.method,
            url=self._request.url,
            status=self.status,
            attempts=self._request.attempt,
        )

    def _give_up(self, error: DeadlineError | ProtocolError) -> None:
        self.connection.close()  # an error may be kept for long, and with it whoever holds this answer
        error.operation, error.url = self._request.method, redact_url(self._request.url)
