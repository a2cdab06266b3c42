"""Where the credential of an endpoint comes from."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Protocol

from ..config.netrc import account_in
from ..config.settings import EndpointSettings, origin_of
from ..errors import CredentialError, hides_locals
from .certificates import CertificateSource
from .credential import ANONYMOUS, Credential, refused
from .issuer import Issuer
from .renewal import RenewedSource
from .secret_file import Mark, SecretFile
from .token_command import TokenCommand
from .token_text import UnusableTextError, token_in

__all__ = ("CredentialSource", "DiscoveredSource", "FileSource", "StaticSource", "source_for", "successor")

_PATIENCE_SECONDS = 5.0
"""How much longer than the program or the issuer may take callers wait for a credential."""


class CredentialSource(Protocol):
    """Something that knows the credential of this moment."""

    def current(self) -> Credential:
        """Return the credential to use now; `CredentialError` if there should be one and is not."""
        ...


class StaticSource:
    """A credential that stays what it is.

    Parameters
    ----------
    credential : `~.credential.Credential`
        The one.
    """

    def __init__(self, credential: Credential) -> None:
        self._credential = credential
        self._is_fresh = True

    def current(self) -> Credential:
        """Return the credential; the first time with a warning if it ends soon."""
        if self._is_fresh:
            self._is_fresh = False
            self._credential.warn_if_short()
        return self._credential


class FileSource:
    """A credential in a file that somebody else renews.

    Parameters
    ----------
    path : `str`
        The file; only its owner may read it.
    make : `~collections.abc.Callable`
        Makes a credential of the content, surrounding white space removed; raises
        `~.token_text.UnusableTextError` if it cannot.
    origin : `str`
        Which setting or variable named the file, for messages.
    unasked : `bool`, optional
        Whether none did, see `~.secret_file.SecretFile`.

    Notes
    -----
    The file is looked at for each request (one ``stat``) and read when it has changed. Thread-safe.
    """

    def __init__(
        self, path: str, make: Callable[[str], Credential], origin: str, *, unasked: bool = False
    ) -> None:
        self._file = SecretFile(path, "credential file", origin, unasked=unasked)
        self._make = make
        self._known: tuple[Mark, Credential] | None = None

    def current(self) -> Credential:
        """Return the credential that the file holds now.

        Returns
        -------
        credential : `~.credential.Credential`
            The one.

        Raises
        ------
        CredentialError
            If the file is missing, empty, binary or of no known form, or somebody else may read it.
        """
        mark = self._file.mark()
        known = self._known
        if known is not None and known[0] == mark:
            return known[1]
        mark, credential = self._read()
        if known is None:
            credential.warn_if_short()
        self._known = mark, credential
        return credential

    @hides_locals
    def _read(self) -> tuple[Mark, Credential]:
        mark, text = self._file.read_text()
        try:
            return mark, self._make(text)
        except UnusableTextError as exc:
            raise self._file.error(str(exc)) from None


class DiscoveredSource:
    """What turns up where tokens are by custom, for a process that began without a credential.

    Parameters
    ----------
    files : `dict` [`str`, `FileSource`]
        Files in which a token may appear; the first that is found is used from then on.
    """

    def __init__(self, files: dict[str, FileSource]) -> None:
        self._files = files
        self._found: FileSource | None = None

    def current(self) -> Credential:
        """Return the credential that is there now; nobody if there is none."""
        if self._found is None:
            self._found = next((file for path, file in self._files.items() if os.path.lexists(path)), None)
        return ANONYMOUS if self._found is None else self._found.current()


@hides_locals
def source_for(settings: EndpointSettings) -> CredentialSource:
    """Return the source that the settings of an endpoint name.

    Parameters
    ----------
    settings : `~..config.settings.EndpointSettings`
        The endpoint.

    Returns
    -------
    source : `CredentialSource`
        The one that is named; token before account before certificate, as in upstream's client, and nobody if
        there is none. What is renewed from here is one source for all who ask for the same in this process.

    Raises
    ------
    CredentialError
        If a token that stands in the settings cannot be one, or is not for this endpoint.
    """
    origin, unasked = settings.credential_origin, settings.credential_is_unasked
    if settings.token_command is not None:
        return _renewed(
            (settings.token_command, origin, settings.expected_issuer, settings.expected_audience),
            TokenCommand(settings.token_command, settings.token_command_timeout_seconds, origin),
            settings.token_command_timeout_seconds,
            settings,
        )
    if settings.oidc is not None:
        oidc = settings.oidc
        key = (oidc, settings.expected_issuer, settings.expected_audience)
        return _renewed(key, Issuer(oidc), 2 * oidc.timeout_seconds, settings)
    if settings.token_file is not None:
        return _token_file(settings, settings.token_file, origin, unasked)
    if settings.token is not None:
        remedy = "set it anew, or name a file that is renewed with BEARER_TOKEN_FILE or token_file"
        return StaticSource(_fitting(Credential.bearer(settings.token.reveal(), origin, remedy), settings))
    name = settings.user_name
    if name is not None and settings.user_password_file is not None:
        remedy = f"correct the password in {settings.user_password_file}"
        return FileSource(
            settings.user_password_file, lambda text: Credential.basic(name, text, origin, remedy), origin
        )
    if name is not None and settings.user_password is not None:
        password = settings.user_password.reveal()
        return StaticSource(Credential.basic(name, password, origin, "correct name and password"))
    if settings.user_certificate is not None:
        key_file = settings.user_key or settings.user_certificate
        return CertificateSource(settings.user_certificate, key_file, origin, unasked=unasked)
    if settings.netrc_file is not None:
        return _account_file(settings, settings.netrc_file, origin)
    if settings.token_candidates:
        custom = "WLCG bearer token discovery"
        paths = settings.token_candidates
        return DiscoveredSource({path: _token_file(settings, path, custom, True) for path in paths})
    return StaticSource(ANONYMOUS)


def successor(source: CredentialSource, refused_one: Credential) -> Credential | None:
    """Return what has taken the place of a credential that a server refused.

    Parameters
    ----------
    source : `CredentialSource`
        Where it came from.
    refused_one : `~.credential.Credential`
        The one that was refused, and is known as such.

    Returns
    -------
    credential : `~.credential.Credential` or `None`
        `None` if there is no other, or that one was refused as well: nothing is worth a second try.
    """
    try:
        now = source.current()
    except CredentialError:
        return None
    if now.kind == "none" or now.fingerprint == refused_one.fingerprint or refused.knows(now):
        return None
    return now


def _token_file(settings: EndpointSettings, path: str, origin: str, unasked: bool) -> FileSource:
    host = origin_of(settings.base_url)[1]
    remedy = f"write a new token to {path}"

    def make(text: str) -> Credential:
        return _fitting(Credential.bearer(token_in(text, host), f"{origin}: {path}", remedy), settings)

    return FileSource(path, make, origin, unasked=unasked)


def _account_file(settings: EndpointSettings, path: str, origin: str) -> FileSource:
    host = origin_of(settings.base_url)[1]

    def make(text: str) -> Credential:
        account = account_in(text, host)
        if account is None:
            raise UnusableTextError(f"has no entry with login and password for {host}")
        return Credential.basic(*account, f"{origin}: {path}", f"correct the entry of {host}")

    return FileSource(path, make, origin)


def _fitting(credential: Credential, settings: EndpointSettings) -> Credential:
    """Return a credential if it is for this endpoint, as far as that is known."""
    claims = credential.claims
    issuer, audience = settings.expected_issuer, settings.expected_audience
    if claims is None:
        return credential
    if issuer is not None and claims.issuer != issuer:
        text = f"the token is of the issuer {claims.issuer}, and {issuer} is expected here"
    elif audience is not None and not claims.is_meant_for((audience,)):
        text = f"the token is for {', '.join(claims.audience)}, and {audience} is expected here"
    else:
        return credential
    raise CredentialError(
        f"{text} ({credential.origin})",
        url=settings.base_url,
        hint=f"nothing was sent; {credential.remedy}, or correct expected_issuer and expected_audience",
    )


_lock = threading.Lock()
_renewing: dict[Hashable, RenewedSource] = {}


def _renewed(
    key: Hashable, obtain: Callable[[], Credential], seconds: float, settings: EndpointSettings
) -> RenewedSource:
    with _lock:
        source = _renewing.get(key)
        if source is None:
            source = _renewing[key] = RenewedSource(
                lambda: _fitting(obtain(), settings), seconds + _PATIENCE_SECONDS, settings.credential_origin
            )
        return source


def _after_fork() -> None:
    """Replace the lock, which another thread of the parent may have held."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
