"""URLs that give whoever holds them one right for a while: a macaroon in the query."""

from __future__ import annotations

import posixpath
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from ..auth.macaroon import Activity, Macaroon
from ..errors import AccessDeniedError, UnsupportedError
from ..webdav.addresses import decoded_path, to_http
from ..webdav.door import Door
from ..webdav.rights import Rights

__all__ = ("presign",)

_ACTIVITIES = {"GET": Activity.DOWNLOAD, "PUT": Activity.UPLOAD}


def presign(door: Door, rights: Rights, url: str, method: str, lifetime_seconds: int) -> str:
    """Return a URL with a macaroon for one file, one method and some time.

    Parameters
    ----------
    door : `Door`
        The endpoint's doors.
    rights : `Rights`
        Where the macaroon comes from; it is narrowed offline.
    url : `str`
        The file.
    method : `str`
        ``GET``, or ``PUT`` of a new file: replacing one would need the right to delete it.
    lifetime_seconds : `int`
        For how long, and no longer than the credential itself lives.

    Returns
    -------
    presigned : `str`
        An ``https`` URL.

    Raises
    ------
    UnsupportedError
        Raised where there is no macaroon to be had, or no encryption to send it through.
    AccessDeniedError
        Raised if the credential has not that right itself.
    """
    activity = _ACTIVITIES.get(method.upper())
    if activity is None:
        raise UnsupportedError(f"no URL can be signed for {method}", operation="presign", url=url)
    target = to_http(url)
    if not target.startswith("https:"):
        raise UnsupportedError(
            "a macaroon is accepted over TLS only", operation="presign", url=url, hint="Use the davs URL."
        )
    base = rights.macaroon(deadline=door.deadline())
    if base is None or base.secret is None:
        raise UnsupportedError(
            "the credential of this endpoint is no macaroon, and the door makes none of it",
            operation="presign",
            url=url,
        )
    macaroon = Macaroon.parse(base.secret.reveal())
    if activity not in macaroon.activities:
        raise AccessDeniedError(
            f"the macaroon lacks {activity.value}, so it cannot pass it on", operation="presign", url=url
        )
    end = datetime.now(UTC) + timedelta(seconds=lifetime_seconds)
    token = macaroon.attenuate(
        f"activity:{activity.value}",
        f"path:{_path_caveat(macaroon, url)}",
        f"before:{end.strftime('%Y-%m-%dT%H:%M:%SZ')}",
    )
    return f"{target.partition('?')[0]}?authz={quote(token, safe='')}"


def _path_caveat(macaroon: Macaroon, url: str) -> str:
    path = decoded_path(url)
    if any(caveat.startswith("name:") for caveat in macaroon.caveats):
        return path  # XRootD: each path caveat is absolute, and all must hold
    # dCache: paths concatenate (protocol page, section 6.5).
    base = "/"
    for caveat in macaroon.caveats:
        key, _, value = caveat.partition(":")
        if key == "path":
            base = posixpath.normpath(base + "/" + value.strip("/"))
    prefix = "/" + base.strip("/")
    if prefix == "/":
        return path
    if path == prefix:
        return "/"
    if not path.startswith(prefix + "/"):
        raise AccessDeniedError("the macaroon does not reach this path", operation="presign", url=url)
    return path[len(prefix) :]
