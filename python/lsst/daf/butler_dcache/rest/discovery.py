"""Which server has the tape API of a door, and so the frontend of a dCache (protocol page, section 7.5).

Every door, that of XRootD too, tells it under one well-known name to whoever asks, without a login. What it
tells is narrowed by `.one_site`: the server that it names would get our credential.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config.settings import Origin, origin_of
from ..errors import ConfigurationError, ProtocolError, UnsupportedError
from ..transport.control import ControlPlane
from ..transport.deadline import Deadline
from ..transport.failures import failure
from .api import document_of
from .one_site import is_of_one_site

__all__ = ("TapeEndpoint", "find_tape_endpoint")

_log = logging.getLogger(__name__)

_PATH = ".well-known/wlcg-tape-rest-api"
_VERSION = "v1"
_API_OF_FRONTEND = "/api/v1/tape"
_OPERATION = "find the tape API"


@dataclass(frozen=True)
class TapeEndpoint:
    """Where a tape API is.

    Parameters
    ----------
    api_base : `str`
        What its URLs begin with, without slash at the end: ``https://host:3880/api/v1/tape``.
    frontend_base : `str` or `None`
        Base of the frontend that it belongs to, ``https://host:3880/``, if it is that of a dCache.
    sitename : `str`, optional
        What the site calls itself.
    """

    api_base: str
    frontend_base: str | None
    sitename: str = ""


def find_tape_endpoint(
    base_url: str, control: ControlPlane, deadline: Deadline, *, is_dcache: bool = False
) -> TapeEndpoint:
    """Ask a door for the tape API (1 request, without a credential).

    Parameters
    ----------
    base_url : `str`
        URL of the door, with its slash.
    control : `ControlPlane`
        Sends the request. A redirect is an answer to it, and none that tells anything.
    deadline : `Deadline`
        When to give up.
    is_dcache : `bool`, optional
        Whether the door is known to be dCache's, although its answers may not say so.

    Returns
    -------
    endpoint : `TapeEndpoint`
        The first one of version 1 that the credential may follow to.

    Raises
    ------
    UnsupportedError
        Raised if the door knows of none.
    DcacheError
        Raised by cause.
    """
    url = base_url + _PATH
    # 401 is no refusal of ours, who sent nothing; it tells that nothing is told.
    answer = control.request("GET", url, deadline=deadline, authenticate=False, ok=(401,))
    if answer.status >= 500:
        raise failure(answer, operation=_OPERATION, url=base_url, body=answer.body, method="GET")
    if answer.status != 200:
        raise UnsupportedError(
            "the door knows of no tape API", operation=_OPERATION, url=base_url, status=answer.status
        )
    server = str(answer.headers.get("Server", "")).lower()
    is_frontend = is_dcache or server.startswith("dcache")
    document = document_of(answer, dict, operation=_OPERATION, url=base_url)
    for place, origin in _announced(document, base_url, answer.status):
        if not _may_follow(base_url, origin):
            _log.warning(
                "the door %s names %s for its tape API, which is ignored: no server of that name, or without "
                "TLS, gets the credential of this endpoint unless it is configured as frontend_url",
                base_url,
                place,
            )
            continue
        base = place.removesuffix(_API_OF_FRONTEND)
        frontend = f"{base}/" if is_frontend and base != place else None
        return TapeEndpoint(place, frontend, str(document.get("sitename") or ""))
    raise UnsupportedError("the door names no tape API that may be used", operation=_OPERATION, url=base_url)


def _may_follow(base_url: str, origin: Origin) -> bool:
    scheme, host, _ = origin_of(base_url)
    return is_of_one_site(host, origin[1]) and origin[0] in ("https", scheme)


def _announced(document: Mapping[str, Any], base_url: str, status: int) -> list[tuple[str, Origin]]:
    """Return URL and origin of each tape API of our version; what cannot be understood is left out."""
    rows = document.get("endpoints")
    if not isinstance(rows, list):
        raise ProtocolError(
            "the answer lists no endpoints", operation=_OPERATION, url=base_url, status=status
        )
    found = []
    for row in rows:
        place = row.get("uri") if isinstance(row, Mapping) else None
        if not isinstance(place, str) or str(row.get("version")).lower() != _VERSION:
            continue
        place = place.rstrip("/")
        try:
            scheme, host, port = origin_of(place)
        except ConfigurationError:
            continue
        path = place.partition("://")[2].partition("/")[2]
        authority = f"[{host}]" if ":" in host else host
        # Rewritten from its parts: no user name, and nothing that would end the path.
        if path and path.isprintable() and not any(character in path for character in "?#\\ "):
            found.append((f"{scheme}://{authority}:{port}/{path}", (scheme, host, port)))
    return found
