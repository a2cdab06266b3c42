"""URLs that give whoever holds them one right for a while: a macaroon in the query."""

from __future__ import annotations

from urllib.parse import quote

from ..auth.macaroon import Activity
from ..errors import UnsupportedError
from ..webdav.addresses import to_http
from ..webdav.door import Door
from ..webdav.rights import Rights

__all__ = ("presign", "with_token")

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
    credential = rights.delegate(
        url, activities={activity}, lifetime_seconds=lifetime_seconds, deadline=door.deadline()
    )
    assert credential.secret is not None
    return with_token(url, credential.secret.reveal())


def with_token(url: str, token: str) -> str:
    """Return the ``https`` form of a URL with a token in its query.

    Parameters
    ----------
    url : `str`
        File or directory.
    token : `str`
        Macaroon or other bearer token.
    """
    return f"{to_http(url).partition('?')[0]}?authz={quote(token, safe='')}"
