"""What a staging campaign has asked for so far, in a file that outlives its process.

One JSON document per line, appended and on disk before the next request is sent. What a line says is kept by
the position of files in the campaign's list, so that the same list, given again, is all that is needed to go
on. The paths stand there too, for whoever releases the files later; no credential ever does.

A process may be killed between a request and its answer. Then the journal holds a ``posting`` that nothing
follows, and the files are asked for once more: the server then has two requests for them, each with a pin of
its own, which run out by themselves.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from .. import errors
from ..errors import ConfigurationError, DcacheError

__all__ = ("RecordedPart", "RecordedRequest", "StageJournal", "recorded_requests")

_FORMAT = 1
_HEAD = b'{"campaign"'
_HINT = "Name another journal; without this one the files are asked for again, which does no harm."


@dataclass(frozen=True)
class RecordedPart:
    """Neighbours in the list whose fate the journal knows.

    Parameters
    ----------
    start, stop : `int`
        Positions of the first file and behind the last one.
    request : `str`
        Name of the request that is under way, empty if all has ended.
    failures : `~collections.abc.Mapping`
        By position, why a file did not come; only where all has ended.
    """

    start: int
    stop: int
    request: str
    failures: Mapping[int, DcacheError] = field(default_factory=dict)


class StageJournal:
    """The journal of one campaign, for one process at a time.

    Parameters
    ----------
    path : `~pathlib.Path`
        The file; it and its directory are made if need be, readable by their owner alone.
    endpoint : `str`
        Beginning of the URLs of all files, ``davs://host:port``.
    files : `str`
        What tells one list of files from another.
    lifetime_seconds : `int`
        How long files stay on disk. What came longer ago is asked for again.
    clock : `~collections.abc.Callable`, optional
        Seconds since 1970.

    Raises
    ------
    ConfigurationError
        Raised if another process works with it, or it is the journal of another campaign.
    """

    def __init__(
        self,
        path: Path,
        *,
        endpoint: str,
        files: str,
        lifetime_seconds: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._clock = clock
        self._lifetime_seconds = lifetime_seconds
        self.parts: list[RecordedPart] = []
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file: BinaryIO = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b")
        try:
            about = os.fstat(self._file.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
                raise ConfigurationError(f"the journal {path} is no file of this user", hint=_HINT)
            self._begin({"endpoint": endpoint, "files": files, "lifetime_seconds": lifetime_seconds})
        except BaseException:
            self._file.close()
            raise

    def posting(self, start: int, stop: int) -> None:
        """Note that a request is about to be sent.

        Parameters
        ----------
        start, stop : `int`
            Positions of its files.
        """
        self._append({"posting": [start, stop]})

    def accepted(self, request: str, start: int, stop: int, paths: Iterable[str]) -> None:
        """Note the server's name for a request.

        Parameters
        ----------
        request : `str`
            Its name.
        start, stop : `int`
            Positions of its files.
        paths : `~collections.abc.Iterable` [ `str` ]
            Their paths, as the server knows them.
        """
        self._append({"request": request, "files": [start, stop], "paths": list(paths)})

    def ended(self, start: int, stop: int, failures: Mapping[int, DcacheError]) -> None:
        """Note that nothing is left to do for some files.

        Parameters
        ----------
        start, stop : `int`
            Their positions.
        failures : `~collections.abc.Mapping`
            By position, why a file did not come.
        """
        failed = {str(position): [type(error).__name__, str(error)] for position, error in failures.items()}
        self._append({"ended": [start, stop], "failed": failed})

    def given_up(self, start: int) -> None:
        """Note that a request is cancelled, or forgotten by the server.

        Parameters
        ----------
        start : `int`
            Position of its first file.
        """
        self._append({"given_up": start})

    def done(self) -> None:
        """Note that the campaign is over: the same list, given again, is a new one."""
        self._append({"done": True})

    def close(self) -> None:
        """Let another process have it."""
        self._file.close()

    def _begin(self, campaign: dict[str, Any]) -> None:
        _lock(self._file, self.path)
        known: dict[str, Any] | None = None
        is_done = True
        parts: dict[int, RecordedPart] = {}
        latest = 0.0
        for record in _records(self._file, self.path):
            at = float(record["at"])
            latest = max(latest, at)
            if "campaign" in record:
                known, is_done, parts = record["campaign"], False, {}
            elif "request" in record:
                start, stop = record["files"]
                parts[start] = RecordedPart(start, stop, record["request"])
            elif "ended" in record:
                start, stop = record["ended"]
                failures = {int(key): _error(*value) for key, value in record["failed"].items()}
                parts[start] = RecordedPart(start, stop, "", failures)
                if at + self._lifetime_seconds < self._clock():
                    del parts[start]
            elif "given_up" in record:
                parts.pop(record["given_up"], None)
            elif "done" in record:
                is_done = True
        self._cut_torn_line()
        if known is not None and known != campaign:
            raise ConfigurationError(
                f"the journal {self.path} is that of other files, another endpoint or another lifetime",
                hint="Name another journal, or give the same list and options.",
            )
        if not is_done:
            self.parts = [parts[start] for start in sorted(parts)]
            return
        if latest + self._lifetime_seconds < self._clock():
            self._file.truncate(0)  # nothing of what it says is on disk for our sake any more
        self._append({"campaign": campaign, "format": _FORMAT})

    def _cut_torn_line(self) -> None:
        """Remove what a process that was killed while it wrote has left at the end."""
        self._file.seek(0)
        head = self._file.read(len(_HEAD))
        if head != _HEAD[: len(head)]:
            raise ConfigurationError(f"the file {self.path} is no journal", hint=_HINT)
        end = self._file.seek(0, os.SEEK_END)
        position = end
        while position:
            self._file.seek(position - 1)
            if self._file.read(1) == b"\n":
                break
            position -= 1
        if position != end:
            self._file.truncate(position)

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps({**record, "at": round(self._clock(), 3)}).encode() + b"\n"
        self._file.seek(0, os.SEEK_END)
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())


@dataclass(frozen=True)
class RecordedRequest:
    """A request that the server has accepted, whatever became of it.

    Parameters
    ----------
    endpoint : `str`
        Beginning of the URLs of its files, without a slash at the end.
    request : `str`
        The server's name for it.
    paths : `list` [ `str` ]
        Paths of its files.
    """

    endpoint: str
    request: str
    paths: list[str]


def recorded_requests(path: Path, *, alone: bool = False) -> Iterator[RecordedRequest]:
    """Yield the requests of a journal.

    Parameters
    ----------
    path : `~pathlib.Path`
        The file.
    alone : `bool`, optional
        Whether nobody may work with it meanwhile.

    Raises
    ------
    ConfigurationError
        Raised if it is no journal, or another process works with it.
    """
    endpoint = ""
    with path.open("rb") as file:
        if alone:
            _lock(file, path)
        for record in _records(file, path):
            if "campaign" in record:
                endpoint = record["campaign"]["endpoint"]
            elif "request" in record:
                if not endpoint:
                    raise ConfigurationError(f"the file {path} is no journal", hint=_HINT)
                yield RecordedRequest(endpoint, record["request"], record["paths"])


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigurationError(f"another process works with the journal {path}") from error


def _records(file: BinaryIO, path: Path) -> Iterator[dict[str, Any]]:
    """Yield what a journal says, up to a line that was not written to its end."""
    file.seek(0)
    for number, line in enumerate(file, 1):
        if not line.endswith(b"\n"):
            return
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not _is_sound(record):
            raise ConfigurationError(f"line {number} of the journal {path} is no record", hint=_HINT)
        yield record


def _is_sound(record: Any) -> bool:
    """Tell whether this is one of the records that journals have."""
    match record:
        case {"campaign": {"endpoint": str()}, "at": int() | float()}:
            return True
        case {"request": str(), "files": [int(), int()], "paths": [*paths], "at": int() | float()}:
            return all(isinstance(path, str) for path in paths)
        case {"ended": [int(), int()], "failed": dict(failed), "at": int() | float()}:
            return all(key.isdecimal() and _is_error(value) for key, value in failed.items())
        case {"posting": [int(), int()], "at": int() | float()}:
            return True
        case {"given_up": int(), "at": int() | float()} | {"done": bool(), "at": int() | float()}:
            return True
    return False


def _is_error(value: Any) -> bool:
    match value:
        case [str(), str()]:
            return True
    return False


def _error(name: str, text: str) -> DcacheError:
    kind = getattr(errors, name, None)
    return kind(text) if isinstance(kind, type) and issubclass(kind, DcacheError) else DcacheError(text)
