"""PROPFIND: the request's body and what an answer says (RFC 4918, section 9.1; protocol page, section 4.1).

Names are matched by namespace and local name, and by local name alone as a fallback, because dCache echoes
properties without a value without their namespace. Only properties with status 200 count. The server's
entries are taken by name below the directory that was asked for, never by comparing hrefs, since each server
quotes in its own way.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from urllib.parse import unquote, urlsplit
from xml.parsers import expat

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

_RESPONSE = ["multistatus", "response"]
_HREF = [*_RESPONSE, "href"]
_PROPSTAT = [*_RESPONSE, "propstat"]
_STATUS = [*_PROPSTAT, "status"]
_PROP = [*_PROPSTAT, "prop"]
_COLLECTION = [*_PROP, "resourcetype", "collection"]
_DEPTH_OF_PROPERTY = len(_PROP) + 1

_LONGEST_RESPONSE_BYTES = 1024 * 1024
"""Of 10,000 entries of dCache none takes more than 2 kB; extended attributes are not asked for."""


def parse_multistatus(pieces: Iterable[bytes], url: str, *, encoded: bool = True) -> Iterator[FileInfo]:
    """Yield what a 207 answer says as it arrives, the name that was asked for first.

    Parameters
    ----------
    pieces : `~collections.abc.Iterable` [ `bytes` ]
        Body of the answer.
    url : `str`
        URL that was asked for, in our scheme; the URLs of the entries are made from it.
    encoded : `bool`, optional
        Whether hrefs are percent-encoded as RFC 4918 wants; XRootD does not.

    Yields
    ------
    entry : `FileInfo`
        The name itself, then what it holds.

    Raises
    ------
    ProtocolError
        Raised if this is no multistatus document, ends before its closing tag, or does not speak of the name
        that was asked for; entries may have been yielded before that shows.

    Notes
    -----
    No tree is built, so that the memory does not grow with the listing, as long as the server begins with the
    name itself; dCache, XRootD and all that we know do.
    """
    wanted = _path_of(urlsplit(url).path, True)
    own: str | None = None
    is_relayed = False
    waiting: list[_Row] = []
    for row in _rows(pieces, url, encoded):
        if own is None:
            if row.path == wanted:
                own = wanted
            elif not waiting and _is_elsewhere(row.path, wanted):
                own, is_relayed = row.path, True
            else:
                waiting.append(row)
                continue
            yield _entry(row, url)
            yield from _children(own, waiting, url)
            waiting.clear()
        elif row.path != own:
            if is_relayed and not row.path.startswith(own.rstrip("/") + "/"):
                raise _of_another_name(own, url)
            yield from _children(own, [row], url)
    if own is None:
        if not waiting:
            raise ProtocolError("the answer to PROPFIND holds no entry", operation="list", url=url)
        first = min(waiting, key=lambda row: len(row.path))
        if not _is_elsewhere(first.path, wanted) or not all(
            row is first or row.path.startswith(first.path.rstrip("/") + "/") for row in waiting
        ):
            raise _of_another_name(first.path, url)
        yield _entry(first, url)
        yield from _children(first.path, waiting, url)


def _is_elsewhere(path: str, wanted: str) -> bool:
    """Tell whether a path may be the one that was asked for, behind a relay that puts another one before."""
    return path.rpartition("/")[2] == wanted.rpartition("/")[2] and not path.startswith(wanted + "/")


def _of_another_name(path: str, url: str) -> ProtocolError:
    return ProtocolError(
        "the answer to PROPFIND speaks of another name",
        operation="list",
        url=url,
        hint=f"It names {path!r}.",
    )


def _children(own: str, rows: Iterable[_Row], url: str) -> Iterator[FileInfo]:
    prefix = own.rstrip("/") + "/"
    for row in rows:
        name = row.path.removeprefix(prefix)
        # A door that ignores Depth answers with the levels below as well (protocol page, section 4.1).
        if row.path.startswith(prefix) and name and "/" not in name:
            yield _entry(row, join(url, name))


@dataclass(slots=True)
class _Row:
    """One response: where, and the values of its properties by local name."""

    path: str = ""
    found: dict[str, str] = field(default_factory=dict)


def _rows(pieces: Iterable[bytes], url: str, encoded: bool) -> Iterator[_Row]:
    """Yield the responses of a document as they are complete."""
    document = _Document(url, encoded)
    for piece in pieces:
        yield from document.feed(piece)
    yield from document.feed(b"", is_last=True)


class _Document:
    """A multistatus document, read with as much memory as one response takes.

    Expat hands over each tag as it comes. What could make it take memory or files, a document type with its
    entities, is refused.
    """

    def __init__(self, url: str, encoded: bool) -> None:
        self._url = url
        self._encoded = encoded
        self._ready: list[_Row] = []
        self._open: list[str] = []
        self._row = _Row()
        self._stated: dict[str, str] = {}
        self._status = ""
        self._text: list[str] = []
        self._unused = 0
        self._parser = expat.ParserCreate(namespace_separator="}")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text.append
        self._parser.StartDoctypeDeclHandler = self._refuse

    def feed(self, piece: bytes, *, is_last: bool = False) -> list[_Row]:
        """Return the responses that are complete with these bytes."""
        self._ready = []
        try:
            self._parser.Parse(piece, is_last)
        except expat.ExpatError as error:
            raise self._error(f"is not XML, or is cut: {error}") from error
        self._unused = 0 if self._ready else self._unused + len(piece)
        if self._unused > _LONGEST_RESPONSE_BYTES:
            raise self._error("has an entry without end")
        return self._ready

    def _begin(self, tag: str, attributes: object) -> None:
        name = _local(tag)
        if not self._open and name != "multistatus":
            raise self._error(f"is a {name!r} document")
        self._open.append(name)
        self._text.clear()
        if self._open == _RESPONSE:
            self._row = _Row()
        elif self._open == _PROPSTAT:
            self._stated, self._status = {}, ""
        elif self._open == _COLLECTION:
            self._stated["collection"] = ""

    def _end(self, tag: str) -> None:
        depth = len(self._open)
        if depth == _DEPTH_OF_PROPERTY and self._open[:-1] == _PROP:
            self._stated[self._open[-1]] = "".join(self._text).strip()
        elif self._open == _STATUS:
            self._status = "".join(self._text)
        elif self._open == _PROPSTAT:
            if not self._status or " 200 " in f"{self._status} ":
                self._row.found |= self._stated
        elif self._open == _HREF:
            self._row.path = _path_of("".join(self._text), self._encoded)
        elif self._open == _RESPONSE and self._row.path:
            self._ready.append(self._row)
        self._open.pop()
        self._text.clear()

    def _refuse(self, *declaration: object) -> None:
        raise self._error("has a document type")

    def _error(self, text: str) -> ProtocolError:
        return ProtocolError(f"the answer to PROPFIND {text}", operation="list", url=self._url)


def _path_of(href: str, encoded: bool) -> str:
    """Return the decoded path of an href, without slash at its end."""
    # Where hrefs are not encoded, a blank may be the end of a name.
    path = href.strip() if encoded else href
    scheme, separator, rest = path.partition("://")
    if separator and "/" not in scheme:
        path = "/" + rest.partition("/")[2]
    if encoded:
        path = unquote(path)
    while "//" in path:
        path = path.replace("//", "/")
    return path.rstrip("/") or "/"


def _entry(row: _Row, url: str) -> FileInfo:
    found = row.found
    if "collection" in found:
        return FileInfo(
            url=as_directory(url), kind=EntryKind.DIRECTORY, modified=_modified(found), etag=_etag(found)
        )
    return FileInfo(
        url=url.rstrip("/"),
        kind=EntryKind.FILE,
        size=count_of(found.get("getcontentlength", "")),
        modified=_modified(found),
        checksums=MappingProxyType(parse_checksums(found.get("Checksums", ""))),
        etag=_etag(found),
        locality=Locality.of(found.get("FileLocality")),
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


def _modified(found: Mapping[str, str]) -> datetime | None:
    return parse_time(found.get("getlastmodified", ""))


def _etag(found: Mapping[str, str]) -> str:
    etag = found.get("getetag", "")
    return etag if not etag or etag.startswith(('"', "W/")) else f'"{etag}"'


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
