"""One bucket, and who we are for it: signed requests by both planes.

What boto3 writes (`.operations`) is signed here and sent by our control plane, what carries bytes by the data
plane: one policy of repetition, one pacing, one kind of record, one tree of errors.

S3's requests can be repeated: the same PUT, part, copy or DELETE has the same effect. Where that is not so,
because there was a condition, whoever sent it looks (``repeat=False``).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import quote, urlsplit

from ..auth.credential import ANONYMOUS, refused
from ..auth.sources import StaticSource, successor
from ..config.loading import entry_for
from ..config.s3 import S3Settings
from ..config.settings import EndpointSettings, origin_of
from ..errors import DcacheError, DeadlineError, DoorUnavailableError, OutcomeUnknownError, hides_locals
from ..redaction import redact_url
from ..transport.answer import DataAnswer
from ..transport.body import Body
from ..transport.control import Answer, ControlPlane
from ..transport.data import DataPlane
from ..transport.deadline import Deadline
from ..transport.outgoing import Outgoing
from ..transport.pacing import pacer_for
from ..transport.retry import Phase, Repetition
from .access_key import key_source
from .failures import KEY_REFUSALS, Said, failure
from .operations import Operations
from .signing import Signer

__all__ = ("Knowledge", "S3Endpoint")

_OURS = frozenset({401, 502, 503, 504})
"""Statuses that the planes leave to us: S3 says more of them than HTTP does."""
_NOBODYS = frozenset({400, 401, 403, 408, *range(500, 600)})
"""Statuses that no caller of `S3Endpoint.open` has a use for but to raise an error."""

_Result = TypeVar("_Result")


class Knowledge:
    """What a server was found to do; anybody may write it down, at any time.

    Attributes
    ----------
    checksum : `str`
        Checksum that it verifies and keeps: ``unknown``, ``crc64nvme``, ``crc32c`` or ``md5``.
    """

    def __init__(self) -> None:
        self.checksum = "unknown"


class _RefusedError(Exception):
    """An answer that tells of a failure: an attempt that may be repeated."""

    def __init__(self, said: Said) -> None:
        super().__init__(said.code)
        self.said = said


class S3Endpoint:
    """A bucket of a service.

    Parameters
    ----------
    settings : `~..config.s3.S3Settings`
        Which bucket, and what the environment says of its service.
    sleep : `~collections.abc.Callable`, optional
        Waits some seconds between attempts.

    Attributes
    ----------
    settings : `~..config.s3.S3Settings`
        Those.
    limits : `~..config.settings.EndpointSettings`
        Time limits, pacing and trust: the entry of the site's file whose ``base_url`` is the service, or the
        defaults. Its own ``base_url`` is the server that has the bucket.
    region : `str`
        Part of each signature.
    root : `str`
        URL of the bucket at the server.
    control, data : `~..transport.control.ControlPlane`, `~..transport.data.DataPlane`
        The planes.
    knowledge : `Knowledge`
        What the server was found to do.

    Raises
    ------
    ConfigurationError
        If there is no such profile, or the name of the bucket is none.

    Notes
    -----
    Nothing is sent yet. Thread-safe; a child process begins with connections of its own.
    """

    def __init__(self, settings: S3Settings, sleep: Callable[[float], None] = time.sleep) -> None:
        self.settings = settings
        self._sleep = sleep
        self._operations = Operations(settings)
        self.region = self._operations.region
        self.root = self._operations.root
        entry = entry_for(self._operations.endpoint_url)
        self.limits = _limits(entry, self.root, self._operations.authorities)
        self._origin = origin_of(self.root)
        self._keys = key_source(settings)
        self._signer: Signer | None = None
        pacer = pacer_for(self.limits)
        self.data = DataPlane(self.limits, pacer=pacer, sleep=sleep)
        self.control = ControlPlane(self.limits, StaticSource(ANONYMOUS), pacer, sleep)
        self.knowledge = Knowledge()

    @property
    def addressing(self) -> str:
        """How the bucket is named: ``path`` or ``virtual``."""
        bucket = quote(self.settings.bucket, safe="")
        return "path" if urlsplit(self.root).path.endswith(f"/{bucket}") else "virtual"

    def deadline(self) -> Deadline:
        """Return the deadline of an operation that begins now."""
        return Deadline(self.limits.total_timeout_seconds)

    @hides_locals
    def call(
        self,
        method: str,
        *,
        url: str,
        operation: str,
        deadline: Deadline,
        repeat: bool = True,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Have boto3 write a request and read its answer.

        Parameters
        ----------
        method : `str`
            Method of boto3's client, for instance ``list_objects_v2``.
        url, operation : `str`
            What it is for, for messages.
        deadline : `~..transport.deadline.Deadline`
            Limits everything.
        repeat : `bool`, optional
            `False` tells at once when an answer is lost, or says only that the server failed.
        **parameters
            Parameters of the method; ``Bucket`` is added.

        Returns
        -------
        answer : `dict`
            What boto3 made of the answer.

        Raises
        ------
        ConfigurationError
            If a parameter is not one that the method takes.
        OutcomeUnknownError
            If the answer was lost, also after repetitions.
        ProtocolError
            If the answer makes no sense.
        DcacheError
            By the code of the error otherwise (`.failures`).
        """

        def attempt(signer: Signer) -> dict[str, Any]:
            try:
                return self._operations.perform(method, partial(self._send, signer, deadline), parameters)
            except DcacheError as error:
                if not error.url:  # what boto3 does not understand
                    error.operation, error.url = operation, redact_url(url)
                raise

        return self._repeated(attempt, operation, url, deadline, repeat)

    @hides_locals
    def open(
        self,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] = MappingProxyType({}),
        headers: Mapping[str, str] = MappingProxyType({}),
        body: Body | None = None,
        deadline: Deadline,
        expect: bool = False,
        repeat: bool = True,
    ) -> DataAnswer:
        """Send a signed request and return the answer, its body unread.

        Parameters
        ----------
        method : `str`
            HTTP method.
        key : `str`
            Key of the object, decoded.
        query : `~collections.abc.Mapping`, optional
            Parameters of the query, decoded.
        headers : `~collections.abc.Mapping`, optional
            Further headers; they are signed.
        body : `~..transport.body.Body`, optional
            What is sent. Bytes, and a file that can seek, can be sent again.
        deadline : `~..transport.deadline.Deadline`
            Limits everything, reading the body included.
        expect : `bool`, optional
            Send no byte of the body before the server asks for it.
        repeat : `bool`, optional
            `False` tells at once when the answer to what is not a read is lost, or says only that the server
            failed.

        Returns
        -------
        answer : `~..transport.answer.DataAnswer`
            With a status that the caller understands: 2xx, 3xx, 404, 405, 409, 411 to 416.

        Raises
        ------
        DcacheError
            For all other statuses, after repetitions where they may help.
        OutcomeUnknownError
            If a request that is not a read was sent and its answer lost, also after repetitions.
        """
        url = self._url(key, query)
        start = body.tell() if _can_seek(body) else None  # type: ignore[union-attr]
        again = body is None or isinstance(body, bytes | bytearray | memoryview) or start is not None

        def attempt(signer: Signer) -> DataAnswer:
            if start is not None:
                cast(BinaryIO, body).seek(start)
            signed, who = signer.sign(method, url, headers)
            answer = self.data.open(
                method,
                url,
                headers=signed,
                body=body,
                expect=expect,
                deadline=deadline,
                credential=who,
                ok=_OURS,
            )
            if answer.status in _NOBODYS:
                raise _RefusedError(self._explained(method, url, signer, _read(answer), deadline))
            return answer

        return self._repeated(attempt, method, url, deadline, repeat, again)

    @hides_locals
    def begin(
        self,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] = MappingProxyType({}),
        headers: Mapping[str, str] = MappingProxyType({}),
        length: int | None,
        deadline: Deadline,
    ) -> Outgoing | DataAnswer:
        """Send the head of a request whose body does not exist yet, and wait until the server wants it.

        Parameters
        ----------
        method : `str`
            HTTP method.
        key : `str`
            Key of the object, decoded.
        query : `~collections.abc.Mapping`, optional
            Parameters of the query, decoded.
        headers : `~collections.abc.Mapping`, optional
            Further headers; they are signed.
        length : `int` or `None`
            Length of the body; S3 takes none of unknown length.
        deadline : `~..transport.deadline.Deadline`
            Limits this call only.

        Returns
        -------
        outgoing : `~..transport.outgoing.Outgoing` or `~..transport.answer.DataAnswer`
            Where the body goes, or the answer of a server that does not want it, with a status as for `open`.

        Raises
        ------
        DcacheError
            As `open`.
        """
        url = self._url(key, query)

        def attempt(signer: Signer) -> Outgoing | DataAnswer:
            signed, who = signer.sign(method, url, headers)
            begun = self.data.begin(
                method, url, headers=signed, length=length, deadline=deadline, credential=who
            )
            if isinstance(begun, DataAnswer) and begun.status in _NOBODYS:
                raise _RefusedError(_read(begun))
            return begun

        return self._repeated(attempt, method, url, deadline, True)

    def failure(self, answer: DataAnswer, *, operation: str, url: str) -> DcacheError:
        """Return the error for an answer that is not the one that was wanted; the answer is closed.

        Parameters
        ----------
        answer : `~..transport.answer.DataAnswer`
            The answer, its body unread.
        operation, url : `str`
            What was being done, and on what.

        Returns
        -------
        error : `~..errors.DcacheError`
            To be raised.
        """
        key = None if self._signer is None else self._signer.key
        return failure(_read(answer), operation=operation, url=url, key=key, attempts=answer.attempts)

    def presign(self, key: str, method: str, lifetime_seconds: int) -> str:
        """Return a URL by which whoever has it may do one thing with one object; nothing is sent.

        Parameters
        ----------
        key : `str`
            Key of the object, decoded.
        method : `str`
            HTTP method.
        lifetime_seconds : `int`
            From now, at most 7 days; it ends with the access key, if that is temporary.

        Returns
        -------
        url : `str`
            A capability: whoever sees it can use it.

        Raises
        ------
        ConfigurationError
            If no signature may be good for so long.
        CredentialError
            If there is no access key.
        """
        return self._current().presign(method, self._url(key, {}), lifetime_seconds)

    # -- attempts

    def _repeated(
        self,
        attempt: Callable[[Signer], _Result],
        operation: str,
        url: str,
        deadline: Deadline,
        repeat: bool,
        again: bool = True,
    ) -> _Result:
        """Attempt it until it succeeds, is refused for good, or the table says that it is enough."""
        repetition = Repetition("", deadline)
        started = time.monotonic()
        renewed = False
        attempts = 0
        while True:
            signer = self._current()
            attempts += 1
            wait: float | None
            try:
                return attempt(signer)
            except _RefusedError as refusal:
                said = refusal.said
            except OutcomeUnknownError as error:
                # After a long silence a second one is not waited for, as with reads.
                hopeless = not repeat or not again or isinstance(error.__cause__, TimeoutError)
                wait = None if hopeless else repetition.next_wait(Phase.SAME)
                if wait is None:
                    raise
                self._sleep(wait)
                continue
            row = said.row()
            if row is not None and again and (repeat or said.had_no_effect):
                wait = repetition.next_wait(*row, said.headers)
                if wait is not None:
                    self._sleep(wait)
                    continue
            if said.code in KEY_REFUSALS and not renewed and again:
                refused.remember(self._origin, signer.key, said.code)
                renewed = successor(self._keys, signer.key) is not None
                if renewed:
                    continue
            raise failure(
                said,
                operation=operation,
                url=url,
                method=operation,
                key=signer.key,
                attempts=attempts,
                elapsed_seconds=time.monotonic() - started,
            )

    def _current(self) -> Signer:
        """Return the signer of this moment."""
        key = self._keys.current()
        signer = self._signer
        if signer is None or signer.key is not key:
            signer = self._signer = Signer(key, self.region)
        return signer

    def _url(self, key: str, query: Mapping[str, str]) -> str:
        url = f"{self.root}/{quote(key)}"
        if query:
            url += "?" + "&".join(f"{quote(name, safe='')}={quote(query[name], safe='')}" for name in query)
        return url

    def _explained(self, method: str, url: str, signer: Signer, said: Said, deadline: Deadline) -> Said:
        """Return an answer with a code: HEAD says only that it is refused, and GET of a byte says why."""
        if method != "HEAD" or said.status not in (400, 403):
            return said
        signed, who = signer.sign("GET", url, {"Range": "bytes=0-0"})
        answer = self.data.open("GET", url, headers=signed, deadline=deadline, credential=who, ok=_OURS)
        if answer.status == said.status:
            return _read(answer)
        answer.close(False)
        return said

    def _send(
        self,
        signer: Signer,
        deadline: Deadline,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Answer:
        """Send what boto3 wrote."""
        signed, who = signer.sign(method, url, headers, body)
        answer = self.control.request(
            method, url, headers=signed, body=body or None, deadline=deadline, credential=who, ok=_OURS
        )
        said = Said(answer.status, answer.reason, answer.headers, answer.body)
        if said.is_failure:
            raise _RefusedError(self._explained(method, url, signer, said, deadline))
        return answer


def _limits(entry: EndpointSettings, root: str, bundle: str | None) -> EndpointSettings:
    """Return the settings of the service for the server of the bucket, without anything that is WebDAV's."""
    scheme, host, port = origin_of(root)
    return replace(
        entry,
        base_url=f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/",
        trusted_authorities=entry.trusted_authorities or bundle,
        user_certificate=None,
        user_key=None,
        door_urls=(),
        frontend_url=None,
    )


def _read(answer: DataAnswer) -> Said:
    """Read and close an answer that tells of a failure."""
    text = b""
    with answer, contextlib.suppress(DoorUnavailableError, DeadlineError):  # the status says enough
        text = answer.read_short()
    return Said(answer.status, answer.reason, answer.headers, text)


def _can_seek(body: Body | None) -> bool:
    return hasattr(body, "seekable") and bool(cast(BinaryIO, body).seekable())
