"""Removal: a thousand objects with one request, and never a tree.

Theory of operation: S3 says the same of an object that it removed and of one that was not there. Whoever asks
for a single name to be removed is told the truth at the price of a HEAD before (2 requests); of many names
each is only known not to be there any more (``DeleteObjects``, 1 request for each thousand), which is what
`lsst.resources` asks for as well. A directory is its marker, ``name/``, and goes when nothing else is below.

What the answer to ``DeleteObjects`` does not name was not removed as far as anybody knows; so the server is
not told to be quiet. What failed for a moment is asked for again.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from ..errors import (
    DcacheError,
    DirectoryNotEmptyError,
    ProtocolError,
    ResourceNotFoundError,
    ServerBusyError,
    ServerError,
)
from ..transport.deadline import Deadline
from ..transport.retry import Phase, rounds
from .address import S3Address
from .endpoint import S3Endpoint
from .failures import Said, failure
from .listing import Listing

__all__ = ("BATCH_KEYS", "Removal")

BATCH_KEYS = 1000
"""The most that ``DeleteObjects`` takes."""

_NOT_XML = re.compile(r"[^\t\n\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")
"""What cannot be written in XML 1.0 (section 2.2), or comes back as something else."""


class Removal:
    """Removes objects, and the markers of directories.

    Parameters
    ----------
    endpoint : `S3Endpoint`
        The bucket's endpoint.
    listing : `Listing`
        Looks into the bucket.
    """

    def __init__(self, endpoint: S3Endpoint, listing: Listing) -> None:
        self._endpoint = endpoint
        self._listing = listing

    def remove(self, address: S3Address, *, deadline: Deadline) -> None:
        """Remove a file or an empty directory (2 requests; 3 for a directory without a slash at its end).

        Parameters
        ----------
        address : `S3Address`
            What to remove; of a file and a directory of one name, it is the file.
        deadline : `Deadline`
            When to give up.

        Raises
        ------
        ResourceNotFoundError
            Raised if there is none.
        DirectoryNotEmptyError
            Raised if it is a directory that holds something.
        """
        if not address.is_directory:
            found = self._listing.find(address, operation="remove", deadline=deadline)
            if found is not None:
                self.delete(address, deadline=deadline)
                return
        is_empty = self._listing.is_empty(address, operation="remove", deadline=deadline)
        if is_empty is None and address.key:
            raise ResourceNotFoundError(
                "no object has this name, and none begins with it", operation="remove", url=address.url
            )
        if not is_empty:
            raise DirectoryNotEmptyError(
                "a directory that holds something is not removed", operation="remove", url=address.url
            )
        self.delete(address.with_key(address.prefix), deadline=deadline)

    def delete(self, address: S3Address, *, etag: str = "", deadline: Deadline) -> None:
        """Remove one object, without a look (1 request); one that is not there is not an error.

        Parameters
        ----------
        address : `S3Address`
            Its name.
        etag : `str`, optional
            Remove this version only, where the server knows that condition.
        deadline : `Deadline`
            When to give up.

        Raises
        ------
        ResourceExistsError
            Raised if another version is there.
        UnsupportedError
            Raised if the server refuses to be given the condition.
        """
        headers = {"If-Match": etag} if etag else {}
        with self._endpoint.open("DELETE", address.key, headers=headers, deadline=deadline) as answer:
            if answer.status not in (200, 204, 404):
                raise self._endpoint.failure(answer, operation="remove", url=address.url)
            if answer.status == 404:
                error = self._endpoint.failure(answer, operation="remove", url=address.url)
                if "NoSuchBucket" in error.reason:
                    raise error

    def delete_batch(
        self, addresses: Sequence[S3Address], *, deadline: Deadline
    ) -> dict[S3Address, DcacheError | None]:
        """Remove many objects (1 request).

        Parameters
        ----------
        addresses : `~collections.abc.Sequence` [ `S3Address` ]
            Their names, at most `BATCH_KEYS`.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        results : `dict` [ `S3Address`, `DcacheError` or `None` ]
            `None` for each that is not there any more.

        Raises
        ------
        DcacheError
            Raised by cause if the first request as a whole was refused.
        """
        results: dict[S3Address, DcacheError | None] = {}
        todo: dict[str, S3Address] = {}
        for address in addresses:
            if _NOT_XML.search(address.key):
                results[address] = self._one(address, deadline)
            else:
                todo[address.key] = address
        if not todo:
            return results
        for last in rounds(Phase.UNSETTLED, "DELETE", deadline):
            try:
                outcome = self._batch(todo, deadline)
            except DcacheError as error:
                if not results:
                    raise
                outcome = dict.fromkeys(todo, error)  # of the others it is known what became of them
            results |= {todo[key]: error for key, error in outcome.items()}
            todo = {
                key: todo[key]
                for key, error in outcome.items()
                if isinstance(error, (ServerBusyError, ServerError))
            }
            if last or not todo:  # the next round begins with a wait
                break
        return results

    def _one(self, address: S3Address, deadline: Deadline) -> DcacheError | None:
        try:
            self.delete(address, deadline=deadline)
        except DcacheError as error:
            return error
        return None

    def _batch(self, todo: dict[str, S3Address], deadline: Deadline) -> dict[str, DcacheError | None]:
        answer = self._endpoint.call(
            "delete_objects",
            url=next(iter(todo.values())).url,
            operation="remove",
            deadline=deadline,
            Delete={"Objects": [{"Key": key} for key in todo]},
        )
        outcome: dict[str, DcacheError | None] = {}
        for entry in answer.get("Deleted", []):
            if entry.get("Key") in todo:
                outcome[entry["Key"]] = None
        for entry in answer.get("Errors", []):
            key = entry.get("Key")
            if key in todo:
                outcome[key] = _error(entry, todo[key])
        for key in todo.keys() - outcome.keys():
            outcome[key] = ProtocolError(
                "the server does not say what became of it", operation="remove", url=todo[key].url
            )
        return outcome


def _error(entry: dict[str, str], address: S3Address) -> DcacheError | None:
    """Return what is said of one object among many, as if it had been an answer of its own."""
    code, message = entry.get("Code", ""), entry.get("Message", "")
    if code == "NoSuchKey":
        return None
    body = f"<Error><Code>{html.escape(code)}</Code><Message>{html.escape(message)}</Message></Error>"
    said = Said(200, "", {}, body.encode())
    return failure(said, operation="remove", url=address.url, method="POST")
