"""The HTTP client of a pool, for third-party copies: a socket, one request, one answer.

It follows redirects without taking ``Authorization`` to another host, waits for ``100 Continue`` before a
body, and tells a body that ended early from one that is complete (protocol page, section 5.5).
"""

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self
from urllib.parse import SplitResult, urljoin, urlsplit

__all__ = ["RemoteAnswer", "RemoteClient", "RemoteFailureError"]

_CHUNK = 1 << 16
_CONTINUE_SECONDS = 3.0
_REDIRECTS = (301, 302, 303, 307, 308)


class RemoteFailureError(Exception):
    """The remote side failed; the text is what dCache writes after ``failure:``."""


class RemoteAnswer:
    """An answer whose body is still to be read.

    Parameters
    ----------
    sock : `socket.socket`
        The connection; the answer closes it.
    status : `int`
        Status code.
    reason : `str`
        Reason phrase.
    headers : `~collections.abc.Mapping`
        Fields, names in lower case.
    rest : `bytes`
        What came along behind the head.
    has_body : `bool`
        `False` after a HEAD.
    """

    def __init__(
        self,
        sock: socket.socket,
        status: int,
        reason: str,
        headers: Mapping[str, str],
        rest: bytes,
        has_body: bool,
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self._sock = sock
        self._rest = rest
        self._has_body = has_body and status not in (204, 304)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    def body(self) -> Iterator[bytes]:
        """Read the body piece by piece.

        Yields
        ------
        piece : `bytes`
            The next bytes.

        Raises
        ------
        RemoteFailureError
            If the connection ends before the body does.
        """
        if not self._has_body:
            return
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            yield from self._chunks()
        elif "content-length" in self.headers:
            yield from self._counted(int(self.headers["content-length"]))
        else:
            while piece := self._take(_CHUNK):
                yield piece

    def _take(self, limit: int) -> bytes:
        if not self._rest:
            try:
                self._rest = self._sock.recv(_CHUNK)
            except OSError:
                return b""
        piece, self._rest = self._rest[:limit], self._rest[limit:]
        return piece

    def _counted(self, length: int) -> Iterator[bytes]:
        received = 0
        while received < length:
            piece = self._take(length - received)
            if not piece:
                # The parenthesis stays open: this is how the text reaches a client of dCache 11.2.4.
                raise RemoteFailureError(
                    "Premature end of Content-Length delimited message body"
                    f" (expected: {length}; received: {received}"
                )
            received += len(piece)
            yield piece

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            byte = self._take(1)
            if not byte:
                raise RemoteFailureError("Premature end of chunk coded message body: closing chunk expected")
            line += byte
        return line.strip()

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._line().partition(b";")[0] or b"0", 16):
            while size:
                piece = self._take(size)
                if not piece:
                    raise RemoteFailureError("Truncated chunk")
                size -= len(piece)
                yield piece
            self._line()
        while self._line():
            pass


class RemoteClient:
    """Talks to the other side of one third-party copy.

    Parameters
    ----------
    tls : `ssl.SSLContext`
        Whom to trust.
    headers : `~collections.abc.Mapping`
        Fields of every request, such as those that came as
        ``TransferHeader…``.
    timeout_seconds : `float`, optional
        Patience with a silent peer.

    Notes
    -----
    `cancel` may be called from another thread; whatever is under way then
    fails.
    """

    def __init__(
        self, tls: ssl.SSLContext, headers: Mapping[str, str], timeout_seconds: float = 60.0
    ) -> None:
        self._tls = tls
        self._headers = dict(headers)
        self._timeout = timeout_seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.cancelled = False
        self.peer = ""

    def cancel(self) -> None:
        """Give up: the current connection is cut and no other is made."""
        with self._lock:
            self.cancelled = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # the method of the base class leaves the TLS object to the thread that uses it
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Callable[[], Iterable[bytes]] | None = None,
    ) -> RemoteAnswer:
        """Send a request and follow redirects.

        Parameters
        ----------
        method : `str`
            The verb.
        url : `str`
            Where to.
        headers : `~collections.abc.Mapping`
            Fields of this request.
        body : `~collections.abc.Callable`, optional
            Makes the pieces of the body, anew for each redirect. It is sent
            after ``100 Continue`` only.

        Returns
        -------
        answer : `RemoteAnswer`
            The final answer.

        Raises
        ------
        RemoteFailureError
            If the peer cannot be reached or does not answer.
        """
        first = urlsplit(url)
        for _ in range(21):
            here = urlsplit(url)
            fields = {**self._headers, **headers}
            if here.netloc != first.netloc:
                fields = {name: value for name, value in fields.items() if name.lower() != "authorization"}
            answer = self._exchange(method, here, fields, body)
            target = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not target:
                return answer
            with answer:
                # urljoin loses a semicolon at the end of the path
                url = target if "://" in target.partition("?")[0] else urljoin(url, target)
        raise RemoteFailureError("Maximum redirects (20) exceeded")

    def _connect(self, url: SplitResult) -> socket.socket:
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        try:
            sock = socket.create_connection((host, port), self._timeout)
        except OSError as exc:
            address = socket.gethostbyname(host)
            cause = "Connection refused" if isinstance(exc, ConnectionRefusedError) else exc.strerror
            raise RemoteFailureError(f"Connect to {host}:{port} [{host}/{address}] failed: {cause}") from exc
        self.peer = f"tcp:{sock.getpeername()[0]}:{port}"
        try:
            if url.scheme == "https":
                sock = self._tls.wrap_socket(sock, server_hostname=host)
        except OSError as exc:
            sock.close()
            raise RemoteFailureError(str(exc)) from exc
        with self._lock:
            self._socket = sock
            if self.cancelled:
                sock.close()
                raise RemoteFailureError("Transfer cancelled")
        return sock

    def _exchange(
        self,
        method: str,
        url: SplitResult,
        headers: Mapping[str, str],
        body: Callable[[], Iterable[bytes]] | None,
    ) -> RemoteAnswer:
        sock = self._connect(url)
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        lines = [f"{method} {target} HTTP/1.1", f"Host: {url.netloc.rpartition('@')[2]}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None:
            lines.append("Expect: 100-continue")
        try:
            sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1", "replace"))
            rest = b""
            while True:
                if body is not None and not _is_readable(sock, _CONTINUE_SECONDS):
                    status = 100  # a server that does not know the expectation waits for the body
                else:
                    status, reason, fields, rest = _head(sock, rest)
                if status >= 200:
                    return RemoteAnswer(sock, status, reason, fields, rest, method != "HEAD")
                if status == 100 and body is not None:
                    for piece in body():
                        sock.sendall(piece)
                    body = None
        except OSError as exc:
            sock.close()
            raise RemoteFailureError(exc.strerror or str(exc)) from exc
        except RemoteFailureError:
            sock.close()
            raise


def _is_readable(sock: socket.socket, seconds: float) -> bool:
    pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
    return pending or bool(select.select([sock], [], [], seconds)[0])


def _head(sock: socket.socket, data: bytes) -> tuple[int, str, dict[str, str], bytes]:
    while b"\r\n\r\n" not in data:
        piece = sock.recv(_CHUNK)
        if not piece or len(data) > 1 << 16:
            raise RemoteFailureError(f"{sock.getpeername()[0]} failed to respond")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    _, status, reason = [*first.split(" ", 2), "", ""][:3]
    if not status.isdecimal():
        raise RemoteFailureError("The server failed to respond with a valid HTTP response")
    fields = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    return int(status), reason, fields, rest
