"""The data plane: bytes to and from pools, and uploads at doors.

An HTTP/1.1 client of our own, because of what a pool and its kernel do below HTTP and what no library lets
us do about it: see the decision page ``two-planes``. A connection is kept when its answer was read to the
end, is looked at before it is used again, and belongs to the process that opened it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any, NoReturn

from ..auth.credential import ANONYMOUS, Credential, refused
from ..auth.sources import CredentialSource
from ..config.settings import EndpointSettings, Origin, origin_of
from ..errors import (
    ConfigurationError,
    CredentialError,
    DcacheError,
    DeadlineError,
    DoorUnavailableError,
    OutcomeUnknownError,
    ServerBusyError,
)
from ..redaction import redact_url
from .answer import DataAnswer, Sent
from .body import Body, Payload
from .connection import Connection, ConnectionLostError, NotConnectedError
from .connection_pool import ConnectionPool
from .deadline import Deadline
from .exchange import Exchange, is_observed, record
from .http1 import Head, write_head
from .outgoing import Outgoing
from .pacing import Pacer
from .retry import READS, Phase, Repetition

__all__ = ("DataPlane",)

_USER_AGENT = "daf_butler_dcache"
_MAX_INTERIM = 16
_SLOWEST_COMMIT_BYTES_PER_SECOND = 20e6
_AFTERMATH_SECONDS = 10.0


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
    ) -> None:
        self._endpoint = endpoint
        self._credential = credential
        self._pacer = pacer
        self._sleep = sleep
        self._connections = ConnectionPool(endpoint)

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

        Returns
        -------
        answer : `~.answer.DataAnswer`
            Any answer of a pool; from the endpoint's own servers any but 401 and 429.

        Raises
        ------
        ConfigurationError
            If an encrypted endpoint leads to an unencrypted pool and ``allow_http_pools`` is not set.
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
        payload = Payload(body, _announced(headers))
        answer = self._exchange(
            method,
            url,
            headers,
            payload,
            has_body=body is not None,
            expect=expect,
            deadline=deadline,
            credential=credential,
            authenticate=authenticate,
            keep=keep,
            connection=connection,
            ok=ok,
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

        Returns
        -------
        outgoing : `~.outgoing.Outgoing` or `~.answer.DataAnswer`
            Where the body goes; or the answer of a server that does not want it, for instance a redirect.

        Raises
        ------
        DcacheError
            As `open`. Not a byte of the body exists, so everything can be begun again.
        """
        payload = Payload(iter(()), length)
        return self._exchange(
            method,
            url,
            headers,
            payload,
            has_body=True,
            expect=True,
            hand_over=True,
            deadline=deadline,
            credential=credential,
            authenticate=authenticate,
        )

    def close(self) -> None:
        """Close idle connections; the plane can still be used."""
        self._connections.close()

    # -- attempts

    def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        payload: Payload,
        *,
        has_body: bool,
        expect: bool,
        deadline: Deadline,
        credential: Credential | None,
        authenticate: bool,
        keep: bool = True,
        connection: Connection | None = None,
        ok: Container[int] = (),
        hand_over: bool = False,
    ) -> DataAnswer | Outgoing:
        """See `open` and `begin`."""
        origin = origin_of(url)
        own = origin in self._endpoint.origins
        who = self._who(url, own, headers, credential, authenticate)
        head = self._head(method, url, headers, payload, expect, keep, who.header(), has_body)
        repetition = Repetition(method, deadline)
        started = time.monotonic()
        while True:
            refused.check(origin, who, url)
            repetition.attempts += 1
            sent = Sent(
                method, url, repetition.attempts, False, may_keep=keep and self._endpoint.reuse_connections
            )
            try:
                with self._pacer.slot(deadline) if own and self._pacer is not None else nullcontext():
                    # Again, for the credential may have been refused while this thread waited its turn.
                    refused.check(origin, who, url)
                    answer = self._once(
                        origin, own, head, payload, expect, sent, deadline, connection, hand_over
                    )
                    if isinstance(answer, Outgoing):
                        return answer
                    if own and answer.status == 401 and answer.status not in ok:
                        refused.remember(origin, who, answer.reason)
            except NotConnectedError as error:
                wait = repetition.next_wait(Phase.NOT_SENT) if connection is None else None
                if wait is None:
                    self._give_up(error, Phase.NOT_SENT, sent, time.monotonic() - started)
            except (ConnectionLostError, DeadlineError) as error:
                phase = (
                    Phase.STALE if sent.reused and isinstance(error, ConnectionLostError) else Phase.NO_ANSWER
                )
                again = connection is None and isinstance(error, ConnectionLostError) and payload.can_be_sent
                wait = repetition.next_wait(phase) if again else None
                if wait is None:
                    self._give_up(error, phase, sent, time.monotonic() - started)
            else:
                if not own or answer.status in ok:
                    return answer
                if answer.status == 401:
                    answer.close()
                    raise who.refusal(
                        operation=method,
                        url=url,
                        reason=answer.reason,
                        attempts=sent.attempt,
                        elapsed_seconds=time.monotonic() - started,
                    )
                wait = repetition.next_wait(Phase.ANSWERED, answer.status, answer.headers)
                if wait is None or not payload.can_be_sent:
                    if answer.status != 429:
                        return answer
                    answer.close()
                    raise ServerBusyError(
                        "the server goes on refusing requests",
                        operation=method,
                        url=url,
                        status=429,
                        reason=answer.reason,
                        attempts=sent.attempt,
                        elapsed_seconds=time.monotonic() - started,
                    )
                answer.close()
            if wait > 0:
                self._sleep(wait)

    # -- before the request

    def _who(
        self,
        url: str,
        own: bool,
        headers: Mapping[str, str],
        credential: Credential | None,
        authenticate: bool,
    ) -> Credential:
        """The credential for a URL, after all checks that need no server."""
        if any(name.lower() == "authorization" for name in headers):
            raise CredentialError("a credential travels as a Credential, not as a header", url=url)
        if not own:
            if authenticate or (credential is not None and credential.secret is not None):
                raise CredentialError(
                    "a credential is sent to the endpoint's own doors and frontend only", url=url
                )
            if (
                self._endpoint.is_encrypted
                and url.startswith("http:")
                and not self._endpoint.allow_http_pools
            ):
                raise ConfigurationError(
                    "an encrypted door leads to an unencrypted pool",
                    url=url,
                    hint="set allow_http_pools below the key dcache of this endpoint if that is meant",
                )
            return ANONYMOUS
        who = credential
        if who is None and authenticate and self._credential is not None:
            who = self._credential.current()
        if who is None:
            return ANONYMOUS
        who.check(url)
        return who

    def _head(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        payload: Payload,
        expect: bool,
        keep: bool,
        authorization: str | None,
        has_body: bool,
    ) -> bytes:
        # What `urlsplit` would say, at a tenth of its price.
        place, _, query = url.partition("#")[0].partition("?")
        server, slash, path = place.partition("://")[2].partition("/")
        target = slash + path or "/"
        if query:
            target += f"?{query}"
        lines = {"Host": server.rpartition("@")[2], "User-Agent": _USER_AGENT}
        lines |= {name: value for name, value in headers.items() if name.lower() != "content-length"}
        if authorization is not None:
            lines["Authorization"] = authorization
        if payload.length is None:
            lines["Transfer-Encoding"] = "chunked"
        elif has_body or method not in READS:
            lines["Content-Length"] = str(payload.length)
        if expect:
            lines["Expect"] = "100-continue"
        if not keep:
            lines["Connection"] = "close"
        return write_head(method, target, lines)

    # -- the request

    def _once(
        self,
        origin: Origin,
        own: bool,
        head: bytes,
        payload: Payload,
        expect: bool,
        sent: Sent,
        deadline: Deadline,
        held: Connection | None,
        hand_over: bool,
    ) -> DataAnswer | Outgoing:
        connection = self._connections.acquire(origin, deadline, held)
        sent.reused = connection.requests > 0
        silence = self._endpoint.read_timeout_seconds if own else self._endpoint.idle_timeout_seconds
        try:
            if expect:
                first = self._send_when_asked(connection, head, payload, sent, deadline, silence, hand_over)
                if first is None:
                    return self._outgoing(connection, payload.length, sent, silence)
                final = first
            else:
                small = payload.small
                final = self._send_at_once(connection, head, payload, small, sent, deadline, silence)
            connection.answered()
            answer = DataAnswer(final, sent, connection, deadline, silence, self._connections.release)
            if held is not None:
                answer.hold()
            return answer
        except BaseException:
            connection.close()
            raise

    def _send_at_once(
        self,
        connection: Connection,
        head: bytes,
        payload: Payload,
        small: memoryview | bytes | None,
        sent: Sent,
        deadline: Deadline,
        silence: float,
    ) -> Head:
        if small is not None:
            try:
                connection.send(b"".join((head, small)) if small else head, deadline, silence)
                sent.body_bytes = len(small)
            except ConnectionLostError as error:
                if not small:
                    raise
                sent.may_keep = sent.complete = False
                sent.body_error = error
        else:
            connection.send(head, deadline, silence)
            self._send_body(connection, payload, sent, deadline, silence)
        return self._final_head(connection, sent, deadline, self._patience(sent, silence))

    def _send_when_asked(
        self,
        connection: Connection,
        head: bytes,
        payload: Payload,
        sent: Sent,
        deadline: Deadline,
        silence: float,
        hand_over: bool,
    ) -> Head | None:
        """Return the answer, or `None` if the body is wanted and somebody else sends it."""
        sent.complete = False
        connection.send(head, deadline, silence)
        for _ in range(_MAX_INTERIM):
            first = connection.read_head(deadline, silence)
            if first.status == 100:
                sent.continued = True
                if hand_over:
                    return None
                self._send_body(connection, payload, sent, deadline, silence)
                return self._final_head(connection, sent, deadline, self._patience(sent, silence))
            if first.status >= 200:
                # The server still waits for the body, or closes: protocol page, "What surprised us", 10.
                sent.may_keep = False
                return first
        raise ConnectionLostError("the server sends nothing but interim answers")

    def _outgoing(self, connection: Connection, length: int | None, sent: Sent, silence: float) -> Outgoing:
        def answer(deadline: Deadline) -> DataAnswer:
            try:
                final = self._final_head(connection, sent, deadline, self._patience(sent, silence))
            except (ConnectionLostError, DeadlineError) as error:
                connection.close()
                self._give_up(error, Phase.NO_ANSWER, sent, time.monotonic() - sent.begun)
            except BaseException:
                connection.close()
                raise
            connection.answered()
            return DataAnswer(final, sent, connection, deadline, silence, self._connections.release)

        return Outgoing(connection, sent, length, silence, answer)

    def _send_body(
        self, connection: Connection, payload: Payload, sent: Sent, deadline: Deadline, silence: float
    ) -> None:
        """Send the body; if the server does not take it, its answer says why."""
        sent.complete = False
        try:
            sent.body_bytes = payload.send(connection, deadline, silence)
            sent.complete = True
        except ConnectionLostError as error:
            sent.may_keep = False
            sent.body_error = error

    def _final_head(self, connection: Connection, sent: Sent, deadline: Deadline, silence: float) -> Head:
        try:
            for _ in range(_MAX_INTERIM):
                head = connection.read_head(deadline, silence)
                if head.status >= 200:
                    return head
        except (ConnectionLostError, DeadlineError):
            if sent.body_error is not None:
                raise sent.body_error from None
            raise
        raise ConnectionLostError("the server sends nothing but interim answers")

    def _patience(self, sent: Sent, silence: float) -> float:
        """How long to wait for the answer: a pool commits what it got before it answers."""
        if sent.body_error is not None:
            return _AFTERMATH_SECONDS
        if sent.body_bytes == 0:
            return silence
        commit = sent.body_bytes / _SLOWEST_COMMIT_BYTES_PER_SECOND
        return max(silence, self._endpoint.read_timeout_seconds) + commit

    # -- errors

    def _give_up(self, error: Exception, phase: Phase, sent: Sent, elapsed: float) -> NoReturn:
        if is_observed():
            record(
                Exchange(
                    plane="data",
                    method=sent.method,
                    url=redact_url(sent.url),
                    status=None,
                    reason=str(error),
                    sent=sent.body_bytes,
                    received=0,
                    seconds=time.monotonic() - sent.begun,
                    reused=sent.reused,
                    attempt=sent.attempt,
                )
            )
        details: dict[str, Any] = {
            "operation": sent.method,
            "url": sent.url,
            "attempts": sent.attempt,
            "elapsed_seconds": elapsed,
        }
        text = error.message if isinstance(error, DcacheError) else str(error)
        if phase is not Phase.NOT_SENT and sent.method not in READS:
            raise OutcomeUnknownError(f"sent, but there is no answer: {text}", **details) from error
        if isinstance(error, DeadlineError):
            raise DeadlineError(text, **details) from error
        raise DoorUnavailableError(text, **details) from error


def _announced(headers: Mapping[str, str]) -> int | None:
    for name, value in headers.items():
        if name.lower() == "content-length":
            return int(value)
    return None
