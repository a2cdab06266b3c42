"""HTTP/1.1 on plain sockets, one thread per connection.

The engine leaves to its caller what the servers of a dCache do differently and a client can notice: reason
phrases, the order and the set of headers, the framing of an answer, whether head and body leave in one
segment, and when a connection ends. A ready-made server (or asyncio, which always sets ``TCP_NODELAY``) could
not misbehave the way a pool does.

A `Listener` accepts connections and calls a handler with one `Exchange` per request. The handler reads the
body through `Exchange.body` and answers once, through `Exchange.answer` or `Exchange.start` /
`Exchange.write` / `Exchange.finish`. It ends the connection without an answer by raising `HangUpError`.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate

from .connection import Connection, HangUpError
from .exchange import Exchange, Headers, decode_path
from .transcript import Record, Transcript

__all__ = ["Handler", "Listener"]

_LOG = logging.getLogger(__name__)

Handler = Callable[[Exchange], None]


class Listener:
    """A server socket on loopback with its connections.

    Parameters
    ----------
    server : `str`
        The name in the transcript: ``"door"``, ``"pool"`` or ``"frontend"``.
    handler : callable
        Called with each `Exchange`, on the connection's own thread.
    transcript : `Transcript`
        Where requests are noted.
    ports : iterable of `int`
        Ports to try in this order; 0 is any free one.
    tls : `ssl.SSLContext` or `None`
        Server context, or `None` for plain http.
    software : `str`
        Value of the ``Server`` header.
    nodelay : `bool`
        Whether ``TCP_NODELAY`` is set, and head and body leave in one segment. False at pools: that is the
        Nagle trap (protocol page, surprise 21).
    dated : `bool`
        Whether answers carry ``Date`` (not at pools).
    idle : `float` or `None`
        Seconds after which a silent connection is closed.
    line_limit, head_limit : `int`
        Bytes of the request line and of all header fields.
    silent_limits : `bool`
        Whether a request beyond the limits gets no answer at all (pools) rather than 431.
    jetty : `bool`
        Whether connections end as Jetty's do: after a final answer to ``Expect`` without a 100, and when an
        unread body is not at hand. A pool reads on, taking whatever comes for the body (protocol page,
        surprise 10).
    """

    def __init__(
        self,
        server: str,
        handler: Handler,
        transcript: Transcript,
        *,
        ports: Iterable[int] = (0,),
        tls: ssl.SSLContext | None = None,
        software: str = "dCache",
        nodelay: bool = True,
        dated: bool = True,
        idle: float | None = 300.0,
        line_limit: int = 8192,
        head_limit: int = 8192,
        silent_limits: bool = False,
        jetty: bool = True,
    ) -> None:
        self.server, self.handler, self.transcript = server, handler, transcript
        self.tls, self.software, self.nodelay, self.dated = tls, software, nodelay, dated
        self.separate_segments = not nodelay
        self.idle, self.line_limit, self.head_limit = idle, line_limit, head_limit
        self.silent_limits, self.jetty = silent_limits, jetty
        self.stopping = threading.Event()
        self.crash: Callable[[float], None] = lambda seconds: self.drop_connections()
        self.on_stop: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._open: dict[Connection, threading.Thread] = {}
        self._socket = self._bind(ports)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name=f"{server}-{self.port}", daemon=True)
        self._thread.start()

    @staticmethod
    def _bind(ports: Iterable[int]) -> socket.socket:
        problem: OSError | None = None
        for port in ports:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("127.0.0.1", port))
                sock.listen(128)
            except OSError as exc:
                sock.close()
                problem = exc
            else:
                return sock
        raise problem or OSError("no port to listen on")

    def common_headers(self) -> list[tuple[str, str]]:
        """Return the header fields of every answer of this server."""
        dated = [("Date", formatdate(usegmt=True))] if self.dated else []
        return [*dated, ("Server", self.software)]

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, address = self._socket.accept()
            except OSError:
                return
            connection = Connection(sock, self.transcript.next_connection(), address[0], self.tls is not None)
            thread = threading.Thread(
                target=self._serve, args=(connection,), name=f"{self.server}-{connection.number}", daemon=True
            )
            with self._lock:
                if self.stopping.is_set():
                    sock.close()
                    return
                self._open[connection] = thread
                thread.start()

    def _serve(self, connection: Connection) -> None:
        try:
            if self.nodelay:
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                raw = connection.sock
                raw.settimeout(30.0)
                wrapped = self.tls.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
                connection.sock = wrapped
                wrapped.do_handshake()
                connection.resumed = bool(wrapped.session_reused)
                if self.nodelay is False:
                    wrapped.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            while not connection.closing and not self.stopping.is_set():
                exchange = self._next(connection)
                if exchange is None:
                    break
                self._handle(exchange)
                in_step = exchange.body.discard() if self.jetty else exchange.body.discard(1 << 60, None)
                connection.closing = exchange.close or not in_step
            connection.say_goodbye()
        except (HangUpError, OSError, ValueError) as exc:
            _LOG.debug("%s connection %d ends: %s", self.server, connection.number, exc)
            farewell = exc.farewell if isinstance(exc, HangUpError) else "cut"
            if farewell == "notice":
                connection.say_goodbye()
            elif farewell == "reset":
                connection.reset()
        finally:
            connection.close()
            for callback in connection.on_close:
                callback()
            with self._lock:
                self._open.pop(connection, None)

    def _next(self, connection: Connection) -> Exchange | None:
        buffer = connection.buffer
        deadline = None if self.idle is None else time.monotonic() + self.idle
        while True:
            while buffer[:2] == b"\r\n":
                del buffer[:2]
            end = buffer.find(b"\r\n\r\n")
            first = buffer.find(b"\r\n")
            line = first if first >= 0 else len(buffer)
            if line > self.line_limit or (end if end >= 0 else len(buffer)) - line > self.head_limit:
                return self._too_long(connection)
            if end >= 0:
                break
            left = None if deadline is None else deadline - time.monotonic()
            if (left is not None and left <= 0) or not connection.fill(left):
                return None
        lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
        if not self.silent_limits and end > self.head_limit:
            return self._too_long(connection)
        del buffer[: end + 4]
        pairs = (text.partition(":") for text in lines[1:])
        exchange = Exchange(self, connection, lines[0], Headers((k.strip(), v.strip()) for k, _, v in pairs))
        self.transcript.add(exchange.record)
        return exchange

    def _too_long(self, connection: Connection) -> Exchange | None:
        """Say nothing for ever, as pools do, or 431 and close as Jetty does (protocol page, section 3.1)."""
        if self.silent_limits:
            while connection.fill(None):
                connection.buffer.clear()
            return None
        body = b"<h1>Bad Message 431</h1><pre>reason: Request Header Fields Too Large</pre>"
        head = (
            "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/html;charset=iso-8859-1\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        method, _, rest = bytes(connection.buffer[:2048]).decode("latin-1").partition(" ")
        path = decode_path(rest.split(" ")[0].split("?")[0])
        self.transcript.add(
            Record(self.server, method, path, 431, connection.number, resumed=connection.resumed)
        )
        connection.send(head.encode() + (b"" if method == "HEAD" else body))
        while connection.fill(0.02):
            connection.buffer.clear()
        return None

    def _handle(self, exchange: Exchange) -> None:
        try:
            self.handler(exchange)
        except (HangUpError, OSError):
            raise
        except (
            Exception
        ):  # a mistake in the emulator must be seen by the client and in the log, not hang a thread
            _LOG.exception("%s failed to answer %s %s", self.server, exchange.method, exchange.path)
            if not exchange.answered:
                exchange.close = True
                exchange.answer(500, reason="Embedded dCache failed")
            raise HangUpError("handler failed") from None
        if not exchange.answered:
            raise HangUpError("no answer was given")

    def open_connections(self) -> int:
        """Return the number of connections that are open now."""
        with self._lock:
            return len(self._open)

    def drop_connections(self) -> None:
        """Cut every open connection, as a crash would."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.abort()

    def stop(self, patience: float = 5.0) -> None:
        """Close everything and wait until no thread is left; idempotent."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for callback in self.on_stop:
            callback()
        self._thread.join(patience)
        with self._lock:
            # The thread that stops the server ends its own connection, later: the server is back by then.
            threads = {c: t for c, t in self._open.items() if t is not threading.current_thread()}
        for connection in threads:
            connection.abort()
        for thread in threads.values():
            thread.join(patience)
