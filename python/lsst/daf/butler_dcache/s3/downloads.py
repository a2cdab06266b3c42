"""Whole objects: one GET, verified to the last byte.

Theory of operation: the answer tells size, entity tag and, where the server keeps one, a checksum of all
bytes (see `.checksums`); what arrived is compared with them. Where the answer breaks off, the rest is asked
for as bytes of the same version; if there is none, everything begins anew. A large object comes over several
connections, unless its only checksum is one that needs all bytes in order.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import TypeVar

from ..errors import (
    DeadlineError,
    DoorUnavailableError,
    IntegrityError,
    ProtocolError,
    ResourceIsDirectoryError,
)
from ..model import FileInfo
from ..redaction import redact_url
from ..transport.answer import DataAnswer
from ..transport.deadline import Deadline
from ..transport.retry import Phase, rounds
from ..transport.target import Target
from .address import parse
from .checksums import COMBINABLE, MODE
from .endpoint import S3Endpoint
from .parallel_read import ParallelRead
from .version import Version, VersionBody, replaced, version_of

__all__ = ("Downloads", "WholeObject", "key_of")

_log = logging.getLogger(__name__)

PARALLEL_BYTES = 64 << 20
"""Objects of this size and more may come by several connections."""

CONNECTIONS = 4
"""How many at most."""

Result = TypeVar("Result")


def key_of(url: str) -> str:
    """Return the key of an object that is read.

    Parameters
    ----------
    url : `str`
        The object.

    Raises
    ------
    ResourceIsDirectoryError
        If it is the name of a directory.
    """
    address = parse(url)
    if address.is_directory:
        raise ResourceIsDirectoryError("a directory has no bytes to read", operation="read", url=url)
    return address.key


class _NotInParallelError(DoorUnavailableError):
    """Several connections did not get the object; one may."""


class WholeObject(VersionBody):
    """The answer that brings a whole object.

    Parameters
    ----------
    endpoint : `S3Endpoint`
        Carries further requests.
    version : `Version`
        What the answer tells.
    answer : `DataAnswer`
        Answer with status 200.
    deadline : `Deadline`
        When to give up.
    """

    def __init__(
        self, endpoint: S3Endpoint, version: Version, answer: DataAnswer, deadline: Deadline
    ) -> None:
        super().__init__(endpoint, version, answer, 0, version.size, deadline)
        if answer.ends_by_close and version.announced.best is None:
            answer.close(False)
            raise IntegrityError(
                "the server announces neither length nor checksum and ends the body by closing the "
                "connection, so that one that was cut could not be told from a whole one",
                operation="read",
                url=version.url,
            )

    def read(self) -> bytes:
        """Return all bytes, verified."""
        seen = self.version.digests()
        data = self.read_all(self.version.size, seen)
        self.version.verify(seen)
        return data

    def pump(self, sink: Callable[[memoryview], object]) -> FileInfo:
        """Give all bytes to a function, from one piece of memory, verified at the end.

        Parameters
        ----------
        sink : `~collections.abc.Callable`
            Takes a piece, and does not keep it.

        Returns
        -------
        info : `FileInfo`
            What is known of the object now.
        """
        seen = self.version.digests("adler32")
        for view in self.views(seen, self.version.size):
            sink(view)
        self.version.verify(seen)
        return self.version.info(seen)


class Downloads:
    """Reads whole objects.

    Parameters
    ----------
    endpoint : `S3Endpoint`
        Carries the requests.
    """

    def __init__(self, endpoint: S3Endpoint) -> None:
        self._endpoint = endpoint

    def read(self, url: str) -> bytes:
        """Return all bytes of an object, verified.

        Parameters
        ----------
        url : `str`
            Object to read.
        """

        def take(whole: WholeObject, connections: int, deadline: Deadline) -> bytes:
            if connections == 1:
                return whole.read()
            memory = io.BytesIO(bytes(whole.version.size or 0))
            with memory.getbuffer() as view:
                self._by_several(whole, connections, lambda _, piece: piece, view, deadline)
            return memory.getvalue()

        return self._whole(url, take, lambda: True)

    def fetch(self, url: str, target: Target) -> FileInfo:
        """Write all bytes of an object to a target, verified.

        Parameters
        ----------
        url : `str`
            Object to read.
        target : `Target`
            Where to.

        Returns
        -------
        info : `FileInfo`
            Size and checksums of what was read.
        """

        def take(whole: WholeObject, connections: int, deadline: Deadline) -> FileInfo:
            size = whole.version.size
            target.begin(size)
            if connections > 1 and target.is_local and size is not None:
                target.reserve(size)
                info = self._by_several(whole, connections, target.put, None, deadline)
                target.done(size)
                return info
            return whole.pump(target.take)

        return self._whole(url, take, target.restart)

    def open(self, url: str, *, deadline: Deadline, version: Version | None = None) -> WholeObject:
        """Open an object for one read from its first to its last byte.

        Parameters
        ----------
        url : `str`
            Object to read.
        deadline : `Deadline`
            When to give up.
        version : `Version`, optional
            Which one it has to be.

        Returns
        -------
        whole : `WholeObject`
            To be closed by the caller.

        Raises
        ------
        IntegrityError
            If it was replaced by another version.
        """
        key = key_of(url)
        headers = MODE if version is None else {**MODE, **version.condition}
        answer = self._endpoint.open("GET", key, headers=headers, deadline=deadline)
        if answer.status == 412 and version is not None:
            answer.close()
            raise replaced(url)
        if answer.status != 200:
            raise self._endpoint.failure(answer, operation="read", url=url)
        found = version_of(url, key, answer.headers, answer.length)
        if version is not None and version.etag and found.etag != version.etag:
            answer.close(False)
            raise replaced(url)
        return WholeObject(self._endpoint, found, answer, deadline)

    def _by_several(
        self,
        whole: WholeObject,
        connections: int,
        put: Callable[[int, memoryview], object],
        memory: memoryview | None,
        deadline: Deadline,
    ) -> FileInfo:
        try:
            seen = ParallelRead(self._endpoint, whole.version, put, memory).run(whole, connections, deadline)
            whole.version.verify(seen)
            return whole.version.info(seen)
        except (DoorUnavailableError, ProtocolError, IntegrityError) as error:
            # It may have been replaced, or the server may not be up to this: one stream will tell.
            raise _NotInParallelError(
                f"several connections did not get the object: {error}", url=whole.url
            ) from error

    def _whole(
        self, url: str, take: Callable[[WholeObject, int, Deadline], Result], restart: Callable[[], bool]
    ) -> Result:
        """Take a whole object, anew if the answer breaks off for good."""
        deadline = self._endpoint.deadline()
        most = CONNECTIONS
        for last in rounds(Phase.BROKEN, "GET", deadline):
            whole = self.open(url, deadline=deadline)
            clean = False
            try:
                result = take(whole, most if _is_for_several(whole.version) else 1, deadline)
                clean = True
                return result
            except (DoorUnavailableError, DeadlineError) as error:
                if last or deadline.expired or not restart():
                    raise
                most = 1 if isinstance(error, _NotInParallelError) else most
                _log.debug("reading %s anew, the answer broke off: %s", redact_url(url), error)
            finally:
                whole.close(None if clean else False)
        raise AssertionError("the last round returns or raises")


def _is_for_several(version: Version) -> bool:
    large = version.size is not None and version.size >= PARALLEL_BYTES
    return large and bool(version.condition) and version.announced.best in {None, *COMBINABLE}
