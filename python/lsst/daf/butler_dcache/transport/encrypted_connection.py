"""A connection under TLS, whose records travel through memory instead of through `ssl.SSLSocket`.

An `~ssl.SSLSocket` asks the kernel twice for each record of 16 kB. Here the socket is ours, as it is without
encryption: what has come, many records, is taken at once and given to OpenSSL, and many records are sent at
once (decision page ``data-plane-engine``). Deadlines, ``TCP_QUICKACK`` and the rule for ``fork`` are those of
the plain connection.

Nothing is written at the end, not even ``close_notify``: bodies say themselves where they end, and a child
process cannot write by mistake to what is its parent's. The other direction is another matter: a stream that
ends without the server's ``close_notify`` was cut by somebody (RFC 8446, section 6.1) and is never taken for
the end of a body.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import cast

from ..config.settings import Origin
from ..errors import DeadlineError
from .connection import Connection, ConnectionLostError
from .deadline import Deadline
from .sockets import NotConnectedError
from .tls import ResumingContext

__all__ = ("EncryptedConnection",)

_TAKE_BYTES = 256 * 1024
"""What is taken from the socket at a time; an idle connection keeps memory for what ever came at once."""
_GIVE_BYTES = 64 * 1024
_MOST_UNASKED = 16
"""An idle server has a few tickets to say, not two megabytes."""


class _Room(threading.local):
    """Where encrypted bytes lie between socket and OpenSSL; one for all connections of a thread."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_TAKE_BYTES))


_room = _Room()


class EncryptedConnection(Connection):
    """A connection to one server under TLS.

    Parameters
    ----------
    sock : `socket.socket`
        From `~.sockets.open_socket`.
    origin : `tuple`
        Scheme, host and port of the server.
    context : `~.tls.ResumingContext`
        What is trusted, and the sessions that can be resumed.
    timeout : `float`
        Longest time for the whole handshake in seconds.

    Raises
    ------
    NotConnectedError
        If the server is not the one that it should be, or does not say so in time.

    Notes
    -----
    Not thread-safe.
    """

    def __init__(self, sock: socket.socket, origin: Origin, context: ResumingContext, timeout: float) -> None:
        super().__init__(sock, origin)
        self.context = context
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        host, port = origin[1:]
        session = context.session_with(host, port)
        try:
            self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host, session=session)
            self._shake_hands(Deadline(timeout), timeout)
        except BaseException:
            self.close()
            raise

    def _shake_hands(self, deadline: Deadline, timeout: float) -> None:
        try:
            while True:
                try:
                    self.tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    self._take(deadline, timeout)
            self._flush(deadline, timeout)
        except ssl.SSLError as exc:
            with contextlib.suppress(ConnectionLostError, DeadlineError):
                self._flush(deadline, timeout)  # the alert tells the server what is wrong
            text = f"no TLS connection: {getattr(exc, 'verify_message', '') or exc}"
            # A relay whose server is away takes the connection, and closes it.
            broke_off = isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError)
            raise NotConnectedError(text, is_unreachable=broke_off) from exc
        except (ConnectionLostError, DeadlineError) as exc:
            raise NotConnectedError(f"no TLS connection: {exc}") from exc

    def _is_quiet(self) -> bool:
        # Records without data (tickets, key updates) are read until there are none: "What surprised us", 22.
        for _ in range(_MOST_UNASKED):
            if not (self._incoming.pending or self.tls.pending() or self._poll.poll(0)):
                return True
            try:
                self.tls.read(1)
                return False
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                return False
            try:
                count = self.sock.recv_into(_room.view)
            except BlockingIOError:
                continue
            except OSError:
                return False
            if count == 0:
                return False
            self._incoming.write(_room.view[:count])
        return False

    def send(self, data: bytes | memoryview, deadline: Deadline, silence: float) -> None:
        """Encrypt and send all of some bytes.

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
            try:
                while view and self._outgoing.pending < _GIVE_BYTES:
                    view = view[self.tls.write(view) :]  # one record
            except ssl.SSLWantReadError:
                self._take(deadline, silence)  # TLS 1.2: the server wants to renegotiate first
            except ssl.SSLError as exc:
                raise self._lost(exc) from exc
            self._flush(deadline, silence)

    def _flush(self, deadline: Deadline, silence: float) -> None:
        while self._outgoing.pending:
            self._transmit(memoryview(self._outgoing.read()), deadline, silence)

    def _receive(self, view: memoryview, deadline: Deadline, silence: float) -> int:
        deadline.remaining()
        count = 0
        while True:
            try:
                while count < len(view):
                    more = cast(int, self.tls.read(len(view) - count, view[count:]))
                    if not more:
                        self.usable = False  # for another request; XRootD's socket stays open for a while
                        break
                    count += more
                return count
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLEOFError as exc:
                if not count:
                    self.usable = False
                    raise ConnectionLostError("the connection was cut") from exc
            except ssl.SSLError as exc:
                if not count:  # otherwise it will be said again at the next attempt
                    raise self._lost(exc) from exc
            if count:
                return count
            self._take(deadline, silence)

    def _take(self, deadline: Deadline, silence: float) -> None:
        """Wait for what the server says, and give it to OpenSSL."""
        self._flush(deadline, silence)
        count = super()._receive(_room.view, deadline, silence)
        if count:
            self._incoming.write(_room.view[:count])
        else:
            self._incoming.write_eof()

    def answered(self) -> None:
        """Note that an answer has come, which is when tickets come as well: the second follows the first."""
        super().answered()
        if self.requests <= 2:
            self.context.remember(self.tls, *self.origin[1:])
