"""HEAD and GET at the door (protocol page, sections 1.9, 1.11, 2.1)."""

from __future__ import annotations

import html
import mimetypes
import time
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

from .access import PermissionDeniedError
from .answers import DoorRefusalError, answer_refusal
from .caveats import Activity
from .checksum import digest_header
from .entry import Entry
from .exchange import Exchange
from .movers import Mover
from .pool import encode_path
from .proxied import send_proxied
from .tape import TapeError

if TYPE_CHECKING:
    from .pool import Pool
    from .site import Site

__all__ = ["DoorReading", "content_type", "http_date"]

_TYPES = mimetypes.MimeTypes()  # the table of the library, whatever this machine's files say
_METALINK = "application/metalink4+xml"
_HASHES = {"md5": "md5", "sha": "sha-1", "sha-256": "sha-256", "sha-512": "sha-512"}


def content_type(entry: Entry) -> str:
    """Return the type of a file: what its upload said, else a guess by its name, else nothing."""
    return entry.xattrs.get("mime_type") or _TYPES.guess_type(entry.name)[0] or ""


def http_date(milliseconds: int) -> str:
    """Return a time in the form of ``Last-Modified``."""
    return formatdate(milliseconds // 1000, usegmt=True)


class DoorReading:
    """Answers GET and HEAD.

    Parameters
    ----------
    site : `Site`
        The dCache.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def _resource(self, exchange: Exchange) -> Entry:
        access = self._site.access
        real = access.real_path(exchange.login, exchange.path)
        access.require_passage(exchange.login, real)
        entry = self._site.namespace.find(real)
        if entry is None:
            raise DoorRefusalError(404)
        access.require(exchange.login, Activity.READ_METADATA, exchange.path)
        return entry

    @staticmethod
    def common_headers(entry: Entry) -> list[tuple[str, str]]:
        """Return the header fields of every resource."""
        return [
            ("Accept-Ranges", "bytes"),
            ("Last-Modified", http_date(entry.mtime)),
            ("ETag", entry.etag),
        ]

    # ---- HEAD
    def head(self, exchange: Exchange) -> None:
        """Answer a HEAD; it is never redirected."""
        entry = self._resource(exchange)
        self._site.latency.spend("head")
        rows = self.common_headers(entry)
        if entry.is_directory:
            rows += [("Content-Type", "text/html;charset=utf-8"), self._link(exchange)]
            exchange.answer(200, rows, framing="chunked")
            return
        if kind := content_type(entry):
            rows.append(("Content-Type", kind))
        rows += digest_header(
            exchange.headers,
            entry.checksums,
            rfc9530=self._site.version.knows_rfc9530,
            spoiled=exchange.has_wrong_digest,
        )
        if entry.size is None:
            exchange.answer(200, rows, framing="chunked")
        else:
            exchange.answer(200, rows, length=entry.size)

    @staticmethod
    def _link(exchange: Exchange) -> tuple[str, str]:
        where = exchange.base + encode_path(exchange.path)
        return ("Link", f'<{where}?type=metalink>; rel=describedby; type="{_METALINK}"')

    # ---- GET
    def get(self, exchange: Exchange) -> None:
        """Answer a GET: a listing, the bytes, or the way to a pool."""
        entry = self._resource(exchange)
        if entry.is_directory:
            if not exchange.path.endswith("/"):
                exchange.answer(302, [("Location", exchange.base + encode_path(exchange.path) + "/")])
                return
            self._list(exchange, entry)
            return
        access = self._site.access
        access.require(exchange.login, Activity.DOWNLOAD, exchange.path)
        access.require_mode(exchange.login, entry, 4)
        pool = self._find_replica(exchange, entry)
        self._site.latency.spend("get")
        if not self._site.redirects:
            send_proxied(self._site, exchange, entry, self.common_headers(entry), content_type(entry))
            return

        def make() -> Mover:
            assert entry.content is not None
            action = exchange.parameter("action")
            return Mover(
                entry,
                exchange.path,
                False,
                entry.content.replica(),
                disposition="inline" if action == "show" else "attachment",
            )

        patience = 180.0 * self._site.time_scale
        try:
            mover = pool.movers.start(make, patience)
        except FileNotFoundError as exc:
            raise DoorRefusalError(404) from exc
        if mover is None:
            raise DoorRefusalError(500, f"No redirect from mover on pool {pool.name} after {patience:.0f} s")
        self._site.namespace.tell("open", entry)
        exchange.answer(302, [("Location", pool_location(self._site, exchange, pool, mover))])

    def _find_replica(self, exchange: Exchange, entry: Entry) -> Pool:
        site = self._site
        if entry.size is None:
            raise DoorRefusalError(500, "File upload not yet completed")
        if entry.broken:
            raise DoorRefusalError(500, "File is broken")
        if entry.needs_copy:
            time.sleep(site.copy_seconds)
            entry.needs_copy = False
        if site.locality(entry) == "NEARLINE":
            may_stage = site.tape is None or site.tape.permits(entry)
            if not may_stage or not site.access.allows(exchange.login, Activity.STAGE, exchange.path):
                raise DoorRefusalError(403, "File not online. Staging not allowed.")
            if site.tape is None:
                raise DoorRefusalError(500, "No pool candidates available/configured/left for stage")
            try:
                site.tape.restore(entry)
            except TapeError as exc:
                raise DoorRefusalError(500, str(exc)) from exc
        pool = site.read_pool(entry)
        if pool is None or site.faults.take("dead_pool", exchange):
            raise DoorRefusalError(500, "File is unavailable.")
        return pool

    # ---- listings
    def _list(self, exchange: Exchange, entry: Entry) -> None:
        site = self._site
        accept = exchange.headers.get("accept")
        as_metalink = exchange.parameter("type") == "metalink" or _METALINK in accept
        rows = [*self.common_headers(entry), ("Cache-Control", "no-cache")]
        if not as_metalink:
            rows.append(self._link(exchange))
        try:
            site.access.require(exchange.login, Activity.LIST, exchange.path)
            site.access.require_mode(exchange.login, entry, 4)
            if not entry.is_listable or site.faults.take("unlistable", exchange):
                raise PermissionDeniedError(entry.path)
        except PermissionDeniedError:  # the head is half written by now
            answer_refusal(exchange, DoorRefusalError(403), rows)
            return
        children = site.namespace.children(entry)
        if fault := site.faults.take("truncate_listing", exchange):
            children = children[: fault.at_byte]
        if as_metalink:
            kind, text = _METALINK, self._metalink(exchange, children)
        else:
            kind, text = "text/html;charset=utf-8", self._page(exchange, children)
        exchange.answer(200, [*rows, ("Content-Type", kind)], text.encode(), framing="chunked")

    @staticmethod
    def _page(exchange: Exchange, children: list[Entry]) -> str:
        rows = []
        for child in sorted(children, key=lambda c: c.name):
            slash = "/" if child.is_directory else ""
            size = "" if child.size is None else str(child.size)
            rows.append(
                f'<tr><td><a href="{quote(child.name)}{slash}">{html.escape(child.name)}{slash}</a></td>'
                f"<td>{size}</td><td>{http_date(child.mtime)}</td></tr>\n"
            )
        title = html.escape(exchange.path)
        return (
            f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1>"
            f"<table>\n{''.join(rows)}</table></body></html>\n"
        )

    @staticmethod
    def _metalink(exchange: Exchange, children: list[Entry]) -> str:
        rows = []
        for child in children:
            if child.is_directory or child.size is None:
                continue
            sums = [
                f"<hash type={quoteattr(_HASHES[kind])}>{value}</hash>"
                for kind, value in child.checksums.items()
                if kind in _HASHES
            ]
            where = exchange.base + encode_path(exchange.path) + quote(child.name)
            rows.append(
                f"<file name={quoteattr(child.name)}><size>{child.size}</size>{''.join(sums)}"
                f"<url>{escape(where)}</url></file>"
            )
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<metalink xmlns="urn:ietf:params:xml:ns:metalink">{"".join(rows)}</metalink>\n'
        )


def pool_location(site: Site, exchange: Exchange, pool: Pool, mover: Mover) -> str:
    """Return the URL to which the door sends a client, as faults may have it."""
    scheme = "https" if exchange.secure and not site.faults.take("http_pool", exchange) else "http"
    refusing = 1 if site.faults.take("refuse_pool", exchange) else None
    return pool.url(mover, scheme, exchange.base, port=refusing)
