"""What a bucket holds: objects by HEAD, directories by listings of the keys that begin with their name.

Theory of operation: S3 has no directories. One exists as long as a key begins with its name and a slash, be
it that of an object below or the empty object ``name/`` that `S3Store.make_directory` puts there; and a file
and a directory of one name may both exist. So a name without a slash at its end is a file if HEAD says so,
else a directory if a listing of one key says so, and absent only if both say so.

A listing comes in pages of a thousand keys. What it does not show is absent if it came to its end, whatever
was added or removed meanwhile; nothing is concluded from its order, for that of SeaweedFS 4.48 is not the one
of the keys' bytes (``a/x`` comes before ``a-b``). An answer without the mark that there is no further page,
one that has keys which were not asked for, or fewer than it counts, is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote_plus

from ..errors import ProtocolError, ResourceIsFileError, ResourceNotFoundError
from ..model import EntryKind, FileInfo
from ..transport.deadline import Deadline
from .address import S3Address
from .checksums import MODE, announced
from .endpoint import S3Endpoint

__all__ = ("ENCODED", "Listing", "ObjectHead", "Page", "decoded", "info_of")

ENCODED: dict[str, Any] = {"EncodingType": "url"}
"""Has keys percent-encoded, since XML cannot hold all of them, and boto3 replaces what is not UTF-8."""

_PAGE_KEYS = 1000
"""The most that a server gives at once."""


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of a listing.

    Parameters
    ----------
    objects : `list` [ `dict` ]
        ``Key``, ``Size``, ``LastModified`` and ``ETag`` of each object.
    prefixes : `list` [ `str` ]
        The directories, as beginnings of keys, if a delimiter was asked for.
    is_last : `bool`
        Whether the listing is complete with it.
    """

    objects: list[dict[str, Any]]
    prefixes: list[str]
    is_last: bool


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """What a HEAD tells of an object.

    Parameters
    ----------
    info : `FileInfo`
        Size, time, entity tag and the checksums of all its bytes.
    headers : `~collections.abc.Mapping`
        All headers, looked up without regard to case.
    """

    info: FileInfo
    headers: Mapping[str, str]


class Listing:
    """Looks into one bucket.

    Parameters
    ----------
    endpoint : `S3Endpoint`
        The bucket's endpoint.

    Notes
    -----
    Without state, so that threads and forked processes may share it.
    """

    def __init__(self, endpoint: S3Endpoint) -> None:
        self._endpoint = endpoint

    def stat(self, address: S3Address, *, operation: str, deadline: Deadline) -> FileInfo:
        """Return what has a name.

        Parameters
        ----------
        address : `S3Address`
            The name; one with a slash at its end is a directory.
        operation : `str`
            What it is asked for, for messages.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        info : `FileInfo`
            The object (1 request), else the directory (2 requests; 1 for a name with a slash).

        Raises
        ------
        ResourceNotFoundError
            Raised if neither is there.
        """
        if not address.is_directory:
            found = self.find(address, operation=operation, deadline=deadline)
            if found is not None:
                return found.info
        if self.holds(address, operation=operation, deadline=deadline):
            return FileInfo(address.url, EntryKind.DIRECTORY)
        raise ResourceNotFoundError(
            "no object has this name, and none begins with it", operation=operation, url=address.url
        )

    def find(self, address: S3Address, *, operation: str, deadline: Deadline) -> ObjectHead | None:
        """Return what a HEAD tells of an object (1 request).

        Parameters
        ----------
        address : `S3Address`
            Its name.
        operation : `str`
            What it is asked for, for messages.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        head : `ObjectHead` or `None`
            `None` if there is no such object, or no such bucket: a HEAD does not tell which.
        """
        with self._endpoint.open("HEAD", address.key, headers=MODE, deadline=deadline) as answer:
            if answer.status == 404:
                return None
            if answer.status != 200:
                raise self._endpoint.failure(answer, operation=operation, url=address.url)
            headers = answer.headers
        size = headers.get("Content-Length", "")
        if not (size.isascii() and size.isdigit()):
            raise ProtocolError("the server does not tell the size", operation=operation, url=address.url)
        info = FileInfo(
            address.url,
            EntryKind.FILE,
            int(size),
            _time(headers.get("Last-Modified", "")),
            MappingProxyType(announced(headers).checksums),
            headers.get("ETag", ""),
        )
        return ObjectHead(info, headers)

    def holds(self, address: S3Address, *, operation: str, deadline: Deadline) -> bool:
        """Tell whether there is a directory: its marker, or anything below it (1 request).

        Parameters
        ----------
        address : `S3Address`
            Its name; that of the bucket is one even if it is empty.
        operation : `str`
            What it is asked for, for messages.
        deadline : `Deadline`
            When to give up.
        """
        page = self._page(address, address.prefix, operation, deadline, {"MaxKeys": 1})
        return bool(page.objects) or not address.prefix

    def is_empty(self, address: S3Address, *, operation: str, deadline: Deadline) -> bool | None:
        """Tell whether nothing is below a directory but its marker (1 request).

        Parameters
        ----------
        address : `S3Address`
            The directory.
        operation : `str`
            What it is asked for, for messages.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        is_empty : `bool` or `None`
            `None` if there is no such directory.
        """
        page = self._page(address, address.prefix, operation, deadline, {"MaxKeys": 2})
        if not page.objects:
            return None
        return [entry["Key"] for entry in page.objects] == [address.prefix] and page.is_last

    def entries(self, address: S3Address, *, deadline: Deadline) -> Iterator[FileInfo]:
        """Yield what a directory holds, its marker left out, by pages (1 request for each thousand).

        Parameters
        ----------
        address : `S3Address`
            The directory.
        deadline : `Deadline`
            When to give up.

        Yields
        ------
        entry : `FileInfo`
            A directory that spans pages may come twice.

        Raises
        ------
        ResourceIsFileError
            Raised if there is an object of this name and no directory.
        ResourceNotFoundError
            Raised if there is neither.
        """
        prefix = address.prefix
        exists = not prefix
        for page in self.pages(address, prefix, operation="list", deadline=deadline, delimiter="/"):
            exists = exists or bool(page.objects or page.prefixes)
            for entry in page.objects:
                if entry["Key"] != prefix:
                    yield info_of(address, entry)
            for name in page.prefixes:
                yield FileInfo(address.with_key(name).url, EntryKind.DIRECTORY)
        if not exists:
            file = address.with_key(prefix[:-1])
            if file.key and self.find(file, operation="list", deadline=deadline) is not None:
                raise ResourceIsFileError("not a directory", operation="list", url=file.url)
            raise ResourceNotFoundError("nothing is below this name", operation="list", url=address.url)

    def pages(
        self, address: S3Address, prefix: str, *, operation: str, deadline: Deadline, delimiter: str = ""
    ) -> Iterator[Page]:
        """Yield the pages of a listing.

        Parameters
        ----------
        address : `S3Address`
            What it is made for, for messages.
        prefix : `str`
            What the keys begin with; it may end within a name.
        operation : `str`
            Likewise.
        deadline : `Deadline`
            When to give up.
        delimiter : `str`, optional
            ``/`` leaves out what is below directories.

        Yields
        ------
        page : `Page`
            The last one says that it is the last.

        Raises
        ------
        ProtocolError
            Raised if an answer is none.
        """
        further: dict[str, Any] = {"MaxKeys": _PAGE_KEYS}
        if delimiter:
            further["Delimiter"] = delimiter
        while True:
            page, token = self._answer(address, prefix, operation, deadline, further)
            yield page
            if page.is_last:
                return
            if not token or token == further.get("ContinuationToken"):
                raise _garbled("the listing does not say where its next page begins", operation, address)
            further["ContinuationToken"] = token

    def _page(
        self, address: S3Address, prefix: str, operation: str, deadline: Deadline, further: dict[str, Any]
    ) -> Page:
        return self._answer(address, prefix, operation, deadline, further)[0]

    def _answer(
        self, address: S3Address, prefix: str, operation: str, deadline: Deadline, further: dict[str, Any]
    ) -> tuple[Page, str]:
        answer = self._endpoint.call(
            "list_objects_v2",
            url=address.url,
            operation=operation,
            deadline=deadline,
            Prefix=prefix,
            **ENCODED,
            **further,
        )
        try:
            objects = [
                {**entry, "Key": decoded(answer, entry.get("Key", ""))}
                for entry in answer.get("Contents", [])
            ]
            prefixes = [decoded(answer, one.get("Prefix", "")) for one in answer.get("CommonPrefixes", [])]
        except UnicodeDecodeError as error:
            raise _garbled("a key is not text in UTF-8", operation, address) from error
        if "IsTruncated" not in answer:
            raise _garbled("the listing does not say whether it is complete", operation, address)
        if int(answer.get("KeyCount", 0)) > len(objects) + len(prefixes):
            raise _garbled("the listing counts more keys than it has", operation, address)
        for key in [*(entry["Key"] for entry in objects), *prefixes]:
            if not key or not key.startswith(prefix):
                # SeaweedFS 4.48 takes ``a//`` for ``a/``.
                raise _garbled("the listing has keys that were not asked for", operation, address)
        if prefix in prefixes:
            raise _garbled("the listing has the directory within itself", operation, address)
        return Page(objects, prefixes, not answer["IsTruncated"]), answer.get("NextContinuationToken", "")


def decoded(answer: Mapping[str, Any], key: str) -> str:
    """Return a key that a listing tells.

    Parameters
    ----------
    answer : `~collections.abc.Mapping`
        The answer, which says whether its keys are encoded.
    key : `str`
        The key as it stands there.

    Returns
    -------
    key : `str`
        The key.

    Raises
    ------
    UnicodeDecodeError
        If it is not text in UTF-8, so that no URL names it.
    """
    return unquote_plus(key, errors="strict") if answer.get("EncodingType") == "url" else key


def info_of(address: S3Address, entry: Mapping[str, Any]) -> FileInfo:
    """Return what a listing tells of an object.

    Parameters
    ----------
    address : `S3Address`
        A name in its bucket.
    entry : `~collections.abc.Mapping`
        One of `Page.objects`.
    """
    modified = entry.get("LastModified")
    return FileInfo(
        address.with_key(entry["Key"]).url,
        EntryKind.FILE,
        int(entry.get("Size", 0)),
        modified if isinstance(modified, datetime) else None,
        etag=entry.get("ETag", ""),
    )


def _time(text: str) -> datetime | None:
    try:
        time = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _garbled(message: str, operation: str, address: S3Address) -> ProtocolError:
    return ProtocolError(message, operation=operation, url=address.url)
