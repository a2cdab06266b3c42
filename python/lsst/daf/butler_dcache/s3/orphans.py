"""Multipart uploads that were begun and neither completed nor aborted.

They have no name that a listing of objects shows, but their parts take space, and cost money, until somebody
aborts them. Nothing that can be given to one tells in a listing whose it is: only its age speaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import ProtocolError
from ..model import UnfinishedUpload
from .address import parse
from .endpoint import S3Endpoint

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
        while True:
            page = self._endpoint.call(
                "list_multipart_uploads",
                url=url,
                operation="list uploads",
                deadline=self._endpoint.deadline(),
                Prefix=address.prefix,
                **where,
            )
            for upload in page.get("Uploads", ()):
                if not upload["Key"].startswith(address.prefix):
                    raise ProtocolError(
                        "the server lists an upload that was not asked for", operation="list uploads", url=url
                    )
                yield UnfinishedUpload(
                    address.with_key(upload["Key"]).url, upload["UploadId"], upload.get("Initiated")
                )
            if not page.get("IsTruncated"):
                return
            following = _markers(page)
            if following == where:
                raise ProtocolError(
                    "the server lists the same uploads again", operation="list uploads", url=url
                )
            where = following

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
    return {name: page[given] for name, given in names.items() if page.get(given)}
