"""Whether a server keeps ``If-None-Match: *``: the one way to create an object and never to replace one.

Theory of operation: servers that do not know the condition ignore it and replace the object. So it is tried,
once for each endpoint and process, on an object of a name that nobody else has: a second write must be
refused. ``PutObject`` and ``CompleteMultipartUpload`` are tried each when they are first needed.

That a server refuses a name which is taken does not tell that it has one winner among several who write at
the same moment. AWS promises it. SeaweedFS 4.48 looks before it puts parts together: two of six writers won
in 4 of 15 races, and a copy does not exclude a PUT (2 of 40); of several PUTs one wins (90 of 90). So there
nothing but one PUT creates.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from ..errors import (
    DcacheError,
    DeadlineError,
    ProtocolError,
    ResourceExistsError,
    UnsupportedError,
)
from ..transport.deadline import Deadline
from ..transport.ownership import mark
from .address import S3Address, parse
from .endpoint import S3Endpoint
from .listing import Listing

__all__ = ("CONDITION", "LONGEST_KEY_BYTES", "CreateOnly", "temporary_address")

_log = logging.getLogger(__name__)

CONDITION = {"If-None-Match": "*"}
"""Header of a PUT that must not replace an object."""

_NAME_BYTES = 255
"""Longest component of a key that servers with directories take."""

LONGEST_KEY_BYTES = 1024
"""Amazon S3 User Guide, "Naming Amazon S3 objects"."""

_LARGEST_PUT_GIB = 5

_UNKNOWN_TO_IT = (ProtocolError, UnsupportedError)
"""What a server says that does not know the condition, and does not ignore it either."""


def temporary_address(address: S3Address) -> S3Address:
    """Return a new name beside another one, for what is not published yet.

    Parameters
    ----------
    address : `S3Address`
        The name under which it will be published.

    Returns
    -------
    temporary : `S3Address`
        ``.dcb-<host>-<place>-<process>-<start>-<16 hexadecimal digits>.<name>``, the name cut where it would
        be too long; see `..transport.ownership`.
    """
    prefix, key = mark(), address.key.rstrip("/")
    directory = key[: len(key) - len(address.name)]
    room = min(_NAME_BYTES, LONGEST_KEY_BYTES - len(directory.encode())) - len(prefix)
    name = address.name.encode()[: max(room, 0)].decode(errors="ignore")
    return address.with_key(directory + prefix + name)


class CreateOnly:
    """What an endpoint was found to do with writes that must not replace anything.

    Parameters
    ----------
    endpoint : `S3Endpoint`
        The endpoint.

    Notes
    -----
    Thread-safe. What was found is kept as long as this object lives.
    """

    def __init__(self, endpoint: S3Endpoint) -> None:
        self._endpoint = endpoint
        self._listing = Listing(endpoint)
        self._lock = threading.Lock()
        self._honours: dict[str, bool] = {}
        self._is_racy = False

    def after_fork(self) -> None:
        """Make the lock of a forked child its own."""
        self._lock = threading.Lock()

    def prepare(self, url: str, *, multipart: bool = False, deadline: Deadline) -> bool:
        """Make ready to create an object.

        Parameters
        ----------
        url : `str`
            Its name.
        multipart : `bool`, optional
            Whether it is put together of parts.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        is_conditional : `bool`
            Whether the server is to be told ``If-None-Match: *``. If not, nothing has the name so far, and
            somebody else may still take it.

        Raises
        ------
        UnsupportedError
            Raised if the server cannot see to it that there is one winner, and the configuration does not say
            that a look before is enough (``exclusive: best_effort``).
        ResourceExistsError
            Raised if it was looked and something has the name.
        """
        address = parse(url)
        is_honoured = self._is_honoured("parts" if multipart else "put", address, deadline)
        if is_honoured and not (multipart and self._is_racy):
            return True
        if self._endpoint.limits.exclusive == "exact":
            if is_honoured or (multipart and self._is_honoured("put", address, deadline)):
                what = f"creates objects of up to {_LARGEST_PUT_GIB} GiB only, those of one PUT"
            else:
                what = "ignores If-None-Match, so it would replace what another writer creates meanwhile"
            raise UnsupportedError(
                f"the server {what}",
                operation="write",
                url=url,
                hint="Allow replacement (overwrite=True), or set exclusive: best_effort, which looks before.",
            )
        if self._listing.find(address, operation="write", deadline=deadline) is not None:
            raise ResourceExistsError("the object exists", operation="write", url=url)
        return is_honoured

    def multipart_is_exact(self, url: str, *, deadline: Deadline) -> bool:
        """Tell whether one of several writers wins, if they put objects together of parts.

        Parameters
        ----------
        url : `str`
            Name of an object beside which others may be written.
        deadline : `Deadline`
            When to give up finding it out.
        """
        return self._is_honoured("parts", parse(url), deadline) and not self._is_racy

    def _is_honoured(self, how: str, address: S3Address, deadline: Deadline) -> bool:
        known = self._honours.get(how)
        if known is not None:
            return known
        lock = self._lock
        if not lock.acquire(timeout=deadline.remaining()):
            raise DeadlineError(
                "another thread did not find out in time whether the server can create without replacing",
                operation="write",
                url=address.url,
                elapsed_seconds=deadline.elapsed,
            )
        try:
            if how not in self._honours:
                self._honours[how] = self._try(how, address, deadline)
            return self._honours[how]
        finally:
            lock.release()

    def _try(self, how: str, address: S3Address, deadline: Deadline) -> bool:
        probe = temporary_address(address)
        with self._endpoint.open("PUT", probe.key, body=b"", deadline=deadline) as answer:
            if answer.status != 200:
                raise self._endpoint.failure(answer, operation="write", url=probe.url)
        try:
            if how == "put":
                return self._put_again(probe, deadline)
            head = self._listing.find(probe, operation="write", deadline=deadline)
            # A relay may put its own name in the place of the server's.
            self._is_racy = head is not None and any(
                name.lower().startswith("seaweed-") for name in head.headers
            )
            return self._is_racy or self._complete(probe, deadline)
        finally:
            self._clean_up("delete_object", probe, deadline)

    def _put_again(self, probe: S3Address, deadline: Deadline) -> bool:
        try:
            with self._endpoint.open(
                "PUT", probe.key, headers=CONDITION, body=b"", deadline=deadline
            ) as answer:
                if answer.status == 200:
                    return False
                raise self._endpoint.failure(answer, operation="write", url=probe.url)
        except ResourceExistsError:
            return True
        except _UNKNOWN_TO_IT:
            return False

    def _complete(self, probe: S3Address, deadline: Deadline) -> bool:
        upload = self._call("create_multipart_upload", probe, deadline).get("UploadId")
        if not upload:
            raise ProtocolError("the upload has no name", operation="write", url=probe.url)
        is_ended = False
        try:
            part = {"PartNumber": 1, "ETag": self._put_part(probe, upload, deadline)}
            self._call(
                "complete_multipart_upload",
                probe,
                deadline,
                UploadId=upload,
                MultipartUpload={"Parts": [part]},
                IfNoneMatch="*",
            )
            is_ended = True
            return False
        except ResourceExistsError:
            return True
        except _UNKNOWN_TO_IT:
            return False
        finally:
            if not is_ended:
                self._clean_up("abort_multipart_upload", probe, deadline, UploadId=upload)

    def _put_part(self, probe: S3Address, upload: str, deadline: Deadline) -> str:
        query = {"partNumber": "1", "uploadId": upload}
        with self._endpoint.open("PUT", probe.key, query=query, body=b"x", deadline=deadline) as answer:
            if answer.status != 200:
                raise self._endpoint.failure(answer, operation="write", url=probe.url)
            return str(answer.headers.get("ETag", ""))

    def _clean_up(self, name: str, probe: S3Address, deadline: Deadline, **parameters: str) -> None:
        try:
            self._call(name, probe, deadline, **parameters)
        except FileNotFoundError:
            return
        except DcacheError as error:
            # Whoever may write need not have the right to remove.
            _log.warning("what found out how the server creates objects is left behind: %s", error)

    def _call(self, name: str, probe: S3Address, deadline: Deadline, **parameters: Any) -> dict[str, Any]:
        return self._endpoint.call(
            name, url=probe.url, operation="write", deadline=deadline, Key=probe.key, **parameters
        )
