"""One connection of the data plane: a socket, what was read ahead, and how long to wait for more.

A pool writes head and body of an answer in separate segments with Nagle's algorithm on; the second waits
until the first is acknowledged, and our kernel delays that by 40 ms on a connection that has been used
before. ``TCP_QUICKACK`` has the kernel acknowledge at once, but only until it thinks otherwise: it is set
after the request was sent and again before every receive (protocol page, "What surprised us", 21).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from typing import BinaryIO

from ..config.settings import Origin
from ..errors import DeadlineError, ProtocolError
from .deadline import Deadline
from .fork import next_connection_number, own_socket
from .http1 import MAX_HEAD_BYTES, Head, read_head
from .tls import ResumingContext, is_alive, remember_session

__all__ = ("Connection", "ConnectionLostError", "NotConnectedError")

_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_NO_MATTER = contextlib.suppress(OSError)
_HEAD_PIECE_BYTES = 8 * 1024
_SEND_PIECE_BYTES = 512 * 1024
_AT_ONCE = socket.MSG_DONTWAIT
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 4))


class NotConnectedError(Exception):
    """There is no connection; nothing was sent."""


class ConnectionLostError(Exception):
    """The connection ended before it should."""


class Connection:
    """A connection to one server, used for one request after the other.

    Parameters
    ----------
    sock : `socket.socket`
        Connected, TLS negotiated.
    origin : `tuple`
        Scheme, host and port of the server.

    Notes
    -----
    Not thread-safe.
    """

    def __init__(self, sock: socket.socket, origin: Origin) -> None:
        self.sock = sock
        self.origin = origin
        self.number = next_connection_number()
        self.process = os.getpid()
        self.requests = 0
        self.idle_since = 0.0
        self.usable = True
        self._buffer = bytearray(MAX_HEAD_BYTES)  # what was read ahead lies in [_at, _end)
        self._view = memoryview(self._buffer)
        self._at = self._end = 0
        self._timeout = sock.gettimeout()
        self._encrypted = isinstance(sock, ssl.SSLSocket)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        if not self._encrypted:
            # Python's time limits take a `poll` before each call; here it is made only if nothing is there.
            # The kernel's (SO_RCVTIMEO) begin anew after each signal, so they alone are no limit.
            sock.settimeout(None)
            self._timeout = None

    @classmethod
    def connect(cls, origin: Origin, context: ResumingContext | None, timeout: float) -> Connection:
        """Open a connection.

        Parameters
        ----------
        origin : `tuple`
            Scheme, host and port.
        context : `~.tls.ResumingContext` or `None`
            For TLS.
        timeout : `float`
            Longest wait of each step in seconds.

        Returns
        -------
        connection : `Connection`
            Ready for a request.

        Raises
        ------
        NotConnectedError
            If the server cannot be reached or is not the one that it should be.
        """
        _, host, port = origin
        try:
            sock = socket.create_connection((host, port), timeout)
        except OSError as exc:
            raise NotConnectedError(f"no connection: {exc.strerror or exc}") from exc
        try:
            own_socket(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE:
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            if context is not None:
                sock = context.wrap_socket(sock, do_handshake_on_connect=False, server_hostname=host)
                own_socket(sock)
                sock.do_handshake()
        except (OSError, ssl.SSLError) as exc:
            sock.close()
            what = "no TLS connection" if context is not None else "no connection"
            raise NotConnectedError(f"{what}: {getattr(exc, 'verify_message', '') or exc}") from exc
        return cls(sock, origin)

    @property
    def is_alive(self) -> bool:
        """Whether another request can be sent."""
        return (
            self.usable
            and self.process == os.getpid()
            and self._at == self._end
            and self.sock.fileno() >= 0
            and (not self._poll.poll(0) or is_alive(self.sock))
        )

    def close(self) -> None:
        """Close it; closing twice is not an error."""
        self.usable = False
        with contextlib.suppress(OSError):
            self.sock.close()

    def _arm(self, deadline: Deadline, silence: float) -> None:
        """Limit the next wait; the system call is made only when the limit changes."""
        timeout = deadline.limit(silence)
        if timeout != self._timeout:
            try:
                if self._encrypted:
                    self.sock.settimeout(timeout)
                else:
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _time_value(timeout))
            except OSError as exc:  # closed, for instance because it belongs to the parent of this process
                self.usable = False
                raise ConnectionLostError("the connection is closed") from exc
            self._timeout = timeout

    # -- sending

    def send(self, data: bytes | memoryview, deadline: Deadline, silence: float) -> None:
        """Send all of some bytes.

        Parameters
        ----------
        data : bytes-like
            What is sent.
        deadline : `~.deadline.Deadline`
            Limits the whole.
        silence : `float`
            Longest time without progress in seconds.

        Raises
        ------
        ConnectionLostError
            If the server does not take it.
        """
        view = memoryview(data).cast("B")
        while view:
            piece = view[:_SEND_PIECE_BYTES]
            if self._encrypted:
                self._arm(deadline, silence)
                with self._sending():
                    view = view[self.sock.send(piece) :]
                continue
            with self._sending():
                try:
                    view = view[self.sock.send(piece, _AT_ONCE) :]
                except BlockingIOError:
                    self._await_room(deadline, silence)

    def _await_room(self, deadline: Deadline, silence: float) -> None:
        timeout = deadline.limit(silence)
        poll = select.poll()
        poll.register(self.sock, select.POLLOUT)
        if not poll.poll(timeout * 1000):
            raise TimeoutError

    def send_file(self, file: BinaryIO, length: int, deadline: Deadline, silence: float) -> None:
        """Send the next bytes of a file, by the kernel where it can.

        Parameters
        ----------
        file : `~typing.BinaryIO`
            Positioned at the first byte.
        length : `int`
            How many bytes.
        deadline : `~.deadline.Deadline`
            Limits the whole.
        silence : `float`
            Longest time without progress in seconds.

        Raises
        ------
        ConnectionLostError
            If the server does not take it.
        ValueError
            If the file is shorter.
        """
        if not self._encrypted and hasattr(os, "sendfile") and _is_regular(file):
            # Not `socket.sendfile`, which would wait without a limit for a server that takes nothing.
            start = file.tell()
            while length:
                self._arm(deadline, silence)
                with self._sending():
                    self._await_room(deadline, silence)
                    # In pieces: the kernel may take its limit for each part that it moves.
                    count = os.sendfile(
                        self.sock.fileno(), file.fileno(), start, min(length, _SEND_PIECE_BYTES)
                    )
                if count == 0:
                    self.usable = False
                    raise ValueError("the file became shorter while it was sent")
                start += count
                length -= count
            file.seek(start)
            return
        buffer = bytearray(min(length, _SEND_PIECE_BYTES) or 1)
        view = memoryview(buffer)
        readinto = getattr(file, "readinto", None)
        while length:
            wanted = min(length, len(buffer))
            if readinto is not None:
                count = readinto(view[:wanted]) or 0
                piece: bytes | memoryview = view[:count]
            else:
                piece = file.read(wanted)
                count = len(piece)
            if count == 0:
                self.usable = False
                raise ValueError("the file became shorter while it was sent")
            self.send(piece, deadline, silence)
            length -= count

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, BlockingIOError) as exc:
            self.usable = False
            raise ConnectionLostError("the server stopped taking bytes") from exc
        except OSError as exc:
            self.usable = False
            raise ConnectionLostError(_text(exc)) from exc

    # -- receiving

    def _receive(self, view: memoryview, deadline: Deadline, silence: float) -> int:
        timeout = deadline.limit(silence)
        if self._encrypted:
            self._arm(deadline, silence)
        if _QUICKACK is not None:
            with _NO_MATTER:
                self.sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        try:
            if self._encrypted:
                return self.sock.recv_into(view)
            with contextlib.suppress(BlockingIOError):
                return self.sock.recv_into(view, 0, _AT_ONCE)
            if not self._poll.poll(timeout * 1000):
                raise TimeoutError
            return self.sock.recv_into(view, 0, _AT_ONCE)
        except (TimeoutError, BlockingIOError) as exc:
            self.usable = False
            raise DeadlineError(f"nothing came for {timeout:g} s") from exc
        except OSError as exc:
            self.usable = False
            raise ConnectionLostError(_text(exc)) from exc

    def _fill(self, deadline: Deadline, silence: float) -> bool:
        """Read once into the buffer, keeping what is left in it; `False` at the end of the stream."""
        if self._at:
            self._buffer[: self._end - self._at] = self._buffer[self._at : self._end]
            self._at, self._end = 0, self._end - self._at
        # A body that follows is better read straight to where it belongs.
        piece = self._view[self._end : self._end + _HEAD_PIECE_BYTES]
        count = self._receive(piece, deadline, silence)
        self._end += count
        return count > 0

    def read_head(self, deadline: Deadline, silence: float) -> Head:
        """Read the next head, interim ones included.

        Parameters
        ----------
        deadline : `~.deadline.Deadline`
            Limits the whole.
        silence : `float`
            Longest wait for bytes in seconds.

        Returns
        -------
        head : `~.http1.Head`
            Status, reason and headers.

        Raises
        ------
        ConnectionLostError
            If the connection ends first.
        DeadlineError
            If nothing comes.
        ProtocolError
            If it is no head, or one without end.
        """
        while True:
            end = self._buffer.find(b"\r\n\r\n", self._at, self._end)
            if end >= 0:
                data = bytes(self._buffer[self._at : end])
                self._at = end + 4
                return read_head(data)
            if self._end - self._at >= MAX_HEAD_BYTES:
                self.usable = False
                raise ProtocolError(f"the head of the answer is longer than {MAX_HEAD_BYTES} bytes")
            begun = self._end > self._at
            if not self._fill(deadline, silence):
                self.usable = False
                when = "in the middle of" if begun else "before"
                raise ConnectionLostError(f"the server closed the connection {when} its answer")

    def read_line(self, limit: int, deadline: Deadline, silence: float) -> bytes:
        """Read up to the end of a line, which is removed.

        Parameters
        ----------
        limit : `int`
            Longest line in bytes.
        deadline : `~.deadline.Deadline`
            Limits the whole.
        silence : `float`
            Longest wait for bytes in seconds.

        Returns
        -------
        line : `bytes`
            Without CR and LF.

        Raises
        ------
        ConnectionLostError
            If the connection ends first.
        ProtocolError
            If the line is longer.
        """
        while True:
            end = self._buffer.find(b"\r\n", self._at, self._end)
            if end >= 0:
                line = bytes(self._buffer[self._at : end])
                self._at = end + 2
                return line
            if self._end - self._at > limit:
                self.usable = False
                raise ProtocolError("a line of the answer is too long")
            if not self._fill(deadline, silence):
                self.usable = False
                raise ConnectionLostError("the server closed the connection in the middle of its answer")

    def read_into(self, view: memoryview, deadline: Deadline, silence: float) -> int:
        """Read what is there, at most as much as fits.

        Parameters
        ----------
        view : `memoryview`
            Where the bytes go; not empty.
        deadline : `~.deadline.Deadline`
            Limits the whole.
        silence : `float`
            Longest wait for bytes in seconds.

        Returns
        -------
        count : `int`
            Number of bytes, 0 at the end of the stream.

        Raises
        ------
        ConnectionLostError
            If the connection broke.
        DeadlineError
            If nothing comes.
        """
        waiting = self._end - self._at
        if waiting:
            count = min(waiting, len(view))
            view[:count] = self._buffer[self._at : self._at + count]
            self._at += count
            return count
        return self._receive(view, deadline, silence)

    def answered(self) -> None:
        """Note that an answer has come, which is when TLS tickets come as well."""
        self.requests += 1
        if self._encrypted and self.requests <= 2 and self.usable:
            with contextlib.suppress(OSError):
                remember_session(self.sock)

    def rest(self) -> None:
        """Note that the connection is idle from now on."""
        self.idle_since = time.monotonic()


def _time_value(seconds: float) -> bytes:
    """Return a `timeval` of C; zero would mean to wait for ever."""
    microseconds = max(1, int(seconds * 1e6))
    return struct.pack("@ll", microseconds // 1_000_000, microseconds % 1_000_000)


def _text(error: OSError) -> str:
    if error.errno == errno.EPIPE:
        return "the server closed the connection"
    return error.strerror or str(error) or type(error).__name__


def _is_regular(file: BinaryIO) -> bool:
    try:
        return os.path.isfile(file.fileno())
    except (AttributeError, OSError):
        return False
