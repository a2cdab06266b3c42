"""A client that sees bytes: one connection, one request, one answer, and whether the other side closes."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PATIENCE = 30.0


@dataclass
class Answer:
    """What came back, and on which connection."""

    status: int = 0
    reason: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    interim: list[int] = field(default_factory=list)
    closed: bool = False
    error: str = ""
    line: Line | None = None

    def get(self, name: str) -> str:
        """Return a header field, or nothing."""
        return next((value for key, value in self.headers if key.lower() == name), "")


class Line:
    """One connection, read byte by byte."""

    def __init__(self, url: str, trust: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 0
        self.sock = socket.create_connection((host, port), PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == "https" and trust is not None:
            self.sock = trust.wrap_socket(self.sock, server_hostname=host)
        self._data = b""
        self.ended = False

    def more(self, patience: float) -> bool:
        """Wait for bytes; tell whether some came."""
        if self.ended:
            return False
        pending = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()
        if not pending and not select.select([self.sock], [], [], max(0.0, patience))[0]:
            return False
        self.sock.settimeout(0.05 if patience < PATIENCE else PATIENCE)
        try:
            data = self.sock.recv(1 << 16)
        except TimeoutError:  # a TLS record without data
            return False
        except OSError:
            data = b""
        self.ended = not data
        self._data += data
        return not self.ended

    def until(self, mark: bytes, patience: float) -> bytes | None:
        """Read up to a mark and take it off; `None` if it does not come."""
        deadline = time.monotonic() + patience
        while mark not in self._data:
            if not self.more(deadline - time.monotonic()) and (self.ended or time.monotonic() >= deadline):
                return None
        text, _, self._data = self._data.partition(mark)
        return text

    def take(self, count: int | None) -> bytes:
        """Read so many bytes, or all there are until the end."""
        while count is None or len(self._data) < count:
            if not self.more(PATIENCE):
                break
        count = len(self._data) if count is None else count
        data, self._data = self._data[:count], self._data[count:]
        return data

    def answer(self, method: str, patience: float, seen: Answer) -> Answer:
        """Read an answer; interim ones are noted and end the reading too."""
        head = self.until(b"\r\n\r\n", patience)
        if head is None:
            seen.error = "closed without an answer" if self.ended else "no answer"
            return seen
        first, *rest = head.decode("latin-1").split("\r\n")
        _, status, seen.reason = [*first.split(" ", 2), ""][:3]
        seen.status = int(status)
        seen.headers = [(k, v.strip()) for k, _, v in (row.partition(":") for row in rest)]
        if seen.status < 200:
            seen.interim.append(seen.status)
        elif method != "HEAD" and seen.status != 204:
            seen.body = self._body(seen)
        return seen

    def _body(self, seen: Answer) -> bytes:
        if "chunked" not in seen.get("transfer-encoding"):
            length = seen.get("content-length")
            return self.take(int(length) if length else None)
        parts = []
        while size := int((self.until(b"\r\n", PATIENCE) or b"0").partition(b";")[0], 16):
            parts.append(self.take(size))
            self.until(b"\r\n", PATIENCE)
        while self.until(b"\r\n", PATIENCE):
            pass
        return b"".join(parts)

    def is_closed(self, patience: float) -> bool:
        """Tell whether the other side has closed, or does soon."""
        deadline = time.monotonic() + patience
        while not self.ended and not self._data and time.monotonic() < deadline:
            self.more(deadline - time.monotonic())
        return self.ended

    def close(self) -> None:
        """Go away."""
        with contextlib.suppress(OSError):
            self.sock.close()
        self.ended = True
