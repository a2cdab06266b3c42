"""Asking a server for a macaroon.

dCache's door makes one at any path (protocol page, sections 6.1 to 6.4). XRootD (6.2.1,
``XrdMacaroonsHandler.cc``) wants a ``validity``, knows the caveat ``activity`` only, makes nothing of a
macaroon or token, and grants what its table of rights allows at that path, which may be less than was asked.
Where neither answers, the server's token endpoint is looked up as RFC 8414 has it; XRootD and StoRM have one.

What was made is read before it is used: dCache issues macaroons that it will refuse (section 6.2).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode, urlsplit

from ..auth.credential import Credential
from ..auth.macaroon import Activity, Dialect, Macaroon, NotAMacaroonError
from ..config.settings import origin_of
from ..errors import (
    AccessDeniedError,
    CredentialError,
    DcacheError,
    ProtocolError,
    UnsupportedError,
    hides_locals,
)
from ..transport.control import Answer
from ..transport.deadline import Deadline
from ..transport.failures import failure
from .addresses import decoded_path, origin
from .door import Door

__all__ = ("LifetimeRefusedError", "as_macaroon", "mint")

_OPERATION = "ask for a macaroon"
_MACAROON_REQUEST = "application/macaroon-request"
_FORM = "application/x-www-form-urlencoded"
_DISCOVERY = "/.well-known/oauth-authorization-server"
_LIFETIME_SECONDS = 12 * 3600.0
"""What XRootD is asked for where nobody says how long."""
_NO_SUCH_REQUEST = (404, 405, 415, 501)
_HINTS = {
    "beyond maximum allowed": "Ask for a shorter lifetime.",
    "cannot extend session lifetime": "The credential that asks ends earlier: ask for a shorter lifetime.",
    "not within existing path": "The macaroon that asks does not reach this path.",
    "Cannot serialise restriction": "A token with several paths, or with other rights on each, does not fit "
    "into a macaroon: use one with a single path.",
}


class LifetimeRefusedError(AccessDeniedError):
    """The site makes no macaroon that lives so long."""


def as_macaroon(credential: Credential) -> Macaroon | None:
    """Return a credential as a macaroon, `None` if it is none.

    Parameters
    ----------
    credential : `Credential`
        Any.
    """
    if credential.kind != "bearer" or credential.secret is None:
        return None
    try:
        return Macaroon.parse(credential.secret.reveal())
    except NotAMacaroonError:
        return None


@hides_locals
def mint(
    door: Door,
    url: str,
    *,
    deadline: Deadline,
    activities: Collection[Activity] = (),
    lifetime_seconds: float | None = None,
    addresses: Collection[str] = (),
    max_upload_bytes: int | None = None,
) -> Credential:
    """Ask for a macaroon with the credential of the endpoint (1 request, with a token endpoint 3).

    Parameters
    ----------
    door : `Door`
        Who makes it.
    url : `str`
        File or directory that it is for; with ``/`` dCache makes one for everything that we may do.
    deadline : `Deadline`
        When to give up.
    activities : `~collections.abc.Collection` [`Activity`], optional
        What it shall allow; everything if empty.
    lifetime_seconds : `float`, optional
        How long it shall live; as long as the server likes if not given.
    addresses : `~collections.abc.Collection` [`str`], optional
        Addresses and networks of its users (dCache).
    max_upload_bytes : `int`, optional
        Largest file that may be written (dCache).

    Returns
    -------
    credential : `Credential`
        The macaroon.

    Raises
    ------
    AccessDeniedError
        If the server refuses, with its reason; or if it grants less than was asked.
    LifetimeRefusedError
        If it refuses the lifetime only.
    UnsupportedError
        If the endpoint is not encrypted, or the server makes no macaroons.
    CredentialError
        If there is no credential, or the server does not accept it.
    """
    if not door.settings.is_encrypted:
        # dCache answers 400 "Not secure transport", having read everything.
        raise UnsupportedError(
            "a macaroon is asked for over TLS only", operation=_OPERATION, url=url, hint="Use the davs URL."
        )
    current = door.credentials.current()
    if current.kind == "none":
        raise CredentialError("nobody in particular has no rights to pass on", operation=_OPERATION, url=url)
    wanted = frozenset(activities)
    _check_kind(door, current, url)
    own = as_macaroon(current)
    if own is not None and wanted - own.activities:
        raise _too_much(wanted - own.activities, url)
    if own is not None and wanted - {Activity.READ_METADATA}:
        # Named where an earlier caveat did not name it, READ_METADATA would enlarge the set.
        wanted &= own.scope.explicit
    answer = _ask(door, url, current, wanted, lifetime_seconds, addresses, max_upload_bytes, deadline)
    token = _token_of(answer, url)
    macaroon = Macaroon.parse(token)
    missing = wanted - macaroon.activities
    if missing or (macaroon.dialect is Dialect.XROOTD and not macaroon.scope.identity):
        raise _too_much(missing or wanted, url)
    if macaroon.scope.problems:
        raise AccessDeniedError(
            f"the server made a macaroon that it will not accept: {macaroon.scope.problems[0]}",
            operation=_OPERATION,
            url=url,
        )
    token = _shortened(macaroon, token, lifetime_seconds)
    return Credential.bearer(token, f"macaroon for {current.origin or current.kind}")


def _check_kind(door: Door, current: Credential, url: str) -> None:
    """Refuse where the kind of server, if it is known already, makes nothing of such a credential."""
    if current.kind == "bearer" and door.dialect == "xrootd":
        raise UnsupportedError(
            "XRootD makes macaroons for client certificates only", operation=_OPERATION, url=url
        )


def _ask(
    door: Door,
    url: str,
    current: Credential,
    wanted: frozenset[Activity],
    lifetime_seconds: float | None,
    addresses: Collection[str],
    max_upload_bytes: int | None,
    deadline: Deadline,
) -> Answer:
    caveats = []
    if wanted:
        caveats.append("activity:" + ",".join(word.value for word in Activity if word in wanted))
    if addresses:
        caveats.append("ip:" + ",".join(addresses))
    if max_upload_bytes is not None:
        caveats.append(f"max-upload:{max_upload_bytes}")
    wishes: dict[str, object] = {"caveats": caveats} if caveats else {}
    # A session that ends must not be asked to be longer: 400 "cannot extend session lifetime". What is made
    # of a token without a validity ends with it, and is shortened afterwards.
    if current.kind != "bearer" and (lifetime_seconds is not None or door.dialect != "dcache"):
        wishes["validity"] = f"PT{int(lifetime_seconds or _LIFETIME_SECONDS)}S"
    answer = door.ask(
        "POST",
        url,
        operation=_OPERATION,
        deadline=deadline,
        headers={"Content-Type": _MACAROON_REQUEST},
        body=json.dumps(wishes).encode(),
        accept=(200, 400, *_NO_SUCH_REQUEST),
    )
    if answer.status in _NO_SUCH_REQUEST and door.dialect != "dcache":
        if addresses or max_upload_bytes is not None:
            raise UnsupportedError("this server has no such caveat", operation=_OPERATION, url=url)
        answer = _ask_token_endpoint(door, url, wanted, lifetime_seconds, deadline)
    if answer.status != 200:
        _check_kind(door, current, url)
        raise _refusal(answer, url)
    return answer


def _ask_token_endpoint(
    door: Door, url: str, wanted: frozenset[Activity], lifetime_seconds: float | None, deadline: Deadline
) -> Answer:
    path = decoded_path(url)
    if " " in path:
        raise UnsupportedError("a path with blanks does not fit into a scope", operation=_OPERATION, url=url)
    place = origin(door.settings.base_url) + _DISCOVERY
    for _ in range(2):
        found = door.ask(
            "GET", place, operation=_OPERATION, deadline=deadline, accept=(200, 400, *_NO_SUCH_REQUEST)
        )
        # XRootD takes the body of a POST that it has just refused for the next request, and then closes.
        if found.status != 400:
            break
    try:
        endpoint = str(json.loads(found.body)["token_endpoint"]) if found.status == 200 else ""
        ours = bool(endpoint) and origin_of(endpoint) in door.settings.origins
    except (ValueError, KeyError, TypeError, RecursionError):
        ours = False
    if not ours:
        raise UnsupportedError(
            "this server makes no macaroons, and has no token endpoint of its own that does",
            operation=_OPERATION,
            url=url,
            status=found.status,
        )
    form = {
        "grant_type": "client_credentials",
        "scope": " ".join(f"{word.value}:{path}" for word in Activity if word in wanted),
    }
    if lifetime_seconds is not None:
        form["expire_in"] = str(int(lifetime_seconds))
    return door.ask(
        "POST",
        origin(door.settings.base_url) + quote(urlsplit(endpoint).path, safe="/%"),
        operation=_OPERATION,
        deadline=deadline,
        headers={"Content-Type": _FORM},
        body=urlencode(form, quote_via=quote).encode(),
        accept=(200, 400),
    )


def _refusal(answer: Answer, url: str) -> DcacheError:
    error = failure(answer, operation=_OPERATION, url=url, body=answer.body, method="POST")
    if answer.status != 400:
        return error
    kind = LifetimeRefusedError if "beyond maximum allowed" in error.reason else AccessDeniedError
    return kind(
        "the server does not make this macaroon",
        operation=_OPERATION,
        url=url,
        status=answer.status,
        reason=error.reason,
        hint=next((hint for words, hint in _HINTS.items() if words in error.reason), ""),
    )


def _token_of(answer: Answer, url: str) -> str:
    try:
        document = json.loads(answer.body)
        token = str(document["macaroon"] if "macaroon" in document else document["access_token"])
        Macaroon.parse(token)
    except (ValueError, KeyError, TypeError, RecursionError):
        # The cause may quote the answer, which may hold the token.
        raise ProtocolError(
            "the answer holds no macaroon", operation=_OPERATION, url=url, status=answer.status
        ) from None
    return token


def _shortened(macaroon: Macaroon, token: str, lifetime_seconds: float | None) -> str:
    if lifetime_seconds is None:
        return token
    end = datetime.now(UTC) + timedelta(seconds=lifetime_seconds)
    if macaroon.expires is not None and macaroon.expires <= end + timedelta(seconds=1):
        return token
    return macaroon.narrow(before=end)


def _too_much(activities: Collection[Activity], url: str) -> AccessDeniedError:
    names = ", ".join(sorted(activity.value for activity in activities))
    return AccessDeniedError(
        f"the credential that asks cannot pass on {names or 'any right'}", operation=_OPERATION, url=url
    )
