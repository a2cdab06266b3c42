"""The stored objects of an S3 bucket as boto3 sees them: nothing that wrote them takes part."""

from __future__ import annotations

__all__ = ("S3Tree",)

import base64
import os
import re
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import boto3.session
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.handlers import validate_bucket_name

# Strongest first; an object carries one of them, which HEAD gives in base64.
_CHECKSUMS = ("SHA256", "CRC64NVME", "CRC32C", "CRC32")


class S3Tree:
    """A prefix of a bucket.

    Parameters
    ----------
    root : `str`
        ``s3://[profile@]bucket/prefix/``, with a slash at its end.

    Notes
    -----
    Endpoint and keys stand in ``LSST_RESOURCES_S3_PROFILE_<profile>`` or ``S3_ENDPOINT_URL``, as
    ``https://key:secret@host``; what does not stand there is looked for by boto3.
    """

    keeps_checksums: ClassVar[bool] = True

    def __init__(self, root: str) -> None:
        place = urlsplit(root)
        profile, _, self._bucket = place.netloc.rpartition("@")
        self._prefix = unquote(place.path.lstrip("/"))
        self._client = _client(profile)

    def exists(self, path: str) -> bool:
        """Say whether there is an object.

        Parameters
        ----------
        path : `str`
            Below the root.

        Returns
        -------
        exists : `bool`
            Whether there is.

        Raises
        ------
        botocore.exceptions.ClientError
            Raised if the server answers neither yes nor no.
        """
        try:
            self._head(path)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise
        return True

    def read(self, path: str) -> bytes:
        """Read an object.

        Parameters
        ----------
        path : `str`
            Below the root.

        Returns
        -------
        data : `bytes`
            All of it.

        Raises
        ------
        botocore.exceptions.ClientError
            Raised if the server refuses.
        """
        data: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + path)["Body"].read()
        return data

    def checksum(self, path: str) -> tuple[str, str] | None:
        """Ask the server for a checksum of an object.

        Parameters
        ----------
        path : `str`
            Below the root.

        Returns
        -------
        checksum : `tuple` [ `str`, `str` ] or `None`
            Algorithm and hexadecimal digits; `None` if the server keeps nothing that speaks of all bytes.

        Raises
        ------
        botocore.exceptions.ClientError
            Raised if the server refuses.
        """
        answer = self._head(path)
        if answer.get("ChecksumType") != "COMPOSITE":
            for name in _CHECKSUMS:
                # A checksum of the checksums of parts ends with their number.
                if (value := answer.get(f"Checksum{name}")) and "-" not in value:
                    return name.lower(), base64.b64decode(value).hex()
        match = re.fullmatch(r'"([0-9a-f]{32})"', answer["ETag"])
        return ("md5", match.group(1)) if match else None

    def _head(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.head_object(
            Bucket=self._bucket, Key=self._prefix + path, ChecksumMode="ENABLED"
        )
        return answer


def _client(profile: str) -> Any:
    place = os.environ.get(f"LSST_RESOURCES_S3_PROFILE_{profile}") if profile else None
    place = place or os.environ.get("S3_ENDPOINT_URL")
    endpoint = key = secret = None
    if place:
        parts = urlsplit(place)
        login, _, host = parts.netloc.rpartition("@")
        endpoint = parts._replace(netloc=host).geturl()
        if login:
            key, _, secret = (unquote(part) for part in login.partition(":"))
    session = boto3.session.Session(profile_name=profile if profile and not key else None)
    client = session.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"mode": "standard", "max_attempts": 5}),
    )
    # Ceph's tenant:bucket is no bucket for botocore.
    client.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)
    return client
