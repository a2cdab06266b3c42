"""The stored files as they are, seen without Butler, ResourcePath or any other code of ours.

What the demo has written is judged here, so nothing that wrote it takes part: the records come straight from
the registry's database, the bytes and the server's own checksums over plain ``requests`` or boto3, and
checksums of bytes from ``zlib``, ``hashlib`` and ``awscrt``.
"""

from __future__ import annotations

__all__ = ("Artifact", "FileTree", "Storage", "WebdavTree", "digest", "open_storage", "recorded_artifacts")

import hashlib
import os
import re
import sqlite3
import time
import zlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol
from urllib.parse import quote, unquote, urlsplit

import requests
import yaml
from awscrt import checksums

from .s3_tree import S3Tree

_RECORDS_TABLE = "file_datastore_records"
_BUSY_ATTEMPTS = 8
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Artifact:
    """One stored file as the registry remembers it.

    Parameters
    ----------
    path : `str`
        Below the datastore's root.
    size : `int`
        Bytes.
    checksum : `str` or `None`
        As it is recorded.
    """

    path: str
    size: int
    checksum: str | None

    @property
    def adler32(self) -> str | None:
        """The recorded adler32, eight lower-case hexadecimal digits (`str` or `None`)."""
        if self.checksum is None:
            return None
        match = re.fullmatch(r"(?:adler32[:=])?([0-9a-f]{8})", self.checksum, re.IGNORECASE)
        return match.group(1).lower() if match else None


class Storage(Protocol):
    """A tree of files that can be looked at from outside."""

    keeps_checksums: ClassVar[bool]
    """Whether the storage knows a checksum of its files; then the registry records their adler32, too."""

    def exists(self, path: str) -> bool:
        """Say whether there is a file.

        Parameters
        ----------
        path : `str`
            Below the root.

        Returns
        -------
        exists : `bool`
            Whether there is.
        """

    def read(self, path: str) -> bytes:
        """Read a file.

        Parameters
        ----------
        path : `str`
            Below the root.

        Returns
        -------
        data : `bytes`
            All of it.
        """

    def checksum(self, path: str) -> tuple[str, str] | None:
        """Ask the storage itself for a file's checksum.

        Parameters
        ----------
        path : `str`
            Below the root.

        Returns
        -------
        checksum : `tuple` [ `str`, `str` ] or `None`
            Algorithm, one of `digest`, and hexadecimal digits; `None` if it knows none.
        """


class FileTree:
    """A directory of this machine.

    Parameters
    ----------
    root : `pathlib.Path`
        The directory.
    """

    keeps_checksums: ClassVar[bool] = False

    def __init__(self, root: Path) -> None:
        self._root = root

    def exists(self, path: str) -> bool:
        """Say whether there is a file.

        Parameters
        ----------
        path : `str`
            Below the root.

        Returns
        -------
        exists : `bool`
            Whether there is.
        """
        return (self._root / path).is_file()

    def read(self, path: str) -> bytes:
        """Read a file.

        Parameters
        ----------
        path : `str`
            Below the root.

        Returns
        -------
        data : `bytes`
            All of it.
        """
        return (self._root / path).read_bytes()

    def checksum(self, path: str) -> tuple[str, str] | None:
        """Return nothing: a local file system knows no checksums.

        Parameters
        ----------
        path : `str`
            Below the root.

        Returns
        -------
        checksum : `None`
            Nothing.
        """
        return None


class WebdavTree:
    """A directory behind a WebDAV door, reached with the credential of the site's configuration file.

    Parameters
    ----------
    root : `str`
        URL, ``davs://`` or ``dav://``, with a slash at its end.

    Notes
    -----
    Reads ``base_url``, ``token`` (the token or a file that holds it), ``user_name``, ``user_password``,
    ``user_cert``, ``user_key`` and ``trusted_authorities`` of the file that ``LSST_RESOURCES_WEBDAV_CONFIG``
    names, then ``BEARER_TOKEN_FILE`` and ``BEARER_TOKEN``. The credential goes to the door only.
    """

    keeps_checksums: ClassVar[bool] = True

    def __init__(self, root: str) -> None:
        self._root = re.sub(r"^dav", "http", root)
        endpoint = _endpoint_settings(root)
        self._session = requests.Session()
        # No proxy of the environment and no .netrc: who is asked and as whom is said here.
        self._session.trust_env = False
        self._session.verify = _expanded(endpoint.get("trusted_authorities")) or True
        # A compressed answer would be another file than the stored one.
        self._session.headers["Accept-Encoding"] = "identity"
        certificate = _expanded(endpoint.get("user_cert"))
        if certificate:
            self._session.cert = (certificate, _expanded(endpoint.get("user_key")) or certificate)
        self._door_headers: dict[str, str] = {}
        user = _expanded(endpoint.get("user_name"))
        self._login = (user, _expanded(endpoint.get("user_password")) or "") if user else None
        if token := _bearer_token(endpoint):
            self._door_headers["Authorization"] = f"Bearer {token}"

    def exists(self, path: str) -> bool:
        """Ask the door whether there is a file.

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
        requests.HTTPError
            Raised if the door answers neither yes nor no.
        """
        response = self._ask("HEAD", path)
        if response.status_code == 404:
            return False
        response.raise_for_status()
        return True

    def read(self, path: str) -> bytes:
        """Read a file from the pool that the door names.

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
        requests.HTTPError
            Raised if door or pool refuse.
        """
        response = self._ask("GET", path)
        response.raise_for_status()
        return response.content

    def checksum(self, path: str) -> tuple[str, str] | None:
        """Ask the door for the file's adler32 (RFC 3230).

        Parameters
        ----------
        path : `str`
            Below the root.

        Returns
        -------
        checksum : `tuple` [ `str`, `str` ] or `None`
            ``adler32`` and eight hexadecimal digits, or `None` if the server gives no adler32.

        Raises
        ------
        requests.HTTPError
            Raised if the door refuses.
        """
        response = self._ask("HEAD", path, {"Want-Digest": "adler32"})
        response.raise_for_status()
        match = re.search(r"adler32=([0-9a-f]{1,8})\b", response.headers.get("Digest", ""), re.IGNORECASE)
        return ("adler32", match.group(1).lower().zfill(8)) if match else None

    def _ask(self, method: str, path: str, headers: dict[str, str] | None = None) -> requests.Response:
        """Ask the door and, where it redirects, the server that it names; XRootD does so for HEAD, too."""
        response = self._ask_door(method, path, headers or {})
        if response.is_redirect:
            location = response.headers["Location"]
            response = self._session.request(
                method, location, headers=headers, allow_redirects=False, timeout=_TIMEOUT_SECONDS
            )
        return response

    def _ask_door(self, method: str, path: str, headers: dict[str, str]) -> requests.Response:
        for attempt in range(_BUSY_ATTEMPTS):
            response = self._session.request(
                method,
                self._root + quote(path),
                headers=self._door_headers | headers,
                auth=self._login,
                allow_redirects=False,
                timeout=_TIMEOUT_SECONDS,
            )
            # The rate limiter of dCache 11.2.4 says no Retry-After (protocol page, "What surprised us", 16).
            if response.status_code != 429:
                break
            time.sleep(0.25 * 2**attempt)
        return response


def recorded_artifacts(database: Path) -> list[Artifact]:
    """Read the datastore's records from a repository's SQLite file.

    Parameters
    ----------
    database : `pathlib.Path`
        The registry.

    Returns
    -------
    artifacts : `list` [ `Artifact` ]
        In the order of their paths.
    """
    query = f"SELECT path, file_size, checksum FROM {_RECORDS_TABLE} ORDER BY path"  # noqa: S608 (a constant)
    with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as connection:
        return [Artifact(*row) for row in connection.execute(query)]


def open_storage(root: str) -> Storage:
    """Return the tree below a URL.

    Parameters
    ----------
    root : `str`
        ``davs://``, ``dav://``, ``s3://`` or ``file://`` with a slash at its end.

    Returns
    -------
    storage : `Storage`
        The tree.

    Raises
    ------
    ValueError
        Raised if the scheme is none of these.
    """
    parts = urlsplit(root)
    if parts.scheme in ("dav", "davs"):
        return WebdavTree(root)
    if parts.scheme == "s3":
        return S3Tree(root)
    if parts.scheme == "file":
        return FileTree(Path(unquote(parts.path)))
    raise ValueError(f"the demo writes to davs://, dav://, s3:// and file://, not to {parts.scheme}://")


def digest(algorithm: str, data: bytes) -> str:
    """Return a checksum of some bytes.

    Parameters
    ----------
    algorithm : `str`
        ``adler32``, ``crc32``, ``crc32c``, ``crc64nvme``, ``md5`` or ``sha256``.
    data : `bytes`
        The bytes.

    Returns
    -------
    checksum : `str`
        Hexadecimal digits.
    """
    match algorithm:
        case "adler32":
            return f"{zlib.adler32(data):08x}"
        case "crc32":
            return f"{zlib.crc32(data):08x}"
        case "crc32c":
            return f"{checksums.crc32c(data):08x}"
        case "crc64nvme":
            return f"{checksums.crc64nvme(data):016x}"
        case _:
            return hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()


def _endpoint_settings(root: str) -> dict[str, Any]:
    name = os.environ.get("LSST_RESOURCES_WEBDAV_CONFIG")
    if not name:
        return {}
    file = Path(os.path.expandvars(name)).expanduser()
    endpoints: list[dict[str, Any]] = yaml.safe_load(file.read_text()) or []
    place = urlsplit(root)
    for endpoint in endpoints:
        base = urlsplit(os.path.expandvars(str(endpoint.get("base_url", ""))))
        if base.netloc == place.netloc and base.scheme in (place.scheme, place.scheme.replace("dav", "http")):
            return endpoint
    return {}


def _bearer_token(endpoint: dict[str, Any]) -> str | None:
    value = _expanded(endpoint.get("token"))
    if not value and (name := os.environ.get("BEARER_TOKEN_FILE")):
        value = name
    if not value:
        return os.environ.get("BEARER_TOKEN")
    return Path(value).read_text().strip() if Path(value).is_absolute() else value


def _expanded(value: str | None) -> str | None:
    return os.path.expandvars(value) if value else None
