"""The way to the bytes of one file: a URL at a pool, what keeps it alive, and which file it is.

Theory of operation (protocol page, section 2.5): the URL that the door gives lives as long as a connection
that has used it, and serves any number of range requests; closing the connection gives the mover back. When
the URL has died, or the pool fails, we go back to the door, a few times for one request.

Neither the redirect nor a 206 of dCache carries an entity tag. What proves that all answers are of one file
is its size in each ``Content-Range`` and the adler32 of the whole file, which a 206 tells when asked. Other
servers give an entity tag or a time. After the URL has changed, nothing is taken on trust: without any of
these the reading ends with an error.
"""

from __future__ import annotations

import os
import threading
import weakref

from ..errors import DeadlineError, DoorUnavailableError, IntegrityError, ServerError
from ..transport.answer import DataAnswer
from ..transport.connection import Connection
from ..transport.deadline import Deadline
from ..transport.failures import failure, is_mover_gone
from ..transport.http1 import count_of
from ..transport.retry import Phase, rounds
from .door import Door
from .download import Downloads
from .held_urls import hold, let_go
from .whole_answer import digests

__all__ = ("ReadSession",)

_VALIDATORS = ("ETag", "Last-Modified")


class ReadSession:
    """One file, its URL at a pool, and what is known of it.

    Parameters
    ----------
    door : `Door`
        Who knows where the file is.
    downloads : `Downloads`
        Asks it.
    url : `str`
        The file.
    deadline : `Deadline`, optional
        When to give up, whatever is asked; each operation has its own if not given.

    Notes
    -----
    `lock` is held by whoever sends a request or reads an answer; `release_if_idle` may come from any thread.
    """

    def __init__(self, door: Door, downloads: Downloads, url: str, deadline: Deadline | None = None) -> None:
        self.lock = threading.RLock()
        _sessions.add(self)
        self.url = url
        self.size: int | None = None
        self.adler32: str | None = None
        self._door = door
        self._downloads = downloads
        self._validators: dict[str, str] = {}
        self._is_unproved = False
        self._connection: Connection | None = None
        self._abandoned: DataAnswer | None = None
        self._closed = False
        self._place: str | None = None
        self._shared_deadline = deadline
        self._locate(self.deadline())

    @property
    def at_pool(self) -> bool:
        """Whether a pool, or another data server, gives the bytes; otherwise the door does."""
        return self._place != ""

    @property
    def is_dcache(self) -> bool:
        """Whether this is a dCache."""
        return self._door.dialect == "dcache"

    def deadline(self) -> Deadline:
        """Return the deadline of an operation that begins now."""
        return self._shared_deadline or self._door.deadline()

    def _locate(self, deadline: Deadline) -> None:
        """Ask the door for a URL; a door that proxies is found out by one byte."""
        answer, self._place = self._downloads.locate(self.url, deadline=deadline, span="bytes=0-0")
        if answer is not None:
            # The door sends the bytes itself, so it will be asked again and again; it needs the size.
            answer.close(False)
            entry = self._door.propfind(self.url, operation="read", deadline=deadline)
            self._agree(entry.size, entry.checksums.get("adler32"), {})
            return
        hold(self, self._door.settings.held_pool_urls)
        if not self.is_dcache:
            # XRootD redirects whatever the name; only the data server knows whether there is a file. Its
            # size is needed as well: XRootD 5 sends too few bytes for a range beyond the end.
            answer = self._send("HEAD", {}, deadline)
            answer.read()
            answer.close()
            size = count_of(str(answer.headers.get("Content-Length", "")))
            if answer.status != 200 or size is None:
                raise self.failed(answer, b"", deadline)
            self.learn(answer, size)

    def get(self, span: str, deadline: Deadline) -> DataAnswer:
        """Ask for a range; with the lock held.

        Parameters
        ----------
        span : `str`
            Value of the ``Range`` header.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        answer : `DataAnswer`
            Whatever was answered; to be closed before the next request.

        Raises
        ------
        DoorUnavailableError
            Raised if there is no way to the bytes, also not after some returns to the door.
        """
        if self._closed:
            raise ValueError("the reader is closed")
        headers = {"Range": span}
        if self._place is None:
            self._return_to_door(deadline)
        for last in rounds(Phase.BROKEN, "GET", deadline):
            if self.is_dcache:
                # XRootD would read the whole file for a checksum that it has not stored.
                headers["Want-Digest"] = "adler32"
            try:
                answer = self._send("GET", headers, deadline)
            except (DoorUnavailableError, DeadlineError):
                if last or not self.at_pool or deadline.expired:
                    raise
            else:
                if last or not self.at_pool or not (is_mover_gone(answer) or self._may_be_elsewhere(answer)):
                    return answer
                answer.close(False)
            self._drop()
            self._return_to_door(deadline)
        raise AssertionError("the last round returns or raises")

    def _may_be_elsewhere(self, answer: DataAnswer) -> bool:
        """Whether a pool fails, and says nothing of the kind that another would say as well."""
        return answer.status >= 500 and isinstance(
            failure(answer, operation="read", url=self.url, method="GET", at_pool=True),
            ServerError | DoorUnavailableError,
        )

    def _return_to_door(self, deadline: Deadline) -> None:
        # What has been read is of the file that was there; the name may be another's by now.
        self._is_unproved = self.size is not None
        self._locate(deadline)

    def _send(self, method: str, headers: dict[str, str], deadline: Deadline) -> DataAnswer:
        if not self._place:
            return self._door.open(method, self.url, headers=headers, deadline=deadline)
        hold(self, self._door.settings.held_pool_urls)
        answer = self._door.data.open(
            method, self._place, headers=headers, deadline=deadline, connection=self._connection
        )
        self._connection = answer.hold()
        self._end_abandoned()
        return answer

    def learn(self, answer: DataAnswer, size: int | None) -> None:
        """Take what an answer says of the file, and refuse one that is of another.

        Parameters
        ----------
        answer : `DataAnswer`
            Answer with bytes of the file, or to a HEAD; closed if it is refused.
        size : `int` or `None`
            Size of the file that it tells.

        Raises
        ------
        IntegrityError
            Raised if the file was replaced, or if after a return to the door nothing proves the contrary.
        """
        found = {name: str(answer.headers[name]) for name in _VALIDATORS if name in answer.headers}
        try:
            self._agree(size, digests(answer).get("adler32"), found)
        except IntegrityError:
            answer.close(False)
            raise

    def _agree(self, size: int | None, adler32: str | None, validators: dict[str, str]) -> None:
        known: dict[str, object] = {**self._validators, "size": self.size, "adler32": self.adler32}
        new: dict[str, object] = {**validators, "size": size, "adler32": adler32}
        both = [name for name in new if new[name] is not None and known.get(name) is not None]
        if any(known[name] != new[name] for name in both):
            raise IntegrityError(
                "the file was replaced while it was read",
                operation="read",
                url=self.url,
                hint="Open it again to read the new one.",
            )
        if self._is_unproved:
            if not any(name != "size" for name in both):
                raise IntegrityError(
                    "the way to the file was lost, and the server gives nothing that proves that the file is "
                    "still the same",
                    operation="read",
                    url=self.url,
                    hint="Open it again and read it anew.",
                )
            self._is_unproved = False
        self.size = size if self.size is None else self.size
        self.adler32 = adler32 if self.adler32 is None else self.adler32
        self._validators = validators | self._validators

    def failed(self, answer: DataAnswer, body: bytes, deadline: Deadline) -> Exception:
        """Return the error that an answer stands for.

        Parameters
        ----------
        answer : `DataAnswer`
            Answer without bytes of the file.
        body : `bytes`
            Its body.
        deadline : `Deadline`
            Of the operation.
        """
        return failure(
            answer,
            operation="read",
            url=self.url,
            body=body,
            method="GET",
            at_pool=self.at_pool,
            elapsed_seconds=deadline.elapsed,
        )

    # The end

    def set_aside(self, answer: DataAnswer) -> bool:
        """Keep an answer that nobody reads on until the next one is there, if that is of use.

        Its connection takes no further request, but with it the URL would die, and the next read would have
        to begin at the door.

        Parameters
        ----------
        answer : `DataAnswer`
            Read to some point.

        Returns
        -------
        kept : `bool`
            If not, the caller closes it.
        """
        if self._closed or not self._place or not answer.connection.usable:
            return False
        self._end_abandoned()
        self._abandoned, self._connection = answer, None
        return True

    def release_if_idle(self) -> bool:
        """Give the mover back unless the URL is used at this moment; the next request asks the door again."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            if self.at_pool:
                self._drop()
                self._place = None
            return True
        finally:
            self.lock.release()

    def close(self) -> None:
        """Give the mover back; a second time is no error."""
        with self.lock:
            self._closed = True
            self._drop()

    def _drop(self) -> None:
        # A connection that is kept for others would keep the mover busy (protocol page, section 2.5).
        let_go(self)
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._end_abandoned()

    def _end_abandoned(self) -> None:
        abandoned, self._abandoned = self._abandoned, None
        if abandoned is not None:
            abandoned.close(False)


_sessions: weakref.WeakSet[ReadSession] = weakref.WeakSet()


def _after_fork() -> None:
    for session in list(_sessions):
        # A thread that the child does not have may have held it. The child gets a URL of its own.
        session.lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
