"""What went wrong, from status *and* text of an answer.

The statuses of dCache alone do not tell: 500 is its catch-all, and what helps stands in the reason phrase
(pool, login), in the first line of the body (door) or in ``detail`` (REST frontend); protocol page, sections
1.7, 1.8, 3.5 and item 29 of section 11. The one table is here.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any, Protocol

from ..errors import (
    AccessDeniedError,
    CredentialError,
    DcacheError,
    DirectoryNotEmptyError,
    DoorUnavailableError,
    FileBrokenError,
    IntegrityError,
    NearlineError,
    ParentNotFoundError,
    ProtocolError,
    ResourceExistsError,
    ResourceIsDirectoryError,
    ResourceIsFileError,
    ResourceNotFoundError,
    ServerBusyError,
    ServerError,
    StoreFullError,
    UnsupportedError,
    UploadDisplacedError,
)
from ..redaction import redact_url
from .retry import Action, Phase, judged, rule_for

__all__ = (
    "MOVER_GONE",
    "Outcome",
    "failure",
    "failure_in_words",
    "is_mover_gone",
    "is_waited_for",
    "was_not_sent",
    "words",
)

MOVER_GONE = "no longer valid"
"""What a pool says of a URL whose mover has ended (protocol page, section 2.5)."""


class Outcome(Protocol):
    """What all answers have in common, whichever plane they came by."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def reason(self) -> str:
        """Reason phrase."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers, names in any case."""
        ...


_WRITING = frozenset({"PUT", "MOVE", "DELETE", "MKCOL", "COPY"})

_PATHS = re.compile(r"\bon path .*|(?<![^\s:='\"\[(])/\S*")
"""Names in a server's text, which say nothing of the cause: not every ``/staging/`` has to do with tape."""

_NO_POOL = "no pool that is online holds the file"

_BY_TEXT: tuple[tuple[re.Pattern[str], type[DcacheError], str, str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), error, message, hint)
    for pattern, error, message, hint in (
        (
            r"file is broken",
            FileBrokenError,
            "the file is the ruin of a cut upload and can never be read",
            "Remove it and write it again.",
        ),
        (
            r"upload not yet completed|upload in progress",
            FileBrokenError,
            "the upload of the file has not ended",
            "If nobody writes it any more it is a ruin: remove it and write it again.",
        ),
        (
            r"staging not allowed|not online",
            NearlineError,
            "the file is on tape only, and this identity may not stage it",
            "Ask the site to stage it, or use a credential with the STAGE right.",
        ),
        (
            r"for stage\b|stag(e|ing)|request to \[>?poolmanager|restore",
            NearlineError,
            "the file is on tape only and did not come back in time",
            "Stage it first: dcache-butler stage {url} (the restore may still be running, so that a later "
            "read can succeed).",
        ),
        (
            r"file is unavailable",
            NearlineError,
            _NO_POOL,
            "Its pool may be down: ask the site.",
        ),
        (
            r"(checksum|file ?size|size) mismatch",
            IntegrityError,
            "the server received other bytes than were announced",
            "Nothing was published; the write can be repeated.",
        ),
        (
            r"quota",
            StoreFullError,
            "the quota of this user or group is used up",
            "Remove files that it counts, or ask the site for more; what is freed may count for hours yet.",
        ),
        (
            r"all pools( are)? full|cost( limit)? exceeded",
            StoreFullError,
            "all pools that may take the file are full",
            "Remove files, or ask the site for space.",
        ),
        (
            r"SER_DISK_FULL|no space (left|available)|disk full|insufficient storage",
            StoreFullError,
            "there is no space for the file: the disks are full, or it is larger than its writer may upload",
            "Remove files or ask the site for space; if smaller files pass, look at the max-upload caveat of "
            "the macaroon, or of the account.",
        ),
        (
            r"no write pools? (online|configured)",
            ServerError,
            "no pool that takes files of this directory is in service",
            "It is not full: its pools are down or read-only. Try again later, or ask the site.",
        ),
        (
            r"not empty",
            DirectoryNotEmptyError,
            "a directory that holds something is not removed",
            "",
        ),
        (
            r"no such directory",  # the frontend's 400 to a rename
            ParentNotFoundError,
            "the parent directory does not exist",
            "",
        ),
        (
            r"not a directory",
            ResourceIsFileError,
            "a file stands where a directory should be",
            "",
        ),
        (
            r"is a directory",
            ResourceIsDirectoryError,
            "a directory has this name",
            "",
        ),
        (
            r"file exists",
            ResourceExistsError,
            "the name is taken",
            "",
        ),
        (
            r"name too long",
            ProtocolError,
            "the name is longer than the server allows",
            "dCache allows 255 bytes in UTF-8.",
        ),
    )
)


def words(outcome: Outcome, body: bytes = b"") -> str:
    """Return the server's own reason: `detail` or `title`, first line of a text body, or reason phrase.

    Parameters
    ----------
    outcome : `Outcome`
        The answer.
    body : `bytes`, optional
        Its body, as far as it was read.
    """
    text = body[:4096].decode("utf-8", "replace").strip()
    kind = str(outcome.headers.get("Content-Type", "")).lower()
    if "json" in kind:
        try:
            document = json.loads(body)
            # RFC 9457; XRootD's tape API has no detail.
            detail = document.get("detail") or document.get("title", "")
        except (ValueError, AttributeError):
            detail = ""
        return str(detail) or outcome.reason
    if text and not text.startswith("<") and "html" not in kind:
        line = text.splitlines()[0]
        # Some bodies only repeat the standard phrase; the login's cause is in the phrase and has no body.
        return line if line != outcome.reason else outcome.reason
    return outcome.reason


def is_mover_gone(outcome: Outcome) -> bool:
    """Tell whether a pool sends back to the door, because the URL that it was asked by is dead.

    Parameters
    ----------
    outcome : `Outcome`
        The pool's answer.
    """
    return outcome.status == 307 or (outcome.status == 400 and MOVER_GONE in outcome.reason.lower())


def was_not_sent(error: DcacheError) -> bool:
    """Tell whether a request surely had no effect, since there was no connection to send it by.

    Parameters
    ----------
    error : `DcacheError`
        Why it failed. A relay's 502, 503 and 504 are answers, behind which anything may have happened.
    """
    return isinstance(error, DoorUnavailableError) and error.status is None


def is_waited_for(error: BaseException) -> bool:
    """Tell whether a server was waited for in vain, so that nothing is tried again for now.

    Parameters
    ----------
    error : `BaseException`
        Why something failed.
    """
    return isinstance(error, DoorUnavailableError) and error.was_waited_for


def failure(
    outcome: Outcome,
    *,
    operation: str,
    url: str,
    body: bytes = b"",
    method: str = "",
    at_pool: bool = False,
    attempts: int = 1,
    elapsed_seconds: float | None = None,
) -> DcacheError:
    """Return the error for an answer that is not the one that was wanted.

    Parameters
    ----------
    outcome : `Outcome`
        The answer.
    operation : `str`
        What was being done, for the message.
    url : `str`
        On what, in the user's own form.
    body : `bytes`, optional
        Body of the answer, as far as it was read.
    method : `str`, optional
        HTTP method, since 405 and 409 mean different things to each.
    at_pool : `bool`, optional
        Whether a pool answered, whose 500 of a lost entry means something else than a door's.
    attempts : `int`, optional
        How often the request was sent.
    elapsed_seconds : `float`, optional
        Time since the first attempt.

    Returns
    -------
    error : `DcacheError`
        Error to raise, with the server's own reason and a hint where there is one.
    """
    reason = words(outcome, body)
    kind, message, hint = _classify(outcome.status, reason, method.upper(), at_pool)
    own_row = rule_for(Phase.ANSWERED, method, outcome.status)
    phase = Phase.FAILED if issubclass(kind, ServerError) else Phase.REFUSED
    rule = own_row or rule_for(phase, method)
    # The planes judge what has a row of its own at a door, and whoever asks again tells of that.
    if rule is not None and rule.action is not Action.RETRY and (at_pool or own_row is None):
        judged(rule.phase, method, rule.status)
    return _error(
        kind,
        message,
        hint,
        url,
        operation=operation,
        status=outcome.status,
        reason=reason,
        attempts=attempts,
        elapsed_seconds=elapsed_seconds,
    )


def failure_in_words(text: str, *, operation: str, url: str) -> DcacheError | None:
    """Return the error for a failure that a server tells in words alone.

    Parameters
    ----------
    text : `str`
        Its words.
    operation : `str`
        What was being done, for the message.
    url : `str`
        On what, in the user's own form.

    Returns
    -------
    error : `DcacheError` or `None`
        `None` if the words are none that are known.
    """
    for pattern, kind, message, hint in _BY_TEXT:
        if pattern.search(_PATHS.sub("", text)):
            return _error(kind, message, hint, url, operation=operation, reason=text)
    return None


def _error(kind: type[DcacheError], message: str, hint: str, url: str, **details: Any) -> DcacheError:
    error = kind(message, url=url, hint=hint.replace("{url}", shlex.quote(redact_url(url))), **details)
    if isinstance(error, NearlineError):
        error.locality = "UNAVAILABLE" if message == _NO_POOL else "NEARLINE"
    return error


def _classify(status: int, reason: str, method: str, at_pool: bool) -> tuple[type[DcacheError], str, str]:
    reason = _PATHS.sub("", reason)
    if at_pool and status == 500 and "no such file or directory" in reason.lower():
        return (
            UploadDisplacedError,
            "another writer took or removed the name while the upload ran",
            "Look what is there before anything is removed.",
        )
    if status in (400, 403, 409, 500, 507):
        for pattern, kind, message, hint in _BY_TEXT:
            if pattern.search(reason):
                return kind, message, hint
    if status == 403 and method in _WRITING:
        return (
            AccessDeniedError,
            "the server knows the credential and refuses to write",
            "The rights of the account, or the path and activity caveats of the macaroon, do not cover this; "
            "a door that is read-only refuses whoever writes, and then another door has to be used.",
        )
    if method == "MKCOL" and status == 405:
        return ResourceExistsError, "the name is taken", ""
    if method == "PUT" and status == 405 and not at_pool:
        return ResourceIsDirectoryError, "a directory has this name", ""
    if method == "PUT" and status == 409:
        return ResourceExistsError, "the file exists and this door does not allow to replace it", ""
    return _BY_STATUS.get(status) or _fallback(status)


_BY_STATUS: dict[int, tuple[type[DcacheError], str, str]] = {
    401: (
        CredentialError,
        "the server does not accept the credential, or got none",
        "Check the token of this endpoint (is it expired, is it for this server?); "
        "three refusals block this host at the door for 10 s.",
    ),
    403: (
        AccessDeniedError,
        "the server knows the credential and refuses",
        "The rights of the account, or the path and activity caveats of the macaroon, do not cover this.",
    ),
    404: (ResourceNotFoundError, "no such file or directory", ""),
    408: (DoorUnavailableError, "the server gave up waiting", "Try again later."),
    409: (ParentNotFoundError, "the parent directory does not exist or is a file", ""),
    412: (ResourceExistsError, "the name is taken", ""),
    423: (ServerBusyError, "the file is in use", "Try again later."),
    429: (ServerBusyError, "the server's limiter refuses requests of this host", "Try again later."),
    431: (
        ProtocolError,
        "the request is too large for the server",
        "A shorter path or a macaroon with fewer caveats helps: the limit is 8 KiB.",
    ),
    501: (UnsupportedError, "the server has no such operation", ""),
    502: (DoorUnavailableError, "a relay did not reach the server", "Try again later."),
    503: (DoorUnavailableError, "the server is not in service now", "Try again later."),
    504: (DoorUnavailableError, "a relay did not get an answer from the server", "Try again later."),
    507: (StoreFullError, "the server has no space for the file", "Remove files, or ask the site for space."),
}


def _fallback(status: int) -> tuple[type[DcacheError], str, str]:
    if status >= 500:
        return ServerError, "the server failed", "It may be transient: try again later, or ask the site."
    if 300 <= status < 400:
        return ProtocolError, "the server redirects where no redirect is foreseen", ""
    return ProtocolError, "the server did not understand, or this answer is outside the protocol", ""
