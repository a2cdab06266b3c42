"""PUT at the door: redirected to a pool, or taken and passed on (protocol page, sections 1.10, 2.2, 2.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .answers import DoorRefusalError
from .caveats import Activity
from .checksum import MalformedDigestError, announced_checksums, digest_header, parse_content_md5, wanted_type
from .connection import BodyCutError, HangUpError
from .door_read import pool_location
from .entry import Entry
from .exchange import Exchange
from .movers import Mover
from .namespace import EntryExistsError, NamespaceError, NotADirectoryEntryError
from .upload import Upload, UploadRefusedError

if TYPE_CHECKING:
    from .pool import Pool
    from .site import Site

__all__ = ["DoorWriting"]

_PATIENCE_SECONDS = 0.01
"""A body that follows within this time has begun, as measured on a real door (protocol page, section 2.2)."""


class DoorWriting:
    """Answers PUT.

    Parameters
    ----------
    site : `Site`
        The dCache.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def put(self, exchange: Exchange) -> None:
        """Answer a PUT."""
        site, access = self._site, self._site.access
        real = access.real_path(exchange.login, exchange.path)
        access.require_passage(exchange.login, real)
        existing = site.namespace.find(real)
        self._check_conditions(exchange, existing)
        if existing is not None and existing.is_directory:
            raise DoorRefusalError(405)
        if exchange.headers.get("if-none-match") or exchange.headers.get("if-match"):
            # a real door's look and act are database calls apart: the condition is not exclusive
            site.faults.stopping.wait(site.pause_seconds)
        expected = announced_checksums(exchange.headers) if site.version.knows_rfc9530 else {}
        if "content-md5" in exchange.headers:
            try:
                expected["md5"] = parse_content_md5(exchange.headers.get("content-md5"))
            except MalformedDigestError as exc:
                raise DoorRefusalError(400) from exc
        limit = exchange.login.max_upload
        if limit is not None and (exchange.body.length or 0) > limit:
            raise DoorRefusalError(507, "SER_DISK_FULL")
        access.require(exchange.login, Activity.UPLOAD, exchange.path)
        if site.faults.take("full", exchange):
            raise DoorRefusalError(507, "SER_DISK_FULL")
        if site.faults.take("over_quota", exchange):
            raise DoorRefusalError(507 if site.version.knows_exceeded_quota else 500, "SER_QUOTA_EXCEEDED")
        pool = site.write_pool()
        if pool is None or site.faults.take("dead_pool", exchange):
            raise DoorRefusalError(500, "No write pools online for [*@*]")
        begun = bool(exchange.expects) and exchange.body_has_begun(_PATIENCE_SECONDS)
        redirects = site.redirects and exchange.expects == "100-continue" and not begun
        entry = self._create(exchange, real)
        wanted = wanted_type(exchange.headers, site.version.knows_rfc9530)
        types = (wanted,) if wanted else ()
        if redirects:
            self._redirect(exchange, entry, pool, types, expected)
        else:
            if exchange.expects and not begun:
                exchange.send_continue()
            self._relay(exchange, entry, pool, types, expected)

    @staticmethod
    def _check_conditions(exchange: Exchange, existing: Entry | None) -> None:
        none_match, match = exchange.headers.get("if-none-match"), exchange.headers.get("if-match")
        if none_match and existing is not None:
            tags = [tag.strip() for tag in none_match.split(",")]
            if "*" in tags or existing.etag in tags:
                raise DoorRefusalError(412)
        if match:
            tags = [tag.strip() for tag in match.split(",")]
            if existing is None or ("*" not in tags and existing.etag not in tags):
                raise DoorRefusalError(412)

    def _create(self, exchange: Exchange, real: str) -> Entry:
        """Make the entry, and what is missing above it; what has the name goes first, if the login may
        delete.

        Each step is a call to the namespace: racing uploads of one name replace one another unless their
        logins may not delete.
        """
        site, login = self._site, exchange.login
        namespace = site.namespace
        uid, gid = login.uid, login.gids[0]
        above = namespace.root
        for name in real.strip("/").split("/")[:-1]:
            found = above.children.get(name)
            if found is None:
                break
            if not found.is_directory:  # Java stumbles over it
                raise DoorRefusalError(500, "null")
            above = found
        site.access.require_mode(login, above, 2)
        try:
            namespace.make_parents(real, uid, gid)
            try:
                entry = namespace.create(real, uid, gid)
            except EntryExistsError:
                site.access.require(login, Activity.DELETE, exchange.path)
                old = namespace.find(real)
                if old is not None:
                    if old.is_directory:
                        raise DoorRefusalError(405) from None
                    namespace.remove(old)
                entry = namespace.create(real, uid, gid)
        except NotADirectoryEntryError as exc:
            raise DoorRefusalError(500, "null") from exc
        if kind := exchange.headers.get("content-type"):
            entry.xattrs["mime_type"] = kind
        for key, value in exchange.query:
            if key.startswith("xattr."):
                entry.xattrs[key[6:]] = value
        seconds = exchange.headers.get("x-oc-mtime")
        if seconds and site.version.honours_mtime:
            try:
                entry.mtime = int(float(seconds) * 1000)
            except ValueError as exc:
                self._undo(entry)
                raise DoorRefusalError(400) from exc
            exchange.extra_headers.append(("X-OC-MTime", "accepted"))
        return entry

    def _undo(self, entry: Entry) -> None:
        if not entry.is_removed:
            try:
                self._site.namespace.remove(entry)
            except NamespaceError:  # somebody else removed it between the look and the act
                return

    def _redirect(
        self, exchange: Exchange, entry: Entry, pool: Pool, types: tuple[str, ...], expected: dict[str, str]
    ) -> None:
        self._site.latency.spend("redirect_put")

        def make() -> Mover:
            return Mover(
                entry,
                exchange.path,
                True,
                announced=exchange.body.length or 0,
                wanted=types,
                expected=expected,
            )

        patience = 180.0 * self._site.time_scale
        mover = pool.movers.start(make, patience)
        if mover is None:
            self._undo(entry)
            raise DoorRefusalError(500, f"No redirect from mover on pool {pool.name} after {patience:.0f} s")
        exchange.close = True
        where = pool_location(self._site, exchange, pool, mover)
        exchange.answer(307, [("Location", where)], framing="none")

    def _relay(
        self, exchange: Exchange, entry: Entry, pool: Pool, types: tuple[str, ...], expected: dict[str, str]
    ) -> None:
        """Take the bytes and pass them to a pool; whatever fails, nothing stays."""
        site = self._site
        kept = site.faults.take("keep", exchange)
        upload = Upload(
            site.namespace,
            entry,
            pool.name,
            announced=exchange.body.length or 0,
            wanted=types,
            expected=expected,
            keep=kept.at_byte if kept else None,
        )
        try:
            upload.receive(exchange.body)
            upload.commit()
        except UploadRefusedError as exc:
            self._undo(entry)
            raise DoorRefusalError(exc.status, exc.reason) from exc
        except BodyCutError as exc:
            self._undo(entry)
            if exchange.connection.eof:
                raise
            exchange.close = True
            raise DoorRefusalError(500, "Upload stalled") from exc
        except HangUpError:
            self._undo(entry)
            raise
        site.latency.spend("proxied_put")
        rows = [("Accept-Ranges", "bytes"), ("ETag", entry.etag)]
        rows += digest_header(
            exchange.headers,
            upload.checksums,
            rfc9530=site.version.knows_rfc9530,
            spoiled=exchange.has_wrong_digest,
        )
        exchange.answer(201, rows, framing="chunked")
