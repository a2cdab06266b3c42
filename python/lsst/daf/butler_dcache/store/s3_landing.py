"""A temporary key of S3 to which another server sends an object."""

from __future__ import annotations

from ..auth.grant import Grant
from ..errors import UnsupportedError
from ..model import FileInfo
from ..redaction import Secret
from ..s3.address import S3Address
from ..s3.conditions import temporary_address
from ..s3.copying import Copies
from ..s3.endpoint import S3Endpoint
from ..s3.listing import Listing
from ..transport.deadline import Deadline
from ..webdav.markers import Vigil

__all__ = ("S3Landing",)


class S3Landing:
    """Implements `.protocol.Landing`.

    Parameters
    ----------
    endpoint : `~..s3.endpoint.S3Endpoint`
        Signs.
    listing : `~..s3.listing.Listing`
        Looks at what came.
    copies : `~..s3.copying.Copies`
        Publish it.
    address : `~..s3.address.S3Address`
        Name of the file.
    overwrite : `bool`
        Whether an existing file may be replaced.
    deadline : `~..transport.deadline.Deadline`
        When to give up.
    """

    def __init__(
        self,
        endpoint: S3Endpoint,
        listing: Listing,
        copies: Copies,
        address: S3Address,
        overwrite: bool,
        deadline: Deadline,
    ) -> None:
        self._endpoint = endpoint
        self._listing = listing
        self._copies = copies
        self._address = address
        self._overwrite = overwrite
        self._deadline = deadline
        self.temporary = temporary_address(address)

    def grant(self, seconds: float) -> Grant:
        """See `.protocol.Landing`."""
        return Grant(Secret(self._endpoint.presign(self.temporary.key, "PUT", int(seconds))))

    def pull(self, source: Grant, vigil: Vigil, *, algorithm: str) -> None:
        """Raise `UnsupportedError`."""
        raise UnsupportedError("S3 servers fetch nothing", operation="copy", url=self._address.url)

    def look(self, algorithm: str) -> FileInfo | None:
        """See `.protocol.Landing`."""
        head = self._listing.find(self.temporary, operation="copy", deadline=self._deadline)
        return None if head is None else head.info

    def publish(self, info: FileInfo) -> FileInfo:
        """See `.protocol.Landing`."""
        return self._copies.copy(
            self.temporary.url, self._address.url, overwrite=self._overwrite, deadline=self._deadline
        )
