"""Servers that are started here, in a folder of ours."""

from __future__ import annotations

import abc
import shutil
import socket
import subprocess
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .certificates import write_certificates
from .contact import address, greet
from .link import LOOPBACK, Link, Spaces
from .processes import cpu_seconds, give_to_nobody
from .target import TARGETS, Counts, TargetGoneError
from .work import Access, Work, contents, pieces

__all__ = ("Ground", "LocalTarget", "StandIn", "place_together")

_ANSWERS_SECONDS = 10.0
_PIECE_BYTES = 1024 * 1024
_PLACED_AT_ONCE = 8


@dataclass(frozen=True)
class Ground:
    """Where a server is set up.

    Parameters
    ----------
    name : `str`
        A key of `~.target.TARGETS`.
    run : `~pathlib.Path`
        Folder of this run.
    tls : `bool`
        Whether everything is encrypted.
    limiter : `bool`
        Whether a door limits its clients, if it can.
    spaces : `~.link.Spaces`
        Where server and clients are.
    processes : `list` [`subprocess.Popen`]
        Takes the processes.
    """

    name: str
    run: Path
    tls: bool
    limiter: bool = True
    spaces: Spaces = LOOPBACK
    processes: list[subprocess.Popen[Any]] = field(default_factory=list)


def place_together(place: Callable[[str, int], str], stems: Sequence[str], size: int) -> tuple[str, ...]:
    """Place files over the network, several at a time.

    Parameters
    ----------
    place : `~collections.abc.Callable`
        Places one; takes the beginning of its name and its size.
    stems : `~collections.abc.Sequence` [`str`]
        Beginnings of the names.
    size : `int`
        Bytes of each.

    Returns
    -------
    names : `tuple` [`str`, ...]
        Their names.
    """
    with ThreadPoolExecutor(_PLACED_AT_ONCE, thread_name_prefix="place") as executor:
        try:
            return tuple(executor.map(lambda stem: place(stem, size), stems))
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise


class StandIn(abc.ABC):
    """A server that was started here.

    Parameters
    ----------
    ground : `Ground`
        Where.
    """

    access: Access
    kind = "webdav"
    is_dcache = False
    has_limiter = False

    def __init__(self, ground: Ground) -> None:
        self.name = ground.name
        self.version = ""
        self.title = TARGETS[ground.name]
        self.server_header, self.rtt_seconds = "", 0.0
        self.child_prefix = ground.spaces.child_prefix
        self._ground = ground

    def meet(self) -> None:
        """Take its name and its distance, as its clients see them."""
        with self._ground.spaces.client():
            greeting = greet(self.access.url)
        self.server_header, self.rtt_seconds = greeting.server_header, greeting.rtt_seconds

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of all processes so far."""
        return cpu_seconds({process.pid for process in self._ground.processes})

    @abc.abstractmethod
    def provide(self, stem: str, size: int, data: bytes | None = None) -> str:
        """Place a file, unless it is there, and return its name.

        Parameters
        ----------
        stem : `str`
            Beginning of the name.
        size : `int`
            Bytes of `~.work.contents`.
        data : `bytes`, optional
            Or these.
        """

    def provide_many(self, stems: Sequence[str], size: int) -> tuple[str, ...]:
        """Place files of one size, one after the other, and return their names.

        Parameters
        ----------
        stems : `~collections.abc.Sequence` [`str`]
            Beginnings of the names.
        size : `int`
            Bytes of each.
        """
        return tuple(self.provide(stem, size) for stem in stems)

    def admit(self, work: Work) -> str:
        """Return nothing: what was started here may be asked anything.

        Parameters
        ----------
        work : `~.work.Work`
            Not used.
        """
        return ""

    def rate_limit(self, work: Work) -> float:
        """Return 0, for the same reason.

        Parameters
        ----------
        work : `~.work.Work`
            Not used.
        """
        return 0.0

    def check(self) -> None:
        """Look whether all processes live and the door takes connections.

        Raises
        ------
        TargetGoneError
            If not.
        """
        for process in self._ground.processes:
            if process.poll() is not None:
                raise TargetGoneError(f"{self.name}: {process.args!r} ended with {process.returncode}")
        try:
            with (
                self._ground.spaces.client(),
                socket.create_connection(address(self.access.url), _ANSWERS_SECONDS),
            ):
                pass
        except OSError as error:
            raise TargetGoneError(f"{self.name}: no connection to {self.access.url}: {error}") from error

    def describe(self) -> dict[str, Any]:
        """Return what a report says of it, as JSON can hold it."""
        return {
            "kind": self.kind,
            "title": self.title,
            "version": self.version,
            "server_header": self.server_header,
            "tls": self._ground.tls,
            "is_dcache": self.is_dcache,
            "rtt_ms": {"door": self.rtt_seconds * 1e3},
            "link": (self._ground.spaces.link or Link()).to_json(),
            "limiter": self.has_limiter,
        }


class LocalTarget(StandIn):
    """A server whose files lie in a folder of ours.

    Parameters
    ----------
    ground : `Ground`
        Where.
    """

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._scheme = "https" if ground.tls else "http"
        self.run, self.processes = ground.run, ground.processes
        self.folder = self.run / "data"
        self.folder.mkdir()
        self._checksums: dict[int, str] = {}
        write_certificates(self.run)

    def new_name(self, stem: str, size: int) -> str:
        """Return a name for an upload, with the adler32 of `~.work.contents` in it.

        Parameters
        ----------
        stem : `str`
            Its beginning.
        size : `int`
            Size in bytes.
        """
        if size not in self._checksums:
            self._checksums[size] = f"{zlib.adler32(contents(size)):08x}"
        return f"{stem}.a{self._checksums[size]}.dat"

    def provide(self, stem: str, size: int, data: bytes | None = None) -> str:
        """Place a file, unless it is there, and return its name.

        Parameters
        ----------
        stem : `str`
            Beginning of the name.
        size : `int`
            Bytes of `~.work.contents`.
        data : `bytes`, optional
            Or these.
        """
        name = self.new_name(stem, size) if data is None else f"{stem}.a{zlib.adler32(data):08x}.dat"
        path = self.folder / name
        if not path.exists():
            self._make_folder(path.parent)
            with path.open("wb") as file:
                for piece in pieces(size, _PIECE_BYTES) if data is None else (data,):
                    file.write(piece)
            give_to_nobody(path)
        return name

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
            give_to_nobody(folder)

    def size(self, name: str) -> int | None:
        """Return the size of a file, `None` if there is none.

        Parameters
        ----------
        name : `str`
            Its name.
        """
        path = self.folder / name
        return path.stat().st_size if path.exists() else None

    def clear(self, prefix: str) -> None:
        """Remove what begins so.

        Parameters
        ----------
        prefix : `str`
            Beginning of the names.
        """
        folder, _, beginning = prefix.rpartition("/")
        for path in (self.folder / folder).glob("*"):
            if path.name.startswith(beginning):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def counts(self) -> Counts | None:
        """Return `None`: nobody counts."""
        return None

    def set_up_client(self, port: int) -> Access:
        """Write the site's file, and return how clients get in; a stand-in limits nobody, so pacing is off.

        Parameters
        ----------
        port : `int`
            Of the door.
        """
        ca_file = str(self.run / "ca.pem") if self._ground.tls else None
        host = "localhost" if self._ground.tls else "127.0.0.1"
        entry: dict[str, object] = {
            "base_url": f"{'davs' if self._ground.tls else 'dav'}://{host}:{port}/",
            "dcache": {"requests_per_second": 0},
        }
        if ca_file is not None:
            entry["trusted_authorities"] = ca_file
        site = self.run / "webdav.yaml"
        site.write_text(yaml.safe_dump([entry], sort_keys=False))
        return Access(
            url=f"{self._scheme}://{host}:{port}/",
            environment={"LSST_RESOURCES_WEBDAV_CONFIG": str(site)},
            ca_file=ca_file,
        )
