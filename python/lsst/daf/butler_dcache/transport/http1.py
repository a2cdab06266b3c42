"""HTTP/1.1 as text: heads written and read, and how a body is framed. No input or output here.

Rules (RFC 9112): a head ends with an empty line and is bounded; a header name is a token, a value holds no
control characters; ``Transfer-Encoding`` and ``Content-Length`` together, or two different lengths, are an
error rather than a choice; answers to HEAD and those of status 1xx, 204 and 304 have no body, whatever their
headers say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..errors import ConfigurationError, ProtocolError

__all__ = (
    "MAX_HEAD_BYTES",
    "Framing",
    "Head",
    "Headers",
    "chunk_size",
    "framing_of",
    "keeps_connection",
    "read_head",
    "write_head",
)

MAX_HEAD_BYTES = 64 * 1024
_MAX_HEADERS = 256
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: (.*))?")
_LINE = r"\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)"
_FIELDS = re.compile(_LINE)
_ALL_FIELDS = re.compile(f"(?:{_LINE})*")
_TARGET = re.compile(r"[\x21-\x7e]+")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")


class Headers(Mapping[str, str]):
    """Header fields of an answer; names without regard to case, repeated ones joined with a comma.

    Parameters
    ----------
    items : `~collections.abc.Iterable` [`tuple` [`str`, `str`]]
        Names and values in their order.
    """

    __slots__ = ("_values",)

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        values: dict[str, tuple[str, str]] = {}
        for name, value in items:
            low = name.lower()
            values[low] = (name, value if low not in values else f"{values[low][1]}, {value}")
        self._values = values

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()][1]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value, or the default; several are asked for in each answer, and most are missing."""
        found = self._values.get(name.lower())
        return default if found is None else found[1]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._values.values())

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __repr__(self) -> str:
        return f"Headers({', '.join(self)})"


@dataclass(frozen=True, slots=True)
class Head:
    """First part of an answer.

    Parameters
    ----------
    minor : `int`
        0 or 1 of ``HTTP/1.x``.
    status : `int`
        HTTP status.
    reason : `str`
        Reason phrase.
    headers : `Headers`
        Header fields.
    """

    minor: int
    status: int
    reason: str
    headers: Headers


class Framing(Enum):
    """How the end of a body is known."""

    NONE = "there is no body"
    LENGTH = "its length was announced"
    CHUNKED = "it comes in chunks"
    CLOSE = "the connection closes after it"


def write_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """Return the bytes of a request up to its body.

    Parameters
    ----------
    method : `str`
        HTTP method.
    target : `str`
        Path and query, percent-encoded.
    headers : `~collections.abc.Mapping`
        All headers, ``Host`` first.

    Returns
    -------
    head : `bytes`
        Request line, headers and the empty line.

    Raises
    ------
    ConfigurationError
        If something could not be told from the syntax around it.
    """
    if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target):
        raise ConfigurationError("the method or the URL of the request is malformed", operation=method)
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or _FORBIDDEN.search(value):
            raise ConfigurationError(f"the request header {name!r} is malformed", operation=method)
        lines.append(f"{name}: {value}")
    lines.append("\r\n")
    try:
        return "\r\n".join(lines).encode("latin-1")
    except UnicodeEncodeError:
        raise ConfigurationError("a request header is not Latin-1", operation=method) from None


def read_head(data: bytes) -> Head:
    """Read status line and headers.

    Parameters
    ----------
    data : `bytes`
        Everything before the empty line.

    Returns
    -------
    head : `Head`
        The parts.

    Raises
    ------
    ProtocolError
        If it is not the head of an HTTP/1 answer.
    """
    text = data.decode("latin-1")
    first, end, rest = text.partition("\r\n")
    found = _STATUS_LINE.fullmatch(first)
    if found is None:
        raise ProtocolError("the answer does not begin with an HTTP/1 status line")
    rest = end + rest
    if not _ALL_FIELDS.fullmatch(rest):
        raise ProtocolError("a header of the answer is malformed")
    items = [(name, value.strip(" \t")) for name, value in _FIELDS.findall(rest)]
    if len(items) > _MAX_HEADERS:
        raise ProtocolError(f"the answer has more than {_MAX_HEADERS} headers")
    reason = (found[3] or "").encode("latin-1").decode("utf-8", "replace")
    return Head(int(found[1]), int(found[2]), _FORBIDDEN.sub(" ", reason).strip(), Headers(items))


def framing_of(method: str, head: Head) -> tuple[Framing, int]:
    """Return how the body of an answer ends.

    Parameters
    ----------
    method : `str`
        Method of the request.
    head : `Head`
        Head of the answer.

    Returns
    -------
    framing : `Framing`
        How its end is known.
    length : `int`
        The announced length in bytes; 0 for other framings.

    Raises
    ------
    ProtocolError
        If the headers contradict themselves.
    """
    if method == "HEAD" or head.status < 200 or head.status in (204, 304):
        return Framing.NONE, 0
    length = head.headers.get("Content-Length")
    coding = head.headers.get("Transfer-Encoding")
    if coding is not None:
        if length is not None or coding.strip().lower() != "chunked":
            raise ProtocolError("the answer does not say clearly how long it is", status=head.status)
        return Framing.CHUNKED, 0
    if length is None:
        return Framing.CLOSE, 0
    values = {value.strip() for value in length.split(",")}
    value = values.pop()
    if values or not value.isascii() or not value.isdecimal() or len(value) > 18:
        raise ProtocolError("the Content-Length of the answer is malformed", status=head.status)
    return (Framing.LENGTH, int(value)) if int(value) else (Framing.NONE, 0)


def keeps_connection(head: Head) -> bool:
    """Tell whether the server goes on with the connection after this answer.

    Parameters
    ----------
    head : `Head`
        Head of the answer.

    Returns
    -------
    keeps : `bool`
        As RFC 9112, section 9.3 has it.
    """
    words = {word.strip().lower() for word in head.headers.get("Connection", "").split(",")}
    return "close" not in words and (head.minor == 1 or "keep-alive" in words)


def chunk_size(line: bytes) -> int:
    """Read the line before a chunk.

    Parameters
    ----------
    line : `bytes`
        Without its end; extensions are ignored.

    Returns
    -------
    size : `int`
        Bytes of the chunk; 0 for the last.

    Raises
    ------
    ProtocolError
        If it is malformed.
    """
    found = _CHUNK_SIZE.fullmatch(line)
    if found is None:
        raise ProtocolError("the size of a chunk of the answer is malformed")
    return int(found[1], 16)
