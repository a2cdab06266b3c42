"""Credentials that are renewed from here: ahead of time, by one thread, while the others go on.

A credential is renewed when a quarter of its life is left. Until the new one is there everybody goes on with
the old one; callers wait only when there is none that is valid, and not for ever. A renewal that fails is
said once and tried again, after 1 s, 2 s, 4 s and so on up to a minute. When a server refuses a credential
before its time a new one is had once, and not again for some minutes: an issuer that goes on making tokens
which the server refuses would have the door block this host (protocol page, section 1.2).
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from datetime import UTC, datetime

from ..errors import CredentialError
from .credential import Credential, RefusedCredentials, refused

__all__ = ("RenewedSource",)

_log = logging.getLogger(__name__)

_SHARE_LEFT = 0.25
_EARLIEST_SECONDS = 3600.0
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_BETWEEN_REFUSALS_SECONDS = 300.0
_TIMES_TOO_LONG = 2.0


class RenewedSource:
    """A credential that somebody can be asked for anew.

    Parameters
    ----------
    obtain : `~collections.abc.Callable`
        Returns a new credential, or raises `CredentialError`; within ``timeout_seconds``, in a thread of its
        own.
    timeout_seconds : `float`
        How long callers wait for a credential when none is valid.
    name : `str`
        What is asked, for messages.
    clock : `~collections.abc.Callable`, optional
        Seconds since 1970; tests move it.
    monotonic : `~collections.abc.Callable`, optional
        Seconds that only grow, for pauses between attempts.
    table : `~.credential.RefusedCredentials`, optional
        What servers have refused.

    Notes
    -----
    Thread-safe. A child process goes on with the credential of its parent and renews it by itself.
    """

    def __init__(
        self,
        obtain: Callable[[], Credential],
        timeout_seconds: float,
        name: str,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        table: RefusedCredentials = refused,
    ) -> None:
        self._obtain = obtain
        self._timeout = timeout_seconds
        self._name = name
        self._clock = clock
        self._monotonic = monotonic
        self._table = table
        self._credential: Credential | None = None
        self._renew_at = float("-inf")
        self._failure: CredentialError | None = None
        self._failures = 0
        self._next_attempt = float("-inf")
        self._next_for_refusal = float("-inf")
        self._abandon_at = float("inf")
        self.after_fork()
        _sources.add(self)

    def after_fork(self) -> None:
        """Begin with a lock of its own and no renewal under way, as in a new process."""
        self._changed = threading.Condition()
        self._attempt: object | None = None

    def current(self) -> Credential:
        """Return the credential of this moment; a few comparisons as long as it need not be renewed.

        Returns
        -------
        credential : `~.credential.Credential`
            One that is valid. If a server has refused it and no other is to be had now it is returned all the
            same, since another server may accept it.

        Raises
        ------
        CredentialError
            If there is none that is valid, with the reason of the last attempt.
        """
        credential = self._credential
        if credential is not None and self._clock() < self._renew_at and not self._table.knows(credential):
            return credential
        return self._renewed()

    def _renewed(self) -> Credential:
        end = time.monotonic() + self._timeout
        with self._changed:
            while True:
                credential = self._credential
                now = self._clock()
                valid = credential is not None and _is_valid(credential, now)
                is_refused = credential is not None and valid and self._table.knows(credential)
                self._give_up_what_hangs()
                if self._attempt is None:
                    self._begin_if_wanted(due=not valid or now >= self._renew_at, is_refused=is_refused)
                if credential is not None and valid and not (is_refused and self._attempt is not None):
                    return credential
                if self._attempt is None:
                    raise self._reason()
                left = end - time.monotonic()
                if left <= 0:
                    raise CredentialError(
                        f"there is no new credential after {self._timeout:g} s ({self._name})",
                        hint="nothing was sent; it is asked for again with the next request",
                    )
                self._changed.wait(left)

    def _begin_if_wanted(self, *, due: bool, is_refused: bool) -> None:
        """Start a renewal if it is time for one; with the lock held."""
        now = self._monotonic()
        if due:
            if now < self._next_attempt:
                return
        elif is_refused and now >= self._next_for_refusal:
            self._next_for_refusal = now + _BETWEEN_REFUSALS_SECONDS
        else:
            return
        attempt = self._attempt = object()
        self._abandon_at = now + _TIMES_TOO_LONG * self._timeout
        thread = threading.Thread(target=self._renew, args=(attempt,), name="credential-renewal", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:  # no threads any more: the interpreter is ending, or a limit is reached
            self._end(attempt, CredentialError(f"it cannot be renewed now: {exc} ({self._name})"))

    def _give_up_what_hangs(self) -> None:
        """Count a renewal as failed that keeps to no limit; with the lock held."""
        if self._attempt is not None and self._monotonic() > self._abandon_at:
            self._end(self._attempt, CredentialError(f"there is no answer in time ({self._name})"))

    def _renew(self, attempt: object) -> None:
        outcome: Credential | CredentialError
        try:
            outcome = self._obtain()
            if not _is_valid(outcome, self._clock()):
                outcome = CredentialError(
                    f"the new credential is not valid: it has expired already ({self._name})",
                    hint="nothing was sent; compare the clocks of this machine and of the issuer",
                )
        except CredentialError as exc:
            outcome = exc
        except Exception as exc:  # whoever waits must learn of it, and its text may hold a secret
            outcome = CredentialError(f"{type(exc).__name__} while a credential was had ({self._name})")
        with self._changed:
            self._end(attempt, outcome)

    def _end(self, attempt: object, outcome: Credential | CredentialError) -> None:
        """Note how a renewal ended; with the lock held."""
        if self._attempt is not attempt:
            return
        self._attempt = None
        if isinstance(outcome, CredentialError):
            self._failed(outcome)
        else:
            self._credential, self._failure, self._failures = outcome, None, 0
            self._renew_at = self._time_to_renew(outcome)
            self._next_attempt = float("-inf")
        self._changed.notify_all()

    def _failed(self, error: CredentialError) -> None:
        pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 10), _LONGEST_PAUSE_SECONDS)
        self._next_attempt = self._monotonic() + pause * random.uniform(0.75, 1.0)
        self._failure = error
        self._failures += 1
        credential = self._credential
        if self._failures == 1 and credential is not None and credential.expires is not None:
            _log.warning(
                "a credential could not be renewed, and is tried again; the old one ends at %s: %s",
                credential.expires.isoformat(timespec="seconds"),
                error,
            )

    def _time_to_renew(self, credential: Credential) -> float:
        if credential.expires is None:
            return float("inf")
        end = credential.expires.timestamp()
        left = end - self._clock()
        # Not all jobs that began together at the same moment.
        share = _SHARE_LEFT * random.uniform(1.0, 1.2)
        return end - min(share * left, _EARLIEST_SECONDS)

    def _reason(self) -> CredentialError:
        """Return the error of the last attempt, anew for each who is to see it."""
        last = self._failure
        if last is None:
            return CredentialError(f"there is no credential ({self._name})")
        return CredentialError(last.message, hint=last.hint)


def _is_valid(credential: Credential, now: float) -> bool:
    return credential.expires is None or credential.expires > datetime.fromtimestamp(now, UTC)


_sources: weakref.WeakSet[RenewedSource] = weakref.WeakSet()


def _after_fork() -> None:
    for source in list(_sources):
        source.after_fork()


os.register_at_fork(after_in_child=_after_fork)
