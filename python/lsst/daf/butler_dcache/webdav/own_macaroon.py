"""The one macaroon of an endpoint: its own credential, or what a server makes of that.

Theory of operation
-------------------
Where the endpoint's credential is a macaroon it is used. Where it is something else one wide macaroon is
asked for, over TLS only, and kept for this process and its forked children. It is renewed when a fifth of its
life is left, by one thread, while the others go on with it; they wait only where none is good enough. What is
made of a token ends with the token, so it is made anew when the token changes, and not before.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ..auth.credential import Credential
from ..auth.macaroon import Macaroon
from ..errors import (
    AccessDeniedError,
    CredentialError,
    DcacheError,
    DeadlineError,
    ProtocolError,
    ServerError,
    UnsupportedError,
)
from ..transport.deadline import Deadline
from .addresses import decoded_path, origin
from .door import Door
from .minting import LifetimeRefusedError, as_macaroon, mint

__all__ = ("OwnMacaroon",)

_LIFETIME_SECONDS = 12 * 3600.0
_LONGEST_MARGIN_SECONDS = 3600.0
_SHORTEST_LIFE_SECONDS = 2.0
_PAUSE_SECONDS = 30.0
_REFUSED_FOR_SECONDS = 600.0
_MOST_KEPT = 256
_DURATION = re.compile(r"\(PT(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9})S)?\)", re.ASCII)
_UNITS = (3600, 60, 1)


@dataclass(frozen=True)
class _Minted:
    """A macaroon that a server made for us."""

    credential: Credential
    asked_seconds: float
    made: datetime
    renew: datetime | None
    """When to ask for the next; `None` where that would not live longer."""

    def left(self, now: datetime) -> float:
        """Return the rest of its life in seconds."""
        end = self.credential.expires
        return math.inf if end is None else (end - now).total_seconds()


@dataclass(frozen=True)
class _Refusal:
    """When a credential got no macaroon, why, and whether that says that it never gets one."""

    at: float
    error: DcacheError
    certain: bool


class OwnMacaroon:
    """The macaroon that all others of an endpoint are narrowed from.

    Parameters
    ----------
    door : `Door`
        Who mints.
    clock : `~collections.abc.Callable`
        Monotonic time in seconds.
    now : `~collections.abc.Callable`
        The present.

    Notes
    -----
    Thread-safe. A forked child goes on with the macaroon of its parent.
    """

    def __init__(
        self,
        door: Door,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._door = door
        self._clock = clock
        self._now = now
        self._parsed: dict[str, Macaroon] = {}
        self._minted: dict[tuple[str, str], _Minted] = {}
        self._refused: dict[tuple[str, str], _Refusal] = {}
        self.after_fork()

    def after_fork(self) -> None:
        """Make the locks of a forked child its own."""
        self._lock = threading.Lock()
        self._minting = threading.Lock()

    def current(
        self,
        *,
        deadline: Deadline,
        mint: bool = True,
        strict: bool = False,
        url: str = "",
        lifetime_seconds: float = 0.0,
    ) -> Credential | None:
        """Return the credential as a macaroon.

        Parameters
        ----------
        deadline : `Deadline`
            When to give up asking for one.
        mint : `bool`, optional
            Whether one may be asked for where the credential is none.
        strict : `bool`, optional
            Raise if it cannot be found out now whether there is one to be had.
        url : `str`, optional
            What it is for: XRootD's rights differ from path to path.
        lifetime_seconds : `float`, optional
            How long it should live at least, if that can be had.

        Returns
        -------
        credential : `Credential` or `None`
            The endpoint's own, or one that the server made; `None` where there is none to be had.
        """
        current = self._door.credentials.current()
        if self.parse(current) is not None:
            return current
        place = self.place(url)
        key = (current.fingerprint, place)
        held = self._minted.get(key)
        if held is not None and self._is_good(held, lifetime_seconds):
            return held.credential
        usable = held is not None and held.left(self._now()) > max(lifetime_seconds, _SHORTEST_LIFE_SECONDS)
        if not mint or not self._may_mint(key, current, strict):
            return held.credential if held is not None and self._is_alive(held) else None
        if not self._minting.acquire(timeout=0.0 if usable else deadline.remaining()):
            if held is None or not usable:
                raise DeadlineError("another thread asks for a macaroon, without an answer yet", url=url)
            return held.credential
        try:
            held = self._minted.get(key)
            if held is not None and self._is_good(held, lifetime_seconds):
                return held.credential
            return self._mint(key, current, held, lifetime_seconds, deadline, strict)
        finally:
            self._minting.release()

    def place(self, url: str) -> str:
        """Return the path that a macaroon for a URL is asked for at: as wide as the server allows."""
        if self._door.dialect != "xrootd" or not url:
            return "/"
        first = decoded_path(url).split("/")[1]
        return f"/{first}/" if first else "/"

    def discard(self, base: Credential) -> bool:
        """Forget a macaroon that a server made, unless that was a moment ago; return whether it is gone."""
        with self._lock:
            for key, held in self._minted.items():
                age = (self._now() - held.made).total_seconds()
                if held.credential is base and age > _PAUSE_SECONDS:
                    del self._minted[key]
                    return True
        return False

    def _is_alive(self, held: _Minted) -> bool:
        return held.left(self._now()) > _SHORTEST_LIFE_SECONDS

    def _is_good(self, held: _Minted, lifetime_seconds: float) -> bool:
        now = self._now()
        if not self._is_alive(held) or (held.renew is not None and now >= held.renew):
            return False
        if held.left(now) >= lifetime_seconds or held.renew is None:
            return True
        # Longer is wanted than is left. Not asked for anew with each URL as the first second has passed.
        age = (now - held.made).total_seconds()
        return held.asked_seconds >= lifetime_seconds and age <= held.asked_seconds / 8

    def _mint(
        self,
        key: tuple[str, str],
        current: Credential,
        held: _Minted | None,
        lifetime_seconds: float,
        deadline: Deadline,
        strict: bool,
    ) -> Credential | None:
        asked = max(_LIFETIME_SECONDS, 1.25 * lifetime_seconds)
        try:
            minted = self._ask(key[1], asked, deadline)
        except DcacheError as error:
            if held is not None and self._is_alive(held):
                later = self._now() + timedelta(seconds=_PAUSE_SECONDS)
                self._keep(key, _Minted(held.credential, held.asked_seconds, held.made, later))
                return held.credential
            self._refuse(key, error, strict)
            return None
        made = self._now()
        renew = self._time_to_renew(current, minted, made, held)
        self._keep(key, _Minted(minted, asked, made, renew))
        return minted

    def _ask(self, place: str, asked: float, deadline: Deadline) -> Credential:
        url = origin(self._door.settings.base_url) + place
        try:
            return mint(self._door, url, lifetime_seconds=asked, deadline=deadline)
        except LifetimeRefusedError as refused:
            longest = _longest(refused.reason)
        try:
            # Unasked a site may give much less than it would: dCache a day, and a week at most.
            return mint(self._door, url, lifetime_seconds=longest, deadline=deadline)
        except LifetimeRefusedError:
            return mint(self._door, url, deadline=deadline)

    def _time_to_renew(
        self, current: Credential, minted: Credential, made: datetime, held: _Minted | None
    ) -> datetime | None:
        end = minted.expires
        if end is None:
            return None
        if current.expires is not None and current.expires - end < timedelta(seconds=60):
            return None
        if held is not None and held.credential.expires is not None:
            gained = end - held.credential.expires
            if current.kind == "bearer" and gained < timedelta(seconds=1):
                return None  # a token that does not say when it ends
        margin = min((end - made).total_seconds() / 5, _LONGEST_MARGIN_SECONDS)
        return end - timedelta(seconds=margin)

    def _refuse(self, key: tuple[str, str], error: DcacheError, strict: bool) -> None:
        """Remember why there is none, and raise what the caller must know."""
        if isinstance(error, CredentialError):
            raise error
        if isinstance(error, AccessDeniedError | ProtocolError | UnsupportedError):
            # This door gives none to this identity, and will not a moment later.
            self._remember_refusal(key, error, certain=True)
            return
        if isinstance(error, ServerError):
            # The answer to an identity with several paths, and to trouble with the store of the secrets
            # (protocol page, section 6.2): not worth another question soon, and no proof of anything.
            self._remember_refusal(key, error, certain=False)
        if strict:
            raise error

    def _keep(self, key: tuple[str, str], minted: _Minted) -> None:
        with self._lock:
            _make_room(self._minted)
            self._minted[key] = minted
            self._refused.pop(key, None)

    def _remember_refusal(self, key: tuple[str, str], error: DcacheError, *, certain: bool) -> None:
        with self._lock:
            _make_room(self._refused)
            self._refused[key] = _Refusal(self._clock(), error, certain)

    def _may_mint(self, key: tuple[str, str], current: Credential, strict: bool) -> bool:
        # Over plain http dCache answers 400 "Not secure transport"; nobody in particular has no rights to
        # pass on.
        if current.kind == "none" or not self._door.settings.is_encrypted:
            return False
        if self._door.dialect == "xrootd" and current.kind == "bearer":
            return False
        refused = self._refused.get(key)
        if refused is None or self._clock() - refused.at > _REFUSED_FOR_SECONDS:
            return True
        return strict and not refused.certain

    def refusal(self, url: str) -> DcacheError | None:
        """Return why there is no macaroon for a URL, if a server has said so."""
        current = self._door.credentials.current()
        refusal = self._refused.get((current.fingerprint, self.place(url)))
        return None if refusal is None else refusal.error

    def parse(self, credential: Credential) -> Macaroon | None:
        """Return a credential as a macaroon, `None` if it is none; those that are used are remembered."""
        name = credential.fingerprint
        parsed = self._parsed.get(name)
        if parsed is None and (parsed := as_macaroon(credential)) is not None:
            with self._lock:
                _make_room(self._parsed)
                self._parsed[name] = parsed
        return parsed


def _longest(reason: str) -> float | None:
    """Seconds of the duration in dCache's refusal (protocol page, section 6.2), as Java writes it."""
    found = _DURATION.search(reason)
    seconds = (
        0
        if found is None
        else sum(int(n or 0) * unit for n, unit in zip(found.groups(), _UNITS, strict=True))
    )
    return float(seconds) or None


def _make_room(table: dict[Any, Any]) -> None:
    if len(table) >= _MOST_KEPT:
        table.clear()
