"""A request whose body comes into being while it is sent: the caller pushes, nobody waits in a thread.

Between two pieces nothing runs and nothing expires: how long the caller thinks is its own affair. While bytes
are being sent or an answer is awaited the limits of the plane hold, so that a server which has stopped is
seen.
"""

from __future__ import annotations

from collections.abc import Callable

from .answer import DataAnswer
from .connection import Connection, ConnectionLostError
from .deadline import Deadline
from .request import Request
from .stalls import Progress

__all__ = ("Outgoing",)


class Outgoing:
    """A request that the server is ready to take the body of.

    Parameters
    ----------
    connection : `~.connection.Connection`
        Where the head was sent, and the body goes.
    request : `~.request.Request`
        The request; a body without announced length goes in chunks.
    answer : `~collections.abc.Callable`
        Reads the answer when the body has ended, and raises by cause.

    Notes
    -----
    Not thread-safe. Made by `.data.DataPlane.begin`; ended by `finish` or `abandon`.
    """

    def __init__(
        self,
        connection: Connection,
        request: Request,
        answer: Callable[[Deadline], DataAnswer],
    ) -> None:
        self._connection = connection
        self._request = request
        self._length = request.payload.length
        self._silence = request.silence
        self._answer = answer
        self._chunk_end = b""
        self._progress = None if request.floor is None else Progress(request.floor)
        request.complete = False

    @property
    def sent_bytes(self) -> int:
        """How much of the body has gone."""
        return self._request.body_bytes

    def send(self, data: bytes | bytearray | memoryview, deadline: Deadline) -> bool:
        """Send the next bytes.

        Parameters
        ----------
        data : bytes-like
            The next bytes; they may be changed afterwards.
        deadline : `~.deadline.Deadline`
            Limits this call.

        Returns
        -------
        taken : `bool`
            If `False` the server takes no more, and `finish` tells why.

        Raises
        ------
        DeadlineError
            If the deadline passed.
        ValueError
            If the body becomes longer than announced.
        """
        view = memoryview(data).cast("B")
        if not view:
            return True
        if self._length is not None and self._request.body_bytes + len(view) > self._length:
            raise ValueError(f"the body is longer than the {self._length} bytes announced")
        self._connection.progress = self._progress
        course = self._request.course
        if course is not None:
            course.lap("elsewhere")
        try:
            if self._length is None:
                self._connection.send(b"%s%x\r\n" % (self._chunk_end, len(view)), deadline, self._silence)
                self._chunk_end = b"\r\n"
            self._connection.send(view, deadline, self._silence)
        except ConnectionLostError as error:
            self._request.lost_body(error)
            return False
        finally:
            self._connection.progress = None
            if course is not None:
                course.lap("sending")
        self._request.body_bytes += len(view)
        return True

    def finish(self, deadline: Deadline) -> DataAnswer:
        """End the body and return the answer; if the server had stopped taking it, what it said.

        Parameters
        ----------
        deadline : `~.deadline.Deadline`
            Limits the waiting and the reading of the answer.

        Returns
        -------
        answer : `~.answer.DataAnswer`
            To be closed by the caller. Its ``body_sent`` says whether the server had all of it.

        Raises
        ------
        OutcomeUnknownError
            If there is no answer.
        ValueError
            If the body is shorter than announced.
        """
        if self._request.course is not None:
            self._request.course.lap("elsewhere")
        if self._request.body_error is None:
            if self._length is not None and self._request.body_bytes != self._length:
                raise ValueError(
                    f"the body has {self._request.body_bytes} bytes, not the {self._length} announced"
                )
            try:
                if self._length is None:
                    self._connection.send(self._chunk_end + b"0\r\n\r\n", deadline, self._silence)
                self._request.complete = True
            except ConnectionLostError as error:
                self._request.lost_body(error)
        return self._answer(deadline)

    def abandon(self) -> None:
        """Break the body off: no server takes what it has for all of it, but dCache keeps it as a file."""
        self._connection.close()
        self._request.record(None, "abandoned")
