"""One request: what is sent, and what is known of its sending so far."""

from __future__ import annotations

import time

from ..config.settings import Origin
from .body import Payload
from .connection import ConnectionLostError
from .deadline import Deadline
from .exchange import Course, is_observed, purpose
from .lateness import Lateness
from .stalls import Floor

__all__ = ("Request",)


class Request:
    """A request that is made up, and sent once or several times.

    Parameters
    ----------
    method, url : `str`
        What is asked.
    origin : `tuple`
        Scheme, host and port of the server.
    head : `bytes`
        What is sent before the body.
    payload : `~.body.Payload`
        The body.
    expect : `bool`
        Whether the body waits until the server asks for it.
    may_keep : `bool`
        Whether the connection may take another request afterwards.
    deadline : `~.deadline.Deadline`
        Limits everything.
    silence : `float`
        Longest wait for bytes in seconds.
    patience : `float`
        Longest wait for the answer once a body was sent.
    floor : `~.stalls.Floor` or `None`
        Slower than which no body may travel.
    own : `bool`
        Whether the server is the endpoint's own.
    lateness : `~.lateness.Lateness`, optional
        What to do if the answer to a request without body is late.

    Attributes
    ----------
    attempt : `int`
        How often it was sent; what follows is of the last time.
    started : `float`
        When the first attempt began, on the monotonic clock.
    course : `~.exchange.Course` or `None`
        Of this attempt, from its beginning until it is recorded; `None` if nobody observes.
    reused : `bool`
        Whether it travelled on a kept connection.
    body_bytes : `int`
        Bytes of the body that were sent.
    complete : `bool`
        Whether all of it was.
    continued : `bool`
        Whether the server asked for the body with a 100.
    body_error : `~.connection.ConnectionLostError` or `None`
        Why it was not.
    ends_connection : `bool`
        Whether its course leaves the connection without use.
    """

    attempt = 0
    reused = False
    course: Course | None = None
    body_bytes = 0
    complete = True
    continued = False
    ends_connection = False
    body_error: ConnectionLostError | None = None

    def __init__(
        self,
        method: str,
        url: str,
        origin: Origin,
        head: bytes,
        payload: Payload,
        expect: bool,
        may_keep: bool,
        deadline: Deadline,
        silence: float,
        patience: float,
        floor: Floor | None,
        own: bool,
        lateness: Lateness | None = None,
    ) -> None:
        self.method = method
        self.url = url
        self.origin = origin
        self.head = head
        self.payload = payload
        self.expect = expect
        self.may_keep = may_keep
        self.deadline = deadline
        self.silence = silence
        self.patience = patience
        self.floor = floor
        self.own = own
        self.lateness = lateness
        self.is_hedge = purpose.is_hedge
        self.started = time.monotonic()

    def begin(self) -> None:
        """Begin an attempt."""
        self.attempt += 1
        self.course = Course() if is_observed() else None
        if self.attempt > 1:
            self.reused = self.continued = self.ends_connection = False
            self.complete = True
            self.body_bytes = 0
            self.body_error = None

    def lost_body(self, error: ConnectionLostError) -> None:
        """Note that the server stopped taking the body; its answer says why.

        Parameters
        ----------
        error : `~.connection.ConnectionLostError`
            What happened.
        """
        self.ends_connection = True
        self.complete = False
        self.body_error = error

    def record(self, status: int | None, reason: str, received: int = 0) -> None:
        """Show this attempt to those who observe, once.

        Parameters
        ----------
        status : `int` or `None`
            Status of the answer, if there was one.
        reason : `str`
            Reason phrase, or what went wrong.
        received : `int`, optional
            Bytes of the body of the answer.
        """
        course, self.course = self.course, None
        if course is not None:
            course.record(
                "data",
                self.method,
                self.url,
                status=status,
                reason=reason,
                sent=self.body_bytes,
                received=received,
                attempt=self.attempt,
                is_hedge=self.is_hedge,
                own=self.own,
            )
