"""One version of an object: what answers say of it, and bytes that are surely its own.

Theory of operation: an object is replaced as a whole, and each version has its entity tag. A request that
names the tag (``If-Match``) gets bytes of that version or 412; the tag in the answer is compared as well, for
not every server looks at the condition. So a read may consist of any number of requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType

from ..errors import IntegrityError, ProtocolError
from ..model import ByteRange, EntryKind, FileInfo
from ..transport.answer import DataAnswer
from ..transport.deadline import Deadline
from ..transport.ranges import parse_content_range
from ..transport.resumable import Resumable
from .checksums import Announced, Digests, announced
from .endpoint import S3Endpoint

__all__ = ("Version", "VersionBody", "replaced", "version_of")

_NOT_OF_VERSION = frozenset({200, 412, 416})
"""The whole object, of whichever version; another version; a shorter one."""


@dataclass(frozen=True, slots=True)
class Version:
    """What is known of one version of an object.

    Parameters
    ----------
    url : `str`
        The object, in the user's own form.
    key : `str`
        Its key.
    size : `int` or `None`
        Bytes; `None` if the server does not say.
    etag : `str`
        Entity tag with its quotes; empty if there is none.
    last_modified : `str`
        When it was made, in the words of the server; empty if it does not say.
    announced : `Announced`
        Its checksums.
    """

    url: str
    key: str
    size: int | None
    etag: str
    last_modified: str
    announced: Announced

    @property
    def condition(self) -> dict[str, str]:
        """Header by which a request is of this version only; none if it has no strong tag."""
        return {"If-Match": self.etag} if self.etag and not self.etag.startswith("W/") else {}

    @property
    def modified(self) -> datetime | None:
        """When it was made."""
        try:
            modified = parsedate_to_datetime(self.last_modified)
        except (ValueError, OverflowError):
            return None
        return modified if modified.tzinfo is not None else modified.replace(tzinfo=UTC)

    def digests(self, *others: str) -> Digests:
        """Return what has to be told all bytes of it, for `verify`.

        Parameters
        ----------
        *others : `str`
            Checksums that are wanted besides that by which they are verified.
        """
        best = self.announced.best
        return Digests(*others) if best is None else Digests(*others, best)

    def verify(self, seen: Digests) -> None:
        """Compare what arrived with what was announced.

        Parameters
        ----------
        seen : `Digests`
            Of all bytes that arrived.

        Raises
        ------
        IntegrityError
            Raised if length or checksum differ.
        """
        if self.size is not None and seen.size != self.size:
            raise IntegrityError(
                f"{seen.size} bytes arrived, {self.size} were announced", operation="read", url=self.url
            )
        best = self.announced.best
        if best is not None and seen.hexdigest(best) != self.announced.checksums[best]:
            raise IntegrityError(
                f"the bytes that arrived have {best} {seen.hexdigest(best)}, the object has "
                f"{self.announced.checksums[best]}",
                operation="read",
                url=self.url,
                hint="Read it again; if it stays so, the object is damaged.",
            )

    def info(self, seen: Digests | None = None) -> FileInfo:
        """Return what is known, in the form that all stores have.

        Parameters
        ----------
        seen : `Digests`, optional
            Of all its bytes, verified.
        """
        computed = {} if seen is None else seen.hexdigests()
        return FileInfo(
            url=self.url,
            kind=EntryKind.FILE,
            size=self.size if seen is None else seen.size,
            modified=self.modified,
            checksums=MappingProxyType({**computed, **self.announced.checksums}),
            etag=self.etag,
        )


def version_of(url: str, key: str, headers: Mapping[str, str], size: int | None) -> Version:
    """Return what an answer tells of an object.

    Parameters
    ----------
    url : `str`
        The object, in the user's own form.
    key : `str`
        Its key.
    headers : `~collections.abc.Mapping`
        Headers of an answer with status 200 or 206.
    size : `int` or `None`
        Size of the object that the answer tells.
    """
    found = announced(headers, of_range=headers.get("Content-Range") is not None)
    return Version(
        url, key, size, headers.get("ETag", "").strip(), headers.get("Last-Modified", "").strip(), found
    )


def replaced(url: str) -> IntegrityError:
    """Return the error that an object was replaced while it was read.

    Parameters
    ----------
    url : `str`
        The object.
    """
    return IntegrityError(
        "the object was replaced while it was read",
        operation="read",
        url=url,
        hint="Open it again to read the new one.",
    )


class VersionBody(Resumable):
    """Bytes of one version of an object, which go on with another request where an answer breaks off.

    Parameters
    ----------
    endpoint : `S3Endpoint`
        Carries the requests.
    version : `Version`
        The version.
    answer : `DataAnswer`
        Brings the bytes from ``start`` on.
    start, stop : `int`
        Which bytes of the object; ``stop`` may be `None` if nobody knows.
    deadline : `Deadline`
        When to give up.
    """

    def __init__(
        self,
        endpoint: S3Endpoint,
        version: Version,
        answer: DataAnswer,
        start: int,
        stop: int | None,
        deadline: Deadline,
    ) -> None:
        super().__init__(answer, version.url)
        self.version = version
        self._endpoint = endpoint
        self._start = start
        self._stop = stop
        self._deadline = deadline
        self._is_given_up = False

    @classmethod
    def of_range(
        cls, endpoint: S3Endpoint, version: Version, span: ByteRange, deadline: Deadline
    ) -> VersionBody | None:
        """Ask for some bytes of a version.

        Parameters
        ----------
        endpoint : `S3Endpoint`
            Carries the requests.
        version : `Version`
            Which version; of known size.
        span : `ByteRange`
            Which bytes.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        body : `VersionBody` or `None`
            `None` if the server does not give these, and no others: the object was replaced, or it ignores
            ranges.
        """
        answer = _ask(endpoint, version, span, deadline)
        return None if answer is None else cls(endpoint, version, answer, span.start, span.stop, deadline)

    def renew(self, deadline: Deadline) -> None:
        """Limit the reading anew.

        Parameters
        ----------
        deadline : `Deadline`
            Takes the place of the former one.
        """
        self._deadline = deadline
        self.answer.renew(deadline)

    def give_up(self) -> None:
        """End the waiting of another thread that reads it, which closes it."""
        self._is_given_up = True
        self.answer.connection.interrupt()

    def _rest(self, offset: int) -> DataAnswer | None:
        if self._is_given_up or self._stop is None or not self.version.condition:
            return None
        return _ask(self._endpoint, self.version, ByteRange(self._start + offset, self._stop), self._deadline)


def _ask(endpoint: S3Endpoint, version: Version, span: ByteRange, deadline: Deadline) -> DataAnswer | None:
    """Return an answer with exactly some bytes of a version; `None` if there is none."""
    headers = {"Range": span.header(), **version.condition}
    answer = endpoint.open("GET", version.key, headers=headers, deadline=deadline)
    if answer.status == 206 and _is_it(answer, version, span):
        return answer
    if answer.status == 206 or answer.status in _NOT_OF_VERSION:
        answer.close(False)
        return None
    raise endpoint.failure(answer, operation="read", url=version.url)


def _is_it(answer: DataAnswer, version: Version, span: ByteRange) -> bool:
    try:
        found, _ = parse_content_range(answer.headers.get("Content-Range", ""), version.size, version.url)
    except ProtocolError:
        return False
    etag = answer.headers.get("ETag", "").strip()
    return found == span and answer.length in (None, len(span)) and etag == version.etag
