"""The data plane: bytes to and from pools, and all that doors are asked.

An HTTP/1.1 client of our own, because of what a pool and its kernel do below HTTP and what no library lets
us do about it: see the decision page ``two-planes``. A connection is kept when its answer was read to the
end, is looked at before it is used again, and belongs to the process that opened it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NoReturn

from ..auth.credential import Credential, refused
from ..auth.sources import CredentialSource
from ..config.settings import EndpointSettings, Origin
from ..errors import (
    DcacheError,
    DeadlineError,
    DoorUnavailableError,
    OutcomeUnknownError,
    ProtocolError,
    ServerBusyError,
    hides_locals,
)
from .addressing import Addressing, announced_length
from .answer import DataAnswer
from .body import NOTHING, Body, Payload
from .connection import Connection, ConnectionLostError
from .connection_pool import ConnectionPool
from .conversation import final_head, send_at_once, send_when_asked
from .deadline import Deadline
from .http1 import write_head
from .lateness import Lateness
from .outgoing import Outgoing
from .pacing import UNPACED, Pacer, Slot
from .presence import absence_of, has_answered, phase_unconnected, waited_in_vain
from .request import Request
from .retry import READS, RULES, Phase, Repetition, judged
from .sockets import NotConnectedError
from .stalls import floor_of

__all__ = ("DataPlane",)

_USER_AGENT = "daf_butler_dcache"
_JUDGED = frozenset(rule.status for rule in RULES if rule.status is not None)
"""Answers of a door that may not be the last word."""


class DataPlane:
    """Requests whose bodies are worth care.

    Parameters
    ----------
    endpoint : `~..config.settings.EndpointSettings`
        Time limits, trust, and which servers are the endpoint's own.
    credential : `~..auth.sources.CredentialSource`, optional
        Where the credential for the endpoint's own servers comes from.
    pacer : `~.pacing.Pacer`, optional
        Keeps requests to the endpoint's own servers below their limit.
    sleep : `~collections.abc.Callable`, optional
        Waits some seconds between attempts.
    pacers : `~collections.abc.Mapping`, optional
        Pacers of the endpoint's further servers, each of which has a limiter of its own.

    Notes
    -----
    Thread-safe. After ``fork`` the child begins with connections of its own.
    """

    def __init__(
        self,
        endpoint: EndpointSettings,
        credential: CredentialSource | None = None,
        pacer: Pacer | None = None,
        sleep: Callable[[float], None] = time.sleep,
        pacers: Mapping[Origin, Pacer] = MappingProxyType({}),
    ) -> None:
        self._endpoint = endpoint
        self._addressing = Addressing(endpoint, credential)
        self._pacer = UNPACED if pacer is None else pacer
        self._pacers = pacers
        self._sleep = sleep
        self._connections = ConnectionPool(endpoint)
        self._floor = floor_of(endpoint)

    def introduce_to_data_servers(self) -> None:
        """Present the client certificate to servers that the doors redirect to; to others it never is."""
        self._connections.is_introduced = True

    def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        body: Body | None = None,
        expect: bool = False,
        deadline: Deadline,
        credential: Credential | None = None,
        authenticate: bool = False,
        keep: bool = True,
        connection: Connection | None = None,
        ok: Container[int] = (),
        elsewhere: bool = False,
        lateness: Lateness | None = None,
    ) -> DataAnswer:
        """Send a request and return the answer, its body unread.

        Parameters
        ----------
        method : `str`
            HTTP method.
        url : `str`
            An ``http`` or ``https`` URL, percent-encoded; it is sent as it is.
        headers : `~collections.abc.Mapping`, optional
            Further headers. With pieces as ``body``, ``Content-Length`` announces their total length;
            otherwise the length is known and the header must not be given.
        body : `~.body.Body`, optional
            Bytes, a binary file or pieces; pieces of unknown length are sent chunked.
        expect : `bool`, optional
            Send ``Expect: 100-continue`` and no byte of the body before the server asks for it. A final
            answer without that leaves the body untouched and costs the connection (protocol page, section
            2.2).
        deadline : `~.deadline.Deadline`
            Limits everything, reading the body included.
        credential : `~..auth.credential.Credential`, optional
            What authenticates; for the endpoint's own servers only.
        authenticate : `bool`, optional
            Send the endpoint's credential.
        keep : `bool`, optional
            `False` sends ``Connection: close``.
        connection : `~.connection.Connection`, optional
            A held connection to use (`DataAnswer.hold`).
        ok : `~collections.abc.Container` [`int`], optional
            Statuses of the endpoint's own servers that are an answer although they would be repeated or
            raised otherwise (401, 429, 503).
        elsewhere : `bool`, optional
            Whether somebody asks another door if this one fails (`.retry.Rule`).
        lateness : `~.lateness.Lateness`, optional
            What to do if the answer is late.

        Returns
        -------
        answer : `~.answer.DataAnswer`
            Any answer of a pool; from the endpoint's own servers any but 401 and 429.

        Raises
        ------
        ConfigurationError
            If an encrypted endpoint leads to an unencrypted pool and ``http_pools`` does not allow it.
        CredentialError
            If a credential would leave the endpoint, has expired, or was refused.
        ServerBusyError
            If the endpoint's own server went on answering 429.
        DoorUnavailableError
            If there is no connection, a held one is closed, or a read got no answer.
        OutcomeUnknownError
            If a request that is not a read was sent, at least in part, and its answer lost.
        DeadlineError
            If the deadline passed, or the server stayed silent for too long.
        """
        announced = announced_length(headers, url)
        payload = NOTHING if body is None else Payload(body, announced)
        answer = self._exchange(
            method,
            url,
            headers,
            payload,
            expect,
            False,
            deadline,
            credential,
            authenticate,
            keep,
            connection,
            ok,
            elsewhere,
            lateness,
        )
        assert isinstance(answer, DataAnswer), "a body that is there is sent"
        return answer

    def begin(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        length: int | None = None,
        deadline: Deadline,
        credential: Credential | None = None,
        authenticate: bool = False,
        elsewhere: bool = False,
    ) -> Outgoing | DataAnswer:
        """Send the head of a request whose body does not exist yet, and wait until the server wants it.

        Parameters
        ----------
        method : `str`
            HTTP method.
        url : `str`
            An ``http`` or ``https`` URL, percent-encoded.
        headers : `~collections.abc.Mapping`, optional
            As for `open`.
        length : `int`, optional
            Length of the body, if it is known; chunks otherwise.
        deadline : `~.deadline.Deadline`
            Limits this call only.
        credential : `~..auth.credential.Credential`, optional
            Takes the place of the endpoint's.
        authenticate : `bool`, optional
            `True` sends the endpoint's credential, which no pool gets.
        elsewhere : `bool`, optional
            As for `open`.

        Returns
        -------
        outgoing : `~.outgoing.Outgoing` or `~.answer.DataAnswer`
            Where the body goes; or the answer of a server that does not want it, for instance a redirect.

        Raises
        ------
        DcacheError
            As `open`. Not a byte of the body exists, so everything can be begun again.
        """
        announced_length(headers, url)
        payload = Payload(iter(()), length)
        return self._exchange(
            method,
            url,
            headers,
            payload,
            True,
            True,
            deadline,
            credential,
            authenticate,
            True,
            None,
            (),
            elsewhere,
        )

    def close(self) -> None:
        """Close idle connections; the plane can still be used."""
        self._connections.close()

    def drain(self, origin: Origin) -> None:
        """Close the idle connections to a server that is sick.

        Parameters
        ----------
        origin : `tuple`
            Scheme, host and port.
        """
        self._connections.drain(origin)

    # -- attempts

    def connect(self, url: str, *, deadline: Deadline) -> Connection:
        """Return a connection for the caller's own care, to be given to `open`.

        Parameters
        ----------
        url : `str`
            Any URL of the server.
        deadline : `~.deadline.Deadline`
            Limits the connecting.

        Returns
        -------
        connection : `~.connection.Connection`
            The caller closes it.

        Raises
        ------
        DoorUnavailableError
            If there is none.
        """
        try:
            return self._connections.acquire(self._addressing.find(url)[0].origin, deadline)
        except NotConnectedError as error:
            raise DoorUnavailableError(str(error), operation="connect", url=url) from error

    @hides_locals
    def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        payload: Payload,
        expect: bool,
        hand_over: bool,
        deadline: Deadline,
        credential: Credential | None,
        authenticate: bool,
        keep: bool,
        held: Connection | None,
        ok: Container[int],
        elsewhere: bool,
        lateness: Lateness | None = None,
    ) -> DataAnswer | Outgoing:
        """See `open` and `begin`."""
        endpoint = self._endpoint
        server, target = self._addressing.find(url)
        own = server.own
        who = self._addressing.identity(url, own, credential, authenticate)
        request = Request(
            method,
            url,
            server.origin,
            _head(method, target, server.host, headers, payload, expect, keep, who.headers()),
            payload,
            expect,
            keep and endpoint.reuse_connections,
            deadline,
            server.silence,
            max(server.silence, endpoint.read_timeout_seconds),
            self._floor,
            own,
            lateness,
        )
        repetition: Repetition | None = None
        renewed = False
        while True:
            if request.attempt and own:
                # Time has passed: the credential may be over, or have been renewed.
                who = self._addressing.identity(url, own, credential, authenticate)
                request.head = _head(
                    method, target, server.host, headers, payload, expect, keep, who.headers()
                )
            request.begin()
            if own:
                refused.check(server.origin, who, url)
                # Outside of what follows: whose deadline passes here was not sent.
                slot = self._pacers.get(server.origin, self._pacer).slot(deadline, method)
            if request.course is not None:
                request.course.goes()
            failure: NotConnectedError | ConnectionLostError | DeadlineError | ProtocolError
            try:
                if own:
                    answer = self._at_endpoint(request, slot, who, held, hand_over, ok)
                    if isinstance(answer, Outgoing) or answer.status in ok or answer.status not in _JUDGED:
                        return answer
                    if answer.status == 401 and not renewed and credential is None and payload.can_be_sent:
                        # Refused before any processing, so that whatever it was can be repeated.
                        renewed = self._addressing.has_another_than(who)
                        if renewed:
                            answer.close()
                            continue
                else:
                    return self._once(request, held, hand_over)
            except NotConnectedError as error:
                failure, again = error, held is None
                is_gone = own and again and error.is_unreachable
                phase = phase_unconnected(server.origin) if is_gone else Phase.NOT_SENT
            except ConnectionLostError as error:
                failure, phase = error, Phase.STALE if request.reused else Phase.NO_ANSWER
                again = held is None and payload.can_be_sent
            except DeadlineError as error:
                failure, phase, again = error, Phase.NO_ANSWER, False
            except ProtocolError as error:
                failure, phase, again = error, Phase.GARBLED, held is None
            else:
                repetition = repetition or Repetition(method, deadline, elsewhere=elsewhere)
                wait = self._judge(answer, request, who, repetition)
                if wait is None:
                    return answer
                self._sleep(wait)
                continue
            repetition = repetition or Repetition(method, deadline, elsewhere=elsewhere)
            wait = repetition.next_wait(phase)
            if wait is None or not again:
                if phase is Phase.AWAY and repetition.is_over:
                    waited_in_vain(server.origin)
                try:
                    _give_up(failure, phase, request)
                finally:
                    del failure  # whose traceback holds this frame, and with it the memory of callers
            if wait > 0:
                self._sleep(wait)

    def _at_endpoint(
        self,
        request: Request,
        slot: Slot,
        who: Credential,
        held: Connection | None,
        hand_over: bool,
        ok: Container[int],
    ) -> DataAnswer | Outgoing:
        """One attempt at a door or frontend: paced, and never with a credential that was refused."""
        with slot:
            # Again, for the credential may have ended or been refused while this thread waited its turn.
            who.check(request.url)
            refused.check(request.origin, who, request.url)
            answer = self._once(request, held, hand_over)
            if isinstance(answer, Outgoing):
                slot.answered(100, {})
                return answer
            slot.answered(answer.status, answer.headers)
            if answer.status == 401 and 401 not in ok:
                refused.remember(request.origin, who, answer.reason)
            return answer

    @staticmethod
    def _judge(answer: DataAnswer, request: Request, who: Credential, repetition: Repetition) -> float | None:
        """Return how long to wait before the request is repeated, `None` if the answer stands."""
        status = answer.status
        wait = repetition.next_wait(Phase.ANSWERED, status, answer.headers)
        if status not in (401, 429) and (wait is None or not request.payload.can_be_sent):
            return None
        answer.close()
        elapsed = time.monotonic() - request.started
        if status == 401:
            raise who.refusal(
                operation=request.method,
                url=request.url,
                reason=answer.reason,
                attempts=request.attempt,
                elapsed_seconds=elapsed,
            )
        if wait is None or not request.payload.can_be_sent:
            raise ServerBusyError(
                "the server goes on refusing requests",
                operation=request.method,
                url=request.url,
                status=status,
                reason=answer.reason,
                attempts=request.attempt,
                elapsed_seconds=elapsed,
            )
        return wait

    # -- one attempt

    def _once(self, request: Request, held: Connection | None, hand_over: bool) -> DataAnswer | Outgoing:
        try:
            connection = self._connections.acquire(request.origin, request.deadline, held)
        except (NotConnectedError, DeadlineError) as error:
            request.record(None, str(error))
            raise
        request.reused = connection.requests > 0
        if request.course is not None:
            request.course.goes_by(connection.number, request.reused, connection.opening)
            request.course.lap("opened")
        connection.progress = None
        try:
            if request.expect:
                head = send_when_asked(connection, request, hand_over=hand_over)
                if head is None:
                    if request.own and not request.reused:
                        has_answered(request.origin)
                    return Outgoing(connection, request, partial(self._finish, connection, request))
            else:
                head = send_at_once(connection, request)
            connection.answered()
            if request.own and not request.reused:
                has_answered(request.origin)
            answer = DataAnswer(head, request, connection, request.deadline, self._connections.release)
        except BaseException as error:
            connection.close()
            request.record(None, _why(error))
            raise
        if held is not None:
            answer.hold()
        return answer

    def _finish(self, connection: Connection, request: Request, deadline: Deadline) -> DataAnswer:
        """Read the answer to a body that somebody else sent."""
        try:
            head = final_head(connection, request, deadline)
            connection.answered()
            return DataAnswer(head, request, connection, deadline, self._connections.release)
        except (ConnectionLostError, DeadlineError, ProtocolError) as error:
            connection.close()
            request.record(None, _why(error))
            phase = Phase.GARBLED if isinstance(error, ProtocolError) else Phase.NO_ANSWER
            judged(phase, request.method)
            _give_up(error, phase, request)
        except BaseException:
            connection.close()
            raise


def _head(
    method: str,
    target: str,
    host: str,
    headers: Mapping[str, str],
    payload: Payload,
    expect: bool,
    keep: bool,
    identity: Mapping[str, str],
) -> bytes:
    lines = {"Host": host, "User-Agent": _USER_AGENT, **headers, **identity}
    if payload is not NOTHING or method not in READS:
        for name in headers:
            if name.lower() == "content-length":
                del lines[name]
        if payload.length is None:
            lines["Transfer-Encoding"] = "chunked"
        else:
            lines["Content-Length"] = str(payload.length)
    if expect:
        lines["Expect"] = "100-continue"
    if not keep:
        lines["Connection"] = "close"
    return write_head(method, target, lines)


def _why(error: BaseException) -> str:
    """Say why there is no answer; what others' errors say, such as those of a caller's file, stays theirs."""
    return str(error) if isinstance(error, ConnectionLostError | DcacheError) else type(error).__name__


def _give_up(error: Exception, phase: Phase, request: Request) -> NoReturn:
    details: dict[str, Any] = {
        "operation": request.method,
        "url": request.url,
        "attempts": request.attempt,
        "elapsed_seconds": time.monotonic() - request.started,
    }
    text = error.message if isinstance(error, DcacheError) else str(error)
    if phase not in (Phase.NOT_SENT, Phase.AWAY) and request.method not in READS:
        raise OutcomeUnknownError(f"sent, but there is no answer: {text}", **details) from error
    if isinstance(error, DeadlineError | ProtocolError):
        raise type(error)(text, **details) from error
    hint = absence_of(request.origin) if request.own and isinstance(error, NotConnectedError) else ""
    unavailable = DoorUnavailableError(text, hint=hint, **details)
    unavailable.was_waited_for = phase is Phase.AWAY
    raise unavailable from error
