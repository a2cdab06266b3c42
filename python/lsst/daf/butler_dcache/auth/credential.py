"""A credential: who we say we are, until when, and where it may be said."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Literal

from ..errors import CredentialError, hides_locals
from ..redaction import Secret
from .json_web_token import DamagedTokenError, JsonWebToken, looks_like_json_web_token
from .macaroon import Macaroon, NotAMacaroonError

__all__ = ("ANONYMOUS", "Credential", "RefusedCredentials", "refused")

_log = logging.getLogger(__name__)

_SHORT_SECONDS = 300.0
_MAX_TOKEN_LENGTH = 64 * 1024
"""Servers take heads of 8 KiB (protocol page, section 1.1), some of 64 KiB."""
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750, section 2.1."""
_TOLERANCE = timedelta(seconds=60)
"""How far the clock of whoever made a credential may be ahead of ours."""


@dataclass(frozen=True)
class Credential:
    """What authenticates a request.

    Parameters
    ----------
    kind : `str`
        ``bearer`` (macaroon or other token), ``basic``, ``certificate`` (presented by TLS, no header),
        ``access_key`` (of S3: it signs requests and is never sent), ``signature`` (what it makes of one
        request) or ``none``.
    secret : `~..redaction.Secret` or `None`
        Token, ``name:password``, secret access key, or the value of the header.
    expires : `datetime.datetime` or `None`
        End of life, if the credential itself says so.
    origin : `str`
        Where it was found, for messages.
    not_before : `datetime.datetime` or `None`
        Begin of life, likewise.
    remedy : `str`
        How another one is had, for messages.
    mark : `str`
        What tells it from others if it is no text.
    claims : `~.json_web_token.JsonWebToken` or `None`
        What it says of itself, if it is a JSON web token.
    session_token : `~..redaction.Secret` or `None`
        What travels beside the signatures of a key that is temporary.
    """

    kind: Literal["bearer", "basic", "certificate", "access_key", "signature", "none"]
    secret: Secret | None = None
    expires: datetime | None = None
    origin: str = ""
    not_before: datetime | None = None
    remedy: str = ""
    mark: str = ""
    claims: JsonWebToken | None = field(default=None, repr=False)
    session_token: Secret | None = None

    @classmethod
    @hides_locals
    def bearer(cls, token: str, origin: str = "", remedy: str = "") -> Credential:
        """Make a credential of a token.

        Parameters
        ----------
        token : `str`
            Macaroon, JSON web token or opaque text.
        origin : `str`, optional
            Where it was found.
        remedy : `str`, optional
            How another one is had.

        Returns
        -------
        credential : `Credential`
            With the begin and end of life that the token states.

        Raises
        ------
        CredentialError
            If it is empty, cut off or too long, or cannot be part of a header.
        """

        def unusable(text: str) -> CredentialError:
            hint = f"nothing was sent; {remedy or 'get another one'}"
            return CredentialError(f"the token {text} ({origin or 'given by the caller'})", hint=hint)

        if not token:
            raise unusable("is empty")
        if len(token) > _MAX_TOKEN_LENGTH:
            raise unusable(f"has {len(token)} characters, more than any server takes")
        if not _TOKEN.fullmatch(token):
            raise unusable("holds characters that no token has")
        if token[0] in "/~.":
            raise unusable("looks like the path of a file, which BEARER_TOKEN_FILE or token_file name")
        if looks_like_json_web_token(token):
            try:
                claims = JsonWebToken.parse(token)
            except DamagedTokenError as exc:
                raise unusable(f"is damaged: {exc.message}") from None
            return cls(
                "bearer", Secret(token), claims.expires, origin, claims.not_before, remedy, claims=claims
            )
        try:
            scope = Macaroon.parse(token).scope
        except NotAMacaroonError as exc:
            if _begins_as_macaroon(token):
                raise unusable(f"is damaged: {exc.message}") from None
            return cls("bearer", Secret(token), None, origin, remedy=remedy)
        if scope.problems:
            raise unusable(f"is a macaroon that its issuer refuses: {scope.problems[0]}")
        return cls("bearer", Secret(token), scope.expires, origin, remedy=remedy)

    @classmethod
    @hides_locals
    def basic(cls, name: str, password: str, origin: str = "", remedy: str = "") -> Credential:
        """Make a credential of an account.

        Parameters
        ----------
        name, password : `str`
            The account.
        origin : `str`, optional
            Where it was found.
        remedy : `str`, optional
            How another one is had.

        Returns
        -------
        credential : `Credential`
            For Basic authentication.

        Raises
        ------
        CredentialError
            If the name holds a colon (RFC 7617, section 2), or one of them more than one line.
        """
        if ":" in name or not (name + password).isprintable():
            raise CredentialError(
                f"name or password hold characters that they cannot have ({origin or 'given by the caller'})",
                hint=f"nothing was sent; {remedy or 'correct it'}",
            )
        return cls("basic", Secret(f"{name}:{password}"), None, origin, remedy=remedy)

    @classmethod
    @hides_locals
    def access_key(
        cls,
        name: str,
        secret: str,
        session_token: str | None = None,
        expires: datetime | None = None,
        origin: str = "",
        remedy: str = "",
    ) -> Credential:
        """Make a credential of an access key of S3.

        Parameters
        ----------
        name, secret : `str`
            Its two parts; the name is no secret, and travels with each request.
        session_token : `str`, optional
            What goes with a key that is temporary.
        expires : `datetime.datetime`, optional
            When it ends.
        origin : `str`, optional
            Where it was found.
        remedy : `str`, optional
            How another one is had.

        Returns
        -------
        credential : `Credential`
            ``mark`` is the key's name.

        Raises
        ------
        CredentialError
            If a part is empty, or cannot be part of a header.
        """
        for part, text in (("name", name), ("secret", secret), ("session token", session_token)):
            if text is not None and not (text and text.isascii() and text.isprintable() and " " not in text):
                raise CredentialError(
                    f"the {part} of the access key is empty or holds characters that it cannot have "
                    f"({origin or 'given by the caller'})",
                    hint=f"nothing was sent; {remedy or 'correct it'}",
                )
        token = None if session_token is None else Secret(session_token)
        return cls(
            "access_key", Secret(secret), expires, origin, remedy=remedy, mark=name, session_token=token
        )

    @cached_property
    def fingerprint(self) -> str:
        """Name of the credential in logs and tables; nothing can be learnt from it."""
        if self.secret is None and not self.mark:
            return self.kind
        text = self.mark if self.secret is None else self.secret.reveal()
        return hashlib.sha256(f"{self.kind} {text}".encode()).hexdigest()[:16]

    def header(self) -> str | None:
        """Return the value of the ``Authorization`` header, `None` if there is to be none."""
        if self.secret is None:
            return None
        if self.kind == "basic":
            return "Basic " + base64.b64encode(self.secret.reveal().encode()).decode("ascii")
        if self.kind == "signature":
            return self.secret.reveal()
        assert self.kind == "bearer", "an access key is never sent"
        return f"Bearer {self.secret.reveal()}"

    def headers(self) -> dict[str, str]:
        """Return all headers that say who we are."""
        value = self.header()
        headers = {} if value is None else {"Authorization": value}
        if self.session_token is not None:
            headers["X-Amz-Security-Token"] = self.session_token.reveal()
        return headers

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
            If it has expired or is not valid yet, or is a bearer token and the connection is not encrypted.

        Notes
        -----
        dCache refuses a bearer token over plain http after having read it (protocol page, section 1.4), and
        each 401 counts towards the block of the host (section 1.2). It also goes on accepting a macaroon for
        minutes past its end if it has seen it before (section 6.5): our own clock decides.
        """
        if self.kind == "bearer" and not url.lower().startswith(("https:", "davs:")):
            raise CredentialError(
                f"a bearer token is not sent over an unencrypted connection ({self.origin})",
                url=url,
                hint="use a davs URL, or user_name and user_password for this endpoint",
            )
        if self.expires is None and self.not_before is None:
            return
        now = now or datetime.now(UTC)
        if self.expires is not None and self.expires <= now:
            raise self._untimely(f"expired at {self.expires.isoformat(timespec='seconds')}", url)
        if self.not_before is not None and self.not_before > now + _TOLERANCE:
            begin = self.not_before.isoformat(timespec="seconds")
            raise self._untimely(f"is not valid before {begin}; is the clock of this machine right?", url)

    def warn_if_short(self) -> None:
        """Log a warning if the life of the credential ends within minutes: for sources to call, once each.

        Notes
        -----
        It names where the credential is from and how another one is had, before the work that it is too short
        for begins.
        """
        if self.expires is None:
            return
        left = (self.expires - datetime.now(UTC)).total_seconds()
        if 0 < left < _SHORT_SECONDS:
            _log.warning(
                "the credential ends in %.0f s, and what takes longer will fail (%s): %s",
                left,
                self.origin,
                self.remedy or "renew it",
            )

    def _untimely(self, text: str, url: str) -> CredentialError:
        return CredentialError(
            f"the credential {text} ({self.origin})",
            url=url,
            hint=f"nothing was sent; {self.remedy or 'renew it'}",
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
            message = "the server refuses the credential"
            hint = f"its origin: {self.origin or 'the caller'}; {self.remedy or 'renew it'}"
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


def _begins_as_macaroon(token: str) -> bool:
    """Whether the token begins with the packet "location" that every macaroon begins with."""
    try:
        beginning = base64.b64decode(token[:16], altchars=b"-_")
    except ValueError:
        return False
    return beginning[4:] == b"location"


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
        self._fingerprints: frozenset[str] = frozenset()

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
            self._fingerprints = frozenset(fingerprint for _, fingerprint in self._reasons)

    def knows(self, credential: Credential) -> bool:
        """Tell whether any server has refused a credential.

        Parameters
        ----------
        credential : `Credential`
            The one.

        Returns
        -------
        known : `bool`
            Whether it was.
        """
        return bool(self._fingerprints) and credential.fingerprint in self._fingerprints

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
                hint=f"nothing was sent; it is used again when it changes: {credential.remedy or 'renew it'}",
            )

    def clear(self) -> None:
        """Forget all refusals."""
        with self._lock:
            self._reasons.clear()
            self._fingerprints = frozenset()

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = threading.Lock()


refused = RefusedCredentials()
"""The refusals that this process has met."""
os.register_at_fork(after_in_child=refused.after_fork)
