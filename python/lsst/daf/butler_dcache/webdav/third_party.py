"""A file that one server fetches from another, or sends there, without its bytes passing through this
process.

Theory of operation (protocol page, section 5). A COPY with ``Source`` has the server pull, one with
``Destination`` has it push; the right to the other side goes along as ``TransferHeaderAuthorization``, and
``Credential: none`` keeps the server from asking for any other. The status, 202, means nothing: markers
follow (`.markers`), and the last line says how it ended. To close the connection is to cancel.

The verdict is not believed here either, and a missing one does not mean a failure: whoever asked compares
size and checksum (`..store.third_party`). Therefore ``RequireChecksumVerification`` is ``false``: what a
source says with its GET is compared all the same, and with ``true`` dCache fails a good copy whose source
tells its checksum only with HEAD (surprise 13).

dCache answers 401 ``Permission denied`` where a right is missing, whoever is logged in (section 1.5). That
says nothing about the credential, and is none of the refusals after which nobody in this process uses it
again; but three of them within 20 s block this host.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from urllib.parse import quote

from ..auth.credential import refused
from ..auth.grant import Grant
from ..config.settings import origin_of
from ..errors import (
    AccessDeniedError,
    DcacheError,
    DeadlineError,
    DoorUnavailableError,
    OutcomeUnknownError,
    ProtocolError,
    ServerError,
    UnsupportedError,
    hides_locals,
)
from ..model import EntryKind, FileInfo
from ..redaction import Secret, redact_text
from ..transport.answer import DataAnswer
from ..transport.deadline import Deadline
from ..transport.failures import failure, failure_in_words
from ..transport.lateness import Lateness
from .checksum_turns import PATIENCE_SECONDS, turns
from .door import REDIRECTS, Door
from .markers import Markers, Vigil
from .whole_answer import digests

__all__ = ("OtherSideError", "SourceError", "ThirdPartyCopies")

_log = logging.getLogger(__name__)

_SILENCE_SECONDS = 60.0
"""Markers come every 5 s."""
_WAKE_SECONDS = 1.0
"""How long a caller who wants to end a copy has to wait for that, whatever the server says."""
_ENDLESS = re.compile(r"dCache/12\.0\.[01](?![0-9])")
"""Their third-party copies go on forever (protocol page, section 10.2)."""
_OTHER_SIDE = re.compile(
    r"(rejected (GET|PUT|HEAD):|status code:?) 40[13]|connect to |connection refused|unknown \w+ host"
    r"|no route|certificat|ssl|tls|could not resolve|couldn't connect",
    re.IGNORECASE,
)
"""How dCache and XRootD say that they do not reach the other server, or that it does not let them in."""


_SOURCE = re.compile(r"rejected GET: (404|5\d\d)", re.IGNORECASE)


class OtherSideError(ServerError):
    """A server does not reach the other one, or is not let in; who asks from elsewhere may be."""


class SourceError(ServerError):
    """The source does not give the file away; who reads it here hears why."""


class _EndedError(DcacheError):
    """The caller has ended the copy; where the request is sent no error of others may show its frames."""


class ThirdPartyCopies:
    """Has the doors of an endpoint fetch files and send them.

    Parameters
    ----------
    door : `~.door.Door`
        Whom to ask.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._has_none: set[str] = set()  # checksums that this XRootD does not compute

    @property
    def never_end(self) -> bool:
        """Whether this is a server whose copies are known never to end."""
        return _ENDLESS.match(self._door.software) is not None

    def look(self, url: str, algorithm: str, deadline: Deadline) -> FileInfo:
        """Return what the server says of a file, with a checksum if it can be had soon.

        Parameters
        ----------
        url : `str`
            The file.
        algorithm : `str`
            Checksum that is wanted; dCache tells all that it has stored.
        deadline : `~..transport.deadline.Deadline`
            When to give up.

        Returns
        -------
        info : `~..model.FileInfo`
            What there is.

        Raises
        ------
        ResourceNotFoundError
            If there is no such name.
        """
        found = None
        if self._door.dialect != "xrootd":
            found = self._door.propfind(url, operation="copy", deadline=deadline)
            if self._door.dialect != "xrootd" or found.is_directory:
                return found
        # XRootD, which this answer may just have told.
        told = None if algorithm in self._has_none else self._head(url, algorithm, deadline)
        return told or found or self._door.propfind(url, operation="copy", deadline=deadline)

    def _head(self, url: str, algorithm: str, deadline: Deadline) -> FileInfo | None:
        """Ask XRootD, which tells a checksum only so; `None` if it does not tell it."""
        headers = {"Want-Digest": algorithm}
        door = self._door
        place = door.place(url)
        try:
            answer = self._ask(
                place, deadline, lambda wait: door.open("HEAD", url, headers=headers, deadline=wait)
            )
            if answer is not None and answer.status in REDIRECTS:
                place = door.data_url(answer, url, operation="copy")
                answer.close()
                answer = self._ask(
                    place,
                    deadline,
                    lambda wait: door.data.open(
                        "HEAD", place, headers=headers, deadline=wait, authenticate=False
                    ),
                )
        except (DeadlineError, DoorUnavailableError) as error:
            _log.warning("copies are verified without checksum for a while, the server tells none: %s", error)
            turns.rest(origin_of(place))
            return None
        if answer is None:
            return None
        value = digests(answer).get(algorithm)
        if value is None and answer.status not in (404, 500):
            # 500: it could not be computed, which says nothing of the other files.
            self._has_none.add(algorithm)
        if answer.status == 404:
            _accept(answer, url)
        answer.close()
        if value is None or answer.length is None:
            return None
        size = int(answer.headers["Content-Length"])
        return FileInfo(url=url, kind=EntryKind.FILE, size=size, checksums={algorithm: value})

    @staticmethod
    def _ask(place: str, deadline: Deadline, send: Callable[[Deadline], DataAnswer]) -> DataAnswer | None:
        """Ask for a checksum when it is our turn; `None` if it is not soon."""
        with turns.turn(origin_of(place)) as ours:
            return send(Deadline(min(PATIENCE_SECONDS, deadline.remaining()))) if ours else None

    def pull(
        self, url: str, source: Grant, vigil: Vigil, deadline: Deadline, *, algorithm: str = "adler32"
    ) -> None:
        """Have the server fetch a file.

        Parameters
        ----------
        url : `str`
            Where to; what this name holds is destroyed.
        source : `~..auth.grant.Grant`
            The right to read it there.
        vigil : `~.markers.Vigil`
            Is told how far it is.
        deadline : `~..transport.deadline.Deadline`
            When to give up.
        algorithm : `str`, optional
            Checksum that the server shall compute.

        Raises
        ------
        ParentNotFoundError
            If the directory is missing: a copy makes none.
        OtherSideError
            If the server does not reach the source, or is not let in.
        OutcomeUnknownError
            If there is no verdict; the copy may still go on.
        AccessDeniedError
            If we may not write there, with status 401 at dCache.
        DcacheError
            If it failed otherwise.
        """
        headers = {} if algorithm == "adler32" else {"Want-Digest": algorithm}
        if isinstance(source.place, Secret) and self._door.dialect == "auto":
            # What kind of door it is has to be known before it sees a signature.
            self._door.ask("HEAD", url, operation="copy", deadline=deadline, accept=(200, 404))
        if isinstance(source.place, Secret) and self._door.dialect == "dcache":
            # It keeps where a file came from, for all to read; not the signature.
            origin = source.url.partition("?")[0]
            url = f"{url.partition('?')[0]}?xattr.xdg.origin.url={quote(origin, safe='')}"
        self._copy(url, "Source", source, headers, vigil, deadline)

    def push(self, url: str, destination: Grant, vigil: Vigil, deadline: Deadline) -> None:
        """Have the server send a file.

        Parameters
        ----------
        url : `str`
            The file.
        destination : `~..auth.grant.Grant`
            The right to write it there.
        vigil : `~.markers.Vigil`
            Is told how far it is.
        deadline : `~..transport.deadline.Deadline`
            When to give up.

        Raises
        ------
        DcacheError
            As for `pull`.
        """
        self._copy(url, "Destination", destination, {}, vigil, deadline)

    def _copy(
        self, url: str, end: str, grant: Grant, headers: dict[str, str], vigil: Vigil, deadline: Deadline
    ) -> None:
        self._check(url, grant)
        vigil.begin()
        ended: list[BaseException] = []

        def wake() -> float:
            deadline.remaining()
            try:
                vigil.waits()
            except BaseException as error:
                ended.append(error)
                raise _EndedError("ended by the caller", operation="copy", url=url) from None
            return _WAKE_SECONDS

        lateness = Lateness(_WAKE_SECONDS, wake)
        try:
            # No frame from here on holds a secret: what the caller's callback raises shows them.
            with self._open(url, end, grant, headers, deadline, lateness) as answer:
                _accept(answer, url)
                if self.never_end and self._door.settings.third_party == "auto":
                    raise _endless(url)
                verdict = _follow(answer, url, vigil, deadline, lateness)
        except _EndedError:
            raise ended[0] from None
        if not verdict.lower().startswith("success"):
            raise _failed(verdict, url)
        vigil.ends()

    def _check(self, url: str, grant: Grant) -> None:
        """Refuse before anything is sent what cannot be, or must not."""
        door = self._door
        if door.dialect == "generic":
            raise UnsupportedError("this server copies from no other one", operation="copy", url=url)
        if self.never_end and door.settings.third_party == "auto":
            raise _endless(url)
        if not door.settings.is_encrypted and (grant.credential is not None or grant.is_encrypted):
            raise UnsupportedError(
                "the right to a file is handed over to an encrypted door only", operation="copy", url=url
            )

    @hides_locals
    def _open(
        self,
        url: str,
        end: str,
        grant: Grant,
        headers: dict[str, str],
        deadline: Deadline,
        lateness: Lateness,
    ) -> DataAnswer:
        """Send the request and return its answer, the body unread."""
        headers = {
            **headers,
            end: grant.url,
            "Credential": "none",
            "Overwrite": "T",
            "RequireChecksumVerification": "false",
        }
        if grant.credential is not None:
            headers["TransferHeaderAuthorization"] = grant.credential.header() or ""
        door = self._door
        who = door.credentials.current()
        patience = Deadline(min(_SILENCE_SECONDS, deadline.remaining()))
        answer = door.open("COPY", url, headers=headers, deadline=patience, ok=(401,), lateness=lateness)
        if answer.status in REDIRECTS:
            place = door.data_url(answer, url, operation="copy")
            answer.close()
            return door.data.open(
                "COPY", place, headers=headers, deadline=patience, authenticate=False, lateness=lateness
            )
        if answer.status == 401 and "permission denied" not in answer.reason.lower():
            refused.remember(origin_of(door.place(url)), who, answer.reason)
        return answer


def _accept(answer: DataAnswer, url: str) -> None:
    if 200 <= answer.status < 300:
        return
    body = answer.read_short()
    answer.close()
    if answer.status == 401 and "permission denied" in answer.reason.lower():
        raise AccessDeniedError(
            "the server refuses the copy",
            operation="copy",
            url=url,
            status=401,
            reason=answer.reason,
            hint="The rights of the account, or the path and activity caveats of the macaroon, do not cover "
            "this; three such answers block this host at the door for 10 s.",
        )
    error = failure(answer, operation="copy", url=url, body=body, method="COPY")
    if _OTHER_SIDE.search(error.reason):
        # dCache's 400 for a name that it does not know, XRootD's 500 for whatever its HTTP library says.
        raise OtherSideError(
            "the server does not get through to the other one",
            operation="copy",
            url=url,
            status=answer.status,
            reason=error.reason,
        )
    raise error


def _follow(answer: DataAnswer, url: str, vigil: Vigil, deadline: Deadline, lateness: Lateness) -> str:
    """Read markers to the verdict; what ends otherwise may still go on at the servers."""
    markers = Markers()
    try:
        while True:
            answer.renew(Deadline(min(_SILENCE_SECONDS, deadline.remaining())), lateness)
            piece = answer.read_some()
            for marker in markers.feed(piece):
                vigil.saw(marker)
            if not piece:
                break
    except (DeadlineError, DoorUnavailableError, ProtocolError) as error:
        if not markers.verdict:
            raise OutcomeUnknownError(
                f"the third-party copy was followed no further: {error.message}",
                operation="copy",
                url=url,
                elapsed_seconds=deadline.elapsed,
            ) from error
    if not markers.verdict:
        raise OutcomeUnknownError(
            "the third-party copy ended without a verdict",
            operation="copy",
            url=url,
            elapsed_seconds=deadline.elapsed,
        )
    return markers.verdict


def _failed(verdict: str, url: str) -> DcacheError:
    # The text may name the other side with a signature.
    text = redact_text(verdict.partition(":")[2].strip())
    if _OTHER_SIDE.search(text):
        return OtherSideError("the third-party copy failed", operation="copy", url=url, reason=text)
    if _SOURCE.search(text):
        return SourceError("the third-party copy failed", operation="copy", url=url, reason=text)
    return failure_in_words(text, operation="copy", url=url) or ServerError(
        "the third-party copy failed", operation="copy", url=url, reason=text
    )


def _endless(url: str) -> UnsupportedError:
    return UnsupportedError(
        "third-party copies of dCache 12.0.0 and 12.0.1 do not end",
        operation="copy",
        url=url,
        hint="Set `third_party` under `dcache:` of this endpoint to try it all the same.",
    )
