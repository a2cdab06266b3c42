"""The errors of this package, by cause.

Every error is a `DcacheError` and also the builtin that a Python programmer expects, so that code written for
local files keeps working::

    DcacheError
    ├── ConfigurationError          ValueError           a setting is missing, unknown or contradictory
    ├── ResourceNotFoundError       FileNotFoundError    no such file or directory (404)
    │   └── ParentNotFoundError     FileNotFoundError    the directory to write in is missing (409)
    ├── ResourceExistsError         FileExistsError      the name is taken and may not be replaced (412, 405)
    ├── ResourceIsDirectoryError    IsADirectoryError    a file was asked for, a directory is there
    ├── ResourceIsFileError         NotADirectoryError   a directory was asked for, a file is there
    ├── DirectoryNotEmptyError      OSError (ENOTEMPTY)  only empty directories are removed
    ├── AccessDeniedError           PermissionError      the identity is known and has not the right (403)
    │   └── CredentialError         PermissionError      no credential, or one that the server refuses (401)
    │       └── CredentialConfigurationError ValueError      what the configuration says of it is wrong
    ├── StoreFullError              OSError (ENOSPC)     no space, or no right to that much (507)
    ├── NearlineError               OSError (EAGAIN)     the file is on tape only and is not to be had now
    ├── FileBrokenError             OSError (EIO)        the name holds an unfinished or cut upload
    ├── IntegrityError              OSError (EIO)        bytes, size or checksum are not those of the file
    ├── UploadDisplacedError        OSError (EBUSY)      another writer took the name meanwhile
    ├── ServerBusyError             OSError (EBUSY)      the door's limiter refuses requests (429)
    ├── DoorUnavailableError        ConnectionError      no connection, or the server went away
    ├── DeadlineError               TimeoutError         the deadline of the operation passed
    ├── OutcomeUnknownError         OSError (EIO)        a request may have had an effect
    ├── ServerError                 OSError (EIO)        the server failed for another reason (500)
    ├── ProtocolError               OSError (EPROTO)     an answer outside the protocol
    └── UnsupportedError            NotImplementedError  the server or this scheme cannot do that
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from typing import Any, ClassVar, ParamSpec, TypeVar

from .redaction import redact_text, redact_url

__all__ = (
    "AccessDeniedError",
    "ConfigurationError",
    "CredentialConfigurationError",
    "CredentialError",
    "DcacheError",
    "DeadlineError",
    "DirectoryNotEmptyError",
    "DoorUnavailableError",
    "FileBrokenError",
    "IntegrityError",
    "NearlineError",
    "OutcomeUnknownError",
    "ParentNotFoundError",
    "ProtocolError",
    "ResourceExistsError",
    "ResourceIsDirectoryError",
    "ResourceIsFileError",
    "ResourceNotFoundError",
    "ServerBusyError",
    "ServerError",
    "StoreFullError",
    "UnsupportedError",
    "UploadDisplacedError",
    "forget_frames",
    "hides_locals",
)

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Error = TypeVar("_Error", bound=BaseException)


class DcacheError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    message : `str`
        What went wrong, in one sentence.
    operation : `str`, optional
        What was being done, for instance ``"write"``.
    url : `str`, optional
        Where; kept in redacted form only.
    status : `int`, optional
        HTTP status of the answer that decided.
    reason : `str`, optional
        The server's own words: reason phrase or first line of the body.
    attempts : `int`, optional
        How often the request was sent.
    elapsed_seconds : `float`, optional
        Time from the first attempt to the last answer.
    hint : `str`, optional
        What the reader can do about it.
    """

    errno: int | None = None
    """System error number, so that code which looks at ``errno`` works."""

    _default_errno: ClassVar[int | None] = None

    def __init__(
        self,
        message: str,
        *,
        operation: str = "",
        url: str = "",
        status: int | None = None,
        reason: str = "",
        attempts: int = 1,
        elapsed_seconds: float | None = None,
        hint: str = "",
    ) -> None:
        self.message = redact_text(message)
        self.operation = operation
        self.url = redact_url(url) if url else ""
        self.status = status
        self.reason = redact_text(reason)
        self.attempts = attempts
        self.elapsed_seconds = elapsed_seconds
        self.hint = redact_text(hint)
        super().__init__(self.message)
        self.errno = self._default_errno

    def __str__(self) -> str:
        where = " ".join(part for part in (self.operation, self.url) if part)
        text = f"{where}: {self.message}" if where else self.message
        if self.status is not None:
            text += f" (HTTP {self.status}{', ' + self.reason if self.reason else ''})"
        elif self.reason:
            text += f" ({self.reason})"
        if self.attempts > 1:
            text += f", after {self.attempts} attempts"
            if self.elapsed_seconds is not None:
                text += f" in {self.elapsed_seconds:.1f} s"
        if self.hint:
            text += f". {self.hint}"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.__dict__)


def _rebuild(cls: type[DcacheError], message: str, state: dict[str, Any]) -> DcacheError:
    error = cls(message)
    error.__dict__.update(state)
    return error


class ConfigurationError(DcacheError, ValueError):
    """A setting is missing, unknown or contradictory; the text names file and key."""


class ResourceNotFoundError(DcacheError, FileNotFoundError):
    """No file or directory has this name."""

    _default_errno = errno.ENOENT


class ParentNotFoundError(ResourceNotFoundError):
    """The directory in which something is to be made does not exist."""


class ResourceExistsError(DcacheError, FileExistsError):
    """The name is taken, and replacing it was not asked for."""

    _default_errno = errno.EEXIST


class ResourceIsDirectoryError(DcacheError, IsADirectoryError):
    """A file was asked for and a directory is there."""

    _default_errno = errno.EISDIR


class ResourceIsFileError(DcacheError, NotADirectoryError):
    """A directory was asked for and a file is there."""

    _default_errno = errno.ENOTDIR


class DirectoryNotEmptyError(DcacheError, OSError):
    """A directory that holds something is not removed."""

    _default_errno = errno.ENOTEMPTY


class AccessDeniedError(DcacheError, PermissionError):
    """The server knows who asks and refuses."""

    _default_errno = errno.EACCES


class CredentialError(AccessDeniedError):
    """There is no credential, or the server does not accept it."""


class CredentialConfigurationError(CredentialError, ConfigurationError):
    """What the configuration says of a credential is contradictory, or no such file is there."""


class StoreFullError(DcacheError, OSError):
    """There is no space for the file, or no right to that much."""

    _default_errno = errno.ENOSPC


class NearlineError(DcacheError, OSError):
    """The file is on tape only and is not to be had at once, or nobody has it at this moment.

    Parameters
    ----------
    message : `str`
        What went wrong, in one sentence.
    locality : `str`, optional
        Where the server says that the file is, such as ``NEARLINE``; empty if it was not asked.
    **details
        See `DcacheError`.
    """

    _default_errno = errno.EAGAIN

    def __init__(self, message: str, *, locality: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.locality = locality


class FileBrokenError(DcacheError, OSError):
    """The name holds an unfinished or cut upload, which can never be read."""

    _default_errno = errno.EIO


class IntegrityError(DcacheError, OSError):
    """Bytes, size or checksum differ from what they must be."""

    _default_errno = errno.EIO


class UploadDisplacedError(DcacheError, OSError):
    """Another writer took or removed the name while this upload ran; nothing was cleaned up."""

    _default_errno = errno.EBUSY


class ServerBusyError(DcacheError, OSError):
    """The server's limiter refuses requests."""

    _default_errno = errno.EBUSY


class DoorUnavailableError(DcacheError, ConnectionError):
    """There is no connection to the server, or it went away.

    Attributes
    ----------
    was_waited_for : `bool`
        Whether it has answered this process before and was waited for in vain: asking again at once is of no
        use.
    """

    was_waited_for = False

    _default_errno = errno.ECONNREFUSED


class DeadlineError(DcacheError, TimeoutError):
    """The time allowed for the operation is over."""

    _default_errno = errno.ETIMEDOUT


class OutcomeUnknownError(DcacheError, OSError):
    """A request may have had an effect, and looking did not settle it."""

    _default_errno = errno.EIO


class ServerError(DcacheError, OSError):
    """The server failed for a reason that has no class of its own."""

    _default_errno = errno.EIO


class ProtocolError(DcacheError, OSError):
    """The answer is not one that this protocol allows."""

    _default_errno = errno.EPROTO


class UnsupportedError(DcacheError, NotImplementedError):
    """The server, or the scheme, has no such operation."""


def hides_locals(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Have the errors of a function that handles bare secrets tell nothing of its variables.

    Parameters
    ----------
    function : `~collections.abc.Callable`
        Any function. Some loggers, and pytest, print the variables of all frames of a traceback.

    Returns
    -------
    function : `~collections.abc.Callable`
        The same. What it raises of our own errors, and what led to them, has lost the frames within; other
        errors are mistakes in the program, whose place must be seen.
    """

    @functools.wraps(function)
    def wrapper(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except DcacheError as exc:
            error = exc
        del args, kwargs
        try:
            raise forget_frames(error)
        finally:
            del error  # its traceback holds this frame, and those of callers with their memory

    return wrapper


def forget_frames(error: _Error) -> _Error:
    """Take the frames, and with them their variables, from an error and from all that led to it.

    Parameters
    ----------
    error : `BaseException`
        Any error.

    Returns
    -------
    error : `BaseException`
        The same.
    """
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        item = todo.pop()
        if item is not None and id(item) not in seen:
            seen.add(id(item))
            item.__traceback__ = None
            if item.__suppress_context__:
                item.__context__ = None  # nobody is to see it: those of `requests` quote whole URLs
            todo += [item.__cause__, item.__context__]
    return error
