"""A temporary key of S3 to which another server sends an object."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import IntegrityError
from ..model import FileInfo
from ..s3.address import S3Address
from ..s3.conditions import temporary_address
from ..s3.copying import Copies
from ..s3.endpoint import S3Endpoint
from ..s3.listing import Listing
from ..transport.deadline import Deadline

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
    deadline : `~collections.abc.Callable`
        Makes the deadline of one step.
    """

    def __init__(
        self,
        endpoint: S3Endpoint,
        listing: Listing,
        copies: Copies,
        address: S3Address,
        overwrite: bool,
        deadline: Callable[[], Deadline],
    ) -> None:
        self._endpoint = endpoint
        self._listing = listing
        self._copies = copies
        self._address = address
        self._overwrite = overwrite
        self._deadline = deadline
        self.temporary = temporary_address(address)

    def destination(self, seconds: float) -> str:
        """See `.protocol.Landing`."""
        return self._endpoint.presign(self.temporary.key, "PUT", int(seconds))

    def verify(self, expected: FileInfo) -> None:
        """See `.protocol.Landing`."""
        head = self._listing.find(self.temporary, operation="copy", deadline=self._deadline())
        seen = None if head is None else (head.info.size, head.info.checksums.get("md5"))
        if seen != (expected.size, expected.checksums["md5"]):
            raise IntegrityError(
                f"size and MD5 of what was sent are {seen or 'unknown: nothing has come'}, "
                f"those of the file are {(expected.size, expected.checksums['md5'])}",
                operation="copy",
                url=self._address.url,
            )

    def publish(self) -> FileInfo:
        """See `.protocol.Landing`."""
        return self._copies.copy(
            self.temporary.url, self._address.url, overwrite=self._overwrite, deadline=self._deadline()
        )
