"""One file to one name, verified; what the name held before is gone (publication is a matter of `..store`).

Theory of operation: with ``Expect: 100-continue`` dCache's door answers 307 before a byte of the body is
sent, and the body goes to the pool, with no other ``Content-*`` header than its length (protocol page,
sections 2.2 and 3.5). The true length is announced at the door too: it is binding there, so that a cut upload
is marked as broken instead of looking perfect (section 3.8). Small and empty files go through the door in one
request, which moreover leaves nothing when it fails. The 201 brings the adler32 of the bytes that arrived,
and a pool's says how many; both are compared with our own (files of zeros whose lengths differ by a multiple
of 65521 have the same adler32).

XRootD's redirector is asked by a PUT without a body, and its data server by one with it; the rename goes to
that data server as well, by the same URL. That is three requests on kept connections.

A file that is still being written (`Uploads.begin`) waits for the 100 of the pool as well: up to there it can
be begun anew, from there on not.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import NoReturn

from ..errors import (
    DeadlineError,
    DoorUnavailableError,
    IntegrityError,
    OutcomeUnknownError,
    ProtocolError,
    UploadDisplacedError,
)
from ..model import Adler32, EntryKind, FileInfo
from ..transport.answer import DataAnswer
from ..transport.deadline import Deadline
from ..transport.failures import failure, is_mover_gone
from ..transport.outgoing import Outgoing
from ..transport.upload_body import UploadBody
from .door import REDIRECTS, Door
from .whole_answer import digests

__all__ = ("StreamedPut", "Uploads", "may_clean_up")

_MOST_ROUNDS = 3
_CREATED = frozenset({200, 201, 204})
_WANT = {"Want-Digest": "adler32"}
_ARRIVED = re.compile(rb"(\d{1,19}) bytes uploaded")


class Uploads:
    """Puts bytes under names that nobody else uses.

    Parameters
    ----------
    door : `Door`
        Who says where they go.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._takes_bodies = False  # whether this XRootD has said that it is no redirector

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
        if self._door.dialect == "xrootd" and "adler32" not in checksums:
            # XRootD answers 201 once it has written as many bytes as were announced and closed the file, all
            # without an error (`XrdHttpReq::PostProcessHTTPReq`): to ask for the size would tell nothing.
            return _uploaded(url, body.length, body.adler32, checksums)
        return self._verified(url, body.length, body.adler32, checksums, deadline)

    def begin(self, url: str, length: int | None, *, deadline: Deadline) -> StreamedPut:
        """Begin to upload a file that is still being written.

        Parameters
        ----------
        url : `str`
            Name to write; an existing file is destroyed.
        length : `int` or `None`
            Its size, if it is known.
        deadline : `Deadline`
            Limits the beginning only.

        Returns
        -------
        put : `StreamedPut`
            Takes the bytes.

        Raises
        ------
        DcacheError
            Raised by cause. There may be an unfinished entry at the name.
        """
        for attempt in range(_MOST_ROUNDS):
            last = attempt == _MOST_ROUNDS - 1
            answer = self._door.begin("PUT", url, headers=_WANT, length=length, deadline=deadline)
            if isinstance(answer, Outgoing):
                return StreamedPut(self, url, answer, at_pool=False)
            if answer.status not in REDIRECTS:
                self._refused(url, answer, deadline, at_pool=False)
            answer.close(False)
            place = self._door.data_url(answer, url, operation="write")
            try:
                answer = self._door.data.begin("PUT", place, headers=_WANT, length=length, deadline=deadline)
            except (DoorUnavailableError, OutcomeUnknownError):
                # Not a byte exists yet, and the name is ours: the next round replaces what this one left.
                if last or deadline.expired:
                    raise
                continue
            if isinstance(answer, Outgoing):
                return StreamedPut(self, url, answer, at_pool=True)
            if last or not is_mover_gone(answer):
                self._refused(url, answer, deadline, at_pool=True)
            answer.close(False)
        raise AssertionError("the last round returns or raises")

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
        return self._accepted(url, answer, body.length, deadline, at_pool=False)

    def _to_pool(self, url: str, body: UploadBody, deadline: Deadline) -> dict[str, str]:
        for attempt in range(_MOST_ROUNDS):
            last = attempt == _MOST_ROUNDS - 1
            try:
                answer = self._open_at_door(url, body, deadline)
            except OutcomeUnknownError:
                # As below; a redirector's kept connection may have been closed at this moment.
                if last or deadline.expired or body.tell() > 0:
                    raise
                continue
            if answer.status in REDIRECTS and not answer.continued:
                # From here on what the name held before is gone, and an unfinished entry is there.
                body.has_entry = True
                answer.close()
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
                if self._door.dialect == "xrootd":
                    body.place = place
                return self._accepted(url, answer, body.length, deadline, at_pool=True)
            return self._accepted(url, answer, body.length, deadline, at_pool=False)
        raise AssertionError("the last round returns or raises")

    def _open_at_door(self, url: str, body: UploadBody, deadline: Deadline) -> DataAnswer:
        body.rewind()
        if self._door.dialect == "xrootd" and not self._takes_bodies:
            # A redirector answers 307 without having seen a body, and its connection is of use afterwards.
            answer = self._door.open("PUT", url, body=b"", deadline=deadline)
            if answer.status not in _CREATED:
                return answer
            # A server that stands alone: now there is an empty file, which the next request replaces.
            answer.close()
            body.has_entry = self._takes_bodies = True
        return self._door.open("PUT", url, headers=_WANT, body=body.wire, expect=True, deadline=deadline)

    def _accepted(
        self, url: str, answer: DataAnswer, length: int, deadline: Deadline, *, at_pool: bool
    ) -> dict[str, str]:
        """Return the checksums in the answer to a whole body, or raise what it says."""
        if answer.status not in _CREATED or not answer.body_sent:
            self._refused(url, answer, deadline, at_pool=at_pool)
        text = answer.read_short()
        answer.close()
        arrived = _ARRIVED.match(text)
        if arrived is not None and int(arrived[1]) != length:
            raise _other_size(url, length, int(arrived[1]))
        return digests(answer)

    @staticmethod
    def _refused(url: str, answer: DataAnswer, deadline: Deadline, *, at_pool: bool) -> NoReturn:
        text = answer.read_short()
        answer.close()
        if answer.status in _CREATED:
            raise ProtocolError(
                "the server does not wait for the body of an upload",
                operation="write",
                url=url,
                status=answer.status,
            )
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
        self, url: str, length: int, own: str, checksums: dict[str, str], deadline: Deadline
    ) -> FileInfo:
        theirs = checksums.get("adler32")
        etag = ""
        if theirs is None:
            # XRootD and plain WebDAV servers say nothing of what arrived: at least the size is compared.
            entry = self._door.propfind(url, operation="write", deadline=deadline)
            if entry.size != length:
                raise _other_size(url, length, entry.size)
            theirs, etag = entry.checksums.get("adler32", own), entry.etag
        if theirs != own:
            raise IntegrityError(
                f"the bytes that were sent have adler32 {own}, those that arrived {theirs}",
                operation="write",
                url=url,
                hint="Nothing was published; the write can be repeated.",
            )
        return _uploaded(url, length, own, checksums, etag)


class StreamedPut:
    """A file on its way to a name that nobody else uses.

    Parameters
    ----------
    uploads : `Uploads`
        Who began it.
    url : `str`
        The name.
    outgoing : `Outgoing`
        Where its bytes go.
    at_pool : `bool`
        Whether a pool takes them, or the door.
    """

    def __init__(self, uploads: Uploads, url: str, outgoing: Outgoing, *, at_pool: bool) -> None:
        self.url = url
        self._uploads = uploads
        self._outgoing = outgoing
        self._at_pool = at_pool
        self._sum = Adler32()

    def send(self, data: bytes | bytearray | memoryview, deadline: Deadline) -> None:
        """Send the next bytes.

        Parameters
        ----------
        data : bytes-like
            The next bytes.
        deadline : `Deadline`
            Limits this call.

        Raises
        ------
        DcacheError
            Raised by cause, with what the server says. The upload is of no use afterwards.
        """
        if not self._outgoing.send(data, deadline):
            self._broken(deadline)
        self._sum.update(data)

    def finish(self, deadline: Deadline) -> FileInfo:
        """End the file and verify what arrived.

        Parameters
        ----------
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        info : `FileInfo`
            Size and adler32, equal at both ends, under the temporary name.
        """
        answer = self._outgoing.finish(deadline)
        if not answer.body_sent:
            self._uploads._refused(self.url, answer, deadline, at_pool=self._at_pool)
        if not self._at_pool:
            self._uploads._door.learn(answer)
        size = self._sum.size
        checksums = self._uploads._accepted(self.url, answer, size, deadline, at_pool=self._at_pool)
        return self._uploads._verified(self.url, size, self._sum.hexdigest(), checksums, deadline)

    def abandon(self) -> None:
        """Break off; takes no lock and sends nothing, so that the garbage collector may call it."""
        self._outgoing.abandon()

    def _broken(self, deadline: Deadline) -> NoReturn:
        sent = self._outgoing.sent_bytes
        try:
            answer = self._outgoing.finish(deadline)
        except (OutcomeUnknownError, DeadlineError) as error:
            raise DoorUnavailableError(
                f"the server took no more after {sent} bytes: {error.message}",
                operation="write",
                url=self.url,
                elapsed_seconds=deadline.elapsed,
            ) from error
        self._uploads._refused(self.url, answer, deadline, at_pool=self._at_pool)


def _uploaded(url: str, length: int, own: str, checksums: dict[str, str], etag: str = "") -> FileInfo:
    return FileInfo(
        url=url,
        kind=EntryKind.FILE,
        size=length,
        checksums=MappingProxyType({**checksums, "adler32": own}),
        etag=etag,
    )


def _other_size(url: str, length: int, theirs: int | None) -> IntegrityError:
    return IntegrityError(f"{length} bytes were sent, the server holds {theirs}", operation="write", url=url)


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
