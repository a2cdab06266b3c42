"""Where the credential of an endpoint comes from."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Protocol

from ..config.settings import EndpointSettings
from ..errors import CredentialError
from .credential import ANONYMOUS, Credential

__all__ = ("CredentialSource", "FileSource", "StaticSource", "source_for")

_MAX_FILE_BYTES = 1024 * 1024


class CredentialSource(Protocol):
    """Something that knows the credential of this moment."""

    def current(self) -> Credential:
        """Return the credential to use now; `CredentialError` if there should be one and is not."""
        ...


class StaticSource:
    """A credential that stays what it is.

    Parameters
    ----------
    credential : `Credential`
        The one.
    """

    def __init__(self, credential: Credential) -> None:
        self._credential = credential

    def current(self) -> Credential:
        """Return the credential."""
        return self._credential


class FileSource:
    """A credential in a file that somebody else renews.

    Parameters
    ----------
    path : `str`
        The file; only its owner may read it.
    make : `~collections.abc.Callable`
        Makes a credential of the content, surrounding white space removed.
    origin : `str`
        Which setting named the file, for messages.

    Notes
    -----
    The file is looked at for each request (one ``stat``) and read when inode, size or time of change differ
    from those of the last reading: comparing with our own clock would miss a file that was written before it
    was moved into place. Thread-safe.
    """

    def __init__(self, path: str, make: Callable[[str], Credential], origin: str) -> None:
        self._path = os.path.abspath(path)
        self._make = make
        self._origin = origin
        self._known: tuple[tuple[int, ...], Credential] | None = None

    def current(self) -> Credential:
        """Return the credential that the file holds now.

        Returns
        -------
        credential : `Credential`
            The one.

        Raises
        ------
        CredentialError
            If the file is missing, empty or binary, or somebody else may read it.
        """
        try:
            mark = _mark(os.stat(self._path))
        except OSError as exc:
            raise self._error(f"cannot be read: {exc.strerror}") from exc
        known = self._known
        if known is not None and known[0] == mark:
            return known[1]
        mark, text = self._read()
        credential = self._make(text)
        self._known = mark, credential
        return credential

    def _read(self) -> tuple[tuple[int, ...], str]:
        try:
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                content = file.read(_MAX_FILE_BYTES + 1)
        except OSError as exc:
            raise self._error(f"cannot be read: {exc.strerror}") from exc
        if not stat.S_ISREG(status.st_mode):
            raise self._error("is not a regular file")
        if status.st_mode & 0o077:
            raise self._error(
                f"may be read by others (mode {stat.S_IMODE(status.st_mode):04o})", f"chmod 600 {self._path}"
            )
        if len(content) > _MAX_FILE_BYTES:
            raise self._error("is too long for a credential")
        try:
            text = content.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise self._error("is not text") from None
        if not text:
            raise self._error("is empty")
        return _mark(status), text

    def _error(self, what: str, hint: str = "") -> CredentialError:
        return CredentialError(f"the credential file {self._path} {what} ({self._origin})", hint=hint)


def source_for(settings: EndpointSettings) -> CredentialSource:
    """Return the source that the settings of an endpoint name.

    Parameters
    ----------
    settings : `~..config.settings.EndpointSettings`
        The endpoint.

    Returns
    -------
    source : `CredentialSource`
        Token before account before certificate, as in upstream's client; anonymous if there is none.

    Raises
    ------
    CredentialError
        If a token that stands in the settings cannot be one.
    """
    origin = settings.credential_origin
    if settings.token_file is not None:
        return FileSource(settings.token_file, lambda text: Credential.bearer(text, origin), origin)
    if settings.token is not None:
        return StaticSource(Credential.bearer(settings.token.reveal(), origin))
    name = settings.user_name
    if name is not None and settings.user_password_file is not None:
        return FileSource(
            settings.user_password_file, lambda text: Credential.basic(name, text, origin), origin
        )
    if name is not None and settings.user_password is not None:
        return StaticSource(Credential.basic(name, settings.user_password.reveal(), origin))
    if settings.user_certificate is not None:
        return StaticSource(Credential("certificate", origin=origin))
    return StaticSource(ANONYMOUS)


def _mark(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode
