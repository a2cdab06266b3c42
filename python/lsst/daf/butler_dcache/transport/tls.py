"""TLS as both planes use it: verified, resumed, and judged rightly when idle.

Two habits of dCache make this worth a module (protocol page, "What surprised us", 22 and 24). The JDK sends
a session ticket *after* its first answer: a client that takes a readable idle socket for a closed one makes a
new handshake for every request. And every 307 costs the connection to the door, so that handshakes are to be
resumed: 3 ms instead of 11.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
from typing import Any

from ..config.settings import EndpointSettings
from ..errors import ConfigurationError

__all__ = ("ResumingContext", "is_alive", "remember_session", "tls_context")

_MAX_SESSIONS = 1024


class ResumingContext(ssl.SSLContext):
    """A client context that resumes the last session with the same host and port.

    Notes
    -----
    TLS 1.3 tickets come with or after the first answer, so `remember` is called then. The server's
    certificate was verified when the session began. Thread-safe.
    """

    _sessions: dict[tuple[str, int], ssl.SSLSession]

    def session_with(self, host: str, port: int) -> ssl.SSLSession | None:
        """Return the session to resume, if there is one.

        Parameters
        ----------
        host : `str`
            Name of the server.
        port : `int`
            Its port.
        """
        return self._sessions.get((host, port))

    def remember(self, tls: ssl.SSLSocket | ssl.SSLObject, host: str, port: int) -> None:
        """Keep the session of a connection for the next one to the same server.

        Parameters
        ----------
        tls : `ssl.SSLSocket` or `ssl.SSLObject`
            The connection after its first answer.
        host : `str`
            Name of the server.
        port : `int`
            Its port.
        """
        session = tls.session
        if session is not None and session.has_ticket:
            if len(self._sessions) >= _MAX_SESSIONS:
                self._sessions.clear()
            self._sessions[host, port] = session

    def wrap_socket(  # type: ignore[override]
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        """Shake hands, as `ssl.SSLContext.wrap_socket`, with the session that is known."""
        if session is None and server_hostname is not None:
            session = self.session_with(server_hostname, sock.getpeername()[1])
        return super().wrap_socket(
            sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, server_hostname, session
        )


def tls_context(settings: EndpointSettings, *, client_certificate: bool) -> ResumingContext:
    """Return the context for the servers of an endpoint.

    Parameters
    ----------
    settings : `~..config.settings.EndpointSettings`
        The endpoint: what it trusts, which certificate it presents.
    client_certificate : `bool`
        Whether the client certificate is presented: to doors and frontends, and to data servers of XRootD,
        never to pools of dCache. What is presented reveals who we are, and no secret: the key signs the
        handshake and stays here.

    Returns
    -------
    context : `ResumingContext`
        The same for the same settings, so that planes share sessions, until a file of the client certificate
        changes. It verifies certificate and host name and accepts TLS 1.2 and later.

    Raises
    ------
    ConfigurationError
        If certificates cannot be loaded.
    """
    certificate = settings.user_certificate if client_certificate else None
    files = settings.trusted_authorities, certificate, settings.user_key
    marks = () if certificate is None else (_mark(certificate), _mark(settings.user_key or certificate))
    with _lock:
        known = _contexts.get(files)
        if known is None or known[0] != marks:
            known = _contexts[files] = marks, _make_context(*files)
        return known[1]


def _mark(path: str) -> tuple[int, ...] | None:
    """What tells one state of a file from another; whether it can be used is found out when it is loaded."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _make_context(authorities: str | None, certificate: str | None, key: str | None) -> ResumingContext:
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context._sessions = {}
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # As `ssl.create_default_context` from Python 3.13 on sets VERIFY_X509_STRICT, which refuses certificates
    # of grid authorities that lack an authority key identifier, this is built by hand.
    context.verify_flags |= ssl.VERIFY_X509_TRUSTED_FIRST
    try:
        if authorities is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        elif os.path.isdir(authorities):
            context.load_verify_locations(capath=authorities)
        else:
            context.load_verify_locations(cafile=authorities)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigurationError(f"trusted_authorities: {authorities} cannot be loaded: {exc}") from exc
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigurationError(f"user_cert: {certificate} cannot be loaded: {exc}") from exc
    return context


def _no_password() -> str:
    """Called for an encrypted key, in place of a question at the terminal."""
    raise OSError("the key is encrypted")


def remember_session(sock: Any) -> None:
    """Keep the session of a connection for the next connection to the same server.

    Parameters
    ----------
    sock : `ssl.SSLSocket` or `socket.socket`
        A socket after its first answer; one without TLS is ignored.
    """
    if not isinstance(sock, ssl.SSLSocket) or not isinstance(sock.context, ResumingContext):
        return
    if sock.server_hostname is not None:
        # The server may have closed behind its answer, which is to be read all the same.
        with contextlib.suppress(OSError):
            sock.context.remember(sock, sock.server_hostname, sock.getpeername()[1])


def is_alive(sock: socket.socket) -> bool:
    """Tell whether an idle connection can take another request.

    Parameters
    ----------
    sock : `socket.socket` or `ssl.SSLSocket`
        A connection on which nothing is expected.

    Returns
    -------
    alive : `bool`
        `False` if it was closed, or if the server said something that nobody asked for.

    Notes
    -----
    Records that carry no data (session tickets, key updates) are consumed by reading: `ssl.SSLWantReadError`
    then says that the connection is as it should be.
    """
    poll = select.poll()
    try:
        poll.register(sock, select.POLLIN)
        if not poll.poll(0):
            return True
        if not isinstance(sock, ssl.SSLSocket):
            return False
        timeout = sock.gettimeout()
        sock.settimeout(0)
        try:
            sock.recv(1)
        except ssl.SSLWantReadError:
            return True
        finally:
            sock.settimeout(timeout)
    except (OSError, ValueError):
        return False
    return False


_contexts: dict[
    tuple[str | None, str | None, str | None], tuple[tuple[tuple[int, ...] | None, ...], ResumingContext]
] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    for _, context in _contexts.values():
        context._sessions.clear()


os.register_at_fork(after_in_child=_after_fork)
