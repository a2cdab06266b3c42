"""A credential: who we say we are, until when, and where it may be said."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

from ..errors import CredentialError
from ..redaction import Secret
from .macaroon import Macaroon, NotAMacaroonError

__all__ = ("ANONYMOUS", "Credential", "RefusedCredentials", "expiry_of", "refused")


@dataclass(frozen=True)
class Credential:
    """What authenticates a request.

    Parameters
    ----------
    kind : `str`
        ``bearer`` (macaroon or other token), ``basic``, ``certificate`` (presented by TLS, no header) or
        ``none``.
    secret : `~..redaction.Secret` or `None`
        Token, or ``name:password``.
    expires : `datetime.datetime` or `None`
        End of life, if the credential itself says so.
    origin : `str`
        Where it was found, for messages.
    """

    kind: Literal["bearer", "basic", "certificate", "none"]
    secret: Secret | None = None
    expires: datetime | None = None
    origin: str = ""

    @classmethod
    def bearer(cls, token: str, origin: str = "") -> Credential:
        """Make a credential of a token.

        Parameters
        ----------
        token : `str`
            Macaroon, JSON web token or opaque text.
        origin : `str`, optional
            Where it was found.

        Returns
        -------
        credential : `Credential`
            With the end of life that the token states.

        Raises
        ------
        CredentialError
            If it is empty or cannot be part of a header.
        """
        if not token:
            raise CredentialError(f"the token is empty ({origin or 'given by the caller'})")
        # RFC 6750, section 2.1: letters, digits and -._~+/ with "=" at the end.
        if not token.isascii() or not token.isprintable() or " " in token:
            raise CredentialError(
                f"the token holds characters that no token has ({origin or 'given by the caller'})"
            )
        return cls("bearer", Secret(token), expiry_of(token), origin)

    @classmethod
    def basic(cls, name: str, password: str, origin: str = "") -> Credential:
        """Make a credential of an account.

        Parameters
        ----------
        name, password : `str`
            The account.
        origin : `str`, optional
            Where it was found.

        Returns
        -------
        credential : `Credential`
            For Basic authentication.
        """
        return cls("basic", Secret(f"{name}:{password}"), None, origin)

    @cached_property
    def fingerprint(self) -> str:
        """Name of the credential in logs and tables; nothing can be learnt from it."""
        if self.secret is None:
            return self.kind
        return hashlib.sha256(f"{self.kind} {self.secret.reveal()}".encode()).hexdigest()[:16]

    def header(self) -> str | None:
        """Return the value of the ``Authorization`` header, `None` if there is to be none."""
        if self.secret is None:
            return None
        if self.kind == "basic":
            return "Basic " + base64.b64encode(self.secret.reveal().encode()).decode("ascii")
        return f"Bearer {self.secret.reveal()}"

    def check(self, url: str, now: datetime | None = None) -> None:
        """Refuse to send this credential where, or when, it must not be sent.

        Parameters
        ----------
        url : `str`
            Where the request goes.
        now : `datetime.datetime`, optional
            The present, if it is not to be asked from the clock.

        Raises
        ------
        CredentialError
            If it has expired, or is a bearer token and the connection is not encrypted.

        Notes
        -----
        dCache refuses a bearer token over plain http after having read it (protocol page, section 1.4), and
        each 401 counts towards the block of the host (section 1.2).
        """
        if self.kind == "bearer" and not url.lower().startswith(("https:", "davs:")):
            raise CredentialError(
                f"a bearer token is not sent over an unencrypted connection ({self.origin})",
                url=url,
                hint="use a davs URL, or user_name and user_password for this endpoint",
            )
        if self.expires is not None and self.expires <= (now or datetime.now(UTC)):
            raise CredentialError(
                f"the credential expired at {self.expires.isoformat(timespec='seconds')} ({self.origin})",
                url=url,
                hint="nothing was sent; renew it",
            )

    def refusal(
        self, *, operation: str, url: str, reason: str, attempts: int, elapsed_seconds: float
    ) -> CredentialError:
        """Return the error for a 401 to a request that carried this credential.

        Parameters
        ----------
        operation, url, reason : `str`
            What was asked, where, and the server's words.
        attempts : `int`
            How often it was asked.
        elapsed_seconds : `float`
            How long that took.

        Returns
        -------
        error : `~..errors.CredentialError`
            To be raised.
        """
        if self.kind == "none":
            message = "the server wants a credential"
            hint = (
                "set BEARER_TOKEN_FILE, or write an entry for this endpoint into LSST_RESOURCES_WEBDAV_CONFIG"
            )
        else:
            message, hint = "the server refuses the credential", f"its origin: {self.origin or 'the caller'}"
        return CredentialError(
            message,
            operation=operation,
            url=url,
            status=401,
            reason=reason,
            attempts=attempts,
            elapsed_seconds=elapsed_seconds,
            hint=hint,
        )


ANONYMOUS = Credential("none", origin="no credential is configured")
"""Nobody."""


def expiry_of(token: str) -> datetime | None:
    """Return the end of life that a macaroon or a JSON web token states.

    Parameters
    ----------
    token : `str`
        Any token.

    Returns
    -------
    expires : `datetime.datetime` or `None`
        With time zone; `None` if it is opaque or states none.
    """
    try:
        return Macaroon.parse(token).expires
    except NotAMacaroonError:
        pass
    parts = token.split(".")
    if len(parts) != 3 or len(token) > 1_000_000:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(float(claims["exp"]), UTC)
    except (binascii.Error, ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
        return None


class RefusedCredentials:
    """Credentials that a server answered with 401: they are not sent again, by nobody in this process.

    Notes
    -----
    Three 401s within 20 s block the whole host for 10 s (protocol page, section 1.2). The same credential may
    be good at another server, so the server is part of the entry. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reasons: dict[tuple[tuple[str, str, int], str], str] = {}

    def remember(self, server: tuple[str, str, int], credential: Credential, reason: str) -> None:
        """Note a refusal; anonymous requests are never noted.

        Parameters
        ----------
        server : `tuple`
            Scheme, host and port.
        credential : `Credential`
            What was refused.
        reason : `str`
            The server's words.
        """
        if credential.kind == "none":
            return
        with self._lock:
            if len(self._reasons) >= 1024:
                self._reasons.pop(next(iter(self._reasons)))
            self._reasons[server, credential.fingerprint] = reason

    def check(self, server: tuple[str, str, int], credential: Credential, url: str) -> None:
        """Raise if a server has refused a credential before.

        Parameters
        ----------
        server : `tuple`
            Scheme, host and port.
        credential : `Credential`
            What is about to be sent.
        url : `str`
            For the message.

        Raises
        ------
        CredentialError
            With the reason of that time.
        """
        if not self._reasons:
            return
        reason = self._reasons.get((server, credential.fingerprint))
        if reason is not None:
            raise CredentialError(
                f"the server has refused this credential before ({credential.origin})",
                url=url,
                status=401,
                reason=reason,
                hint="nothing was sent; it is used again when it changes",
            )

    def clear(self) -> None:
        """Forget all refusals."""
        with self._lock:
            self._reasons.clear()

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = threading.Lock()


refused = RefusedCredentials()
"""The refusals that this process has met."""
os.register_at_fork(after_in_child=refused.after_fork)
