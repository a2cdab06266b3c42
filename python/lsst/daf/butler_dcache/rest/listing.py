"""Listings of directories by the REST frontend, read as they arrive (protocol page, section 7.2).

The frontend tells the same as PROPFIND, in fewer bytes and 2 to 10 times faster (section 4.2), with
checksums in hexadecimal and times in milliseconds; and where a directory may not be listed it says 403, where
PROPFIND shows an empty one. Entity tags are not in it, but what they are made of is (section 1.9).

An answer is one JSON object with a list in it, whose fields come in any order. Its entries are decoded one by
one. It is complete when its last brace and the end of its body have come.

By pages the server begins anew with each, and keeps to no order. Whether all entries were seen shows only
afterwards: nothing has changed in the directory, by its time in milliseconds, and no name came twice.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote

from ..errors import DoorUnavailableError, ProtocolError, ResourceIsFileError, ServerError
from ..model import EntryKind, FileInfo, Locality
from ..transport.answer import DataAnswer
from ..transport.data import DataPlane
from ..transport.deadline import Deadline
from ..transport.failures import failure
from ..transport.retry import Phase, rounds
from .api import namespace_path

__all__ = ("ChildListing", "parse_children")

_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}
_QUERY = "children=true&checksum=true&locality=true"
_PIECE_BYTES = 64 * 1024
_LONGEST_VALUE = 1024 * 1024
"""Characters; an entry has about 400."""

_CHECKSUMS = {"md5_type": "md5", "sha1": "sha", "sha256": "sha-256", "sha512": "sha-512"}

Result = TypeVar("Result")


class ChildListing:
    """The listings of a frontend.

    Parameters
    ----------
    base_url : `str`
        URL of its ``/api/v1``.
    data : `DataPlane`
        Sends the requests; the server has to be one of its endpoint.
    page_entries : `int`, optional
        How many entries are asked for at once; all of them if 0.
    """

    def __init__(self, base_url: str, data: DataPlane, page_entries: int = 0) -> None:
        self._base_url = base_url.rstrip("/")
        self._data = data
        self._page_entries = page_entries

    def iter(self, url: str, *, operation: str, deadline: Deadline) -> Iterator[FileInfo]:
        """Yield what a directory holds, in memory that does not grow with it (1 request without pages).

        Parameters
        ----------
        url : `str`
            URL of the directory at the door.
        operation : `str`
            For messages.
        deadline : `Deadline`
            When to give up; what the caller does between two entries counts.

        Yields
        ------
        entry : `FileInfo`
            Files and directories in it.

        Raises
        ------
        ResourceIsFileError
            Raised if it is a file.
        ProtocolError
            Raised if the answer is none; for pages, if they do not fit together.
        DcacheError
            Raised by cause.
        """
        pages = _Pages(url, operation, self._page_entries)
        while pages.are_left:
            with self._open(url, pages.query, operation, deadline) as answer:
                pieces = iter(partial(answer.read_some, _PIECE_BYTES), b"")
                yield from pages.take(parse_children(pieces, url, operation, pages.own))

    def read(
        self,
        url: str,
        take: Callable[[Iterator[FileInfo]], Result],
        *,
        operation: str,
        deadline: Deadline,
    ) -> Result:
        """Return what is made of a listing, which is asked for again if it breaks off.

        Parameters
        ----------
        url : `str`
            URL of the directory at the door.
        take : `~collections.abc.Callable`
            Is given the entries, as from `iter`; called again for each attempt.
        operation : `str`
            For messages.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        result : `object`
            What ``take`` returned.
        """
        for last in rounds(Phase.BROKEN, "GET", deadline):
            try:
                return take(self.iter(url, operation=operation, deadline=deadline))
            except DoorUnavailableError as error:
                # Without a status it was never answered, and the plane has tried again itself.
                if last or error.status is None:
                    raise
        raise AssertionError("the last round returns or raises")

    def _open(self, url: str, query: str, operation: str, deadline: Deadline) -> DataAnswer:
        place = f"{self._base_url}{namespace_path(url)}?{query}"
        for last in rounds(Phase.FAILED, "GET", deadline):
            answer = self._data.open("GET", place, headers=_HEADERS, deadline=deadline, authenticate=True)
            if answer.status == 200:
                return answer
            with answer:
                error = failure(
                    answer,
                    operation=operation,
                    url=url,
                    body=answer.read_short(),
                    method="GET",
                    attempts=answer.attempts,
                    elapsed_seconds=deadline.elapsed,
                )
            if last or not isinstance(error, ServerError):
                raise error
        raise AssertionError("the last round returns or raises")


class _Pages:
    """How far a listing by pages has come, and whether they fit together."""

    def __init__(self, url: str, operation: str, size: int) -> None:
        self._url = url
        self._operation = operation
        self._size = size
        self._offset = 0
        self._changed: Any = None
        self._seen: set[int] = set()
        self.own: dict[str, Any] = {}
        """What the page that was read last says of the directory itself."""
        self.are_left = True

    @property
    def query(self) -> str:
        """What is asked for next."""
        return f"{_QUERY}&offset={self._offset}&limit={self._size}" if self._size else _QUERY

    def take(self, entries: Iterable[FileInfo]) -> Iterator[FileInfo]:
        """Yield the entries of a page, and find out whether there is another one."""
        count = 0
        for entry in entries:
            count += 1
            if self._size:
                name = hash(entry.name)
                if name in self._seen:
                    raise self._misfit("a name comes twice")
                self._seen.add(name)
            yield entry
        self.are_left = bool(self._size) and count >= self._size
        if self._offset and self.own.get("mtime") != self._changed:
            raise self._misfit("the directory has changed meanwhile")
        self._changed = self.own.get("mtime")
        self._offset += count

    def _misfit(self, why: str) -> ProtocolError:
        return ProtocolError(
            f"the pages of the listing do not fit together: {why}",
            operation=self._operation,
            url=self._url,
            hint="Without `listing_page_entries` a directory is listed at once.",
        )


def parse_children(
    pieces: Iterable[bytes], url: str, operation: str, own: dict[str, Any] | None = None
) -> Iterator[FileInfo]:
    """Yield what an answer says that a directory holds, as it arrives.

    Parameters
    ----------
    pieces : `~collections.abc.Iterable` [ `bytes` ]
        Body of the answer.
    url : `str`
        URL of the directory at the door; those of the entries are made from it.
    operation : `str`
        For messages.
    own : `dict`, optional
        Is given the fields of the directory itself.

    Yields
    ------
    entry : `FileInfo`
        Files and directories in it.

    Raises
    ------
    ResourceIsFileError
        Raised if it is a file.
    ProtocolError
        Raised if this is no such answer, or not all of it; entries may have been yielded before that shows.
    """
    own = {} if own is None else own
    own.clear()
    directory = url if url.endswith("/") else url + "/"
    text = _Text(pieces, url, operation)
    has_children = False
    text.expect("{")
    while True:
        name = text.value()
        text.expect(":")
        if name == "children":
            has_children = True
            text.expect("[")
            if not text.skip("]"):
                while True:
                    yield _entry(text.value(), directory, text)
                    if text.expect(",]") == "]":
                        break
        else:
            own[str(name)] = text.value()
        if text.expect(",}") == "}":
            break
    text.end()
    if own.get("fileType") == "REGULAR":
        raise ResourceIsFileError("not a directory", operation=operation, url=url)
    if not has_children:
        raise text.error("has no list of children")


class _Text:
    """JSON that arrives in pieces, of which no more is kept than one value takes."""

    def __init__(self, pieces: Iterable[bytes], url: str, operation: str) -> None:
        self._pieces = iter(pieces)
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._value = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._has_ended = False
        self._url = url
        self._operation = operation

    def error(self, what: str) -> ProtocolError:
        """Return an error for this answer."""
        return ProtocolError(f"the listing {what}", operation=self._operation, url=self._url)

    def value(self) -> Any:
        """Return the next value; what ends where the text does may be cut."""
        while True:
            self._look()
            try:
                value, at = self._value(self._text, self._at)
            except RecursionError as error:
                raise self.error("is no JSON that a frontend writes") from error
            except ValueError as error:
                if self._has_ended:
                    raise self.error("is not JSON, or is cut") from error
            else:
                if at < len(self._text) or self._has_ended:
                    self._at = at
                    return value
            self._more()

    def expect(self, marks: str) -> str:
        """Return the next mark, which is one of these."""
        mark = self._look()
        if not mark or mark not in marks:
            raise self.error("is cut" if not mark else "is not JSON")
        self._at += 1
        return mark

    def skip(self, mark: str) -> bool:
        """Pass over a mark, if it is the next."""
        is_next = self._look() == mark
        self._at += is_next
        return is_next

    def end(self) -> None:
        """Read to the end of the body, where nothing else may stand."""
        if self._look():
            raise self.error("goes on after its end")

    def _look(self) -> str:
        """Return the next mark, or nothing at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text) or self._has_ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def _more(self) -> None:
        piece = next(self._pieces, b"")
        self._has_ended = not piece
        try:
            text = self._decode.decode(piece, final=self._has_ended)
        except UnicodeDecodeError as error:
            raise self.error("is not UTF-8") from error
        self._text = self._text[self._at :] + text
        self._at = 0
        if len(self._text) > _LONGEST_VALUE:
            raise self.error("has an entry without end")


def _entry(row: Any, directory: str, text: _Text) -> FileInfo:
    name = row.get("fileName") if isinstance(row, Mapping) else None
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name:
        raise text.error("has an entry without a name")
    try:
        url = directory + quote(name, safe="")
    except UnicodeEncodeError as error:
        raise text.error("has a name that is no text") from error
    modified = _number(row.get("mtime"))
    identifier = row.get("pnfsId")
    etag = "" if modified is None or not identifier else f'"{identifier}_{_java_hash(modified)}"'
    if row.get("fileType") == "DIR":
        return FileInfo(url + "/", EntryKind.DIRECTORY, modified=_time(modified), etag=etag)
    return FileInfo(
        url=url,
        kind=EntryKind.FILE,
        size=_number(row.get("size")),
        modified=_time(modified),
        checksums=MappingProxyType(_checksums(row.get("checksums"))),
        etag=etag,
        locality=Locality.of(row.get("fileLocality")),
    )


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _time(milliseconds: int | None) -> datetime | None:
    try:
        return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _java_hash(milliseconds: int) -> int:
    """Return ``Date.hashCode``, the second half of an entity tag (protocol page, section 1.9)."""
    value = (milliseconds ^ (milliseconds >> 32)) & 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _checksums(rows: Any) -> dict[str, str]:
    checksums: dict[str, str] = {}
    for row in rows if isinstance(rows, list) else ():
        kind, value = (row.get("type"), row.get("value")) if isinstance(row, Mapping) else (None, None)
        if isinstance(kind, str) and isinstance(value, str) and value:
            name = _CHECKSUMS.get(kind.lower(), kind.lower())
            checksums[name] = value.lower().zfill(8) if name == "adler32" else value.lower()
    return checksums
