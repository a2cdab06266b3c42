"""A pool's HTTP mover: bytes for whoever holds a URL, no credentials asked (protocol page, section 3).

Its answers look unlike the door's: errors live in the reason phrase, there is neither ``Date`` nor
``Content-Type``, and head and body leave in separate segments without ``TCP_NODELAY``.
"""

from __future__ import annotations

import random
import ssl
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from .checksum import digest_header, wanted_type
from .connection import BodyCutError, Connection
from .content import Replica
from .exchange import Exchange
from .movers import Mover, MoverTable
from .ranges import BOUNDARY, MalformedRangeError, multipart, parse_ranges
from .upload import Upload, UploadRefusedError
from .wire import Listener

if TYPE_CHECKING:
    from .site import Site

__all__ = ["POOL_PORTS", "Pool", "encode_path"]

POOL_PORTS = range(20000, 25001)
"""Where pools listen (``dcache.net.wan.port.min``, ``.max``)."""

_PLAIN = "/!$&'()*+,;=:@-._~"
_SPECIAL = frozenset('()<>@,;:\\"/[]?=')


def encode_path(path: str, *, ascii_only: bool = True) -> str:
    """Percent-encode what Java's ``URI`` finds illegal in a path (protocol page, section 2.4)."""
    if ascii_only:
        return quote(path, safe=_PLAIN)
    return "".join(quote(c, safe=_PLAIN) if ord(c) < 128 else c for c in path)


def disposition(kind: str, path: str) -> str:
    """Return the value of ``Content-Disposition`` for a file."""
    name = path.rsplit("/", 1)[-1]
    if not name.isascii() or len(name) > 78:
        return f"{kind};filename*=UTF-8''{quote(name, safe='!#$&+-.^_`|~')}"
    if _SPECIAL & set(name):
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{kind};filename={name}"


class Pool:
    """One pool with a listener per protocol.

    Parameters
    ----------
    site : `Site`
        The dCache that it belongs to.
    name : `str`
        Its name.
    tls : `ssl.SSLContext` or `None`
        For the https listener; without it there is http alone.
    """

    def __init__(self, site: Site, name: str, tls: ssl.SSLContext | None) -> None:
        self.site = site
        self.name = name
        self.is_up = False
        self.movers = MoverTable(300.0 * site.time_scale)
        self.listeners: dict[str, Listener] = {}
        self._tls = tls
        self._restarting = threading.Lock()
        self.start()

    def start(self) -> None:
        """Listen, on new ports."""
        for scheme, context in (("http", None), ("https", self._tls)):
            if scheme == "http" or context is not None:
                self.listeners[scheme] = Listener(
                    "pool",
                    self.site.faults.around(self._handle),
                    self.site.transcript,
                    ports=random.sample(POOL_PORTS, 200),
                    tls=context,
                    software=self.site.software,
                    nodelay=False,
                    dated=False,
                    idle=self.site.version.pool_idle_seconds,
                    line_limit=4096,
                    silent_limits=True,
                    jetty=False,
                )
                self.listeners[scheme].crash = self.crash
        self.is_up = True

    def url(self, mover: Mover, scheme: str, door: str, *, port: int | None = None) -> str:
        """Return the URL of a mover: an address for http, a name that the certificate knows for https."""
        host = "localhost" if scheme == "https" else "127.0.0.1"
        query = urlencode({"dcache-http-uuid": mover.id, "dcache-http-ref": door})
        return f"{scheme}://{host}:{port or self.listeners[scheme].port}{encode_path(mover.path)}?{query}"

    def stop(self, patience: float = 5.0) -> None:
        """End all movers and close all connections; whoever has a URL of this pool is refused."""
        self.is_up = False
        self.movers.stop()
        for listener in self.listeners.values():
            listener.stop(patience)

    def crash(self, seconds: float = 0.0) -> None:
        """Restart without waiting for anybody, from a thread that answers; a second one at a time is none.

        Parameters
        ----------
        seconds : `float`, optional
            How long nobody listens meanwhile.
        """
        if self._restarting.acquire(blocking=False):
            try:
                self.stop(patience=0.0)
                if not self.site.faults.stopping.wait(seconds):
                    self.start()
            finally:
                self._restarting.release()

    # ---- answering
    @staticmethod
    def _refuse(exchange: Exchange, status: int, reason: str) -> None:
        exchange.answer(status, reason=reason)

    def _handle(self, exchange: Exchange) -> None:
        if exchange.method == "OPTIONS" and "origin" in exchange.headers:
            exchange.answer(
                200,
                [
                    ("Access-Control-Allow-Origin", "*"),
                    ("Access-Control-Allow-Methods", "GET, PUT, HEAD"),
                    ("Access-Control-Allow-Headers", exchange.headers.get("access-control-request-headers")),
                ],
            )
            return
        if exchange.method not in ("GET", "HEAD", "PUT"):
            self._refuse(exchange, 501, "The requested operation is not supported by dCache")
            return
        if exchange.method == "PUT":
            for name, _ in exchange.headers:
                if name.lower().startswith("content-") and name.lower() not in (
                    "content-length",
                    "content-md5",
                ):
                    self._refuse(exchange, 501, f"{name} is not implemented")
                    return
        identifier = exchange.parameter("dcache-http-uuid")
        if identifier is None:
            self._refuse(exchange, 400, "Query string does not include any UUID.")
            return
        mover = self.movers.find(identifier)
        if mover is None:
            self._turn_away(exchange)
        elif mover.path != exchange.path:
            self._refuse(exchange, 400, "The file you specified does not match the UUID you specified!")
        elif exchange.method == "PUT":
            self._put(exchange, mover)
        elif not self.movers.open(mover, exchange.connection):
            self._turn_away(exchange)
        elif exchange.method == "HEAD":
            exchange.answer(200, self._headers(exchange, mover), length=self._size(mover))
        elif mover.is_write:
            self._refuse(exchange, 405, "Resource is not open for reading")
        else:
            self._get(exchange, mover)

    def _turn_away(self, exchange: Exchange) -> None:
        door = exchange.parameter("dcache-http-ref")
        if door and self.site.version.ends_mover_after_full_read:
            where = [("Location", door + encode_path(exchange.path))]
            exchange.answer(307, where, reason="Request is no longer valid")
        else:
            self._refuse(exchange, 400, "Request is no longer valid. Please resubmit to door.")

    # ---- reading
    @staticmethod
    def _size(mover: Mover) -> int:
        return 0 if mover.is_write else mover.entry.size or 0

    def _digest(self, exchange: Exchange, stored: dict[str, str]) -> list[tuple[str, str]]:
        rfc9530 = self.site.version.knows_rfc9530
        spoiled = exchange.has_wrong_digest
        return digest_header(exchange.headers, stored, rfc9530=rfc9530, spoiled=spoiled)

    def _headers(self, exchange: Exchange, mover: Mover) -> list[tuple[str, str]]:
        rows = [
            ("Accept-Ranges", "bytes"),
            ("Content-Disposition", disposition(mover.disposition, mover.path)),
        ]
        if door := exchange.parameter("dcache-http-ref"):
            rows.append(("Content-Location", door + encode_path(mover.path, ascii_only=False)))
        return rows + self._digest(exchange, mover.entry.checksums)

    def _get(self, exchange: Exchange, mover: Mover) -> None:
        size = self._size(mover)
        header = exchange.headers.get("range")
        if header and self.site.faults.take("ignore_range", exchange):
            header = ""
        ranges: list[tuple[int, int]] = []
        if header:
            try:
                ranges = parse_ranges(header, size)
            except MalformedRangeError:
                if "if-range" not in exchange.headers:
                    self._refuse(exchange, 400, "Invalid definition of ranges")
                    return
            if not ranges and "if-range" not in exchange.headers:
                self._refuse(exchange, 416, "Invalid (empty) list of valid ranges")
                return
        replica = self.movers.replica(mover)
        if replica is None:
            self._turn_away(exchange)
            return
        self.site.latency.spend("pool_get")
        try:
            if ranges:
                self._send_ranges(exchange, mover, replica, ranges, size)
            else:
                body = self._pieces(exchange, mover, replica, 0, size)
                exchange.answer(200, self._headers(exchange, mover), body, length=size)
        finally:
            replica.close()
        if ranges:
            ends = exchange.close and self.site.version.ends_mover_on_range_close
        else:
            ends = self.site.version.ends_mover_after_full_read
        if ends:
            self.movers.release(mover)

    def _send_ranges(
        self, exchange: Exchange, mover: Mover, replica: Replica, ranges: list[tuple[int, int]], size: int
    ) -> None:
        common = [("Accept-Ranges", "bytes"), *self._digest(exchange, mover.entry.checksums)]
        if len(ranges) == 1:
            first, last = ranges[0]
            exchange.answer(
                206,
                [*common, ("Content-Range", f"bytes {first}-{last}/{size}")],
                self._pieces(exchange, mover, replica, first, last + 1),
                length=last + 1 - first,
            )
            return
        heads, tail, length = multipart(ranges, size)

        def parts() -> Iterator[bytes]:
            for head, (first, last) in zip(heads, ranges, strict=True):
                yield head
                yield from self._pieces(exchange, mover, replica, first, last + 1)
            yield tail

        kind = ("Content-Type", f'multipart/byteranges; boundary="{BOUNDARY}"')
        exchange.answer(206, [*common, kind], parts(), length=length)

    @staticmethod
    def _pieces(exchange: Exchange, mover: Mover, replica: Replica, first: int, end: int) -> Iterator[bytes]:
        step = 1 << 16 if exchange.secure else 1 << 20
        while first < end:
            data = replica.pread(min(step, end - first), first)
            if not data:
                return
            first += len(data)
            mover.bytes_moved += len(data)
            yield data

    # ---- writing
    def _put(self, exchange: Exchange, mover: Mover) -> None:
        if not mover.is_write:
            self.movers.open(mover, exchange.connection)
            self.movers.end(mover)
            self._refuse(exchange, 405, "Resource is not open for writing")
            return
        if not self.movers.open(mover, exchange.connection, exclusive=True):
            self._turn_away(exchange)
            return
        kind = wanted_type(exchange.headers, self.site.version.knows_rfc9530)
        kept = self.site.faults.take("keep", exchange)
        upload = Upload(
            self.site.namespace,
            mover.entry,
            self.name,
            announced=mover.announced,
            wanted=[*mover.wanted, *([kind] if kind else [])],
            expected=mover.expected,
            keep=kept.at_byte if kept else None,
        )
        try:
            if "content-md5" in exchange.headers:
                upload.expect_md5(exchange.headers.get("content-md5"))
            if self.site.faults.take("full", exchange):
                raise UploadRefusedError(507, "No space left on device")
            if exchange.expects:
                exchange.send_continue()
            upload.receive(exchange.body)
            self._settle(exchange, mover)
            upload.commit()
        except UploadRefusedError as exc:
            self.movers.end(mover)
            self._refuse(exchange, exc.status, exc.reason)
            return
        except BodyCutError:
            self.movers.end(mover)
            raise
        for name, _ in exchange.body.trailers:
            if name.lower().startswith("content-") and name.lower() != "content-length":
                self._refuse(exchange, 501, f"{name} is not implemented")
                return
        mover.bytes_moved = upload.size
        self.site.latency.spend("pool_put")
        door = exchange.parameter("dcache-http-ref") or ""
        exchange.answer(
            201,
            [
                ("Content-Type", "text/plain; charset=UTF-8"),
                ("Location", door + encode_path(mover.path, ascii_only=False)),
                ("X-OC-MTime", "accepted"),
                *self._digest(exchange, upload.checksums),
            ],
            f"{upload.size} bytes uploaded\r\n\r\n".encode(),
        )

    def _settle(self, exchange: Exchange, mover: Mover) -> None:
        """Wait until nobody else has the mover open (protocol page, surprise 6)."""
        self.movers.release(mover)
        connection: Connection = exchange.connection
        while not mover.over.wait(0.02):
            if connection.is_gone():
                self.movers.close(mover, connection)
                return
