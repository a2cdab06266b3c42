"""A credential for a worker: a macaroon for its task in a file, never the user's own token.

A process that is forked goes on with what its parent has. One that is started anew, on another machine
perhaps, gets two files and the variables that name them: the macaroon, and a configuration that is like ours
but for the credential. Making them again renews the macaroon in its place, and workers notice.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from .auth.macaroon import Activity
from .auth.secret_writing import write_secret
from .config.loading import settings_for
from .config.writing import configuration_with_token
from .errors import ConfigurationError
from .store.registry import store_for

__all__ = ("WorkerCredential", "worker_credential")

_FILE = "LSST_RESOURCES_WEBDAV_CONFIG"
# Where tools of the grid, and `lsst.resources` for https URLs, look for the credential of a user.
_CREDENTIALS_OF_USERS = (
    "BEARER_TOKEN",
    "X509_USER_PROXY",
    "X509_USER_CERT",
    "X509_USER_KEY",
    "LSST_HTTP_AUTH_BEARER_TOKEN",
    "LSST_HTTP_AUTH_CLIENT_CERT",
    "LSST_HTTP_AUTH_CLIENT_KEY",
)


@dataclass(frozen=True)
class WorkerCredential:
    """What a worker needs to reach one endpoint, and no more.

    Parameters
    ----------
    token_file : `str`
        File that holds the macaroon.
    configuration_file : `str`
        File that names the endpoint and ``token_file``.
    expires : `datetime.datetime` or `None`
        End of the macaroon.
    """

    token_file: str
    configuration_file: str
    expires: datetime | None

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a worker.

        Parameters
        ----------
        inherited : `~collections.abc.Mapping` [`str`, `str`]
            The one that it would have, such as ``os.environ``.

        Returns
        -------
        environment : `dict` [`str`, `str`]
            The same with the variables that name this credential, and without those that hold or name one of
            the user's.
        """
        kept = {name: value for name, value in inherited.items() if name not in _CREDENTIALS_OF_USERS}
        return kept | {"BEARER_TOKEN_FILE": self.token_file, _FILE: self.configuration_file}


def worker_credential(
    url: str,
    directory: str,
    *,
    activities: Collection[Activity | str],
    lifetime_seconds: float,
    addresses: Collection[str] = (),
    max_upload_bytes: int | None = None,
) -> WorkerCredential:
    """Write a macaroon for a worker, and what else it needs, into a directory of this machine.

    Parameters
    ----------
    url : `str`
        File or directory that the worker uses; nothing beside it.
    directory : `str`
        Where the files are written, with mode 0600; it is made if it is missing.
    activities : `~collections.abc.Collection` [`~.auth.macaroon.Activity` or `str`]
        What the worker does there, such as ``("DOWNLOAD", "LIST")``. A Butler that writes needs LIST,
        DOWNLOAD, UPLOAD, MANAGE, and DELETE if it replaces.
    lifetime_seconds : `float`
        How long; not longer than the credential that it is made of.
    addresses : `~collections.abc.Collection` [`str`], optional
        Addresses and networks of the workers as the door sees them (dCache).
    max_upload_bytes : `int`, optional
        Largest file that a worker may write (dCache).

    Returns
    -------
    credential : `WorkerCredential`
        The files, and the environment that names them.

    Raises
    ------
    UnsupportedError
        If the endpoint is not encrypted, or no macaroon is to be had.
    AccessDeniedError
        If our own credential does not allow that much.
    ConfigurationError
        If an activity has another name.

    Notes
    -----
    Costs no request where our credential is a macaroon, or where one was made of it before. A second call
    with the same directory renews the macaroon, in one step.
    """
    try:
        wanted = {Activity(activity) for activity in activities}
    except ValueError as error:
        raise ConfigurationError(f"{error}: one of {', '.join(a.value for a in Activity)}") from None
    credential = store_for(url).delegate(
        url,
        activities=wanted,
        lifetime_seconds=lifetime_seconds,
        addresses=addresses,
        max_upload_bytes=max_upload_bytes,
    )
    assert credential.secret is not None
    directory = os.path.abspath(directory)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    token_file, configuration_file = os.path.join(directory, "token"), os.path.join(directory, "webdav.yaml")
    write_secret(token_file, credential.secret.reveal() + "\n")
    write_secret(configuration_file, configuration_with_token(settings_for(url), token_file))
    return WorkerCredential(token_file, configuration_file, credential.expires)
