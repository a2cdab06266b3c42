"""Connections of the data plane that wait for their next request."""

from __future__ import annotations

import os
import threading
import time
import weakref
from dataclasses import replace

from ..config.settings import EndpointSettings, Origin
from .connection import Connection
from .deadline import Deadline
from .encrypted_connection import EncryptedConnection
from .sockets import NotConnectedError, open_socket
from .tls import tls_context

__all__ = ("ConnectionPool",)

_DOOR_IDLE_SECONDS = 240.0
"""Doors close idle connections after 300 s (protocol page, section 1.1)."""
_POOL_IDLE_SECONDS = 30.0
"""A pool's connection keeps every URL alive that was used on it (protocol page, section 2.5)."""
_SWEEP_SECONDS = 5.0


class ConnectionPool:
    """Idle connections by server, the one used last first.

    Parameters
    ----------
    endpoint : `~..config.settings.EndpointSettings`
        How many are kept, for how long it may take to connect, and what is trusted.

    Notes
    -----
    Thread-safe. After ``fork`` the child begins with an empty pool.
    """

    def __init__(self, endpoint: EndpointSettings) -> None:
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._idle: dict[Origin, list[Connection]] = {}
        self._swept = time.monotonic()
        self.is_introduced = False
        """Whether the client certificate is presented to others than doors and frontend as well."""
        _pools.add(self)

    def acquire(self, origin: Origin, deadline: Deadline, held: Connection | None = None) -> Connection:
        """Return a connection that is alive, a new one if need be.

        Parameters
        ----------
        origin : `tuple`
            Scheme, host and port.
        deadline : `~.deadline.Deadline`
            Limits the connecting.
        held : `~.connection.Connection`, optional
            The one to use and no other.

        Returns
        -------
        connection : `~.connection.Connection`
            The caller's until it is released or closed.

        Raises
        ------
        NotConnectedError
            If there is none to be had, or the one that was held is closed.
        """
        if held is not None:
            if held.origin != origin or not held.is_alive:
                held.close()
                raise NotConnectedError("the connection that was held is closed")
            return held
        oldest = time.monotonic() - self._idle_seconds(origin)
        presents = self.is_introduced or origin in self._endpoint.origins
        # With a client certificate a connection speaks for whoever was its owner when it was opened.
        is_bound = presents and self._endpoint.user_certificate is not None and origin[0] == "https"
        context = tls_context(self._endpoint, client_certificate=True) if is_bound else None
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                connection = idle.pop() if idle else None
            if connection is None:
                break
            is_ours = context is None or getattr(connection, "context", None) is context
            if connection.idle_since > oldest and is_ours and connection.is_alive:
                return connection
            connection.close()
        sock, opening = open_socket(origin, deadline.limit(self._endpoint.connect_timeout_seconds))
        if origin[0] != "https":
            connection = Connection(sock, origin)
        else:
            context = context or tls_context(self._endpoint, client_certificate=presents)
            begun = time.monotonic()
            connection = encrypted = EncryptedConnection(
                sock, origin, context, deadline.limit(self._endpoint.connect_timeout_seconds)
            )
            opening = replace(
                opening,
                tls_seconds=time.monotonic() - begun,
                is_resumed=bool(encrypted.tls.session_reused),
            )
        connection.opening = opening
        return connection

    def release(self, connection: Connection) -> None:
        """Take a connection back; one too many is closed.

        Parameters
        ----------
        connection : `~.connection.Connection`
            Usable for another request.
        """
        connection.rest()
        surplus: list[Connection] = []
        with self._lock:
            idle = self._idle.setdefault(connection.origin, [])
            if connection.usable and len(idle) < self._endpoint.persistent_connections:
                idle.append(connection)
            else:
                surplus.append(connection)
            now = time.monotonic()
            if now - self._swept > _SWEEP_SECONDS:
                self._swept = now
                surplus += self._sweep(now)
        for old in surplus:
            old.close()

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def drain(self, origin: Origin) -> None:
        """Close the idle connections to one server.

        Parameters
        ----------
        origin : `tuple`
            Scheme, host and port.
        """
        with self._lock:
            connections = self._idle.pop(origin, [])
        for connection in connections:
            connection.close()

    def _sweep(self, now: float) -> list[Connection]:
        """Take out what has been idle for too long; with the lock held."""
        old: list[Connection] = []
        for origin, connections in list(self._idle.items()):
            oldest = now - self._idle_seconds(origin)
            old += [connection for connection in connections if connection.idle_since <= oldest]
            connections[:] = [connection for connection in connections if connection.idle_since > oldest]
            if not connections:
                del self._idle[origin]
        return old

    def _idle_seconds(self, origin: Origin) -> float:
        return _DOOR_IDLE_SECONDS if origin in self._endpoint.origins else _POOL_IDLE_SECONDS

    def after_fork(self) -> None:
        """Forget the parent's connections, whose sockets are closed already."""
        self._lock = threading.Lock()
        self._idle = {}


_pools: weakref.WeakSet[ConnectionPool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool.after_fork()


os.register_at_fork(after_in_child=_after_fork)
