"""A plain client for tests of the embedded dCache: http.client, nothing followed, nothing retried."""

from __future__ import annotations

import base64
import http.client
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lsst.daf.butler_dcache.embedded import EmbeddedDcache

DATA = bytes(range(256)) * 40


@dataclass(frozen=True)
class Reply:
    """An answer that was read to its end."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def location(self) -> str:
        return self.headers.get("location", "")


class Client:
    """Talks to the servers of one embedded dCache; connections are kept by server, one each."""

    def __init__(self, dcache: EmbeddedDcache, user: str = "alice") -> None:
        self._dcache = dcache
        password = Path(dcache.password_files[user]).read_text()
        self.login = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._trust = ssl.create_default_context(cafile=dcache.ca_file) if dcache.ca_file else None
        self._kept: dict[str, http.client.HTTPConnection] = {}
        self.base = dcache.url.replace("dav", "http", 1)

    def connection(self, url: str) -> http.client.HTTPConnection:
        """Return the kept connection to the server of a URL."""
        parts = urlsplit(url)
        if parts.netloc not in self._kept:
            assert parts.hostname is not None
            if parts.scheme == "https":
                made: http.client.HTTPConnection = http.client.HTTPSConnection(
                    parts.hostname, parts.port, timeout=30, context=self._trust
                )
            else:
                made = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
            self._kept[parts.netloc] = made
        return self._kept[parts.netloc]

    def ask(
        self, method: str, where: str, body: bytes | None = None, *, login: str | None = None, **headers: str
    ) -> Reply:
        """Ask for a path below the directory of the dCache, or a URL; ``X_Y`` becomes the header ``X-Y``."""
        url = where if where.startswith("http") else self.base + where
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if "dcache-http-uuid" not in url:
            sent.setdefault("Authorization", self.login if login is None else login)
        parts = urlsplit(url)
        connection = self.connection(url)
        connection.request(method, parts.path + ("?" + parts.query if parts.query else ""), body, sent)
        answer = connection.getresponse()
        data = answer.read()
        return Reply(answer.status, answer.reason, {k.lower(): v for k, v in answer.getheaders()}, data)

    def redirect(self, path: str, length: int, **headers: str) -> Reply:
        """Ask the door where to upload, holding back the body as it must be."""
        connection = self.connection(self.base)
        connection.putrequest("PUT", urlsplit(self.base + path).path)
        rows = {"Authorization": self.login, "Expect": "100-continue", "Content-Length": str(length)}
        for name, value in {**rows, **{k.replace("_", "-"): v for k, v in headers.items()}}.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return Reply(answer.status, answer.reason, {k.lower(): v for k, v in answer.getheaders()}, data)

    def close(self) -> None:
        """Close all connections."""
        for connection in self._kept.values():
            connection.close()
        self._kept.clear()
