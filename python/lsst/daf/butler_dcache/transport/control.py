"""The control plane: small requests to frontends, tape interfaces and S3 services, answers read whole.

What a door is asked about names goes by the data plane (`.short_answers`), being asked far more often.

Built on `requests`, with everything switched off that it would do on its own: no redirects, no proxies, no
``.netrc``, no cookies (a session cookie of dCache 12 overrides the credential; protocol page, section 1.4).
The credential is sent with the first request, and to the endpoint's own servers only.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NoReturn

import requests
from urllib3 import exceptions as lower

from ..auth.credential import ANONYMOUS, Credential, refused
from ..auth.sources import CredentialSource, successor
from ..config.settings import EndpointSettings, Origin, origin_of
from ..errors import (
    ConfigurationError,
    CredentialError,
    DcacheError,
    DeadlineError,
    DoorUnavailableError,
    OutcomeUnknownError,
    ProtocolError,
    ServerBusyError,
    hides_locals,
)
from .adapter import Adapter, FailedAttemptError, NoCookies, Session, answered_by, classify
from .deadline import Deadline
from .exchange import Course, is_observed
from .pacing import Pacer
from .presence import absence_of, has_answered, phase_unconnected, waited_in_vain
from .retry import READS, Phase, Repetition

__all__ = ("USER_AGENT", "Answer", "ControlPlane")

USER_AGENT = "daf_butler_dcache"
_PIECE_BYTES = 256 * 1024


@dataclass(frozen=True)
class Answer:
    """What a door or frontend said.

    Parameters
    ----------
    status : `int`
        HTTP status.
    reason : `str`
        Reason phrase, in which dCache often tells the cause.
    headers : `~collections.abc.Mapping`
        Headers, looked up without regard to case.
    body : `bytes`
        The whole body.
    url : `str`
        Where it was asked for, unredacted.
    attempts : `int`
        How often the request was sent.
    seconds : `float`
        From the first attempt to the end of the answer.
    """

    status: int
    reason: str
    headers: Mapping[str, str] = field(repr=False)  # among them a ``Location`` that is a capability
    body: bytes = field(repr=False)
    url: str = field(repr=False)
    attempts: int = 1
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """The body as text; what is not UTF-8 is replaced."""
        return self.body.decode("utf-8", "replace")


class ControlPlane:
    """Requests to the doors and the frontend of one endpoint.

    Parameters
    ----------
    endpoint : `~..config.settings.EndpointSettings`
        Time limits, trust, and which servers are the endpoint's own.
    credential : `~..auth.sources.CredentialSource`
        Where the credential comes from.
    pacer : `~.pacing.Pacer`
        Keeps below the door's limit.
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
        credential: CredentialSource,
        pacer: Pacer,
        sleep: Callable[[float], None] = time.sleep,
        pacers: Mapping[Origin, Pacer] = MappingProxyType({}),
    ) -> None:
        self._endpoint = endpoint
        self._credential = credential
        self._pacer = pacer
        self._pacers = pacers
        self._sleep = sleep
        self._lock = threading.Lock()
        self._session: requests.Session | None = None
        _planes.add(self)

    @hides_locals
    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        body: bytes | None = None,
        deadline: Deadline,
        credential: Credential | None = None,
        authenticate: bool = True,
        ok: Container[int] = (),
        elsewhere: bool = False,
    ) -> Answer:
        """Send a request, repeat it where that is safe, and return the answer.

        Parameters
        ----------
        method : `str`
            HTTP method.
        url : `str`
            An ``http`` or ``https`` URL, percent-encoded; it is sent as it is.
        headers : `~collections.abc.Mapping`, optional
            Headers beside ``Host``, ``Content-Length``, ``User-Agent`` and ``Authorization``.
        body : `bytes`, optional
            What is sent.
        deadline : `~.deadline.Deadline`
            Limits everything, waits included.
        credential : `~..auth.credential.Credential`, optional
            Takes the place of the endpoint's, for instance an attenuated macaroon.
        authenticate : `bool`, optional
            `False` sends no credential at all.
        ok : `~collections.abc.Container` [`int`], optional
            Statuses that are an answer although they would be repeated or raised otherwise (401, 429, 503).
        elsewhere : `bool`, optional
            Whether somebody asks another door if this one fails (`.retry.Rule`).

        Returns
        -------
        answer : `Answer`
            Of any status but 401 and 429, unless they are in ``ok``. Redirects are answers.

        Raises
        ------
        CredentialError
            If the credential has expired, must not travel to this server, or was refused (401); a refused one
            is not sent again by this process.
        ServerBusyError
            If the server went on answering 429.
        DoorUnavailableError
            If there is no connection, or a read got no answer.
        OutcomeUnknownError
            If a request that is not a read was sent and its answer lost: look before repeating it.
        DeadlineError
            If the deadline passed, or the server stayed silent for too long.
        ProtocolError
            If the answer is not HTTP or larger than ``max_body_bytes``.
        """
        who = self._who(url, credential, authenticate)
        origin = origin_of(url)
        prepared = self._prepare(method, url, headers, body, who.headers())
        repetition = Repetition(method, deadline, elsewhere=elsewhere)
        started = time.monotonic()
        renewed = False
        while True:
            if repetition.attempts:
                # Time has passed: the credential may be over, or have been renewed.
                who = self._who(url, credential, authenticate)
                prepared = self._prepare(method, url, headers, body, who.headers())
            refused.check(origin, who, url)
            repetition.attempts += 1
            course = Course() if is_observed() else None
            # Outside of what follows: whose deadline passes here was not sent.
            slot = self._pacers.get(origin, self._pacer).slot(deadline, method)
            try:
                with slot:
                    # Again, for the credential may have ended or been refused while we waited our turn.
                    who.check(url)
                    refused.check(origin, who, url)
                    answer = self._once(prepared, deadline, repetition.attempts, started, course)
                    if origin in self._endpoint.origins:
                        has_answered(origin)
                    slot.answered(answer.status, answer.headers)
                    if answer.status == 401 and answer.status not in ok:
                        refused.remember(origin, who, answer.reason)
            except FailedAttemptError as failure:
                if failure.is_unreachable and origin in self._endpoint.origins:
                    failure.phase = phase_unconnected(origin)
                wait = repetition.next_wait(failure.phase)
                if wait is None or failure.silent:
                    if failure.phase is Phase.AWAY and repetition.is_over:
                        waited_in_vain(origin)
                    self._give_up(failure, method, url, repetition.attempts, time.monotonic() - started)
            else:
                if answer.status in ok:
                    return answer
                wait = repetition.next_wait(Phase.ANSWERED, answer.status, answer.headers)
                if answer.status == 401:
                    if not renewed and credential is None and successor(self._credential, who) is not None:
                        renewed = True
                        continue
                    raise who.refusal(
                        operation=method,
                        url=url,
                        reason=answer.reason,
                        attempts=answer.attempts,
                        elapsed_seconds=answer.seconds,
                    )
                if wait is None:
                    if answer.status == 429:
                        raise ServerBusyError(
                            "the server goes on refusing requests",
                            operation=method,
                            url=url,
                            status=429,
                            reason=answer.reason,
                            attempts=answer.attempts,
                            elapsed_seconds=answer.seconds,
                        )
                    return answer
            if wait > 0:
                self._sleep(wait)

    def close(self) -> None:
        """Close idle connections; the plane can still be used."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def drain(self, origin: Origin) -> None:
        """Close the idle connections to a server that is sick.

        Parameters
        ----------
        origin : `tuple`
            Scheme, host and port.
        """
        with self._lock:
            session = self._session
        if session is not None:
            adapter = session.get_adapter(f"{origin[0]}://")
            assert isinstance(adapter, Adapter)
            adapter.drain(origin)

    def _who(self, url: str, credential: Credential | None, authenticate: bool) -> Credential:
        """The credential for a URL, after all checks that need no server."""
        if not authenticate:
            return ANONYMOUS
        if origin_of(url) not in self._endpoint.origins:
            if credential is not None and credential.secret is not None:
                raise CredentialError(
                    "a credential is sent to the endpoint's own doors and frontend only", url=url
                )
            return ANONYMOUS
        who = self._credential.current() if credential is None else credential
        who.check(url)
        return who

    def _prepare(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        identity: Mapping[str, str],
    ) -> requests.PreparedRequest:
        all_headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers, **identity}
        if any(name.lower() == "authorization" for name in headers):
            raise CredentialError("a credential travels as a Credential, not as a header", url=url)
        prepared: requests.PreparedRequest | None = None
        with contextlib.suppress(ValueError):  # theirs quotes the URL, which after a redirect holds a token
            prepared = requests.Request(method, url, headers=all_headers, data=body, auth=_as_it_is).prepare()
        if prepared is None:
            raise ConfigurationError("not a URL", operation=method, url=url)
        prepared.url = url  # requests would decode and encode it anew
        return prepared

    def _once(
        self,
        prepared: requests.PreparedRequest,
        deadline: Deadline,
        attempt: int,
        started: float,
        course: Course | None,
    ) -> Answer:
        if course is not None:
            course.goes()
        response: requests.Response | None = None
        body = b""
        failure: FailedAttemptError | None = None
        try:
            silence = deadline.limit(self._endpoint.read_timeout_seconds)
            with answered_by(deadline, silence, course):
                response = self._opened().send(
                    prepared,
                    stream=True,
                    allow_redirects=False,
                    timeout=(deadline.limit(self._endpoint.connect_timeout_seconds), silence),
                )
                body = self._read(response)
        except DcacheError as error:
            if response is not None:
                response.close()  # with what is left of the body on its connection
            failure = FailedAttemptError(Phase.NO_ANSWER, str(error))
            raise
        except (requests.RequestException, lower.HTTPError) as error:
            failure = classify(error)
            # Theirs quote the URL, which after a redirect holds a token.
            raise failure from failure.system_error
        finally:
            if course is not None:
                if response is not None:
                    course.lap("reading")
                said = "" if response is None else response.reason or ""
                url = prepared.url or ""
                course.record(
                    "control",
                    prepared.method or "",
                    url,
                    status=None if response is None else response.status_code,
                    reason=said if failure is None else str(failure),
                    sent=len(prepared.body) if prepared.body else 0,
                    received=len(body),
                    attempt=attempt,
                    is_hedge=False,
                    own=origin_of(url) in self._endpoint.origins,
                )
        return Answer(
            response.status_code,
            response.reason or "",
            response.headers,
            body,
            prepared.url or "",
            attempt,
            time.monotonic() - started,
        )

    def _read(self, response: requests.Response) -> bytes:
        pieces: list[bytes] = []
        size = 0
        for piece in response.iter_content(_PIECE_BYTES):
            size += len(piece)
            if size > self._endpoint.max_body_bytes:
                raise ProtocolError(
                    f"the answer is larger than {self._endpoint.max_body_bytes} bytes",
                    url=response.url,
                    status=response.status_code,
                )
            pieces.append(piece)
        return b"".join(pieces)

    def _opened(self) -> requests.Session:
        with self._lock:
            if self._session is None:
                session = Session()
                session.trust_env = False
                session.cookies.set_policy(NoCookies())
                adapter = Adapter(self._endpoint)
                session.mount("https://", adapter)
                session.mount("http://", adapter)
                self._session = session
            return self._session

    def _give_up(
        self, failure: FailedAttemptError, method: str, url: str, attempts: int, elapsed: float
    ) -> NoReturn:
        details: dict[str, Any] = {
            "operation": method,
            "url": url,
            "attempts": attempts,
            "elapsed_seconds": elapsed,
        }
        cause = failure.__cause__
        if failure.phase not in (Phase.NOT_SENT, Phase.AWAY) and method not in READS:
            raise OutcomeUnknownError(f"sent, but there is no answer: {failure}", **details) from cause
        if failure.silent:
            raise DeadlineError(f"the server is silent: {failure}", **details) from cause
        hint = absence_of(origin_of(url)) if failure.is_unreachable else ""
        unavailable = DoorUnavailableError(str(failure), hint=hint, **details)
        unavailable.was_waited_for = failure.phase is Phase.AWAY
        raise unavailable from cause

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._session = None


def _as_it_is(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leave a request alone: `requests` would make a credential of the user information of a URL."""
    return prepared


_planes: weakref.WeakSet[ControlPlane] = weakref.WeakSet()


def _after_fork() -> None:
    for plane in list(_planes):
        plane._after_fork()


os.register_at_fork(after_in_child=_after_fork)
