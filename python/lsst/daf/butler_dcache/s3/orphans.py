"""Multipart uploads that were begun and neither completed nor aborted.

They have no name that a listing of objects shows, but their parts take space, and cost money, until somebody
aborts them. Nothing that can be given to one tells in a listing whose it is: only its age speaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import ProtocolError
from ..model import UnfinishedUpload
from .address import S3Address, parse
from .endpoint import S3Endpoint
from .listing import ENCODED, decoded

__all__ = ("UnfinishedUploads",)


class UnfinishedUploads:
    """The multipart uploads of a bucket.

    Parameters
    ----------
    endpoint : `S3Endpoint`
        The bucket.
    """

    def __init__(self, endpoint: S3Endpoint) -> None:
        self._endpoint = endpoint

    def find(self, url: str) -> Iterator[UnfinishedUpload]:
        """Yield those below a directory (1 request for each thousand).

        Parameters
        ----------
        url : `str`
            The directory.
        """
        address = parse(url)
        where: dict[str, Any] = {}
        known = [where]
        # SeaweedFS 4.48 says that it encodes these, and does not: it is not asked to where it need not.
        encoding: dict[str, Any] = {}
        while True:
            try:
                page = self._page(address, {**encoding, **where})
            except ProtocolError:
                if encoding:
                    raise
                encoding = ENCODED  # a key that XML cannot hold
                continue
            try:
                found = [(decoded(page, one.get("Key", "")), one) for one in page.get("Uploads", ())]
                where = _markers(page)
            except UnicodeDecodeError as error:
                raise _garbled("a key is not text in UTF-8", url) from error
            for key, upload in found:
                if not key.startswith(address.prefix) or not upload.get("UploadId"):
                    raise _garbled("the server lists an upload that was not asked for", url)
                yield UnfinishedUpload(address.with_key(key).url, upload["UploadId"], upload.get("Initiated"))
            if not page.get("IsTruncated"):
                return
            if where in known:
                raise _garbled("the server lists the same uploads again", url)
            known.append(where)

    def _page(self, address: S3Address, further: dict[str, Any]) -> dict[str, Any]:
        return self._endpoint.call(
            "list_multipart_uploads",
            url=address.url,
            operation="list uploads",
            deadline=self._endpoint.deadline(),
            Prefix=address.prefix,
            **further,
        )

    def abort(self, upload: UnfinishedUpload) -> None:
        """Abort one (1 request); its parts are gone with it.

        Parameters
        ----------
        upload : `UnfinishedUpload`
            Which.

        Raises
        ------
        ResourceNotFoundError
            If it was completed or aborted meanwhile.
        """
        self._endpoint.call(
            "abort_multipart_upload",
            url=upload.url,
            operation="abort",
            deadline=self._endpoint.deadline(),
            Key=parse(upload.url).key,
            UploadId=upload.identifier,
        )


def _markers(page: dict[str, Any]) -> dict[str, Any]:
    """Return where the next page begins."""
    names = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
    markers = {name: page[given] for name, given in names.items() if page.get(given)}
    if "KeyMarker" in markers:
        markers["KeyMarker"] = decoded(page, markers["KeyMarker"])
    return markers


def _garbled(message: str, url: str) -> ProtocolError:
    return ProtocolError(message, operation="list uploads", url=url)
