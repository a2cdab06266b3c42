"""A file that a server sends to another one, without its bytes passing through this process.

What the sender says is not believed: who receives compares size and checksum. dCache is not asked: after a
push it looks at the destination by HEAD on the very URL that it has PUT to (protocol page, section 5.4),
which a URL that is signed for PUT refuses, so every such push ends as a failure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..config.settings import origin_of
from ..errors import DeadlineError, DoorUnavailableError, OutcomeUnknownError, ProtocolError, ServerError
from ..model import EntryKind, FileInfo
from ..redaction import redact_text
from ..transport.answer import DataAnswer
from ..transport.deadline import Deadline
from ..transport.failures import failure
from .checksum_turns import PATIENCE_SECONDS, turns
from .door import REDIRECTS, Door
from .whole_answer import digests

__all__ = ("Pushes",)

_log = logging.getLogger(__name__)

_WANT = {"Want-Digest": "md5"}
_SILENCE_SECONDS = 60.0
"""Markers come every 5 s (protocol page, section 5.3)."""
_LONGEST_LINE = 64 * 1024


class Pushes:
    """Has a door send files to URLs that are signed for it.

    Parameters
    ----------
    door : `~.door.Door`
        Whose files.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._has_no_md5 = False

    def offer(self, url: str) -> FileInfo | None:
        """Return what is known of a file that could be pushed: size and MD5, the checksum that S3 shares.

        Parameters
        ----------
        url : `str`
            The file.

        Returns
        -------
        info : `~..model.FileInfo` or `None`
            `None` if this server does not push to signed URLs, or does not tell the MD5 soon.

        Raises
        ------
        ResourceNotFoundError
            If there is no such file.
        """
        if self._door.dialect != "xrootd" or self._has_no_md5:
            return None
        deadline = self._door.deadline()
        try:
            place = self._door.place(url)
            answer = self._ask(
                place,
                deadline,
                lambda patience: self._door.open("HEAD", url, headers=_WANT, deadline=patience),
            )
            if answer is not None and answer.status in REDIRECTS:
                place = self._door.data_url(answer, url, operation="copy")
                answer.close()
                answer = self._ask(
                    place,
                    deadline,
                    lambda patience: self._door.data.open(
                        "HEAD", place, headers=_WANT, deadline=patience, authenticate=False
                    ),
                )
        except (DeadlineError, DoorUnavailableError) as error:
            _log.warning("no third-party copies for a while, the server does not tell an MD5: %s", error)
            turns.rest(origin_of(place))
            return None
        if answer is None:
            return None
        md5 = digests(answer).get("md5")
        # 500: it could not be computed, which says nothing of the other files.
        self._has_no_md5 = md5 is None and answer.status not in (404, 500)
        if answer.status == 404:
            _accept(answer, url)
        answer.close()
        if md5 is None or answer.length is None:
            return None
        size = int(answer.headers["Content-Length"])
        return FileInfo(url=url, kind=EntryKind.FILE, size=size, checksums={"md5": md5})

    @staticmethod
    def _ask(place: str, deadline: Deadline, send: Callable[[Deadline], DataAnswer]) -> DataAnswer | None:
        """Ask for a checksum when it is our turn; `None` if it is not soon."""
        with turns.turn(origin_of(place)) as ours:
            return send(Deadline(min(PATIENCE_SECONDS, deadline.remaining()))) if ours else None

    def push(self, url: str, destination: str, deadline: Deadline) -> None:
        """Have a file sent.

        Parameters
        ----------
        url : `str`
            The file.
        destination : `str`
            Where to: a URL by which anybody may PUT there.
        deadline : `~..transport.deadline.Deadline`
            When to give up; to end the answer ends the transfer.

        Raises
        ------
        ServerError
            If the server says that it failed.
        OutcomeUnknownError
            If it says nothing.
        DcacheError
            If it refuses.
        """
        headers = {"Destination": destination, "Credential": "none", "Overwrite": "T"}
        answer = self._door.open("COPY", url, headers=headers, deadline=deadline)
        if answer.status in REDIRECTS:
            place = self._door.data_url(answer, url, operation="copy")
            answer.close()
            answer = self._door.data.open(
                "COPY", place, headers=headers, deadline=deadline, authenticate=False
            )
        with answer:
            _accept(answer, url)
            verdict = _verdict(answer, url, deadline)
        if not verdict:
            raise OutcomeUnknownError(
                "the third-party copy ended without a verdict", operation="copy", url=url
            )
        if not verdict.startswith("success"):
            # The text may name the destination with its signature.
            raise ServerError(
                f"the third-party copy failed: {redact_text(verdict)}", operation="copy", url=url
            )


def _accept(answer: DataAnswer, url: str) -> None:
    if not 200 <= answer.status < 300:
        body = answer.read_short()
        answer.close()
        raise failure(answer, operation="copy", url=url, body=body, method="COPY")


def _verdict(answer: DataAnswer, url: str, deadline: Deadline) -> str:
    """Read performance markers to their end; return the line that begins with success or failure."""
    rest, verdict = b"", ""
    while True:
        answer.renew(Deadline(min(_SILENCE_SECONDS, deadline.remaining())))
        piece = answer.read_some()
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise ProtocolError("a marker of the third-party copy has no end", operation="copy", url=url)
        for line in [*lines, *([] if piece else [rest])]:
            text = line.decode(errors="replace").strip()
            if text.lower().startswith(("success", "failure")):
                verdict = text
        if not piece:
            return verdict
