"""Credentials that can do less, so that the server itself prevents what must not happen.

Two rights matter (protocol page, sections 4.4 and 6.6):

- Without DELETE a macaroon creates and never replaces, and dCache's name space sees to it in one step: of
several
  writers exactly one succeeds.
- Without LIST a DELETE, and a MOVE that replaces, cannot look into a directory. dCache removes a tree by
listing
  it and removing what it finds, so that with such a macaroon the tree stays.

A macaroon is narrowed offline, at no request. Where the credential is something else a macaroon is asked for
once, over TLS only, and kept until shortly before it ends.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ..auth.credential import Credential
from ..auth.macaroon import Activity, Macaroon, MacaroonAttenuationError, NotAMacaroonError
from ..errors import (
    AccessDeniedError,
    CredentialError,
    DcacheError,
    ProtocolError,
    ServerError,
    UnsupportedError,
)
from ..transport.deadline import Deadline
from .addresses import origin
from .door import Door

__all__ = ("Rights", "is_macaroon", "lacks")

_MACAROON_REQUEST = "application/macaroon-request"
_MINTED_LIFETIME = "PT12H"
_RENEW_BEFORE = timedelta(minutes=5)
_REFUSED_FOR_SECONDS = 600.0


class Rights:
    """The narrowed forms of an endpoint's credential.

    Parameters
    ----------
    door : `Door`
        Who mints.
    clock : `~collections.abc.Callable`, optional
        Monotonic time in seconds.

    Notes
    -----
    Thread-safe. Two threads that find no macaroon may both ask for one, which does no harm; a lock held
    during a request would make all threads wait for one server.
    """

    def __init__(self, door: Door, clock: Callable[[], float] = time.monotonic) -> None:
        self._door = door
        self._clock = clock
        self._lock = threading.Lock()
        self._narrowed: dict[tuple[str, frozenset[Activity]], Credential] = {}
        self._minted: dict[str, Credential] = {}
        # When a credential got no macaroon, and whether that says that it never gets one.
        self._refused: dict[str, tuple[float, bool]] = {}

    def after_fork(self) -> None:
        """Make the locks of a forked child its own."""
        self._lock = threading.Lock()

    def without(
        self, *activities: Activity, deadline: Deadline, mint: bool = True, strict: bool = False
    ) -> Credential | None:
        """Return the credential without some rights.

        Parameters
        ----------
        *activities : `Activity`
            The rights to give up.
        deadline : `Deadline`
            When to give up asking for a macaroon.
        mint : `bool`, optional
            Whether a macaroon may be asked for where the credential is none.
        strict : `bool`, optional
            Raise if it cannot be found out now whether there is one to be had.

        Returns
        -------
        credential : `Credential` or `None`
            `None` where no macaroon is to be had.
        """
        base = self.macaroon(deadline=deadline, mint=mint, strict=strict)
        if base is None:
            return None
        key = (base.fingerprint, frozenset(activities))
        known = self._narrowed.get(key)
        if known is None:
            try:
                token = _parse(base).without(*activities)
            except MacaroonAttenuationError:
                return None
            known = Credential.bearer(token, f"{base.origin}, narrowed")
            with self._lock:
                if len(self._narrowed) >= 256:
                    self._narrowed.clear()
                self._narrowed[key] = known
        return known

    def macaroon(self, *, deadline: Deadline, mint: bool = True, strict: bool = False) -> Credential | None:
        """Return the credential as a macaroon.

        Parameters
        ----------
        deadline : `Deadline`
            When to give up asking for one.
        mint : `bool`, optional
            Whether one may be asked for where the credential is none.
        strict : `bool`, optional
            Raise if it cannot be found out now whether there is one to be had.

        Returns
        -------
        credential : `Credential` or `None`
            The endpoint's own, or one that the door made; `None` where there is none to be had.
        """
        current = self._door.credentials.current()
        if is_macaroon(current):
            return current
        minted = self._minted.get(current.fingerprint)
        if minted is not None and (
            minted.expires is None or minted.expires - datetime.now(UTC) > _RENEW_BEFORE
        ):
            return minted
        if not mint or not self._may_mint(current, strict):
            return None
        try:
            minted = self._mint(current, deadline)
        except CredentialError:
            raise
        except (AccessDeniedError, ProtocolError, UnsupportedError):
            # This door gives none to this identity, and will not a moment later.
            self._remember_refusal(current, certain=True)
            return None
        except ServerError:
            # The answer to an identity with several paths, and to trouble with the store of the secrets
            # (protocol page, section 6.2): not worth another question soon, and no proof of anything.
            self._remember_refusal(current, certain=False)
            if strict:
                raise
            return None
        except DcacheError:
            if strict:
                raise
            return None
        with self._lock:
            self._minted = {current.fingerprint: minted}
        return minted

    def _remember_refusal(self, current: Credential, *, certain: bool) -> None:
        with self._lock:
            self._refused[current.fingerprint] = self._clock(), certain

    def _may_mint(self, current: Credential, strict: bool) -> bool:
        # Over plain http dCache answers 400 "Not secure transport"; nobody in particular has no rights to
        # pass on.
        if current.kind == "none" or not self._door.settings.is_encrypted:
            return False
        if self._door.dialect not in ("dcache", "auto"):
            return False
        refused = self._refused.get(current.fingerprint)
        if refused is None or self._clock() - refused[0] > _REFUSED_FOR_SECONDS:
            return True
        return strict and not refused[1]

    def _mint(self, current: Credential, deadline: Deadline) -> Credential:
        """Ask for a macaroon for everything that this identity may do (protocol page, section 6.1)."""
        # A session that ends must not be asked to be longer: 400 "cannot extend session lifetime".
        wishes = {} if current.kind == "bearer" else {"validity": _MINTED_LIFETIME}
        url = origin(self._door.settings.base_url) + "/"
        answer = self._door.ask(
            "POST",
            url,
            operation="ask for a macaroon",
            deadline=deadline,
            headers={"Content-Type": _MACAROON_REQUEST},
            body=json.dumps(wishes).encode(),
            accept=(200,),
        )
        try:
            token = str(json.loads(answer.body)["macaroon"])
            Macaroon.parse(token)
        except (ValueError, KeyError, TypeError) as error:
            raise ProtocolError(
                "the answer holds no macaroon", operation="ask for a macaroon", url=url
            ) from error
        return Credential.bearer(token, f"macaroon for {current.origin or current.kind}")


def is_macaroon(credential: Credential) -> bool:
    """Tell whether a credential is a macaroon.

    Parameters
    ----------
    credential : `Credential`
        Any.
    """
    if credential.kind != "bearer" or credential.secret is None:
        return False
    try:
        _parse(credential)
    except NotAMacaroonError:
        return False
    return True


def lacks(credential: Credential, activity: Activity) -> bool:
    """Tell whether a credential is a macaroon that says itself that it has not some right.

    Parameters
    ----------
    credential : `Credential`
        Any.
    activity : `Activity`
        The right.
    """
    return is_macaroon(credential) and activity not in _parse(credential).activities


def _parse(credential: Credential) -> Macaroon:
    assert credential.secret is not None
    return Macaroon.parse(credential.secret.reveal())
