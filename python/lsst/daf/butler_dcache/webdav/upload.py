"""One file to one name, verified; what the name held before is gone (publication is a matter of `..store`).

Theory of operation: with ``Expect: 100-continue`` dCache's door answers 307 before a byte of the body is
sent, and the body goes to the pool, with no other ``Content-*`` header than its length (protocol page,
sections 2.2 and 3.5). The true length is announced at the door too: it is binding there, so that a cut upload
is marked as broken instead of looking perfect (section 3.8). Small and empty files go through the door in one
request, which moreover leaves nothing when it fails. The 201 brings the adler32 of the bytes that arrived; it
is compared with our own.
"""

from __future__ import annotations

from types import MappingProxyType

from ..errors import DoorUnavailableError, IntegrityError, OutcomeUnknownError, UploadDisplacedError
from ..model import EntryKind, FileInfo
from ..transport.answer import DataAnswer
from ..transport.deadline import Deadline
from ..transport.failures import failure, is_mover_gone
from .body import UploadBody
from .door import REDIRECTS, Door
from .download import digests

__all__ = ("Uploads", "may_clean_up")

_MOST_ROUNDS = 3
_CREATED = frozenset({200, 201, 204})
_WANT = {"Want-Digest": "adler32"}


class Uploads:
    """Puts bytes under names that nobody else uses.

    Parameters
    ----------
    door : `Door`
        Who says where they go.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    def put(self, url: str, body: UploadBody, *, deadline: Deadline) -> FileInfo:
        """Upload a body and verify what arrived.

        Parameters
        ----------
        url : `str`
            Name to write; an existing file is destroyed before the first byte is sent.
        body : `UploadBody`
            What is written.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        info : `FileInfo`
            Size and adler32, equal at both ends, under this name.

        Raises
        ------
        DcacheError
            Raised by cause. What is at the name then is not readable or not there, with one exception:
            `UploadDisplacedError` says that it belongs to somebody else now.
        IntegrityError
            Raised if the server holds other bytes.
        """
        small = body.length <= self._door.settings.proxy_upload_max_bytes and self._door.dialect != "xrootd"
        # XRootD 6.2.1 alone never answers an empty PUT with Expect.
        checksums = None
        if small or body.length == 0:
            checksums = self._through_door(url, body, deadline)
        if checksums is None:
            checksums = self._to_pool(url, body, deadline)
        body.has_entry = True
        return self._verified(url, body, checksums, deadline)

    def _through_door(self, url: str, body: UploadBody, deadline: Deadline) -> dict[str, str] | None:
        """Send a small body to the door, which relays it; `None` if it turns out not to do that."""
        if self._door.dialect == "auto" and body.length > 0:
            return self._try_door(url, body, deadline)
        answer = self._door.ask(
            "PUT",
            url,
            operation="write",
            deadline=deadline,
            headers=_WANT,
            body=body.as_bytes(),
            accept=_CREATED,
        )
        return digests(answer)

    def _try_door(self, url: str, body: UploadBody, deadline: Deadline) -> dict[str, str] | None:
        """Send a small body to a door of unknown kind.

        dCache relays it. A redirector of XRootD answers 307, takes the body for its next request, and may
        close while it is still being sent: that connection is of no use afterwards.
        """
        body.rewind()
        try:
            answer = self._door.open("PUT", url, headers=_WANT, body=body.wire, keep=False, deadline=deadline)
        except (DoorUnavailableError, OutcomeUnknownError):
            # The name is a temporary one; a second upload replaces whatever the first has left.
            return None
        if answer.status in REDIRECTS:
            answer.close(False)
            return None
        return self._accepted(url, answer, deadline, at_pool=False)

    def _to_pool(self, url: str, body: UploadBody, deadline: Deadline) -> dict[str, str]:
        for attempt in range(_MOST_ROUNDS):
            last = attempt == _MOST_ROUNDS - 1
            answer = self._open_at_door(url, body, deadline)
            if answer.status in REDIRECTS and not answer.continued:
                # From here on what the name held before is gone, and an unfinished entry is there.
                body.has_entry = True
                answer.close(False)
                place = self._door.data_url(answer, url, operation="write")
                body.rewind()
                try:
                    answer = self._door.data.open(
                        "PUT",
                        place,
                        headers=_WANT,
                        body=body.wire,
                        deadline=deadline,
                    )
                except DoorUnavailableError:
                    # Under a temporary name a second upload harms nobody; the ruin of the first is replaced.
                    if last or body.tell() > 0:
                        raise
                    continue
                if is_mover_gone(answer) and not last:
                    answer.close(False)
                    continue
                return self._accepted(url, answer, deadline, at_pool=True)
            return self._accepted(url, answer, deadline, at_pool=False)
        raise AssertionError("the last round returns or raises")

    def _open_at_door(self, url: str, body: UploadBody, deadline: Deadline) -> DataAnswer:
        body.rewind()
        return self._door.open("PUT", url, headers=_WANT, body=body.wire, expect=True, deadline=deadline)

    def _accepted(self, url: str, answer: DataAnswer, deadline: Deadline, *, at_pool: bool) -> dict[str, str]:
        text = answer.read()
        answer.close()
        if answer.status in _CREATED:
            return digests(answer)
        raise failure(
            answer,
            operation="write",
            url=url,
            body=text,
            method="PUT",
            at_pool=at_pool,
            elapsed_seconds=deadline.elapsed,
        )

    def _verified(
        self, url: str, body: UploadBody, checksums: dict[str, str], deadline: Deadline
    ) -> FileInfo:
        own = body.adler32
        theirs = checksums.get("adler32")
        etag = ""
        if theirs is None:
            # XRootD and plain WebDAV servers say nothing of what arrived: at least the size is compared.
            entry = self._door.propfind(url, 0, operation="write", deadline=deadline)[0]
            if entry.size != body.length:
                raise IntegrityError(
                    f"{body.length} bytes were sent, the server holds {entry.size}",
                    operation="write",
                    url=url,
                )
            theirs, etag = entry.checksums.get("adler32", own), entry.etag
        if theirs != own:
            raise IntegrityError(
                f"the bytes that were sent have adler32 {own}, those that arrived {theirs}",
                operation="write",
                url=url,
                hint="Nothing was published; the write can be repeated.",
            )
        return FileInfo(
            url=url,
            kind=EntryKind.FILE,
            size=body.length,
            checksums=MappingProxyType({**checksums, "adler32": own}),
            etag=etag,
        )


def may_clean_up(error: BaseException) -> bool:
    """Tell whether the name of a failed upload is surely still ours.

    Parameters
    ----------
    error : `BaseException`
        What ended the upload.

    Notes
    -----
    After the pool's 500 ``No such file or directory`` the name may hold the good file of another writer
    (protocol page, section 3.5).
    """
    return not isinstance(error, UploadDisplacedError)
