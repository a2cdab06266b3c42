"""PROPFIND and PROPPATCH as Milton answers them (protocol page, sections 4.1 and 4.3).

What a client must know, this file does: a missing ``Depth`` is three levels, a body that cannot be parsed
asks for a default set, properties without a value stand in a second ``propstat`` (without namespace unless
somebody in the answer has one in it), a directory that may not be listed looks empty, and the success of a
PROPPATCH is reported as 404.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from .access import PermissionDeniedError
from .answers import DoorRefusalError
from .caveats import Activity
from .checksum import format_digest
from .door_read import content_type, http_date
from .entry import Entry
from .exchange import Exchange

if TYPE_CHECKING:
    from .site import Site

__all__ = ["PropertyHandler"]

DAV = "DAV:"
DCACHE = "http://www.dcache.org/2013/webdav"
SRM = "http://srm.lbl.gov/StorageResourceManager"
XATTR = "http://www.dcache.org/2020/xattr"

_DEPTH_LIMIT = 3
_DEFAULT = [
    (DAV, name)
    for name in (
        "creationdate",
        "getlastmodified",
        "displayname",
        "resourcetype",
        "getcontenttype",
        "getcontentlength",
        "getetag",
    )
]
_ALL = [
    *(
        (DAV, name)
        for name in ("creationdate", "displayname", "getcontentlength", "getcontenttype", "getetag")
    ),
    *(
        (DAV, name)
        for name in ("getcreated", "getlastmodified", "iscollection", "isreadonly", "name", "resourcetype")
    ),
    (DAV, "supported-report-set"),
    (SRM, "AccessLatency"),
    (SRM, "FileLocality"),
    (SRM, "RetentionPolicy"),
    (DCACHE, "Checksums"),
]

Name = tuple[str, str]
"""Namespace and local name of a property."""


@dataclass
class _Response:
    href: str
    found: list[tuple[Name, str]]
    missing: list[Name]


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode_href(path: str) -> str:
    """Percent-encode a path as Milton does: everything but letters, digits, ``-_.`` and the slashes."""
    return quote(path, safe="/").replace("~", "%7E")


def _split(tag: str) -> Name:
    space, brace, local = tag.rpartition("}")
    return (space[1:], local) if brace else ("", tag)


def _document(body: bytes) -> Element | None:
    try:
        root: Element = fromstring(body, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError):
        return None
    return root


class PropertyHandler:
    """Answers PROPFIND and PROPPATCH.

    Parameters
    ----------
    site : `Site`
        The dCache.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    # ---- PROPFIND
    def propfind(self, exchange: Exchange) -> None:
        """Answer a PROPFIND."""
        site, access = self._site, self._site.access
        body = exchange.body.read_all()
        real = access.real_path(exchange.login, exchange.path)
        access.require_passage(exchange.login, real)
        entry = site.namespace.find(real)
        if entry is None:
            raise DoorRefusalError(404)
        access.require(exchange.login, Activity.READ_METADATA, exchange.path)
        site.latency.spend("propfind")
        depth = {"0": 0, "1": 1}.get(exchange.headers.get("depth").strip(), _DEPTH_LIMIT)
        root = _document(body)
        asked = self._asked(root)
        rows: list[_Response] = []
        self._visit(exchange, entry, exchange.path, depth, asked, rows)
        brief = exchange.headers.get("brief").lower() == "t"
        text = _multistatus(rows, brief=brief)
        exchange.answer(
            207,
            [("Content-Type", "application/xml; charset=utf-8"), ("DAV", "1, 2")],
            text.encode(),
            framing="chunked",
        )

    @staticmethod
    def _asked(root: Element | None) -> list[Name] | None:
        """Return the names that are asked for; `None` means all."""
        if root is None:
            return _DEFAULT
        if root.find(f"{{{DAV}}}allprop") is not None:
            return None
        prop = root.find(f"{{{DAV}}}prop")
        return _DEFAULT if prop is None else [_split(child.tag) for child in prop]

    def _visit(
        self,
        exchange: Exchange,
        entry: Entry,
        shown: str,
        depth: int,
        asked: list[Name] | None,
        rows: list[_Response],
    ) -> None:
        if entry.is_directory:
            shown = shown.rstrip("/") + "/"
        names = asked if asked is not None else [*_ALL, *((XATTR, key) for key in sorted(entry.xattrs))]
        row = _Response(encode_href(shown), [], [])
        for name in names:
            value = self._value(entry, name)
            if value is not None:
                row.found.append((name, value))
            elif asked is not None or name == (DAV, "resourcetype"):
                row.missing.append(name)
        rows.append(row)
        if depth > 0 and entry.is_directory:
            for child in self._children(exchange, entry, shown):
                self._visit(exchange, child, shown + child.name, depth - 1, asked, rows)

    def _children(self, exchange: Exchange, entry: Entry, shown: str) -> list[Entry]:
        """Return what is listed; every problem is swallowed and leaves an empty or short list."""
        site, access = self._site, self._site.access
        try:
            access.require(exchange.login, Activity.LIST, shown)
            access.require_mode(exchange.login, entry, 4)
        except PermissionDeniedError:
            return []
        if not entry.is_listable or site.faults.take("unlistable", exchange):
            return []
        children = site.namespace.children(entry)
        if fault := site.faults.take("truncate_listing", exchange):
            children = children[: fault.at_byte]
        directories = sum(child.is_directory for child in children)
        site.latency.spend("list_directory", directories)
        site.latency.spend("list_file", len(children) - directories)
        return children

    def _value(self, entry: Entry, name: Name) -> str | None:
        """Return the (escaped) value of a property, or `None` where there is none."""
        space, local = name
        if space == XATTR:
            value = entry.xattrs.get(local)
        elif space == DCACHE and local == "Checksums" and not entry.is_directory:
            value = ",".join(format_digest(kind, text) for kind, text in sorted(entry.checksums.items()))
        elif space == SRM and not entry.is_directory:
            value = {
                "AccessLatency": entry.access_latency,
                "RetentionPolicy": entry.retention_policy,
                "FileLocality": self._site.locality(entry),
            }.get(local)
        elif space == DAV:
            value = self._dav(entry, local)
            if local == "resourcetype":
                return value
        else:
            value = None
        return None if value is None else escape(value)

    @staticmethod
    def _dav(entry: Entry, local: str) -> str | None:
        if local == "resourcetype":
            return "<D:collection/>" if entry.is_directory else None
        if local == "getcontentlength":
            return None if entry.is_directory or entry.size is None else str(entry.size)
        if local == "getcontenttype":
            return "text/html;charset=utf-8" if entry.is_directory else content_type(entry) or None
        return {
            "displayname": entry.name,
            "name": entry.name,
            "creationdate": _iso(entry.created),
            "getcreated": _iso(entry.created),
            "getlastmodified": http_date(entry.mtime),
            "getetag": entry.etag,
            "iscollection": "TRUE" if entry.is_directory else "FALSE",
            "isreadonly": "TRUE",
            "supported-report-set": "",
        }.get(local)

    # ---- PROPPATCH
    def proppatch(self, exchange: Exchange) -> None:
        """Set and remove extended attributes; success looks like a 404 of each."""
        site, access = self._site, self._site.access
        root = _document(exchange.body.read_all())
        real = access.real_path(exchange.login, exchange.path)
        access.require_passage(exchange.login, real)
        entry = site.namespace.find(real)
        if entry is None:
            raise DoorRefusalError(404)
        may_write = access.allows(exchange.login, Activity.UPDATE_METADATA, exchange.path)
        may_write = may_write and entry.permits(exchange.login.uid, exchange.login.gids, 2)
        row = _Response(encode_href(exchange.path), [], [])
        refused: list[Name] = []
        for action in root if root is not None else ():
            for prop in action.iterfind(f"{{{DAV}}}prop/*"):
                space, local = _split(prop.tag)
                if space != XATTR or not may_write:
                    refused.append((space, local))
                    continue
                if _split(action.tag) == (DAV, "set"):
                    entry.xattrs[local] = prop.text or ""
                elif _split(action.tag) == (DAV, "remove"):
                    entry.xattrs.pop(local, None)
                row.missing.append((space, local))
        if may_write and row.missing:
            site.namespace.tell("attributes", entry)
        text = _multistatus([row], refused=refused)
        exchange.answer(
            207,
            [("Content-Type", "application/xml; charset=utf-8"), ("DAV", "1, 2")],
            text.encode(),
            framing="chunked",
        )


def _multistatus(rows: list[_Response], *, brief: bool = False, refused: list[Name] | None = None) -> str:
    """Write the answer; a namespace in which nobody has a value is not declared, and its names lose it."""
    spaces = {space for row in rows for (space, _), _ in row.found} - {DAV, ""}
    prefixes = {space: f"ns{number}" for number, space in enumerate(sorted(spaces), 1)} | {DAV: "D"}
    declared = "".join(f' xmlns:{prefix}="{escape(space)}"' for space, prefix in prefixes.items())

    def tag(name: Name) -> str:
        prefix = prefixes.get(name[0])
        return f"{prefix}:{name[1]}" if prefix else name[1]

    def stat(status: str, props: str) -> str:
        return f"<D:propstat><D:prop>{props}</D:prop><D:status>HTTP/1.1 {status}</D:status></D:propstat>"

    parts = [f'<?xml version="1.0" encoding="utf-8" ?>\n<D:multistatus{declared}>\n']
    for row in rows:
        parts.append(f"<D:response><D:href>{escape(row.href)}</D:href>")
        if row.found:
            found = (
                f"<{tag(name)}>{value}</{tag(name)}>" if value else f"<{tag(name)}/>"
                for name, value in row.found
            )
            parts.append(stat("200 OK", "".join(found)))
        if row.missing and not brief:
            parts.append(stat("404 Not Found", "".join(f"<{tag(name)}/>" for name in row.missing)))
        if refused:
            parts.append(stat("403 Forbidden", "".join(f"<{tag(name)}/>" for name in refused)))
        parts.append("</D:response>\n")
    return "".join(parts) + "</D:multistatus>\n"
