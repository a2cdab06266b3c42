"""One accepted connection: a socket, a read buffer and what was noted about it."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Literal

__all__ = ["BodyCutError", "Connection", "Farewell", "HangUpError", "HeadTap", "Tap"]

Tap = Callable[[int, bytes], tuple[bytes, bool]]
"""What a fault does to a body: (offset, piece) to (piece, whether the connection is cut after it)."""

HeadTap = Callable[[bytes], bytes]
"""What a fault does to the head of an answer, if it does not raise `HangUpError`."""


Farewell = Literal["cut", "notice", "reset"]
"""How a connection ends: at once, after a TLS close_notify, or by a TCP reset."""


class HangUpError(Exception):
    """The connection ends here, without a (further) answer.

    Parameters
    ----------
    reason : `str`
        For the log.
    farewell : `str`
        How it ends.
    """

    def __init__(self, reason: str, farewell: Farewell = "cut") -> None:
        super().__init__(reason)
        self.farewell: Farewell = farewell


class BodyCutError(HangUpError):
    """The client went away before the end of its body."""


class Connection:
    """One accepted connection: a socket, a read buffer and what was noted about it.

    Parameters
    ----------
    sock : `socket.socket`
        The socket, TLS already negotiated.
    number : `int`
        Its number in the transcript.
    peer : `str`
        Address of the client.
    secure : `bool`
        Whether the connection is encrypted.
    """

    def __init__(self, sock: socket.socket, number: int, peer: str, secure: bool) -> None:
        self.sock = sock
        self.number = number
        self.peer = peer
        self.secure = secure
        self.buffer = bytearray()
        self.eof = False
        self.closing = False
        self.resumed = False
        self.on_close: list[Callable[[], None]] = []

    def receive(self, size: int, timeout: float | None) -> bytes:
        """Read once, past the buffer; return nothing at the end or after ``timeout`` seconds."""
        if self.eof:
            return b""
        try:
            self.sock.settimeout(timeout)
            data = self.sock.recv(size)
        except (TimeoutError, ssl.SSLWantReadError, BlockingIOError):
            return b""
        except (OSError, ValueError):  # reset, TLS alert, or shut down by Listener.stop
            data = b""
        self.eof = not data
        return data

    def fill(self, timeout: float | None) -> bool:
        """Read once into the buffer; return whether something came within ``timeout`` seconds."""
        data = self.receive(1 << 18, timeout)
        self.buffer += data
        return bool(data)

    def is_gone(self) -> bool:
        """Whether the client closed; does not lose what it may have sent meanwhile."""
        if not self.eof and select.select([self.sock], [], [], 0)[0]:
            self.fill(0.0)
        return self.eof

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, or raise `HangUpError`."""
        try:
            self.sock.settimeout(300.0)
            self.sock.sendall(data)
        except (OSError, ValueError) as exc:
            self.eof = True
            raise HangUpError(f"peer went away: {exc}") from exc

    def abort(self) -> None:
        """Wake up whoever is blocked on this connection; usable from another thread."""
        # the method of the base class: SSLSocket.shutdown would take the TLS object away from under the owner
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def say_goodbye(self) -> None:
        """Announce the end of a TLS connection, so that the client knows that nothing was cut off."""
        if isinstance(self.sock, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                self.sock.settimeout(0.0)
                self.sock.unwrap()

    def reset(self) -> None:
        """End the connection by a TCP reset."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.close()

    def close(self) -> None:
        """End the connection, also where a forked child holds a copy of the socket."""
        self.abort()
        with contextlib.suppress(OSError):
            self.sock.close()
