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
    "count_of",
    "framing_of",
    "keeps_connection",
    "read_head",
    "write_head",
)

MAX_HEAD_BYTES = 64 * 1024
_MAX_HEADERS = 256
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE = r"[^\x00-\x08\x0a-\x1f\x7f]*+"
_FIELD = re.compile(rf"\r\n({_NAME}):")
_ANSWER = re.compile(rf"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([^\n]*?))?((?:\r\n{_NAME}:{_VALUE})*+)")
_REQUEST = re.compile(rf"{_NAME} [\x21-\x7e]++ HTTP/1\.1\r\n(?:{_NAME}: {_VALUE}\r\n)*+\r\n")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")


class Headers(Mapping[str, str]):
    """Header fields of an answer; names without regard to case, repeated ones joined with a comma.

    Parameters
    ----------
    items : `~collections.abc.Iterable` [`tuple` [`str`, `str`]], optional
        Names and values in their order.
    text : `str`, optional
        The same as it travels, each behind its line's end; well-formed.

    Notes
    -----
    Of a dozen fields five are asked for: they are looked for then.
    """

    __slots__ = ("_low", "_text")

    def __init__(self, items: Iterable[tuple[str, str]] = (), text: str = "") -> None:
        for name, value in items:
            text += f"\r\n{name}:{value}"
        self._text = text = f"{text}\r\n"
        self._low = text.lower()  # of the same length, for it is Latin-1

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value, or the default."""
        low, mark = self._low, f"\r\n{name.lower()}:"
        at = low.find(mark)
        if at < 0:
            return default
        end = low.find("\r\n", at + 2)
        value = self._text[at + len(mark) : end].strip(" \t")
        while (at := low.find(mark, end)) >= 0:
            end = low.find("\r\n", at + 2)
            value += ", " + self._text[at + len(mark) : end].strip(" \t")
        return value

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return str(value)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and f"\r\n{name.lower()}:" in self._low

    def __iter__(self) -> Iterator[str]:
        return iter({name.lower(): name for name in _FIELD.findall(self._text)}.values())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Headers({', '.join(self)})"


@dataclass(slots=True)
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
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    text = f"{method} {target} HTTP/1.1\r\n{fields}\r\n"
    # All at once; that nothing in it is a line or a name more is seen by counting.
    if not _REQUEST.fullmatch(text) or text.count("\r\n") != len(headers) + 2 or ":" in "".join(headers):
        raise ConfigurationError(
            "the method, the URL or a header of the request is malformed", operation=method
        )
    try:
        return text.encode("latin-1")
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
    found = _ANSWER.fullmatch(data.decode("latin-1"))
    if found is None:
        raise ProtocolError("the answer does not begin with an HTTP/1 status line and well-formed headers")
    minor, status, reason, fields = found.groups("")
    if fields.count("\r\n") > _MAX_HEADERS:
        raise ProtocolError(f"the answer has more than {_MAX_HEADERS} headers")
    if not (reason.isascii() and reason.isprintable()):
        reason = _FORBIDDEN.sub(" ", reason.encode("latin-1").decode("utf-8", "replace"))
    return Head(int(minor), int(status), reason.strip(), Headers(text=fields))


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
    status = head.status
    if method == "HEAD" or status < 200 or status == 204 or status == 304:
        return Framing.NONE, 0
    fields = head.headers
    length = fields.get("content-length")
    coding = fields.get("transfer-encoding")
    if coding is not None:
        if length is not None or coding.strip().lower() != "chunked":
            raise ProtocolError("the answer does not say clearly how long it is", status=status)
        return Framing.CHUNKED, 0
    if length is None:
        return Framing.CLOSE, 0
    if "," in length:
        values = {value.strip() for value in length.split(",")}
        length = values.pop() if len(values) == 1 else ""
    size = count_of(length)
    if size is None:
        raise ProtocolError("the Content-Length of the answer is malformed", status=status)
    return (Framing.LENGTH if size else Framing.NONE), size


def count_of(text: str) -> int | None:
    """Read a number of bytes.

    Parameters
    ----------
    text : `str`
        What a server says.

    Returns
    -------
    count : `int` or `None`
        `None` if it is no number, or one beyond all files.
    """
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


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
    said = head.headers.get("connection")
    if said is None:
        return head.minor == 1
    words = {word.strip() for word in said.lower().split(",")}
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
