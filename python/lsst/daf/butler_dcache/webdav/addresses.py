"""Names of files: URLs of our schemes, of HTTP, and the temporary names of uploads.

Everything here is arithmetic on text. A path is compared in decoded form, since servers encode names each in
their own way (protocol page, sections 2.4 and 4.1), and sent as the caller encoded it.
"""

from __future__ import annotations

import posixpath
import re
import uuid
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

from ..config.settings import origin_of
from ..errors import ConfigurationError
from ..transport.ownership import mark, owner_of

__all__ = (
    "LEGAL_IN_PATH",
    "as_directory",
    "decoded_path",
    "is_lock",
    "is_temporary",
    "join",
    "lock_name",
    "origin",
    "parent",
    "same_name",
    "temporary_name",
    "to_http",
)

_SCHEMES = {"davs": "https", "dav": "http", "https": "https", "http": "http"}

LEGAL_IN_PATH = "/%:@!$&'()*+,;=-._~"
"""What a percent-encoded path holds beside letters and digits (RFC 3986, section 3.3)."""

_NAME_LIMIT_BYTES = 255
"""Longer names are refused with 500 ``Name too long`` (protocol page, section 4.1)."""

_LOCK = re.compile(r"^\.dcb-[0-9a-f]{32}\.lock\.")

_remembered = lru_cache(maxsize=512)
"""One operation asks the same of the same few names several times."""


@_remembered
def to_http(url: str) -> str:
    """Return the URL that goes to the server for one of ours.

    Parameters
    ----------
    url : `str`
        A ``davs``, ``dav``, ``https`` or ``http`` URL.

    Returns
    -------
    http_url : `str`
        The same place as ``https`` or ``http``, without fragment.

    Raises
    ------
    ConfigurationError
        Raised if the scheme is another.
    """
    scheme, separator, rest = url.partition("://")
    known = _SCHEMES.get(scheme.lower())
    if not separator or known is None:
        raise ConfigurationError("not a URL of a scheme that is served here (davs, dav)", url=url)
    rest = rest.partition("#")[0]
    if "/" not in rest:
        rest += "/"
    return f"{known}://{rest}"


@_remembered
def origin(url: str) -> str:
    """Return scheme, host and port of a URL in one spelling, as ``https://door:2880``.

    Parameters
    ----------
    url : `str`
        Any URL of a scheme that is served here.
    """
    scheme, host, port = origin_of(url)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@_remembered
def decoded_path(url: str) -> str:
    """Return the decoded path of a URL without doubled and trailing slashes."""
    path = posixpath.normpath("/" + unquote(urlsplit(url).path).lstrip("/"))
    return path if path != "." else "/"


def same_name(first: str, second: str) -> bool:
    """Tell whether two URLs name one file, in whatever spelling.

    Parameters
    ----------
    first, second : `str`
        URLs of schemes that are served here.

    Notes
    -----
    dCache deletes a file that is moved onto itself, in another spelling of the path too (protocol page,
    section 4.4): so this is asked before each MOVE.
    """
    return origin(first) == origin(second) and decoded_path(first) == decoded_path(second)


def parent(url: str) -> str:
    """Return the URL, with its slash, of the directory that holds a name.

    Parameters
    ----------
    url : `str`
        URL of a file or directory; that of the root is its own parent.
    """
    scheme, separator, rest = url.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}{separator}{host}/{path.rstrip('/').rpartition('/')[0]}".rstrip("/") + "/"


def as_directory(url: str) -> str:
    """Return a URL with a slash at its end."""
    return url if url.endswith("/") else url + "/"


def join(directory: str, name: str) -> str:
    """Return the URL of a name in a directory.

    Parameters
    ----------
    directory : `str`
        URL of the directory.
    name : `str`
        Name, decoded.
    """
    return as_directory(directory) + quote(name, safe="")


def temporary_name(url: str) -> str:
    """Return a new URL in the same directory for an upload that is not yet published.

    Parameters
    ----------
    url : `str`
        URL under which the file will be published.

    Returns
    -------
    temporary : `str`
        Sibling named ``.dcb-<host>-<place>-<process>-<start>-<16 hexadecimal digits>.<name>``, the name cut
        where it would be too long; see `..transport.ownership`.
    """
    return _sibling(url, mark())


def lock_name(url: str) -> str:
    """Return the URL of the directory that serves as lock for a name (protocol page, section 4.4).

    Parameters
    ----------
    url : `str`
        URL of the name that is locked.

    Returns
    -------
    lock : `str`
        Sibling that is the same for everybody who locks this name.
    """
    # Two long names that share their beginning must not share a lock.
    digest = uuid.uuid5(uuid.NAMESPACE_URL, decoded_path(url)).hex
    return _sibling(url, f".dcb-{digest}.lock.")


def is_temporary(name: str) -> bool:
    """Tell whether a name is one of an unpublished upload or a lock.

    Parameters
    ----------
    name : `str`
        Last component of a path.
    """
    return owner_of(name) is not None or is_lock(name)


def is_lock(name: str) -> bool:
    """Tell whether a name is that of a lock.

    Parameters
    ----------
    name : `str`
        Last component of a path.
    """
    return _LOCK.match(name) is not None


def _sibling(url: str, prefix: str) -> str:
    name = unquote(url.rstrip("/").rpartition("/")[2])
    room = _NAME_LIMIT_BYTES - len(prefix)
    cut = name.encode()[:room].decode(errors="ignore")
    return join(parent(url), prefix + cut)
