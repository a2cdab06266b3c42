"""Sockets and ``fork``: a child process never uses a socket of its parent.

Two processes that send requests on one connection read each other's answers; the incumbent client returns
wrong sizes and the contents of other files that way, without an error. Every socket of both planes is
therefore known here, and the child closes its copies before it does anything else. The parent's connections
do not notice: nothing is written, and TCP ends only when the last copy is closed.
"""

from __future__ import annotations

import itertools
import os
import socket
import ssl
import weakref

__all__ = ("next_connection_number", "own_socket")

_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
_numbers = itertools.count(1)


def own_socket(sock: socket.socket) -> None:
    """Have a socket closed in every child that this process forks.

    Parameters
    ----------
    sock : `socket.socket`
        A connected socket.
    """
    _sockets.add(sock)


def next_connection_number() -> int:
    """Return a number that no other connection of this process has."""
    return next(_numbers)


def _after_fork() -> None:
    for sock in list(_sockets):
        if isinstance(sock, ssl.SSLSocket):
            # OpenSSL knows the descriptor by its number, which may soon stand for something else. Without
            # this object the socket cannot reach it, and nothing (no close_notify) is sent.
            sock._sslobj = None  # type: ignore[attr-defined]
        descriptor = sock.detach()
        if descriptor >= 0:
            os.close(descriptor)
    _sockets.clear()


os.register_at_fork(after_in_child=_after_fork)
