"""PROPFIND: the request's body and what an answer says (RFC 4918, section 9.1; protocol page, section 4.1).

Names are matched by namespace and local name, and by local name alone as a fallback, because dCache echoes
properties without a value without their namespace. Only properties with status 200 count. The server's
entries are taken by name below the directory that was asked for, never by comparing hrefs, since each server
quotes in its own way.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from ..errors import ProtocolError
from ..model import EntryKind, FileInfo, Locality
from ..transport.http1 import count_of
from .addresses import as_directory, join

__all__ = ("PROPFIND_BODY", "parse_checksums", "parse_multistatus", "parse_time")

PROPFIND_BODY = (
    b'<?xml version="1.0" encoding="utf-8"?>'
    b'<D:propfind xmlns:D="DAV:" xmlns:c="http://www.dcache.org/2013/webdav"'
    b' xmlns:s="http://srm.lbl.gov/StorageResourceManager"><D:prop>'
    b"<D:getcontentlength/><D:getlastmodified/><D:resourcetype/><D:getetag/><c:Checksums/><s:FileLocality/>"
    b"</D:prop></D:propfind>"
)
"""Body that names what is wanted; without one a server decides (protocol page, section 4.1)."""


def parse_multistatus(body: bytes, url: str, *, encoded: bool = True) -> list[FileInfo]:
    """Return what a 207 answer says, the name that was asked for first.

    Parameters
    ----------
    body : `bytes`
        Body of the answer.
    url : `str`
        URL that was asked for, in our scheme; the URLs of the entries are made from it.
    encoded : `bool`, optional
        Whether hrefs are percent-encoded as RFC 4918 wants; XRootD does not.

    Returns
    -------
    entries : `list` [ `FileInfo` ]
        The name itself, then what it holds.

    Raises
    ------
    ProtocolError
        Raised if this is no multistatus document or does not speak of the name that was asked for.
    """
    try:
        root = fromstring(body, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise ProtocolError("the answer to PROPFIND is not XML", operation="list", url=url) from error
    if _local(root.tag) != "multistatus":
        raise ProtocolError(
            f"the answer to PROPFIND is a {_local(root.tag)!r} document", operation="list", url=url
        )
    responses = [
        (_path_of(href.text or "", encoded), response)
        for response in root
        if _local(response.tag) == "response" and (href := _child(response, "href")) is not None
    ]
    if not responses:
        raise ProtocolError("the answer to PROPFIND holds no entry", operation="list", url=url)
    wanted = _path_of(urlsplit(url).path, True)
    own = _find_self([path for path, _ in responses], wanted, url)
    prefix = own.rstrip("/") + "/"
    entries: list[FileInfo] = []
    for path, response in responses:
        if path == own:
            entries.insert(0, _entry(response, url))
            continue
        name = path.removeprefix(prefix)
        if not path.startswith(prefix) or not name or "/" in name:
            # A door that ignores Depth answers with the levels below as well (protocol page, section 4.1).
            continue
        entries.append(_entry(response, join(url, name)))
    return entries


def _find_self(paths: list[str], wanted: str, url: str) -> str:
    if wanted in paths:
        return wanted
    # A relay in front may have put another path before ours: the directory is what all others begin with.
    shortest = min(paths, key=len)
    prefix = shortest.rstrip("/") + "/"
    if shortest.rpartition("/")[2] == wanted.rpartition("/")[2] and all(
        path == shortest or path.startswith(prefix) for path in paths
    ):
        return shortest
    raise ProtocolError(
        "the answer to PROPFIND speaks of another name",
        operation="list",
        url=url,
        hint=f"It names {shortest!r}.",
    )


def _path_of(href: str, encoded: bool) -> str:
    """Return the decoded path of an href, without slash at its end."""
    path = href.strip()
    scheme, separator, rest = path.partition("://")
    if separator and "/" not in scheme:
        path = "/" + rest.partition("/")[2]
    if encoded:
        path = unquote(path)
    while "//" in path:
        path = path.replace("//", "/")
    return path.rstrip("/") or "/"


def _entry(response: Element, url: str) -> FileInfo:
    found: dict[str, Element] = {}
    for propstat in _children(response, "propstat"):
        status = _child(propstat, "status")
        if status is not None and " 200 " not in f"{status.text or ''} ":
            continue
        properties = _child(propstat, "prop")
        for element in properties if properties is not None else ():
            found[_local(element.tag)] = element
    kind = found.get("resourcetype")
    if kind is not None and _child(kind, "collection") is not None:
        return FileInfo(
            url=as_directory(url), kind=EntryKind.DIRECTORY, modified=_modified(found), etag=_etag(found)
        )
    return FileInfo(
        url=url.rstrip("/"),
        kind=EntryKind.FILE,
        size=count_of(_text(found, "getcontentlength")),
        modified=_modified(found),
        checksums=MappingProxyType(parse_checksums(_text(found, "Checksums"))),
        etag=_etag(found),
        locality=_locality(_text(found, "FileLocality")),
    )


def parse_checksums(text: str) -> dict[str, str]:
    """Return checksums in hexadecimal from the value of a ``Digest`` header or a ``Checksums`` property.

    Parameters
    ----------
    text : `str`
        Comma-separated ``algorithm=value``: adler32 in hexadecimal, the others in base64 (RFC 3230), or
        ``algorithm=:value:`` (RFC 9530).

    Returns
    -------
    checksums : `dict` [ `str`, `str` ]
        Lower-case hexadecimal values by lower-case algorithm; what cannot be read is left out.
    """
    checksums: dict[str, str] = {}
    for part in text.split(","):
        algorithm, separator, value = part.strip().partition("=")
        algorithm, value = algorithm.lower(), value.strip()
        if not separator or not value:
            continue
        if algorithm in ("adler32", "crc32c", "crc32") and not value.startswith(":"):
            # Old entries of dCache are not padded (protocol page, section 3.6).
            checksums[algorithm] = value.lower().zfill(8)
            continue
        try:
            checksums[algorithm] = base64.b64decode(value.strip(":"), validate=True).hex()
        except (binascii.Error, ValueError):
            continue
    return checksums


def parse_time(text: str) -> datetime | None:
    """Return the time of a ``Last-Modified`` header or property, `None` if there is none to be read.

    Parameters
    ----------
    text : `str`
        Time in the form of RFC 1123, or of ISO 8601 as some servers send it.
    """
    if not text:
        return None
    try:
        parsed = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError:
            return None
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)


def _modified(found: dict[str, Element]) -> datetime | None:
    return parse_time(_text(found, "getlastmodified"))


def _etag(found: dict[str, Element]) -> str:
    etag = _text(found, "getetag")
    return etag if not etag or etag.startswith(('"', "W/")) else f'"{etag}"'


def _locality(text: str) -> Locality | None:
    try:
        return Locality(text)
    except ValueError:
        return None


def _text(found: dict[str, Element], name: str) -> str:
    element = found.get(name)
    return (element.text or "").strip() if element is not None else ""


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _children(element: Iterable[Element], name: str) -> Iterator[Element]:
    return (child for child in element if _local(child.tag) == name)


def _child(element: Iterable[Element], name: str) -> Element | None:
    return next(_children(element, name), None)
