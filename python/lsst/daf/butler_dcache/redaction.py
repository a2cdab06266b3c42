"""Secrets that cannot be printed, and URLs that may be.

What is shown of a URL is decided by an allow-list: scheme, host, port and path, and of the query the *names*
of parameters and the values of a few that are known to be harmless. ``authz`` is a token,
``dcache-http-uuid`` the capability of a mover (protocol page, section 2.4), ``X-Amz-Signature`` a signature,
and the next server will invent another.

A free text has no such order. There, what looks like a query, a credential or a token is masked.
"""

from __future__ import annotations

import hmac
import re
from typing import NoReturn
from urllib.parse import urlsplit

__all__ = ("Secret", "has_credential", "redact_text", "redact_url")

_MASK = "***"
_HARMLESS = frozenset(
    {
        "attributes",
        "checksum",
        "children",
        "delimiter",
        "limit",
        "list-type",
        "locality",
        "max-keys",
        "offset",
        "optional",
        "partnumber",
        "qos",
        "xattr",
    }
)
"""Parameters of listings, of dCache's frontend and of S3, that say how much is wanted and of which kind."""
_TRANSFER = frozenset({"dcache-http-ref", "dcache-http-uuid"})
"""What dCache puts into the URL of a pool: names one transfer, and is worth as much as its bytes."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9_,./-]{1,32}", re.ASCII)
_URL = re.compile(r"\b(?:https?|davs?|s3|root|xroot)://[^\s'\"<>]+", re.IGNORECASE)
_QUERY = re.compile(r"(?<=[^\s?])\?([^\s?'\"<>]*=[^\s'\"<>]*)")
_CREDENTIAL = re.compile(r"\b(Bearer|Basic)(\s+|%20|\+)(?!tokens?\b)[A-Za-z0-9+/=._~-]+", re.IGNORECASE)
_BEGIN = r"(?:\b|(?<=%[0-9a-fA-F]{2}))"
"""Of a word, in what is percent-encoded as well."""
_PARAMETER = re.compile(
    _BEGIN
    + r"((?:authz|(?:access_|bearer_|refresh_|id_)?token|client_secret|password|dcache-http-uuid|xrdhttptk"
    r"|sig|signature|x-amz-[a-z-]+|x-goog-[a-z-]+)(?:=|%3D|[\"']\s*:\s*[\"']))[^&\s'\"<>,;)]+",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"\b(x-(?:amz|goog)-(?:security-token|signature|credential)\s*:\s*)[^\s,;'\"<>]+", re.IGNORECASE
)
"""In what a service of S3 says of a signature."""
_TOKEN = re.compile(
    _BEGIN + r"(?:[Mm][DT][A-Za-z0-9+/_-]{60,}=*|eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,4})"
)
"""A macaroon begins with the length of its first packet, a JSON web token with ``{"``."""


class Secret:
    """A text whose `repr`, `str` and format are masked, and which is neither pickled nor copied.

    Parameters
    ----------
    value : `str`
        The secret itself.

    Notes
    -----
    `reveal` is called where a request is put on the wire, and where a user asked to see the secret.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret text."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({_MASK})"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(other._value.encode(), self._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled or copied: hand over the place where it is found")

    def __getstate__(self) -> NoReturn:
        self.__reduce__()


def redact_url(url: str) -> str:
    """Return a URL as it may be shown: without user information, query values and fragment.

    Parameters
    ----------
    url : `str`
        Any URL or path.

    Returns
    -------
    shown : `str`
        Scheme, host, port and path, and of an S3 URL the name of its profile; a query is shown as
        ``?name=***``, without the mask where the name is one of few that are known to be harmless.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # not a URL at all, so nothing says which part of it is harmless
        return _MASK
    shown = f"{parts.scheme}://" if parts.scheme else ""
    user, at, host = parts.netloc.rpartition("@")
    if parts.scheme == "s3" and _NAME.fullmatch(user):
        shown += user + at
    shown += host + parts.path
    return f"{shown}?{_redact_query(parts.query)}" if parts.query else shown


def has_credential(url: str) -> bool:
    """Tell whether a URL holds, or may hold, a credential.

    Parameters
    ----------
    url : `str`
        Any URL.

    Returns
    -------
    has : `bool`
        Whether there is user information, or a query of which not all is known to be harmless or to name one
        transfer of dCache, which ends with it and gives no right to anything else.
    """
    shown, _, query = url.partition("#")[0].partition("?")
    pairs = [pair for pair in query.split("&") if pair and pair.partition("=")[0] not in _TRANSFER]
    return redact_url(shown) != shown or any(_redact_pair(pair) != pair for pair in pairs)


def _redact_query(query: str) -> str:
    return "&".join(map(_redact_pair, query.split("&")))


def _redact_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    # A pair without "=" may itself be the secret, and so may what is no name: base64 ends with "=".
    if not equals or not _NAME.fullmatch(name):
        return _MASK
    shown = value if name.lower() in _HARMLESS and _VALUE.fullmatch(value) else _MASK
    return f"{name}={shown}"


def redact_text(text: str) -> str:
    """Return a text, such as a server's message, with credentials and the queries of URLs masked.

    Parameters
    ----------
    text : `str`
        Any text.

    Returns
    -------
    shown : `str`
        The text as it may be logged.
    """
    text = _URL.sub(lambda found: redact_url(found.group()), text)
    text = _QUERY.sub(lambda found: f"?{_redact_query(found[1])}", text)
    text = _CREDENTIAL.sub(lambda found: f"{found[1]} {_MASK}", text)
    text = _HEADER.sub(lambda found: found[1] + _MASK, text)
    text = _PARAMETER.sub(lambda found: found[1] + _MASK, text)
    return _TOKEN.sub(_MASK, text)
