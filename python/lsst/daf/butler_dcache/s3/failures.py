"""What an S3 server says went wrong: by the code in its answer, and by the status where there is none.

Codes are those of Amazon's API reference ("Error responses"), of Ceph's radosgw (``QuotaExceeded``; its texts
are empty, so that nothing is concluded from texts) and of MinIO (``XMinioStorageFull``). The answer to HEAD
has no body, and so no code.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property

from ..auth.credential import Credential
from ..errors import (
    AccessDeniedError,
    ConfigurationError,
    CredentialError,
    DcacheError,
    DoorUnavailableError,
    IntegrityError,
    NearlineError,
    ProtocolError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServerBusyError,
    ServerError,
    StoreFullError,
    UnsupportedError,
)
from ..transport.retry import Phase, judged

__all__ = ("KEY_REFUSALS", "Said", "failure")

_ROOT = re.compile(rb"\s*(?:<\?xml[^>]*\?>\s*)?<Error[\s>]")
_SKEW_SECONDS = 14 * 60
"""A signature is refused when the clocks differ by more than 15 minutes."""

KEY_REFUSALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
"""Codes that say that another access key is needed."""
_BUSY = frozenset(
    {"BandwidthLimitExceeded", "RequestLimitExceeded", "SlowDown", "Throttling", "TooManyRequests"}
)
_AGAIN = frozenset({"IncompleteBody", "OperationAborted", "RequestTimeout"})
"""Codes of what came to nothing, and may do better the next time."""

_Meaning = tuple[type[DcacheError], str, str]

_RESTORE = "It has to be restored by the service first, which takes hours."
_SPACE = "Remove objects that it counts, or ask the site for more."

_BY_CODE: dict[str, _Meaning] = {
    "NoSuchBucket": (ResourceNotFoundError, "there is no such bucket", "Buckets are made by the site."),
    "NoSuchKey": (ResourceNotFoundError, "no such object", ""),
    "NoSuchUpload": (ResourceNotFoundError, "the multipart upload has ended or was aborted", ""),
    "AccessDenied": (AccessDeniedError, "the service knows the access key and refuses", ""),
    "AllAccessDisabled": (AccessDeniedError, "the service refuses all access to it", ""),
    "ExpiredToken": (CredentialError, "the session token has expired", ""),
    "ExpiredTokenException": (CredentialError, "the session token has expired", ""),
    "TokenRefreshRequired": (CredentialError, "the session token has expired", ""),
    "InvalidToken": (CredentialError, "the service does not know the session token", ""),
    "InvalidAccessKeyId": (CredentialError, "the service does not know the access key", ""),
    "SignatureDoesNotMatch": (CredentialError, "the secret of the access key is wrong", ""),
    "RequestTimeTooSkewed": (CredentialError, "the clocks of this machine and the service differ", ""),
    "RequestExpired": (CredentialError, "the signature has expired", ""),
    "InvalidBucketName": (ConfigurationError, "the service takes no bucket of this name", ""),
    "RequestTimeout": (
        DoorUnavailableError,
        "the service gave up waiting for the request",
        "Try again later.",
    ),
    "IncompleteBody": (DoorUnavailableError, "fewer bytes arrived than were announced", "Try again later."),
    "OperationAborted": (ServerBusyError, "another request changes the same", "Try again later."),
    "ConditionalRequestConflict": (ResourceExistsError, "another writer was faster", ""),
    "PreconditionFailed": (ResourceExistsError, "the name is taken", ""),
    "QuotaExceeded": (StoreFullError, "the quota of this user or bucket is used up", _SPACE),
    "InsufficientStorage": (StoreFullError, "the service has no space for the object", _SPACE),
    "XMinioStorageFull": (StoreFullError, "the service has no space for the object", _SPACE),
    "BadDigest": (IntegrityError, "the service received other bytes than were announced", ""),
    "XAmzContentChecksumMismatch": (
        IntegrityError,
        "the service received other bytes than were announced",
        "",
    ),
    "XAmzContentSHA256Mismatch": (IntegrityError, "the service received other bytes than were signed", ""),
    "InvalidDigest": (IntegrityError, "the service does not understand the checksum", ""),
    "InvalidPart": (IntegrityError, "the service has not the parts that were sent to it", ""),
    "InvalidPartOrder": (IntegrityError, "the parts of the object are not in their order", ""),
    "InvalidObjectState": (NearlineError, "the object is in an archive", _RESTORE),
    "EntityTooLarge": (UnsupportedError, "the service takes no object or part of this size", ""),
    "EntityTooSmall": (UnsupportedError, "the service takes no part so small, but the last", ""),
    "KeyTooLongError": (
        ProtocolError,
        "the name is longer than the service allows",
        "S3 allows 1024 bytes in UTF-8.",
    ),
    "NotImplemented": (UnsupportedError, "the service has no such operation", ""),
    "MethodNotAllowed": (UnsupportedError, "the service has no such operation", ""),
}
_BY_STATUS: dict[int, _Meaning] = {
    401: (CredentialError, "the service does not accept the access key", ""),
    403: (AccessDeniedError, "the service knows the access key and refuses", ""),
    404: (ResourceNotFoundError, "no such object", ""),
    405: (UnsupportedError, "the service has no such operation", ""),
    408: _BY_CODE["RequestTimeout"],
    409: (ServerBusyError, "another request changes the same", "Try again later."),
    412: _BY_CODE["PreconditionFailed"],
    413: _BY_CODE["EntityTooLarge"],
    429: (ServerBusyError, "the service refuses so many requests", "Try again later."),
    501: (UnsupportedError, "the service has no such operation", ""),
    502: (DoorUnavailableError, "a relay did not reach the service", "Try again later."),
    503: (ServerBusyError, "the service refuses so many requests, or is not in service", "Try again later."),
    504: (DoorUnavailableError, "a relay did not get an answer from the service", "Try again later."),
    507: (StoreFullError, "the service has no space for the object", _SPACE),
}
_NUMBERS = ("ProposedSize", "MinSizeAllowed", "MaxSizeAllowed", "MaxMessageLengthBytes")


@dataclass(frozen=True)
class Said:
    """An answer, as far as it matters for what went wrong.

    Parameters
    ----------
    status : `int`
        HTTP status.
    reason : `str`
        Reason phrase.
    headers : `~collections.abc.Mapping`
        Headers, looked up without regard to case.
    body : `bytes`
        Beginning of the body.
    """

    status: int
    reason: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @cached_property
    def code(self) -> str:
        """The code of the error; empty if there is none."""
        return self.field("Code")

    @property
    def is_failure(self) -> bool:
        """Whether it tells of a failure, which some requests do with status 200 (CompleteMultipartUpload)."""
        return self.status >= 300 or bool(self.code)

    def field(self, name: str) -> str:
        """Return what an element of the error says.

        Parameters
        ----------
        name : `str`
            Name of the element.

        Returns
        -------
        text : `str`
            Its text; empty if it is not there.
        """
        if not _ROOT.match(self.body):
            return ""
        tag = name.encode()
        found = re.search(rb"<%s>([^<]*)</%s>" % (tag, tag), self.body)
        return "" if found is None else html.unescape(found[1].decode("utf-8", "replace")).strip()

    @property
    def had_no_effect(self) -> bool:
        """Whether the server itself says that it did nothing; a relay's 503 may come after the effect."""
        return self.code in _AGAIN or self.code in _BUSY

    def row(self) -> tuple[Phase, int | None] | None:
        """Return where the table of repetitions tells what is done, if it may do better the next time."""
        if self.code in _AGAIN or self.status == 408:
            return Phase.SAME, None
        if self.code in _BUSY or self.status == 503:
            return Phase.SAME, 503
        if self.status in (502, 504):
            return Phase.SAME, self.status
        is_unknown = self.code == "InternalError" or (self.status == 500 and self.code not in _BY_CODE)
        return (Phase.SAME, 500) if is_unknown else None


def failure(
    said: Said,
    *,
    operation: str,
    url: str,
    method: str = "",
    key: Credential | None = None,
    attempts: int = 1,
    elapsed_seconds: float | None = None,
    now: datetime | None = None,
) -> DcacheError:
    """Return the error for an answer that is not the one that was wanted.

    Parameters
    ----------
    said : `Said`
        The answer.
    operation : `str`
        What was being done.
    url : `str`
        On what.
    method : `str`, optional
        HTTP method.
    key : `~..auth.credential.Credential`, optional
        Access key with which it was signed, for the message: its name and where it came from.
    attempts : `int`, optional
        How often the request was sent.
    elapsed_seconds : `float`, optional
        Time since the first attempt.
    now : `datetime.datetime`, optional
        The present, if it is not to be asked from the clock.

    Returns
    -------
    error : `~..errors.DcacheError`
        To be raised.
    """
    kind, message, hint = _meaning(said)
    skew = _skew_seconds(said, now or datetime.now(UTC))
    is_skewed = said.code == "RequestTimeTooSkewed" and abs(skew) >= 60
    is_refused = said.status in (401, 403) or (said.status == 400 and not said.code)
    if is_skewed or (is_refused and abs(skew) > _SKEW_SECONDS):
        # A service that sees no valid signature, and HEAD, give no other reason.
        kind = CredentialError
        side = "behind" if skew > 0 else "ahead of"
        message = f"the clock of this machine is {abs(skew) / 60:.0f} minutes {side} that of the service"
        hint = "Nothing was done; set the clock of this machine."
    elif issubclass(kind, AccessDeniedError) and key is not None:
        hint = f"Access key {key.mark} from {key.origin or 'the caller'}"
        if key.session_token is not None:
            hint += ", with a session token, which may have ended"
        if issubclass(kind, CredentialError):
            hint += f": {key.remedy or 'renew it'}"
    if said.row() is None:
        judged(*((Phase.ANSWERED, method, 507) if said.status == 507 else (Phase.REFUSED, method)))
    text = said.field("Message")
    return kind(
        message,
        operation=operation,
        url=url,
        status=said.status,
        reason=": ".join(part for part in (said.code, text) if part) or said.reason,
        attempts=attempts,
        elapsed_seconds=elapsed_seconds,
        hint=hint,
    )


def _meaning(said: Said) -> _Meaning:
    region = said.field("Region") or said.headers.get("x-amz-bucket-region", "")
    if said.status in (301, 307, 308) or said.code == "AuthorizationHeaderMalformed":
        where = f"the region {region}" if region else "another region, or at another endpoint"
        return (
            ConfigurationError,
            f"the bucket is in {where}",
            "Set AWS_DEFAULT_REGION, the region of the AWS profile, or the endpoint.",
        )
    if said.code in _BUSY:
        return _BY_STATUS[503]
    kind, message, hint = (
        _BY_CODE.get(said.code)
        or _BY_STATUS.get(said.status)
        or (
            (ServerError, "the service failed", "It may be transient: try again later, or ask the site.")
            if said.status >= 500 or said.status < 300
            else (ProtocolError, "the service did not understand the request", "")
        )
    )
    numbers = [f"{name} {value}" for name in _NUMBERS if (value := said.field(name))]
    return kind, f"{message} ({', '.join(numbers)})" if numbers else message, hint


def _skew_seconds(said: Said, now: datetime) -> float:
    """Seconds by which the service's clock is ahead of ours, 0 if it is not known."""
    text = said.headers.get("Date", "")
    try:
        theirs = parsedate_to_datetime(text) if text else datetime.fromisoformat(said.field("ServerTime"))
    except (ValueError, OverflowError):
        return 0.0
    return (theirs.replace(tzinfo=theirs.tzinfo or UTC) - now).total_seconds()
