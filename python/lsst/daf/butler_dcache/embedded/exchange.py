"""One request and its answer, on a connection that stays open.

Reading is decoded from its framing (`Body`); writing leaves reason phrase, header set, framing and the end of
the connection to the caller, since these are what the servers of a dCache do differently.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .connection import BodyCutError, Connection, Farewell, HangUpError, HeadTap, Tap
from .transcript import Record

if TYPE_CHECKING:
    from .wire import Listener

__all__ = ["Body", "Exchange", "Headers", "decode_path"]

_REASONS = {
    100: "Continue",
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    206: "Partial Content",
    207: "Multi-Status",
    302: "Found",
    307: "Temporary Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    412: "Precondition Failed",
    413: "Request Entity Too Large",
    415: "Unsupported Media Type",
    416: "Range Not Satisfiable",
    417: "Expectation Failed",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    507: "Insufficient Storage",
}


class Headers:
    """Header fields in the order of their arrival, looked up without regard to case."""

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self.items = list(items)

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of a header, or ``default``."""
        low = name.lower()
        return next((value for key, value in self.items if key.lower() == low), default)

    def __contains__(self, name: str) -> bool:
        low = name.lower()
        return any(key.lower() == low for key, _ in self.items)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.items)


def decode_path(raw: str) -> str:
    """Percent-decode a path: UTF-8, or Latin-1 where the bytes are not UTF-8 (protocol page, section 4.1)."""
    data = bytearray()
    source = raw.encode("latin-1", "replace")
    at = 0
    while at < len(source):
        piece = source[at : at + 3]
        if piece[:1] == b"%" and len(piece) == 3:
            with contextlib.suppress(ValueError):
                data.append(int(piece[1:], 16))
                at += 3
                continue
        data += source[at : at + 1]
        at += 1
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


class Body:
    """The body of a request, decoded from its framing.

    Parameters
    ----------
    exchange : `Exchange`
        The request whose body this is.
    length : `int` or `None`
        The announced length; `None` means chunked coding.
    """

    def __init__(self, exchange: Exchange, length: int | None) -> None:
        self._exchange = exchange
        self.length = length
        self.chunked = length is None
        self._left = length or 0  # of the body, or of the current chunk
        self.finished = length == 0
        self.trailers: list[tuple[str, str]] = []
        self._is_cut = False

    def _wait(self) -> None:
        connection = self._exchange.connection
        if not connection.fill(self._exchange.listener.idle):
            self._complain()

    def _complain(self) -> None:
        eof = self._exchange.connection.eof
        raise BodyCutError("connection lost before end of body" if eof else "body stalled")

    def _line(self) -> bytes:
        buffer = self._exchange.connection.buffer
        while (end := buffer.find(b"\n")) < 0:
            self._wait()
        line = bytes(buffer[:end]).rstrip(b"\r")
        del buffer[: end + 1]
        return line

    def read(self, size: int = 1 << 18) -> bytes:
        """Return up to ``size`` bytes, at least one; empty at the end.

        Raises
        ------
        BodyCutError
            Raised if the client closed, or paused longer than the idle limit, before the end.
        """
        if self._is_cut:
            raise BodyCutError("connection cut by a fault", self._exchange.farewell)
        if self.finished:
            return b""
        buffer = self._exchange.connection.buffer
        if self.chunked and self._left == 0:
            try:
                self._left = int(self._line().split(b";")[0].strip() or b"0", 16)
            except ValueError as exc:
                raise BodyCutError("malformed chunk") from exc
            if self._left == 0:
                while line := self._line():
                    name, _, value = line.decode("latin-1").partition(":")
                    self.trailers.append((name, value.strip()))
                self.finished = True
                return b""
        if not buffer and self._left >= size:  # most of a large body goes straight through
            data = self._exchange.connection.receive(size, self._exchange.listener.idle)
            if not data:
                self._complain()
        else:
            if not buffer:
                self._wait()
            data = bytes(buffer[: min(size, self._left)])
            del buffer[: len(data)]
        self._left -= len(data)
        if self.chunked and self._left == 0:
            self._line()
        self.finished = not self.chunked and self._left == 0
        record, cut = self._exchange.record, False
        if self._exchange.tap_received is not None:
            data, cut = self._exchange.tap_received(record.received, data)
        record.received += len(data)
        self._is_cut = cut
        return data if data or not cut else self.read()

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data

    def read_all(self, limit: int = 64 << 20) -> bytes:
        """Return the whole body (for small ones: XML, JSON); raise `HangUpError` beyond ``limit`` bytes."""
        parts: list[bytes] = []
        for data in self:
            parts.append(data)
            limit -= len(data)
            if limit < 0:
                raise HangUpError("body too large")
        return b"".join(parts)

    def discard(self, limit: int = 1 << 18, pause: float | None = 0.02) -> bool:
        """Throw away what is left if it is at hand; return whether the connection is in step afterwards."""
        connection = self._exchange.connection
        try:
            while not self.finished and limit > 0:
                if not connection.buffer and not connection.fill(pause):
                    return False
                limit -= len(self.read())
        except HangUpError:
            return False
        return self.finished


class Exchange:
    """One request and its answer.

    Attributes
    ----------
    method, target, path : `str`
        The verb, the request target as sent, and its path percent-decoded.
    query : `list` [`tuple` [`str`, `str`]]
        The decoded parameters in the order in which they came.
    headers : `Headers`
        The header fields.
    body : `Body`
        The request's body.
    record : `Record`
        The exchange in the transcript.
    login : `object`
        Who asks; set by the server once it knows.
    """

    def __init__(self, listener: Listener, connection: Connection, line: str, headers: Headers) -> None:
        self.listener = listener
        self.connection = connection
        self.headers = headers
        parts = line.split(" ")
        self.method, self.target = parts[0], parts[1] if len(parts) > 1 else "/"
        self.version = parts[2] if len(parts) > 2 else "HTTP/0.9"
        raw = self.target
        if "://" in raw.split("?")[0]:  # absolute form
            raw = "/" + raw.split("://", 1)[1].partition("/")[2]
        self.raw_path, _, self.raw_query = raw.partition("?")
        self.path = decode_path(self.raw_path)
        pairs = [piece.partition("=") for piece in self.raw_query.split("&") if piece]
        self.query = [
            (decode_path(k.replace("+", " ")), decode_path(v.replace("+", " "))) for k, _, v in pairs
        ]
        self.record = Record(
            listener.server,
            self.method,
            self.path,
            connection=connection.number,
            resumed=connection.resumed,
        )
        self.record.authorization = "authorization" in headers or self.parameter("authz") is not None
        length: int | None = None
        if "chunked" not in headers.get("transfer-encoding").lower():
            announced = headers.get("content-length", "0")
            length = int(announced) if announced.isdigit() else 0
        self.body = Body(self, length)
        self.expects = headers.get("expect")
        self.interim_sent = False
        self.answered = False
        self.tap_received: Tap | None = None
        self.tap_sent: Tap | None = None
        self.tap_head: HeadTap | None = None
        self.farewell: Farewell = "cut"
        self.has_wrong_digest = False
        self.login: Any = None
        self.extra_headers: list[tuple[str, str]] = []
        self._chunking = False
        asked = headers.get("connection").lower()
        self.close = "close" in asked or (self.version == "HTTP/1.0" and "keep-alive" not in asked)

    @property
    def secure(self) -> bool:
        """Whether the request came over TLS."""
        return self.connection.secure

    @property
    def host(self) -> str:
        """The server as the client calls it: the ``Host`` header, believed as sent."""
        return self.headers.get("host") or f"localhost:{self.listener.port}"

    @property
    def base(self) -> str:
        """Scheme and host of the server, as in ``https://localhost:2880``."""
        return f"{'https' if self.secure else 'http'}://{self.host}"

    @property
    def has_body(self) -> bool:
        """Whether the request announced a body (of any length)."""
        return "content-length" in self.headers or self.body.chunked

    def parameter(self, name: str) -> str | None:
        """Return the first value of a query parameter, or `None`."""
        return next((value for key, value in self.query if key == name), None)

    def body_has_begun(self, patience: float = 0.0) -> bool:
        """Whether body bytes of the client are here, or come within ``patience`` seconds."""
        return bool(self.connection.buffer) or (not self.body.finished and self.connection.fill(patience))

    def send_continue(self) -> None:
        """Send ``100 Continue``, once."""
        if not self.interim_sent:
            self.interim_sent = True
            self.connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    @property
    def _ends_by_expect(self) -> bool:
        """Whether Jetty closes after this final answer, since the client still holds back its body."""
        waits = self.expects and not self.interim_sent and not self.record.received
        return bool(waits) and self.listener.jetty

    def _head(
        self, status: int, reason: str, headers: Iterable[tuple[str, str]], *, bare: bool = False
    ) -> bytes:
        if self._ends_by_expect:
            self.close = True
        lines = [f"HTTP/1.1 {status} {reason or _REASONS.get(status, str(status))}"]
        common = [] if bare else self.listener.common_headers()
        every = [*common, *headers, *self.extra_headers]
        lines += [f"{name}: {value}" for name, value in every]
        if self.close and not any(name.lower() == "connection" for name, _ in every):
            lines.append("Connection: close")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        if self.tap_head is not None:
            head = self.tap_head(head)
        self.record.status = status
        self.answered = True
        return head

    def answer(
        self,
        status: int,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | Iterable[bytes] = b"",
        *,
        reason: str = "",
        framing: str = "length",
        length: int | None = None,
        bare: bool = False,
    ) -> None:
        """Send the final answer.

        Parameters
        ----------
        status : `int`
            Status code.
        headers : iterable of `tuple`
            Header fields beyond those that the server puts on every answer.
        body : `bytes` or iterable of `bytes`
            The body; not sent in answer to a HEAD.
        reason : `str`
            Reason phrase; the usual one of the status by default.
        framing : `str`
            ``"length"``, ``"chunked"``, or ``"none"`` (neither header, no body: 204, 307, or a HEAD of
            unknown size).
        length : `int` or `None`
            Length of an iterable body.
        bare : `bool`
            Whether the header fields of the server are left out, as Jetty does below its handlers.
        """
        fields_: list[tuple[str, str]] = list(headers)
        pieces: Iterable[bytes] = (body,) if isinstance(body, bytes) else body
        if body == b"" and self._ends_by_expect:
            framing = "none"
        if framing == "chunked":
            fields_.append(("Transfer-Encoding", "chunked"))
        elif framing == "length":
            if length is None:
                length = len(body) if isinstance(body, bytes) else 0
            fields_.append(("Content-Length", str(length)))
        head = self._head(status, reason, fields_, bare=bare)
        if self.method == "HEAD" or framing == "none":
            self.connection.send(head)
            return
        self._chunking = framing == "chunked"
        if isinstance(body, bytes) and not self.listener.separate_segments and self.tap_sent is None:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if self._chunking and body else body
            self.record.sent += len(body)
            self.connection.send(head + framed + (b"0\r\n\r\n" if self._chunking else b""))
            return
        self.connection.send(head)
        for piece in pieces:
            self.write(piece)
        if self._chunking:
            self.finish()

    def start(self, status: int, headers: Iterable[tuple[str, str]] = (), *, reason: str = "") -> None:
        """Send the head of a chunked answer; `write` and `finish` follow."""
        self._chunking = True
        self.connection.send(self._head(status, reason, [*headers, ("Transfer-Encoding", "chunked")]))

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        cut = False
        if self.tap_sent is not None:
            data, cut = self.tap_sent(self.record.sent, data)
        if data:
            self.record.sent += len(data)
            self.connection.send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunking else data)
        if cut:
            raise HangUpError("connection cut by a fault", self.farewell)

    def finish(self, trailers: Iterable[tuple[str, str]] = ()) -> None:
        """End a chunked answer."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in trailers)
        self.connection.send(b"0\r\n" + lines.encode("latin-1") + b"\r\n")
