"""Replays recorded exchanges of a real dCache against the embedded one.

A recording (``data/wire/*.json``) holds for each exchange what was asked (verb, path, header fields, whose
credential) and the answer, with everything volatile named: ``<uuid>``, ``<door>``, ``~`` for the directory of
the run. `Replay` asks the same again, in the order of the recording, and takes the recorded answer for a
pattern that the new one must match. What a recording lacks (bodies, connections that stay open, clients that
go away) comes from the scripts in ``wire_scenarios`` and ``wire_services``.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import ssl
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from wire_client import PATIENCE, Answer, Line
from wire_patterns import Patterns

DATA = bytes(range(256)) * 40
SPOILED = DATA[:-1] + b"x"
LINGER = 0.01  # how long to look for a close that should not come
PAUSE = 0.005  # between requests, so that the limiter, on as at a real door, lets all pass

Exchange = dict[str, Any]


class Replay:
    """One scenario of one recording against one embedded dCache.

    Parameters
    ----------
    dcache : `EmbeddedDcache`
        The server, running.
    exchanges : iterable of `dict`
        The scenario's exchanges, in order.
    compared : set of `str`
        Names of the header fields that are compared.
    base : `str`
        Directory of the run, ``~`` in the recording.
    """

    def __init__(
        self,
        dcache: EmbeddedDcache,
        exchanges: Iterable[Exchange],
        compared: set[str],
        base: str = "/data/wire",
    ) -> None:
        self.dcache = dcache
        self.base = base
        self.door = dcache.url.replace("dav", "http", 1).partition("/data")[0]
        self.frontend = dcache.frontend_url.rstrip("/")
        self.tape = dcache.tape or ""
        self.trust = ssl.create_default_context(cafile=dcache.ca_file) if dcache.ca_file else None
        secret = Path(dcache.password_file).read_text().strip()
        self.own = "Basic " + base64.b64encode(f"{dcache.user}:{secret}".encode()).decode()
        self.tokens: list[str] = []
        self.url = ""  # the pool URL of the last redirect
        self.where = ""  # the last resource that the frontend made
        self.remote = ""  # the other side of third-party copies
        self.found: dict[str, list[str]] = {}
        self._queue = list(exchanges)
        self._compared = compared
        self._patterns = Patterns(self.door, self.frontend, base, self.tape, self.own, self.tokens)

    # ---- requests that were not recorded
    def put(self, path: str, data: bytes = DATA, **how: Any) -> Answer:
        """Upload through the door."""
        return self.send("PUT", self.door + self.expand(path), body=data, **how)

    def redirect(self, path: str, method: str = "GET", **how: Any) -> str:
        """Ask the door for a pool URL, and remember it."""
        if method == "PUT":
            how = {"body": DATA, "waits": True, **how}
        self.url = self.send(method, self.door + self.expand(path), **how).get("location")
        return self.url

    def mint(self, path: str, *caveats: str, validity: str = "PT10M", auth: str = "") -> str:
        """Get a macaroon."""
        body = json.dumps({"caveats": caveats, "validity": validity}).encode()
        kind = {"Content-Type": "application/macaroon-request"}
        answer = self.send("POST", self.door + self.expand(path), kind, body=body, auth=auth or self.own)
        self.tokens.append(json.loads(answer.body)["macaroon"])
        return self.tokens[-1]

    def connect(self, url: str) -> Line:
        """Open a connection."""
        return Line(url, self.trust)

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        body: bytes | None = None,
        auth: str | None = None,
        waits: bool = False,
        cut: int | None = None,
        line: Line | None = None,
        keep: bool = False,
        patience: float = PATIENCE,
        linger: float = 0.0,
    ) -> Answer:
        """Send a request; a body that `waits` follows a 100, one that is `cut` ends with the connection."""
        time.sleep(PAUSE)
        fields = dict(headers or {})
        parts = urlsplit(url)
        rows = [f"{method} {url.partition(parts.netloc)[2] or '/'} HTTP/1.1", f"Host: {parts.netloc}"]
        auth = self.own if auth is None and "dcache-http-uuid" not in url else auth
        rows += [f"Authorization: {auth}"] if auth else []
        chunked = "Transfer-Encoding" in fields
        if body is not None and not chunked:
            fields.setdefault("Content-Length", str(len(body)))
        if waits:
            fields.setdefault("Expect", "100-continue")
        rows += [f"{name}: {value}" for name, value in fields.items()]
        payload = body or b""
        if chunked:
            payload = b"%x\r\n%b\r\n0\r\n\r\n" % (len(payload), payload)
        payload = payload[:cut]
        line = self.connect(url) if line is None or line.ended else line
        seen = Answer(line=line)
        line.sock.settimeout(PATIENCE)
        line.sock.sendall("\r\n".join([*rows, "", ""]).encode("latin-1") + (b"" if waits else payload))
        if cut is None or waits:
            line.answer(method, patience, seen)
            while 0 < seen.status < 200:
                line.sock.sendall(payload)
                if cut is not None:
                    seen.status = 0
                    seen.reason, seen.headers = "", []
                    break
                line.answer(method, PATIENCE, seen)
        if cut is not None:
            time.sleep(0.05)  # let the bytes arrive before the end does
            line.close()
            seen.error = "cut by the client"
        seen.closed = line.is_closed(linger)
        if not keep:
            line.close()
        return seen

    # ---- requests that were recorded
    def to(self, last: str = "", **how: Any) -> Answer:
        """Replay what comes next, up to and with the exchange `last` (by default all that is left)."""
        answer = Answer()
        while self._queue:
            ident = self._queue[0]["id"]
            answer = self.ask(ident, **how)
            if ident == last:
                return answer
        assert not last, f"{last} was not reached"
        return answer

    def ask(self, ident: str, url: str = "", body: bytes | object | None = None, **how: Any) -> Answer:
        """Replay the next exchange, which must be this one, and compare."""
        assert self._queue, f"{ident}: nothing is left"
        assert self._queue[0]["id"] == ident, f"{ident}: expected {self._queue[0]['id']}"
        recorded = self._queue[0]
        method, _, target = recorded["request"].partition(" ")
        fields = {name: self.expand(value) for name, value in recorded["sent"].items()}
        kind = recorded["server"]
        if not url:
            url = self.url if kind == "pool" else (self.frontend if kind == "frontend" else self.door)
            url += "" if kind == "pool" else self.expand(target)
        if body is None:
            body = _usual_body(method, fields)
        elif not isinstance(body, bytes):
            body = self.expand(json.dumps(body), everywhere=True).encode()
        if method in ("PROPFIND", "PROPPATCH", "POST"):
            fields.pop("Content-Length", None)  # that of the recorded run, whose directory had another name
        if recorded["auth"] == "none":
            how["auth"] = ""
        how.setdefault("waits", "Expect" in fields)
        how.setdefault("patience", 0.4 if recorded["error"] == "no answer" else PATIENCE)
        answer = self.send(
            method, url, fields, body=body, linger=PATIENCE if recorded["closed"] else LINGER, **how
        )
        self.note(answer)
        location = answer.get("location")
        if "dcache-http-uuid" in location:
            self.url = location
        if kind == "frontend":
            self.where = answer.get("request-url") or location or self.where
        return answer

    def note(self, answer: Answer) -> None:
        """Compare an answer with the next recorded one."""
        recorded = self._queue.pop(0)
        with contextlib.suppress(ValueError, TypeError, KeyError):
            self.tokens.append(json.loads(answer.body)["macaroon"])
        rows = list(self._differences(recorded, answer))
        if rows:
            self.found[recorded["id"]] = rows

    def next_headers(self) -> dict[str, str]:
        """Return the header fields of the next recorded request."""
        return dict(self._queue[0]["sent"])

    @property
    def left(self) -> list[str]:
        """Exchanges that were not replayed."""
        return [exchange["id"] for exchange in self._queue]

    # ---- names instead of what changes
    def expand(self, text: str, everywhere: bool = False) -> str:
        """Put this run's values where a recorded request has names."""
        text = re.sub(r"<(\d+) x (.)>", lambda m: m[2] * int(m[1]), text)
        for name, value in (("<door>", self.door), ("<tape>", self.tape), ("<nearline>", self.tape)):
            text = text.replace(name, value)
        text = text.replace("http://<host>", f"http://{self.remote}")
        text = text.replace("<date>", "Sun, 06 Nov 2044 08:49:37 GMT")
        text = text.replace("<token>", self.tokens[-1] if self.tokens else "")
        made = urlsplit(self.where).path.rpartition("/")[2]
        text = text.replace("<uuid>", made).replace("<channel>", made)
        return text.replace("~", self.base) if everywhere else text.replace("~", self.base, 1)

    def _differences(self, recorded: Exchange, answer: Answer) -> Iterable[str]:
        for name in ("interim", "status", "closed", "error"):
            if recorded[name] != getattr(answer, name):
                yield f"{name}: {recorded[name]!r} -> {getattr(answer, name)!r}"
        if answer.status >= 400 and not self._patterns.matches(recorded["reason"], answer.reason):
            yield f"reason: {recorded['reason']!r} -> {answer.reason!r}"
        found = {name.lower(): value for name, value in answer.headers if name.lower() in self._compared}
        for name in sorted(found.keys() | recorded["headers"].keys()):
            want, got = recorded["headers"].get(name), found.get(name)
            if want is None or got is None or not (want == "<location>" or self._patterns.matches(want, got)):
                yield f"header {name}: {want!r} -> {got!r}"
        body = self._patterns.form(recorded["body"], answer)
        if not self._patterns.matches(recorded["body"], body):
            yield f"body: {recorded['body']!r} -> {body!r}"


def _usual_body(method: str, fields: Mapping[str, str]) -> bytes | None:
    """The body that most requests of a kind have."""
    if "Transfer-Encoding" in fields:
        return DATA
    if "Content-Length" not in fields:
        return None
    if method == "PROPFIND":
        return propfind("D:resourcetype", "D:getcontentlength", "D:displayname", *DCACHE_PROPERTIES)
    length = int(fields["Content-Length"])
    return (DATA * (length // len(DATA) + 1))[:length]


DCACHE_PROPERTIES = ("d:Checksums", "s:FileLocality", "s:AccessLatency", "s:RetentionPolicy")


def propfind(*names: str) -> bytes:
    """Write a PROPFIND body that asks for properties by name."""
    spaces = {
        "D": "DAV:",
        "d": "http://www.dcache.org/2013/webdav",
        "s": "http://srm.lbl.gov/StorageResourceManager",
        "x": "http://www.dcache.org/2020/xattr",
        "z": "http://z.example/",
    }
    declared = " ".join(f'xmlns:{key}="{value}"' for key, value in spaces.items())
    properties = "".join(f"<{name}/>" for name in names)
    return f"<D:propfind {declared}><D:prop>{properties}</D:prop></D:propfind>".encode()
