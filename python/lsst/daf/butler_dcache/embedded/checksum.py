"""Checksums: computed as bytes go by, written as dCache writes them (protocol page, section 3.6).

Kept as lower-case hex by type; on the wire adler32 is hex, all others are base64 of the raw digest.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Iterable

from .exchange import Headers

__all__ = [
    "Digester",
    "MalformedDigestError",
    "announced_checksums",
    "digest_header",
    "format_digest",
    "parse_content_md5",
    "parse_digest",
    "wanted_type",
]

TYPES = ("adler32", "md5", "sha", "sha-256", "sha-512")
"""The types that are known, the least preferred one first."""

_CODES = {"adler32": 1, "md5": 2, "sha": 4, "sha-256": 5, "sha-512": 6}
_RFC9530 = ("sha-256", "sha-512")


class MalformedDigestError(ValueError):
    """A value that is no digest."""


class Digester:
    """Computes checksums of a stream.

    Parameters
    ----------
    types : iterable of `str`
        Which ones, beside adler32.
    """

    def __init__(self, types: Iterable[str] = ()) -> None:
        self._adler = 1
        self._others = {
            kind: hashlib.new(kind.replace("-", "") if kind != "sha" else "sha1", usedforsecurity=False)
            for kind in types
            if kind != "adler32"
        }

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self._adler = zlib.adler32(data, self._adler)
        for other in self._others.values():
            other.update(data)

    def values(self) -> dict[str, str]:
        """Return hex by type."""
        return {"adler32": f"{self._adler:08x}", **{k: h.hexdigest() for k, h in self._others.items()}}


def format_digest(kind: str, value: str) -> str:
    """Write one checksum in the form of ``Digest``, as in ``adler32=5ae07809``."""
    return f"{kind}={value if kind == 'adler32' else base64.b64encode(bytes.fromhex(value)).decode()}"


def checksum_list(sums: dict[str, str]) -> str:
    """Write checksums as dCache's messages do, as in ``[1:5ae07809]``."""
    return "[" + ", ".join(f"{_CODES[kind]}:{value}" for kind, value in sorted(sums.items())) + "]"


def parse_content_md5(value: str) -> str:
    """Return the hex form of a ``Content-MD5``, read as leniently as dCache does.

    Raises
    ------
    MalformedDigestError
        Raised with Java's words if it is not base64 of 16 bytes.
    """
    try:
        value = base64.b64decode(value + "=" * (-len(value) % 4)).hex()
    except binascii.Error as exc:
        raise MalformedDigestError(f"Illegal base64: {exc}") from exc
    if len(value) != 32:
        raise MalformedDigestError(f'MD5 requires 32 hexadecimal digits but "{value}" has {len(value)}')
    return value


def parse_digest(header: str) -> dict[str, str]:
    """Return hex by type of the known types in a ``Digest`` header; what cannot be read is left out."""
    found = {}
    for item in header.split(","):
        name, _, value = item.strip().partition("=")
        kind = name.strip().lower()
        try:
            if kind == "adler32":
                found[kind] = f"{int(value, 16):08x}"
            elif kind in TYPES:
                found[kind] = base64.b64decode(value).hex()
        except ValueError:
            continue
    return found


def announced_checksums(headers: Headers) -> dict[str, str]:
    """Return what a door since 12.0 takes for announced checksums: values in ``Want-Digest``.

    It means to read ``Digest`` and reads the wish instead (protocol page, section 3.6): a weight in the
    style of RFC 9530, ``adler32=10``, is a checksum.
    """
    found = {}
    for item in headers.get("want-digest").split(","):
        name, equals, value = item.strip().partition("=")
        kind = name.strip().lower()
        if kind == "adler32" and re.fullmatch("[0-9a-fA-F]{1,8}", value):
            found[kind] = value.lower().zfill(8)
        elif kind in TYPES and kind != "adler32" and equals and ";" not in item:
            try:
                found[kind] = base64.b64decode(value, validate=True).hex()
            except binascii.Error:
                continue
    return found


def _preferences(text: str, with_values: bool) -> list[tuple[float, int, str]]:
    """(quality, rank, type) of the known types in a ``Want-Digest``."""
    found = []
    for item in text.split(","):
        name, _, parameter = item.strip().partition(";")
        if with_values:
            name = name.partition("=")[0]
        kind = name.strip().lower()
        quality = re.search(r"q\s*=\s*([\d.]+)", parameter)
        if kind in TYPES:
            found.append((float(quality[1]) if quality else 1.0, TYPES.index(kind), kind))
    return found


def _asked(headers: Headers, rfc9530: bool) -> tuple[list[tuple[float, int, str]], bool]:
    structured = headers.get("want-repr-digest") if rfc9530 else ""
    if structured:
        pairs = (item.partition("=") for item in structured.split(","))
        rows = [(k.strip().lower(), float(v) if v.strip().isdigit() else 1.0) for k, _, v in pairs]
        return [(q, TYPES.index(kind), kind) for kind, q in rows if kind in _RFC9530 and q > 0], True
    return _preferences(headers.get("want-digest"), rfc9530), False


def wanted_type(headers: Headers, rfc9530: bool = False) -> str | None:
    """Return the type that a request prefers, whether or not it is stored; `None` without a (known) wish."""
    rows, _ = _asked(headers, rfc9530)
    return max(rows)[2] if rows else None


def digest_header(
    headers: Headers, stored: dict[str, str], *, rfc9530: bool = False, spoiled: bool = False
) -> list[tuple[str, str]]:
    """Return the digest header that answers a request: the best of the stored types, or nothing.

    Parameters
    ----------
    headers : `Headers`
        The request, with ``Want-Digest`` or ``Want-Repr-Digest``.
    stored : `dict` [`str`, `str`]
        Hex by type.
    rfc9530 : `bool`
        Whether this version knows ``Want-Repr-Digest``.
    spoiled : `bool`
        Whether the value shall be wrong.
    """
    rows, structured = _asked(headers, rfc9530)
    rows = [row for row in rows if row[2] in stored]
    if not rows:
        return []
    kind = max(rows)[2]
    value = stored[kind]
    if spoiled:
        value = ("1" if value[0] == "0" else "0") + value[1:]
    if structured:
        return [("Repr-Digest", f"{kind}=:{base64.b64encode(bytes.fromhex(value)).decode()}:")]
    return [("Digest", format_digest(kind, value))]
