"""Which S3 service and account a profile stands for, by the variables of `lsst.resources`.

``LSST_RESOURCES_S3_PROFILE_<name>`` holds ``https://<access key>:<secret key>@<host>``, both percent-encoded
where they hold ``/``, ``:`` or ``@``. Without it ``S3_ENDPOINT_URL`` counts, which has the same form. What
they leave open (endpoint, region, style of addressing, keys) AWS's variables and files say, which belong to
boto3: here it is only noticed that those variables have changed.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ..errors import ConfigurationError, CredentialConfigurationError, hides_locals
from ..redaction import Secret

__all__ = ("S3Settings", "s3_settings_for")

_PROFILE = "LSST_RESOURCES_S3_PROFILE_"
_ENDPOINT = "S3_ENDPOINT_URL"
_NO_VALIDATION = "LSST_DISABLE_BUCKET_VALIDATION"
_NO = frozenset({"", "0", "f", "n", "false"})
_HOST = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]")
_FURTHER = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "LSST_RESOURCES_WEBDAV_CONFIG",
)
"""What else decides where requests go and who we are."""

_Offer = tuple[str | None, ...]
_MOST = 256

_known: dict[tuple[str | None, str], tuple[_Offer, S3Settings]] = {}


@dataclass(frozen=True)
class S3Settings:
    """What the environment says of a bucket and of the service that has it.

    Parameters
    ----------
    profile : `str` or `None`
        Name in the URL.
    bucket : `str`
        The bucket.
    endpoint_url : `str` or `None`
        Where the service is, without credentials; `None` leaves that to AWS's configuration.
    aws_profile : `str` or `None`
        Profile of AWS's files from which the keys are; `None` for the one that is used by default.
    access_key_id : `str` or `None`
        Name of the key, if it stands beside the endpoint.
    secret_access_key : `~..redaction.Secret` or `None`
        Its secret.
    validate_bucket : `bool`
        Whether names of buckets are judged by AWS's rules.
    origin : `str`
        The variable that names the endpoint; empty if none does.
    environment : `str`
        Changes when another variable does of which something depends.
    """

    profile: str | None
    bucket: str
    endpoint_url: str | None = None
    aws_profile: str | None = None
    access_key_id: str | None = None
    secret_access_key: Secret | None = None
    validate_bucket: bool = True
    origin: str = ""
    environment: str = field(default="", repr=False)


@hides_locals
def s3_settings_for(profile: str | None, bucket: str) -> S3Settings:
    """Return what the environment says of a bucket.

    Parameters
    ----------
    profile : `str` or `None`
        Name in the URL.
    bucket : `str`
        Name of the bucket.

    Returns
    -------
    settings : `S3Settings`
        The same object as long as the environment stays the same; to be compared, and used as a key.

    Raises
    ------
    ConfigurationError
        If a variable does not hold the URL of a service.
    CredentialConfigurationError
        If it holds half a key, or one that is not percent-encoded.
    """
    offer = tuple(map(os.environ.get, (_ENDPOINT, _NO_VALIDATION, f"{_PROFILE}{profile or ''}", *_FURTHER)))
    known = _known.get((profile, bucket))
    if known is not None and known[0] == offer:
        return known[1]
    settings = _read(profile, bucket, offer)
    if len(_known) >= _MOST:
        _known.clear()
    _known[profile, bucket] = offer, settings
    return settings


def _read(profile: str | None, bucket: str, offer: _Offer) -> S3Settings:
    of_all, no_validation, of_profile = offer[:3]
    by_profile = profile is not None and bool(of_profile)
    url, origin = (of_profile, f"{_PROFILE}{profile}") if by_profile else (of_all, _ENDPOINT)
    endpoint, key, secret = _service(url, origin) if url else (None, None, None)
    return S3Settings(
        profile,
        bucket,
        endpoint,
        # boto3 refuses a profile that its files do not have, even one from which nothing is needed.
        None if secret is not None else profile,
        key,
        secret,
        (no_validation or "").strip().lower() in _NO,
        origin if url else "",
        hashlib.sha256(repr(offer[3:]).encode("utf-8", "replace")).hexdigest(),
    )


def _service(text: str, origin: str) -> tuple[str, str | None, Secret | None]:
    """Take endpoint and key from a variable; no message repeats what it holds."""
    hint = "It has the form https://<access key>:<secret key>@<host>:<port>, or https://<host>:<port>"
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        port, parts = None, urlsplit("")
    if parts.scheme.lower() not in ("http", "https"):
        raise ConfigurationError(f"{origin} must begin with https:// or http://", hint=hint)
    account, at, place = parts.netloc.rpartition("@")
    host = place if port is None else place.rpartition(":")[0]
    if not _HOST.fullmatch(host.rstrip(":")) or parts.query or parts.fragment or "@" in parts.path:
        raise CredentialConfigurationError(
            f"{origin} is not the URL of a service, or a key in it is not percent-encoded",
            hint=f"{hint}; in keys / is written as %2F, : as %3A, @ as %40 and + as it is",
        )
    endpoint = f"{parts.scheme.lower()}://{place}{parts.path.rstrip('/')}"
    if not at:
        return endpoint, None, None
    key, _, secret = account.partition(":")
    if not key or not secret or ":" in secret:
        raise CredentialConfigurationError(
            f"{origin} must hold an access key and its secret, or none of them",
            hint=f"{hint}; in keys : is written as %3A",
        )
    return endpoint, unquote(key), Secret(unquote(secret))
