"""Credentials that can do less: one macaroon of an endpoint, narrowed for each purpose at no request.

Who may do less is stopped by the server itself. Two rights matter to the client's own work (protocol page,
sections 4.4 and 6.6):

- Without DELETE a macaroon creates and never replaces, and dCache's name space sees to it in one step: of
  several writers exactly one succeeds.
- Without LIST a DELETE, and a MOVE that replaces, cannot look into a directory. dCache removes a tree by
  listing it and removing what it finds, so that with such a macaroon the tree stays.

And whoever gets a URL, or works for us in another process, gets what that takes and no more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta

from ..auth.credential import Credential, refused
from ..auth.macaroon import Activity, MacaroonAttenuationError
from ..errors import AccessDeniedError, DcacheError, UnsupportedError
from ..transport.deadline import Deadline
from .addresses import decoded_path
from .door import Door
from .minting import as_macaroon
from .own_macaroon import OwnMacaroon

__all__ = ("Rights", "lacks")

_log = logging.getLogger(__name__)

_MOST_NARROWED = 256
_LONGEST_SECONDS = 10 * 365 * 86400.0
"""No macaroon lives so long, and calendars end somewhere."""


class Rights:
    """The narrowed forms of an endpoint's credential.

    Parameters
    ----------
    door : `Door`
        Who mints.
    clock : `~collections.abc.Callable`, optional
        Monotonic time in seconds.
    now : `~collections.abc.Callable`, optional
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
        self._now = now
        self._own = OwnMacaroon(door, clock, now)
        self._narrowed: dict[tuple[str, frozenset[Activity]], Credential] = {}
        self._warned: set[str] = set()
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """Make the locks of a forked child its own."""
        self._lock = threading.Lock()
        self._own.after_fork()

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
        base = self._own.current(deadline=deadline, mint=mint, strict=strict)
        if base is None:
            return None
        key = (base.fingerprint, frozenset(activities))
        known = self._narrowed.get(key)
        if known is not None and refused.knows(known) and mint and self._own.discard(base):
            # The server has lost the secret that it signed with: what it made before is void.
            return self.without(*activities, deadline=deadline, strict=strict)
        if known is None:
            macaroon = self._own.parse(base)
            assert macaroon is not None
            try:
                token = macaroon.without(*activities)
            except MacaroonAttenuationError:
                return None
            known = Credential.bearer(token, f"{base.origin}, narrowed")
            with self._lock:
                if len(self._narrowed) >= _MOST_NARROWED:
                    self._narrowed.clear()
                self._narrowed[key] = known
        return known

    def delegate(
        self,
        url: str,
        *,
        deadline: Deadline,
        activities: Collection[Activity],
        lifetime_seconds: float,
        addresses: Collection[str] = (),
        max_upload_bytes: int | None = None,
    ) -> Credential:
        """Return a macaroon for somebody else: for one file or directory, some activities and some time.

        Parameters
        ----------
        url : `str`
            The file or directory.
        deadline : `Deadline`
            When to give up asking for a macaroon, where one has to be asked for.
        activities : `~collections.abc.Collection` [`Activity`]
            What it allows.
        lifetime_seconds : `float`
            How long; never longer than the macaroon that it is made of.
        addresses : `~collections.abc.Collection` [`str`], optional
            Addresses and networks of its users (dCache).
        max_upload_bytes : `int`, optional
            Largest file that may be written (dCache).

        Returns
        -------
        credential : `Credential`
            The narrowed macaroon.

        Raises
        ------
        UnsupportedError
            If no macaroon is to be had.
        AccessDeniedError
            If ours does not allow that much itself.
        CredentialError
            If ours has expired.
        """
        if not self._door.settings.is_encrypted:
            raise UnsupportedError(
                "a macaroon is accepted over TLS only",
                operation="delegate",
                url=url,
                hint="Use the davs URL.",
            )
        place = None
        while place != self._own.place(url):
            # The first answer may tell that the server is one whose rights differ from path to path.
            place = self._own.place(url)
            base = self._own.current(
                deadline=deadline,
                strict=True,
                url=url,
                lifetime_seconds=min(lifetime_seconds, _LONGEST_SECONDS),
            )
        macaroon = None if base is None else self._own.parse(base)
        if base is None or macaroon is None:
            raise self._none_to_be_had(url)
        base.check(url)
        missing = frozenset(activities) - macaroon.activities
        if missing:
            names = ", ".join(sorted(activity.value for activity in missing))
            raise AccessDeniedError(
                f"the macaroon lacks {names}, so it cannot pass it on", operation="delegate", url=url
            )
        path = decoded_path(url)
        end = self._now() + timedelta(seconds=min(lifetime_seconds, _LONGEST_SECONDS))
        if not macaroon.scope.reaches(path):
            raise AccessDeniedError("the macaroon does not reach this path", operation="delegate", url=url)
        try:
            token = macaroon.narrow(
                activities=activities,
                path=path,
                before=end,
                addresses=addresses,
                max_upload_bytes=max_upload_bytes,
            )
        except MacaroonAttenuationError as error:
            raise AccessDeniedError(error.message, operation="delegate", url=url) from error
        if macaroon.expires is not None and macaroon.expires < end - timedelta(seconds=1):
            self._warn_of_short_life(base, macaroon.expires)
        return Credential.bearer(token, f"{base.origin}, narrowed")

    def _warn_of_short_life(self, base: Credential, end: datetime) -> None:
        with self._lock:
            is_new = base.fingerprint not in self._warned
            self._warned.add(base.fingerprint)
        if is_new:
            _log.warning(
                "what is handed out ends at %s, sooner than asked for, as does what it is made of (%s)",
                end.isoformat(timespec="seconds"),
                base.origin,
            )

    def _none_to_be_had(self, url: str) -> DcacheError:
        cause = self._own.refusal(url)
        return UnsupportedError(
            "the credential of this endpoint is no macaroon, and the server makes none of it",
            operation="delegate",
            url=url,
            status=None if cause is None else cause.status,
            reason="" if cause is None else cause.reason or cause.message,
        )


def lacks(credential: Credential, activity: Activity) -> bool:
    """Tell whether a credential is a macaroon that says itself that it has not some right.

    Parameters
    ----------
    credential : `Credential`
        Any.
    activity : `Activity`
        The right.
    """
    macaroon = as_macaroon(credential)
    return macaroon is not None and activity not in macaroon.activities
