"""One request and its answer on one connection: which side speaks when (RFC 9110, section 10.1.1)."""

from __future__ import annotations

from ..errors import DeadlineError
from .connection import Connection, ConnectionLostError
from .deadline import Deadline
from .http1 import Head
from .request import Request
from .stalls import Progress

__all__ = ("final_head", "send_at_once", "send_when_asked")

_MAX_INTERIM = 16
_SLOWEST_COMMIT_BYTES_PER_SECOND = 20e6
_AFTERMATH_SECONDS = 10.0


def send_at_once(connection: Connection, request: Request) -> Head:
    """Send a request, body and all, and return the head of its answer.

    Parameters
    ----------
    connection : `~.connection.Connection`
        Where to.
    request : `~.request.Request`
        What; it is told how far it came.

    Returns
    -------
    head : `~.http1.Head`
        Of the final answer; if the server did not take the body, this says why.

    Raises
    ------
    ConnectionLostError
        If there is no answer.
    DeadlineError
        If the server stays silent.
    """
    deadline, silence = request.deadline, request.silence
    small = request.payload.small
    if small is None:
        connection.send(request.head, deadline, silence)
        _send_body(connection, request)
    elif not small:
        connection.send(request.head, deadline, silence)
    else:
        try:
            # A copy costs less than a system call and a packet of its own.
            connection.send(b"".join((request.head, small)), deadline, silence)
            request.body_bytes = len(small)
        except ConnectionLostError as error:
            request.lost_body(error)
    if request.course is not None:
        request.course.lap("sending")
    if request.lateness is not None:
        request.lateness.begin()
        connection.lateness = request.lateness
    try:
        return final_head(connection, request, deadline)
    finally:
        connection.lateness = None


def send_when_asked(connection: Connection, request: Request, *, hand_over: bool) -> Head | None:
    """Send a request, its body only if the server asks for it, and return the head of the answer.

    Parameters
    ----------
    connection : `~.connection.Connection`
        Where to.
    request : `~.request.Request`
        What; it is told how far it came.
    hand_over : `bool`
        Whether somebody else sends the body.

    Returns
    -------
    head : `~.http1.Head` or `None`
        `None` if the body is wanted and somebody else sends it.

    Raises
    ------
    ConnectionLostError
        If there is no answer.
    DeadlineError
        If the server stays silent.
    """
    deadline, silence = request.deadline, request.silence
    request.complete = False
    connection.send(request.head, deadline, silence)
    course = request.course
    if course is not None:
        course.lap("sending")
    for _ in range(_MAX_INTERIM):
        try:
            first = connection.read_head(deadline, silence)
        finally:
            if course is not None:
                course.lap("waiting")
        if first.status == 100:
            request.continued = True
            if hand_over:
                return None
            _send_body(connection, request)
            if course is not None:
                course.lap("sending")
            return final_head(connection, request, deadline)
        if first.status >= 200:
            # The server still waits for the body, or closes: protocol page, "What surprised us", 10.
            request.ends_connection = True
            return first
    raise ConnectionLostError("the server sends nothing but interim answers")


def final_head(connection: Connection, request: Request, deadline: Deadline) -> Head:
    """Return the head of the answer to a request that was sent.

    Parameters
    ----------
    connection : `~.connection.Connection`
        Where from.
    request : `~.request.Request`
        What was sent.
    deadline : `~.deadline.Deadline`
        Limits the waiting.

    Returns
    -------
    head : `~.http1.Head`
        No interim one.

    Raises
    ------
    ConnectionLostError
        If there is no answer; why the body was not sent, if it was not.
    DeadlineError
        If the server stays silent.
    """
    silence = request.silence
    if request.body_error is not None:
        silence = (
            _AFTERMATH_SECONDS if request.floor is None else min(_AFTERMATH_SECONDS, request.floor.seconds)
        )
    elif request.body_bytes:
        # A pool commits what it got before it answers.
        silence = request.patience + request.body_bytes / _SLOWEST_COMMIT_BYTES_PER_SECOND
    try:
        for _ in range(_MAX_INTERIM):
            head = connection.read_head(deadline, silence)
            if head.status >= 200:
                return head
    except (ConnectionLostError, DeadlineError):
        if request.body_error is not None:
            raise request.body_error from None
        raise
    finally:
        if request.course is not None:
            request.course.lap("commit" if request.body_bytes else "waiting")
    raise ConnectionLostError("the server sends nothing but interim answers")


def _send_body(connection: Connection, request: Request) -> None:
    """Send the body; if the server does not take it, its answer says why."""
    request.complete = False
    connection.progress = None if request.floor is None else Progress(request.floor)
    try:
        request.body_bytes = request.payload.send(connection, request.deadline, request.silence)
        request.complete = True
    except ConnectionLostError as error:
        request.lost_body(error)
    finally:
        connection.progress = None
