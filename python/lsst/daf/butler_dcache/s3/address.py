"""Names of objects: ``s3://[profile@]bucket/key``.

Arithmetic on text. A key is any text, kept as it is: ``//``, ``#``, ``%`` and a leading slash are part of it,
and nothing is normalized, since to the server ``a//b`` and ``a/b`` are two objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from urllib.parse import quote, unquote

from ..errors import ConfigurationError, CredentialConfigurationError, hides_locals

__all__ = ("S3Address", "parse")

_SCHEME = "s3://"


@dataclass(frozen=True)
class S3Address:
    """A bucket and a key in it.

    Parameters
    ----------
    profile : `str` or `None`
        Name of the service and account (``LSST_RESOURCES_S3_PROFILE_<name>``).
    bucket : `str`
        Name of the bucket; on Ceph it may be ``tenant:bucket``.
    key : `str`
        The key, decoded; empty for the bucket itself.
    """

    profile: str | None
    bucket: str
    key: str

    @cached_property
    def url(self) -> str:
        """The address as a URL, percent-encoded."""
        return self._root + quote(self.key)

    @property
    def is_directory(self) -> bool:
        """Whether it is the bucket, or a key that ends with a slash."""
        return not self.key or self.key.endswith("/")

    @property
    def name(self) -> str:
        """Last component of the key, decoded."""
        return self.key.rstrip("/").rpartition("/")[2]

    @property
    def prefix(self) -> str:
        """What the keys of all that is below begin with."""
        return self.key if self.is_directory else f"{self.key}/"

    def child(self, name: str) -> S3Address:
        """Return the address of a name in this directory.

        Parameters
        ----------
        name : `str`
            Name, decoded; with a slash at its end that of a directory.
        """
        return S3Address(self.profile, self.bucket, self.prefix + name)

    def with_key(self, key: str) -> S3Address:
        """Return the address of another key of the bucket.

        Parameters
        ----------
        key : `str`
            The key, decoded.
        """
        return S3Address(self.profile, self.bucket, key)

    @property
    def _root(self) -> str:
        return f"{_SCHEME}{f'{self.profile}@' if self.profile is not None else ''}{self.bucket}/"


@lru_cache(maxsize=512)
@hides_locals
def parse(url: str) -> S3Address:
    """Return what a URL names.

    Parameters
    ----------
    url : `str`
        ``s3://[profile@]bucket/key``, percent-encoded; a fragment means nothing.

    Returns
    -------
    address : `S3Address`
        The same for all spellings of one name.

    Raises
    ------
    ConfigurationError
        If it is none: another scheme, no bucket, a query, or bytes that are not UTF-8.
    CredentialConfigurationError
        If it holds an access key, which shows wherever a URL is written.
    """
    if url[: len(_SCHEME)].lower() != _SCHEME:
        raise ConfigurationError("not a URL of the form s3://bucket/key", url=url)
    place, _, path = url[len(_SCHEME) :].partition("#")[0].partition("/")
    profile, at, bucket = place.rpartition("@")
    if ":" in profile:
        raise CredentialConfigurationError(
            "a URL is no place for an access key",
            url=url,
            hint="nothing was sent; put it into LSST_RESOURCES_S3_PROFILE_<name> and write s3://<name>@bucket/",
        )
    if not bucket or (at and not profile) or any(mark in place for mark in "?\\ "):
        raise ConfigurationError("a bucket is missing, or its name cannot be one", url=url)
    if "?" in path:
        raise ConfigurationError(
            "an s3 URL has no query", url=url, hint="a question mark in a key is written as %3F"
        )
    try:
        # "%" stands in no bucket's name, and in that of a tenant's only for ":".
        bucket, key = unquote(bucket, errors="strict"), unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise ConfigurationError("a key is text in UTF-8", url=url) from None
    return S3Address(unquote(profile) if at else None, bucket, key)
