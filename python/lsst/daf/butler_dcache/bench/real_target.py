"""A server that somebody else runs, in a directory of our own there, and with care.

What is read is placed by this package, what was written is looked at by it, and the directory goes at the
end. Who we are there, and where the certificates lie, the user's own configuration says
(``LSST_RESOURCES_WEBDAV_CONFIG``, ``BEARER_TOKEN``, the variables of S3).
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..config.loading import settings_for
from ..config.s3 import s3_settings_for
from ..errors import DcacheError, ResourceNotFoundError
from ..redaction import redact_text, redact_url
from ..s3.address import parse
from .allowance import Allowance, Guard
from .borrowed import MARK, Borrowed, remove_below
from .contact import Greeting, greet
from .link import Link
from .processes import default_folder
from .stand_in import place_together
from .target import Counts, TargetGoneError
from .work import Access, Work, contents, pieces

__all__ = ("RealTarget", "is_url", "real_target", "see_that_it_is_a_place")

_SCHEMES = ("davs://", "dav://", "s3://")
_SAYS_DCACHE = re.compile(r"dCache\b")
_IN_MEMORY_BYTES = 16 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_SEEN_EVERY_SECONDS = 600.0
_AWS = "https://s3.amazonaws.com/"
_PLACING_REQUESTS = 3


def is_url(name: str) -> bool:
    """Return whether a target's name is the URL of a real server.

    Parameters
    ----------
    name : `str`
        The name.
    """
    return name.lower().startswith(_SCHEMES)


def see_that_it_is_a_place(url: str) -> None:
    """Refuse a URL that could hold a secret, since reports name the servers.

    Parameters
    ----------
    url : `str`
        Of a directory.

    Raises
    ------
    ValueError
        If it holds more than a place.
    """
    parts = urlsplit(url)
    if parts.query or parts.fragment or ":" in parts.netloc.rpartition("@")[0]:
        raise ValueError(f"{redact_url(url)} holds more than a place: credentials belong elsewhere")


@contextlib.contextmanager
def real_target(url: str, guard: Guard) -> Iterator[RealTarget]:
    """Borrow a directory of a real server for as long as the context lasts.

    Parameters
    ----------
    url : `str`
        Where: a directory that is there, or may be made.
    guard : `~.allowance.Guard`
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
    guard : `~.allowance.Guard`
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
        see_that_it_is_a_place(url)
        self.name = redact_url(url)
        self.kind = "s3" if url.lower().startswith("s3:") else "webdav"
        self._allowance = Allowance(guard)
        self._seen = 0.0
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
        self._allowance.look_after(3)
        with self._speaking():
            self._directory.sign()
        self._seen = time.monotonic()

    def give_back(self) -> None:
        """Remove the directory with all that it holds."""
        try:
            self._directory.give_back(self._allowance.look_after)
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
        self._allowance.look_after(1)
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
        return self._allowance.refusal(work)

    def rate_limit(self, work: Work) -> float:
        """Return how many operations a second all clients together may begin; 0 is no limit.

        Parameters
        ----------
        work : `~.work.Work`
            What they do.
        """
        return self._allowance.rate_limit(work)

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
        ~.allowance.GuardError
            If that is more than may be asked for.
        TargetGoneError
            If the server does not take it.
        """
        name = self.new_name(stem, size)
        if name in self._placed:
            return name
        self._allowance.spend(size if data is None else len(data), _PLACING_REQUESTS)
        self._allowance.pace(_PLACING_REQUESTS)
        with self._speaking():
            if data is not None or size <= _IN_MEMORY_BYTES:
                self._store.write(self._url(name), contents(size) if data is None else data)
            else:
                with tempfile.TemporaryFile(dir=default_folder()) as file:
                    for piece in pieces(size, _PIECE_BYTES):
                        file.write(piece)
                    file.seek(0)
                    self._store.write(self._url(name), file)
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
        self._allowance.look_after(1)
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
        self._allowance.look_after(1)
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
                    remove_below(self._store, f"{url}/{entry.name}/", self._allowance.look_after)
                else:
                    files.append(entry.url)
            self._allowance.look_after(len(files))
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
