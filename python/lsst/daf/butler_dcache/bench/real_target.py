"""A server that somebody else runs, in a directory of our own there, and with care.

What is read is placed by this package, what was written is looked at by it, and the directory goes at the
end. `Guard` says how much the server is asked for at most. Who we are there, and where the certificates lie,
the user's own configuration says (``LSST_RESOURCES_WEBDAV_CONFIG``, ``BEARER_TOKEN``, the variables of S3).
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..config.loading import settings_for
from ..config.s3 import s3_settings_for
from ..errors import DcacheError, ResourceNotFoundError
from ..redaction import redact_text, redact_url
from ..s3.address import parse
from .borrowed import MARK, Borrowed, remove_below
from .contact import Greeting, greet
from .link import Link
from .processes import default_folder
from .target import Counts, TargetGoneError, place_together
from .work import Access, Work, contents, pieces

__all__ = ("Guard", "GuardError", "RealTarget", "is_url", "real_target")

_SCHEMES = ("davs://", "dav://", "s3://")
_SAYS_DCACHE = re.compile(r"dCache\b")
_IN_MEMORY_BYTES = 16 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_SEEN_EVERY_SECONDS = 600.0
_AWS = "https://s3.amazonaws.com/"
_REQUESTS = {"get": 2, "put": 3, "write_sequential": 3, "look": 1, "remove": 2, "rename": 2, "presign": 0}
"""How many requests to the door an operation may cost a client."""
_PLACING_REQUESTS = 3
_READ_AHEAD_BYTES = 1024 * 1024
"""How much the least thrifty client asks for at a time, when it reads a part of a file."""


class GuardError(Exception):
    """More was wanted of a real server than its guard lets through; the text says what."""


@dataclass(frozen=True)
class Guard:
    """How much a real server is asked for at most.

    Parameters
    ----------
    max_bytes : `int`
        Bytes that go to it or come from it, in the whole run.
    max_requests : `int`
        Requests to the door, in the whole run; how many a client needs is estimated beforehand, rather too
        many.
    max_rate : `float`
        Requests to the door per second, of all clients together. The default is a little less than what
        dCache lets one host send (protocol page, section 1.2).
    """

    max_bytes: int = 50 * 1024**3
    max_requests: int = 100_000
    max_rate: float = 200.0


def is_url(name: str) -> bool:
    """Return whether a target's name is the URL of a real server.

    Parameters
    ----------
    name : `str`
        The name.
    """
    return name.lower().startswith(_SCHEMES)


@contextlib.contextmanager
def real_target(url: str, guard: Guard) -> Iterator[RealTarget]:
    """Borrow a directory of a real server for as long as the context lasts.

    Parameters
    ----------
    url : `str`
        Where: a directory that is there, or may be made.
    guard : `Guard`
        How much may be asked for.

    Yields
    ------
    target : `RealTarget`
        The server.

    Raises
    ------
    TargetGoneError
        If the server is not there or refuses, also if it does not let us clean up; the text says what is
        left.
    ValueError
        If the URL holds more than a place.
    """
    target = RealTarget(url, guard)
    try:
        target.sign()
        yield target
    finally:
        target.give_back()


class RealTarget:
    """A directory at a real server.

    Parameters
    ----------
    url : `str`
        The directory in which it is made.
    guard : `Guard`
        How much may be asked for.

    Raises
    ------
    TargetGoneError
        If the server is not there.
    ValueError
        If the URL holds more than a place.
    """

    child_prefix: tuple[str, ...] = ()

    def __init__(self, url: str, guard: Guard) -> None:
        parts = urlsplit(url)
        if parts.query or parts.fragment or (":" in parts.netloc.rpartition("@")[0]):
            raise ValueError(f"{redact_url(url)} holds more than a place: credentials belong elsewhere")
        self.name = redact_url(url)
        self.kind = "s3" if parts.scheme.lower() == "s3" else "webdav"
        self._guard = guard
        self._lock = threading.Lock()
        self._bytes = self._requests = 0
        self._next = self._seen = 0.0
        self._placed: set[str] = set()
        with self._speaking():
            self._directory = Borrowed(url if url.endswith("/") else f"{url}/")
            self._store = self._directory.store
            # Names of objects hold all of their place, so that no client can come to write elsewhere.
            self._beginning = ""
            if self.kind == "s3":
                self._beginning = parse(self._directory.url).key.rstrip("/") + "/"
            self.access = self._s3_access() if self.kind == "s3" else self._webdav_access()
            greeting = self._greet()
        self.server_header, self.rtt_seconds = greeting.server_header, greeting.rtt_seconds
        self.version = self.server_header or "a server that does not say what it is"
        self._says_dcache = bool(_SAYS_DCACHE.match(self.server_header))
        self.is_dcache = self._says_dcache and not greeting.is_stand_in
        place = f"{self.version} at {self.name}"
        self.title = place if self.is_dcache else f"{place} (not dCache)"

    def _greet(self) -> Greeting:
        try:
            return greet(self.access.url)
        except OSError as error:
            raise TargetGoneError(f"{self.name}: no connection: {error}") from error

    def _webdav_access(self) -> Access:
        settings = settings_for(self._directory.url)
        scheme, _, place = self._directory.url.partition("://")
        # A token that is a value, or comes from elsewhere, is not written to a file for others.
        token_file = settings.token_file or os.environ.get("BEARER_TOKEN_FILE")
        return Access(
            url=f"{'https' if scheme.lower() == 'davs' else 'http'}://{place}",
            environment={},
            ca_file=settings.trusted_authorities,
            token_file=token_file if settings.is_encrypted else None,
            user=settings.user_name,
            password_file=settings.user_password_file,
            frontend_url=settings.frontend_url or "",
        )

    def _s3_access(self) -> Access:
        address = parse(self._directory.url)
        settings = s3_settings_for(address.profile, address.bucket)
        environment: dict[str, str] = {}
        if settings.endpoint_url is not None:
            # Only this package and lsst.resources know profiles; all clients know these.
            environment |= {
                "S3_ENDPOINT_URL": settings.endpoint_url,
                "AWS_ENDPOINT_URL": settings.endpoint_url,
            }
        if settings.access_key_id and settings.secret_access_key:
            environment["AWS_ACCESS_KEY_ID"] = settings.access_key_id
            environment["AWS_SECRET_ACCESS_KEY"] = settings.secret_access_key.reveal()
        return Access(
            url=f"{settings.endpoint_url}/" if settings.endpoint_url else _AWS,
            environment=environment,
            ca_file=os.environ.get("AWS_CA_BUNDLE"),
            bucket=address.bucket,
        )

    # ---- life
    def sign(self) -> None:
        """Make the directory and mark it, or say once more that we live."""
        self._look_after(3)
        with self._speaking():
            self._directory.sign()
        self._seen = time.monotonic()

    def give_back(self) -> None:
        """Remove the directory with all that it holds."""
        try:
            self._directory.give_back(self._look_after)
        except DcacheError as error:
            raise TargetGoneError(
                f"{redact_text(str(error))}: {redact_url(self._directory.url)} is still there; "
                f"dcache-butler bench clean {self.name} removes it later"
            ) from error

    def check(self) -> None:
        """Look whether it is still there.

        Raises
        ------
        TargetGoneError
            If the server, or the directory, is not.
        """
        self._look_after(1)
        with self._speaking():
            self._store.stat(f"{self._directory.url}{MARK}")

    @contextlib.contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except DcacheError as error:
            raise TargetGoneError(f"{self.name}: {redact_text(str(error))}") from error

    # ---- the guard
    def admit(self, work: Work) -> str:
        """Return why this may not be asked of it now; empty if it may, and then it counts as asked.

        Parameters
        ----------
        work : `~.work.Work`
            What one client is to do.
        """
        if time.monotonic() - self._seen > _SEEN_EVERY_SECONDS:
            self.sign()
        if work.rate > self.rate_limit(work) > 0:
            return (
                f"{work.rate:g} operations a second are more than the guard lets through "
                f"({self._guard.max_rate:g} requests a second)"
            )
        try:
            self._spend(work.total_bytes, _requests(work))
        except GuardError as error:
            return str(error)
        return ""

    def rate_limit(self, work: Work) -> float:
        """Return how many operations a second all clients together may begin; 0 is no limit.

        Parameters
        ----------
        work : `~.work.Work`
            What they do.
        """
        return self._guard.max_rate / max(1.0, _requests(work) / (work.count * work.processes))

    def _spend(self, byte_count: int, request_count: int) -> None:
        with self._lock:
            if self._bytes + byte_count > self._guard.max_bytes:
                raise GuardError(
                    f"{byte_count} bytes after {self._bytes} are more than the guard lets through "
                    f"({self._guard.max_bytes} bytes in all)"
                )
            if self._requests + request_count > self._guard.max_requests:
                raise GuardError(
                    f"{request_count} requests after {self._requests} are more than the guard lets through "
                    f"({self._guard.max_requests} requests in all)"
                )
            self._bytes += byte_count
            self._requests += request_count

    def _look_after(self, count: int) -> None:
        """Count requests that must be, such as those that clean up, and wait until they may be sent."""
        with self._lock:
            self._requests += count
        self._pace(count)

    def _pace(self, count: int) -> None:
        """Wait until so many requests of our own may be sent."""
        with self._lock:
            begin = max(time.monotonic(), self._next)
            self._next = begin + count / self._guard.max_rate
        time.sleep(max(0.0, begin - time.monotonic()))

    # ---- files
    def _own(self, name: str) -> str:
        return name if name.startswith(self._beginning) else f"{self._beginning}{name}"

    def _url(self, name: str) -> str:
        return f"{self._directory.url}{self._own(name).removeprefix(self._beginning)}"

    def new_name(self, stem: str, size: int) -> str:
        """Return a name for an upload.

        Parameters
        ----------
        stem : `str`
            Its beginning.
        size : `int`
            Not used.
        """
        return f"{self._own(stem)}.dat"

    def provide(self, stem: str, size: int, data: bytes | None = None) -> str:
        """Place a file by this package, unless it is there, and return its name.

        Parameters
        ----------
        stem : `str`
            Beginning of the name.
        size : `int`
            Bytes of `~.work.contents`.
        data : `bytes`, optional
            Or these.

        Raises
        ------
        GuardError
            If that is more than may be asked for.
        TargetGoneError
            If the server does not take it.
        """
        name = self.new_name(stem, size)
        if name in self._placed:
            return name
        self._spend(size if data is None else len(data), _PLACING_REQUESTS)
        self._pace(_PLACING_REQUESTS)
        with self._speaking():
            if data is not None or size <= _IN_MEMORY_BYTES:
                self._store.write(self._url(name), contents(size) if data is None else data)
            else:
                with tempfile.TemporaryFile(dir=default_folder()) as file:
                    for piece in pieces(size, _PIECE_BYTES):
                        file.write(piece)
                    file.seek(0)
                    self._store.write(self._url(name), file)
        with self._lock:
            self._placed.add(name)
        return name

    def provide_many(self, stems: Sequence[str], size: int) -> tuple[str, ...]:
        """Place files of one size, several at a time, and return their names.

        Parameters
        ----------
        stems : `~collections.abc.Sequence` [`str`]
            Beginnings of the names.
        size : `int`
            Bytes of each.
        """
        return place_together(self.provide, stems, size)

    def size(self, name: str) -> int | None:
        """Return the size of a file, `None` if there is none.

        Parameters
        ----------
        name : `str`
            Its name.
        """
        self._look_after(1)
        with self._speaking():
            try:
                return self._store.stat(self._url(name)).size
            except ResourceNotFoundError:
                return None

    def clear(self, prefix: str) -> None:
        """Remove what begins so.

        Parameters
        ----------
        prefix : `str`
            Beginning of the names.
        """
        own = self._own(prefix)
        self._placed = {name for name in self._placed if not name.startswith(own)}
        url, _, beginning = self._url(own).rpartition("/")
        self._look_after(1)
        with self._speaking():
            try:
                entries = self._store.list_directory(f"{url}/")
            except ResourceNotFoundError:
                return
            files = []
            for entry in entries:
                if not entry.name.startswith(beginning) or entry.name == MARK:
                    continue
                if entry.is_directory:
                    remove_below(self._store, f"{url}/{entry.name}/", self._look_after)
                else:
                    files.append(entry.url)
            self._look_after(len(files))
            for error in self._store.remove_many(files).values():
                if error is not None and not isinstance(error, FileNotFoundError):
                    raise error

    # ---- what is known of it
    def counts(self) -> Counts | None:
        """Return `None`: nobody but the site can count there."""
        return None

    def cpu_seconds(self) -> float:
        """Return 0: its processes are elsewhere."""
        return 0.0

    def describe(self) -> dict[str, Any]:
        """Return what a report says of it, as JSON can hold it."""
        return {
            "kind": self.kind,
            "title": self.title,
            "version": self.version,
            "server_header": self.server_header,
            "tls": self.access.url.startswith("https:"),
            "is_dcache": self.is_dcache,
            "rtt_ms": {"door": self.rtt_seconds * 1e3},
            "link": Link().to_json(),
            "limiter": self._says_dcache,
        }


def _requests(work: Work) -> int:
    """How many requests to the door a client may need, rather too many."""
    each = _REQUESTS.get(work.operation, 1)
    match work.operation:
        case "mix":
            each = sum(_REQUESTS.get(step.operation, 1) * step.count for step in work.steps)
        case "exists_many" | "delete":
            each = 2 * work.batch
        case "walk":
            each = 2 * (work.directory_count + work.batch // 100) + 1
        case "read_vector" | "read_scattered" | "read_random":
            each = 2 + work.batch
        case "header" | "hdu" | "cutout" | "column" | "column_by_name" | "member" | "read_sequential":
            each = 4 + work.operation_bytes // _READ_AHEAD_BYTES
    return each * work.count * work.processes
