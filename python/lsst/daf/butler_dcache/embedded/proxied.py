"""Reads through a door that does not redirect, with Milton's mistakes about ranges (page, section 2.3)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .answers import DoorRefusalError
from .checksum import digest_header
from .connection import HangUpError
from .content import Content
from .entry import Entry
from .exchange import Exchange

if TYPE_CHECKING:
    from .site import Site

__all__ = ["send_proxied"]

_ATTACHMENT = ("Content-Disposition", "attachment")


def _pieces(content: Content, first: int, end: int) -> Iterator[bytes]:
    with content.open() as file:
        file.seek(first)
        while first < end and (data := file.read(min(1 << 18, end - first))):
            first += len(data)
            yield data


def send_proxied(
    site: Site, exchange: Exchange, entry: Entry, common: list[tuple[str, str]], kind: str
) -> None:
    """Answer a GET with the bytes of a file.

    Parameters
    ----------
    site : `Site`
        The dCache.
    exchange : `Exchange`
        The request.
    entry : `Entry`
        A file with a good replica on disk.
    common : `list`
        Accept-Ranges, Last-Modified and ETag.
    kind : `str`
        Content type, or nothing.
    """
    assert entry.content is not None
    assert entry.size is not None
    header = exchange.headers.get("range")
    if header.startswith("bytes=") and not site.faults.take("ignore_range", exchange):
        _send_ranges(exchange, entry, header[6:], common, kind)
        return
    rows = [*common, _ATTACHMENT, ("Cache-Control", "no-cache")]
    if kind:
        rows.append(("Content-Type", kind))
    rows += digest_header(
        exchange.headers,
        entry.checksums,
        rfc9530=site.version.knows_rfc9530,
        spoiled=exchange.has_wrong_digest,
    )
    exchange.answer(200, rows, _pieces(entry.content, 0, entry.size), length=entry.size)


def _send_ranges(
    exchange: Exchange, entry: Entry, text: str, common: list[tuple[str, str]], kind: str
) -> None:
    assert entry.content is not None
    assert entry.size is not None
    size = entry.size
    ranges: list[tuple[int | None, int | None]] = []
    for item in text.split(","):
        match = re.fullmatch(r"\s*(\d*)-(\d*)\s*", item)
        if match is None:
            raise DoorRefusalError(
                500,
                "java.lang.RuntimeException: Invalid range. Use format start-finish, eg 1000-1500. "
                f"Range:{item}",
            )
        ranges.append((int(match[1]) if match[1] else None, int(match[2]) if match[2] else None))
    etag = ("ETag", entry.etag)
    if len(ranges) > 1:
        _send_parts(exchange, entry, ranges, [("Accept-Ranges", "bytes"), etag], kind)
        return
    first, last = ranges[0]
    if first is None:  # a suffix: told as 0 to n, one byte more than comes
        assert last is not None
        shown = min(last, size - 1)
        rows = [_ATTACHMENT, etag, ("Content-Range", f"bytes 0-{shown}/{size}")]
        body = _pieces(entry.content, max(0, size - shown), size)
        exchange.answer(206, rows, body, length=shown + 1)
        raise HangUpError("fewer bytes than announced")
    end = size - 1 if last is None else min(last, size - 1)
    rows = [_ATTACHMENT, etag, ("Content-Range", f"bytes {first}-{end}/{size}")]
    exchange.answer(206, rows, _pieces(entry.content, first, end + 1), length=max(0, end - first + 1))


def _send_parts(
    exchange: Exchange,
    entry: Entry,
    ranges: list[tuple[int | None, int | None]],
    rows: list[tuple[str, str]],
    kind: str,
) -> None:
    """Send several ranges: line feeds alone, and no delimiter at the end."""
    assert entry.content is not None
    assert entry.size is not None
    boundary = str(uuid.uuid4())
    with entry.content.open() as file:
        content = file.read()
    body = b""
    for first, last in ranges:
        start = first or 0
        end = entry.size - 1 if last is None else min(last, entry.size - 1)
        head = f"\n--{boundary}\nContent-Type: {kind}\nContent-Range: bytes {start}-{end}/{entry.size}\n\n"
        body += head.encode() + content[start : end + 1]
    kind_row = ("Content-Type", f"multipart/byteranges; boundary={boundary}")
    exchange.answer(206, [*rows, _ATTACHMENT, kind_row], body)
