"""Where the key of an account comes from: what `lsst.resources` names, or where botocore finds one.

botocore looks into variables, files, programs and services of the network, some of which it asks without a
time limit. It does so here in a thread of its own that nobody waits for longer than ``_PATIENCE_SECONDS``,
anew when a key ends or a server refuses it, and without its log lines, which quote whole answers of services
that hand out keys.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from botocore import exceptions as theirs
from botocore.session import Session

from ..auth.credential import Credential
from ..auth.renewal import RenewedSource
from ..auth.sources import CredentialSource, StaticSource
from ..config.s3 import S3Settings
from ..errors import CredentialError, hides_locals

__all__ = ("key_source",)

_PATIENCE_SECONDS = 20.0
_HARMLESS = (
    theirs.ConfigNotFound,
    theirs.ConfigParseError,
    theirs.InvalidConfigError,
    theirs.PartialCredentialsError,
    theirs.ProfileNotFound,
)
"""Errors whose text holds names only: that of a program that failed quotes all that it said."""
_TALKATIVE = ("auth", "awsrequest", "client", "credentials", "endpoint", "parsers", "retryhandler", "utils")


class _Hush(threading.local):
    """Drops what is logged in a thread that handles keys."""

    is_on = False

    def filter(self, record: logging.LogRecord) -> bool:
        return not self.is_on


_hush = _Hush()
for _name in _TALKATIVE:
    logging.getLogger(f"botocore.{_name}").addFilter(_hush)


@contextmanager
def _unlogged() -> Iterator[None]:
    _hush.is_on = True
    try:
        yield
    finally:
        _hush.is_on = False


@hides_locals
def key_source(settings: S3Settings) -> CredentialSource:
    """Return where the access key for a bucket comes from.

    Parameters
    ----------
    settings : `~..config.s3.S3Settings`
        The bucket, and what the environment says of its service.

    Returns
    -------
    source : `~..auth.sources.CredentialSource`
        Nothing has been looked for yet.

    Raises
    ------
    CredentialError
        If the key that stands beside the endpoint cannot be one.
    """
    if settings.secret_access_key is not None and settings.access_key_id is not None:
        return StaticSource(
            Credential.access_key(
                settings.access_key_id,
                settings.secret_access_key.reveal(),
                origin=settings.origin,
                remedy=f"correct the key in {settings.origin}",
            )
        )
    return RenewedSource(lambda: _look(settings), _PATIENCE_SECONDS, "where boto3 looks for access keys")


@hides_locals
def _look(settings: S3Settings) -> Credential:
    profile = settings.aws_profile
    place = f"the profile {profile} of AWS's files" if profile else "AWS's variables and files"
    try:
        with _unlogged():
            found = Session(profile=profile).get_credentials()
            bare = None if found is None else found.get_frozen_credentials()
    except (theirs.BotoCoreError, theirs.ClientError) as exc:
        text = str(exc).rstrip(".") if isinstance(exc, _HARMLESS) else type(exc).__name__
        raise CredentialError(
            f"there is no access key ({place}): {text}", hint=f"nothing was sent; {_remedy(settings)}"
        ) from None
    if found is None or bare is None:
        raise CredentialError(
            f"there is no access key ({place})", hint=f"nothing was sent; {_remedy(settings)}"
        )
    origin = f"{found.method}{f', profile {profile}' if profile else ''}"
    # Only what botocore renews itself has a time, and that under this name.
    expires: datetime | None = getattr(found, "_expiry_time", None)
    return Credential.access_key(
        bare.access_key, bare.secret_key, bare.token or None, expires, origin, "renew it there"
    )


def _remedy(settings: S3Settings) -> str:
    ways = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them into ~/.aws/credentials"
    if settings.profile is None:
        return f"set {ways}, or put the key into S3_ENDPOINT_URL"
    return (
        f"set LSST_RESOURCES_S3_PROFILE_{settings.profile}, with a key, or write a profile "
        f"{settings.profile} into ~/.aws/credentials"
    )
