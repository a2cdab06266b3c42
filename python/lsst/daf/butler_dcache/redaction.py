"""Secrets that cannot be printed, and URLs that may be.

What is shown of a URL is decided by an allow-list: scheme, host, port and path. Of the query only the *names*
of parameters remain: ``authz`` is a token, ``dcache-http-uuid`` the capability of a mover (protocol page,
section 2.4), ``X-Amz-Signature`` a signature, and the next server will invent another.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

__all__ = ("Secret", "redact_text", "redact_url")

_MASK = "***"
_URL = re.compile(r"\b(?:https?|davs?|s3|root|xroot)://[^\s'\"<>]+", re.IGNORECASE)
_CREDENTIAL = re.compile(r"\b(Bearer|Basic)(\s+|%20)[A-Za-z0-9+/=._~-]+", re.IGNORECASE)
_PARAMETER = re.compile(
    r"\b(authz|access_token|token|dcache-http-uuid|xrdhttptk|X-Amz-Signature|X-Amz-Security-Token)=[^&\s'\"]+",
    re.IGNORECASE,
)


class Secret:
    """A text whose `repr`, `str` and format are masked and which does not pickle.

    Parameters
    ----------
    value : `str`
        The secret itself.

    Notes
    -----
    `reveal` is called in one place only: where a request is put on the wire.
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
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a secret does not pickle: hand over the place where it is found")


def redact_url(url: str) -> str:
    """Return a URL as it may be shown: without user information, query values and fragment.

    Parameters
    ----------
    url : `str`
        Any URL or path.

    Returns
    -------
    shown : `str`
        Scheme, host, port and path; a query is shown as ``?name=***``.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # not a URL at all, so nothing says which part of it is harmless
        return _MASK
    shown = f"{parts.scheme}://" if parts.scheme else ""
    shown += parts.netloc.rpartition("@")[2] + parts.path
    if parts.query:
        names = [pair.partition("=")[0] for pair in parts.query.split("&")]
        # A query without "=" may itself be the secret.
        shown += "?" + "&".join(f"{name}={_MASK}" if "=" in parts.query else _MASK for name in names)
    return shown


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
    text = _CREDENTIAL.sub(lambda found: f"{found.group(1)} {_MASK}", text)
    return _PARAMETER.sub(lambda found: f"{found.group(1)}={_MASK}", text)
