"""A TLS server in front of a plain one that sends a session ticket after the first answer of a connection.

So does the JDK below dCache (protocol page, "What surprised us", 22). Python's `ssl` cannot, ``tlslite-ng``
can, through its own method for tickets.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from pathlib import Path

from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey


class TlsTicketRelay:
    """Relays requests without bodies; `tickets` is released once for each ticket that was sent."""

    def __init__(self, backend_port: int, certificate_and_key: Path) -> None:
        self._backend = ("127.0.0.1", backend_port)
        pem = certificate_and_key.read_text()
        self._chain = X509CertChain()
        self._chain.parsePemList(pem)
        self._key = parsePEMKey(pem, private=True)
        self._ticket_keys = [secrets.token_bytes(32)]
        self.tickets = threading.Semaphore(0)
        self.connections = 0
        self.requests = 0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> TlsTicketRelay:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the ticket is there once it was sent
            self.connections += 1
            self._sockets.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _settings(self, tickets: int) -> HandshakeSettings:
        settings = HandshakeSettings()
        settings.minVersion = settings.maxVersion = (3, 4)
        settings.ticketKeys = self._ticket_keys
        settings.ticket_count = tickets
        return settings

    def _serve(self, sock: socket.socket) -> None:
        # The client may go away at any moment; tlslite has a family of errors of its own for that.
        with sock, socket.create_connection(self._backend) as backend, contextlib.suppress(Exception):
            tls = TLSConnection(sock)
            tls.handshakeServer(
                certChain=self._chain,
                privateKey=self._key,
                settings=self._settings(0),
                alpn=[bytearray(b"http/1.1")],
            )
            first = True
            while head := _head(tls):
                self.requests += 1
                backend.sendall(head)
                tls.write(_head(backend))
                if first:
                    for _ in tls._serverSendTickets(self._settings(1)):
                        pass
                    self.tickets.release()
                    first = False


def _head(connection: socket.socket | TLSConnection) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = bytes(connection.recv(65536))
        if not piece:
            return b""
        data += piece
    return data
