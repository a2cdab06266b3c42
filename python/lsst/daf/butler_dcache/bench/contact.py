"""A first look at a server: what it calls itself, and how far away it is."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ("Greeting", "address", "greet", "round_trip_seconds")

_PATIENCE_SECONDS = 10.0
_CONNECTIONS = 5
_HEAD_BYTES = 65536
_STAND_IN = "/.well-known/dcache-butler-stand-in"
_PORTS = {"http": 80, "https": 443, "dav": 80, "davs": 443}


@dataclass(frozen=True, slots=True)
class Greeting:
    """What is seen of a server without a credential.

    Parameters
    ----------
    server_header : `str`
        Its ``Server`` field; empty if there is none, or no answer.
    rtt_seconds : `float`
        The shortest of some TCP handshakes.
    is_stand_in : `bool`
        Whether it admits that it only behaves as the server that it says it is.
    """

    server_header: str
    rtt_seconds: float
    is_stand_in: bool


def address(url: str) -> tuple[str, int]:
    """Return host and port of a URL.

    Parameters
    ----------
    url : `str`
        ``http``, ``https``, ``dav`` or ``davs``.
    """
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS[parts.scheme]


def round_trip_seconds(url: str) -> float:
    """Return how long the shortest of some TCP handshakes takes.

    Parameters
    ----------
    url : `str`
        Whose host and port count.

    Raises
    ------
    OSError
        If there is no connection.
    """
    best = float("inf")
    for _ in range(_CONNECTIONS):
        begin = time.perf_counter()
        with socket.create_connection(address(url), _PATIENCE_SECONDS):
            best = min(best, time.perf_counter() - begin)
    return best


def greet(url: str) -> Greeting:
    """Ask a server for its name; nothing secret is sent, so its certificate is not judged.

    Parameters
    ----------
    url : `str`
        The server.

    Raises
    ------
    OSError
        If there is no connection.
    """
    rtt = round_trip_seconds(url)
    host, port = address(url)
    said = b""
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        peer = stack.enter_context(socket.create_connection((host, port), _PATIENCE_SECONDS))
        if urlsplit(url).scheme in ("https", "davs"):
            trust = ssl.create_default_context()
            trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
            peer = stack.enter_context(trust.wrap_socket(peer, server_hostname=host))
        # dCache answers what is asked for here before it wants a login (protocol page, section 1): 404.
        request = f"GET {_STAND_IN} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        peer.sendall(request.encode())
        while b"\r\n\r\n" not in said and len(said) < _HEAD_BYTES and (piece := peer.recv(_HEAD_BYTES)):
            said += piece
    head = said.partition(b"\r\n\r\n")[0].decode("latin-1")
    fields = (line.partition(":") for line in head.splitlines()[1:])
    names = (value.strip() for name, _, value in fields if name.lower() == "server")
    return Greeting(next(names, ""), rtt, is_stand_in=head.split(" ")[1:2] == ["200"])
