"""Sockets as both planes use them: connected within a time, kept alive, and known to `.fork`."""

from __future__ import annotations

import socket
import time

from ..config.settings import Origin
from .deadline import Deadline
from .exchange import Opening
from .fork import own_socket

__all__ = ("NotConnectedError", "open_socket")

_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 4))


class NotConnectedError(Exception):
    """There is no connection; nothing was sent.

    Parameters
    ----------
    text : `str`
        Why.
    is_unreachable : `bool`, optional
        `False` if the server is there, and the two do not agree on TLS.
    """

    def __init__(self, text: str, is_unreachable: bool = True) -> None:
        super().__init__(text)
        self.is_unreachable = is_unreachable


def open_socket(origin: Origin, timeout: float) -> tuple[socket.socket, Opening]:
    """Connect to a server.

    Parameters
    ----------
    origin : `tuple`
        Scheme, host and port.
    timeout : `float`
        Longest wait in seconds, of which each of the server's addresses has its share.

    Returns
    -------
    sock : `socket.socket`
        Connected; it does not block, and no child process will use it.
    opening : `~.exchange.Opening`
        How long it took.

    Raises
    ------
    NotConnectedError
        If the server cannot be reached.
    """
    sock, opening = _connect(origin, Deadline(timeout))
    try:
        own_socket(sock)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except OSError as exc:
        sock.close()
        raise NotConnectedError(f"no connection: {exc.strerror or exc}") from exc
    return sock, opening


def _connect(origin: Origin, deadline: Deadline) -> tuple[socket.socket, Opening]:
    """Connect to the first address that answers; one that is silent leaves time for those behind it."""
    begun = time.monotonic()
    try:
        addresses = socket.getaddrinfo(*origin[1:], type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise NotConnectedError(f"no connection: {getattr(exc, 'strerror', '') or exc}") from exc
    named = time.monotonic()
    failure: OSError = TimeoutError("timed out")
    for left, (family, kind, protocol, _, address) in zip(
        range(len(addresses), 0, -1), addresses, strict=True
    ):
        if deadline.expired:
            break
        try:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(deadline.remaining() / left)
                sock.connect(address)
                return sock, Opening(named - begun, time.monotonic() - named)
            except BaseException:
                sock.close()
                raise
        except OSError as exc:
            failure = exc
    raise NotConnectedError(f"no connection: {failure.strerror or failure}") from failure
