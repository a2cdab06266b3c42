"""What `requests` stands on here: connections judged rightly, errors that say how far a request came."""

from __future__ import annotations

import io
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from typing import Any, cast

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3 import exceptions as lower
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ..config.settings import EndpointSettings, Origin, origin_of
from ..redaction import redact_text
from .deadline import Deadline
from .exchange import Course, Opening
from .fork import next_connection_number, own_socket
from .retry import Phase
from .sockets import NotConnectedError, open_socket
from .tls import is_alive, remember_session, tls_context

__all__ = ("Adapter", "FailedAttemptError", "NoCookies", "Session", "answered_by", "classify")


class FailedAttemptError(Exception):
    """An attempt without a usable answer: how far it came, and why it ended.

    Parameters
    ----------
    phase : `~.retry.Phase`
        How far.
    text : `str`
        Why.
    silent : `bool`, optional
        Whether the server said nothing until the time was over.
    is_unreachable : `bool`, optional
        Whether there is no way to the server: nothing was sent, and not since the two do not agree on TLS.
    """

    def __init__(self, phase: Phase, text: str, silent: bool = False, is_unreachable: bool = False) -> None:
        super().__init__(text)
        self.phase = phase
        self.silent = silent
        self.is_unreachable = is_unreachable
        self.system_error: OSError | None = None
        """Innermost error of the operating system; unlike those of `requests` it quotes no URL."""


class _RedactingFilter(logging.Filter):
    """Masks credentials in what urllib3 logs: XRootD's redirects carry a token in the query."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(redact_text(arg) if isinstance(arg, str) else arg for arg in record.args)
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_RedactingFilter())


def classify(error: Exception) -> FailedAttemptError:
    """Translate what `requests` and urllib3 raise into how far the request came.

    Parameters
    ----------
    error : `Exception`
        What was raised.

    Returns
    -------
    failure : `FailedAttemptError`
        With the innermost cause in words.
    """
    chain: list[BaseException] = []
    todo: list[Any] = [error]
    while todo:
        item = todo.pop()
        if isinstance(item, BaseException) and item not in chain:
            chain.append(item)
            todo += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]
    # The innermost system error says it best, without the addresses of objects.
    system = [item for item in chain if isinstance(item, OSError) and item.errno is not None]
    text = str(system[-1].strerror if system and system[-1].strerror else chain[0])
    failure = _judge(chain, text)
    failure.system_error = system[-1] if system else None
    return failure


def _judge(chain: list[BaseException], text: str) -> FailedAttemptError:
    refusals = [item for item in chain if getattr(item, "while_connecting", False)]
    if refusals:
        # A relay whose server is away takes the connection, and closes it.
        refusal = refusals[0]
        broke_off = isinstance(refusal, ssl.SSLEOFError | ssl.SSLZeroReturnError)
        broke_off = broke_off or not isinstance(refusal, ssl.SSLError)
        return FailedAttemptError(Phase.NOT_SENT, f"no TLS connection: {text}", is_unreachable=broke_off)
    if any(isinstance(item, lower.NewConnectionError) for item in chain):
        return FailedAttemptError(Phase.NOT_SENT, f"no connection: {text}", is_unreachable=True)
    if any(isinstance(item, lower.ConnectTimeoutError | requests.ConnectTimeout) for item in chain):
        return FailedAttemptError(Phase.NOT_SENT, "no connection in time", is_unreachable=True)
    if any(isinstance(item, lower.ReadTimeoutError | requests.ReadTimeout | TimeoutError) for item in chain):
        return FailedAttemptError(Phase.NO_ANSWER, "no answer in time", silent=True)
    stale = any(getattr(item, "kept_connection", False) for item in chain)
    return FailedAttemptError(Phase.STALE if stale else Phase.NO_ANSWER, f"the connection was lost: {text}")


class NoCookies(requests.cookies.cookielib.DefaultCookiePolicy):  # type: ignore[name-defined,misc]
    """Neither takes nor gives cookies."""

    def set_ok(self, cookie: Any, request: Any) -> bool:
        """Refuse to keep a cookie.

        Parameters
        ----------
        cookie, request : `object`
            Ignored.

        Returns
        -------
        ok : `bool`
            `False`.
        """
        return False

    def return_ok(self, cookie: Any, request: Any) -> bool:
        """Refuse to send a cookie.

        Parameters
        ----------
        cookie, request : `object`
            Ignored.

        Returns
        -------
        ok : `bool`
            `False`.
        """
        return False


class Session(requests.Session):
    """Looks at no redirect; `requests` would read its whole body even if it is told not to follow it."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return that there is none.

        Parameters
        ----------
        resp : `requests.Response`
            Ignored.
        """
        return None


class _Waiting(threading.local):
    limits: tuple[Deadline, float] | None = None
    course: Course | None = None


_waiting = _Waiting()
"""The answer that this thread waits for: urllib3 hands no such thing down to its connections, nor up."""


@contextmanager
def answered_by(deadline: Deadline, seconds: float, course: Course | None = None) -> Iterator[None]:
    """Bound every wait of this thread for a part of an answer, and follow its course.

    Parameters
    ----------
    deadline : `~.deadline.Deadline`
        When the whole answer must be there: a server that says a byte now and then meets every other limit.
    seconds : `float`
        Longest silence in between.
    course : `~.exchange.Course`, optional
        Of the one request that is sent meanwhile; it is told of its connection.
    """
    _waiting.limits, _waiting.course = (deadline, seconds), course
    try:
        yield
    finally:
        _waiting.limits = _waiting.course = None


class _BoundedReader(io.RawIOBase):
    """Reads from a socket, each time only as long as there is time for the whole."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock = sock
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        limits = _waiting.limits
        if limits is not None:
            deadline, seconds = limits
            if deadline.expired:
                raise TimeoutError("the answer does not end in time")
            self._sock.settimeout(min(seconds, max(deadline.left, 0.001)))
        return self._raw.readinto(buffer)

    def fileno(self) -> int:
        return self._raw.fileno()

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Response(HTTPResponse):
    """`http.client` reads head and body through a file of the socket, which knows no deadline."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp: Any = io.BufferedReader(_BoundedReader(sock, self.fp.detach()))

    def begin(self) -> None:
        """Read the head, to its empty line: `http.client` takes the end of the connection for one.

        A head that is cut after its first line would be an answer without a length, and its body empty.
        """
        lines = self.fp = _Lines(self.fp)
        super().begin()
        if self.fp is lines:
            self.fp = lines.file
        if lines.last not in (b"\r\n", b"\n", None):
            self.close()
            raise RemoteDisconnected("the connection ended within the head of the answer")


class _Lines:
    """A file that remembers the last line that was read."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.last: bytes | None = None

    def readline(self, limit: int) -> bytes:
        line: bytes = self.file.readline(limit)
        self.last = line
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class _Connection(HTTPConnection):
    """What is added to urllib3's: a number, an honest look at idle sockets, TLS sessions, deadlines."""

    response_class = _Response
    number = 0
    answers = 0
    opening: Opening | None = None

    def _new_conn(self) -> socket.socket:
        try:
            # urllib3 gives each of the server's addresses all of the time.
            sock, self.opening = open_socket(("", self._dns_host, self.port), cast(float, self.timeout))
        except NotConnectedError as error:
            cause = error.__cause__
            kind = lower.ConnectTimeoutError if isinstance(cause, TimeoutError) else lower.NewConnectionError
            raise kind(self, str(error)) from cause
        sock.settimeout(cast(float, self.timeout))
        return sock

    def connect(self) -> None:
        course = _waiting.course
        if course is not None:
            course.lap("sending")
        begun = time.monotonic()
        try:
            super().connect()
        except OSError as error:
            error.while_connecting = True  # type: ignore[attr-defined]
            raise
        if course is not None:
            course.lap("opened")
        opening = self.opening
        if opening is not None and isinstance(self.sock, ssl.SSLSocket):
            spent = time.monotonic() - begun - opening.name_seconds - opening.tcp_seconds
            self.opening = replace(opening, tls_seconds=spent, is_resumed=bool(self.sock.session_reused))
        own_socket(self.sock)
        self.number = next_connection_number()
        self.answers = 0

    @property
    def is_connected(self) -> bool:
        return self.sock is not None and is_alive(self.sock)

    def getresponse(self) -> Any:
        sock = self.sock
        reused, course = self.answers > 0, _waiting.course
        if course is not None:
            course.goes_by(self.number, reused, self.opening)
            course.lap("sending")
        try:
            response: Any = super().getresponse()
        except (OSError, HTTPException) as error:
            error.kept_connection = reused  # type: ignore[union-attr]
            raise
        finally:
            if course is not None:
                course.lap("waiting")
        self.answers += 1
        if self.answers <= 2:  # the second ticket follows the first answer
            remember_session(sock)
        return response


class _TlsConnection(_Connection, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class Adapter(HTTPAdapter):
    """Connects with our connections and our TLS; whatever `requests` would add is left out.

    Parameters
    ----------
    endpoint : `~..config.settings.EndpointSettings`
        What it trusts, how many connections are kept, and which servers are its own, to which alone the
        client certificate is presented.
    """

    def __init__(self, endpoint: EndpointSettings) -> None:
        self._endpoint = endpoint
        super().__init__(pool_connections=16, pool_maxsize=max(1, endpoint.persistent_connections))

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any
    ) -> None:
        """Make urllib3's manager, with our kinds of pools.

        Parameters
        ----------
        connections, maxsize : `int`
            As in `requests`: hosts whose pools are kept, and connections in each.
        block : `bool`
            Whether to wait for a free connection.
        **pool_kwargs
            For the pools.
        """
        self.poolmanager = urllib3.PoolManager(
            num_pools=connections, maxsize=maxsize, block=block, **pool_kwargs
        )
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}

    def drain(self, origin: Origin) -> None:
        """Close the idle connections to one server.

        Parameters
        ----------
        origin : `tuple`
            Scheme, host and port.
        """
        pools = self.poolmanager.pools
        keys = pools.keys()  # a copy; the container cannot be iterated over
        for key in keys:
            if (key.key_scheme, key.key_host, key.key_port) == origin:
                with suppress(KeyError):  # another thread may have removed it
                    del pools[key]  # which closes it; requests under way come to their end

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        """Return where to connect, and the context for TLS, whose affair it is how that is spoken.

        Parameters
        ----------
        request : `requests.PreparedRequest`
            The request.
        verify, cert : `object`
            Ignored.

        Returns
        -------
        host, tls : `dict`
            Scheme, host and port; the context.
        """
        origin = scheme, host, port = origin_of(request.url or "")
        tls = {}
        if scheme == "https":
            presents = origin in self._endpoint.origins
            tls["ssl_context"] = tls_context(self._endpoint, client_certificate=presents)
        return {"scheme": scheme, "host": host, "port": port}, tls

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Have certificates verified; `requests` would add the authorities of certifi to the context.

        Parameters
        ----------
        conn : `urllib3.HTTPConnectionPool`
            The pool.
        url, verify, cert : `object`
            Ignored.
        """
        conn.cert_reqs = "CERT_REQUIRED"
