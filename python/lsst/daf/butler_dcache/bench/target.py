"""A running server as the benchmarks see it."""

from __future__ import annotations

import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from .certificates import write_certificates
from .processes import cpu_seconds, give_to_nobody
from .work import Access, contents

__all__ = ("Counts", "LocalTarget", "Target")


@dataclass(frozen=True)
class Counts:
    """What servers counted.

    Parameters
    ----------
    door_requests, pool_requests : `int`
        Requests.
    door_connections, pool_connections : `int`
        Connections that carried them.
    sent_bytes : `int`
        Bytes of bodies that pools and door sent; -1 where nobody counts them.
    refused : `int`
        Requests that the door refused since there were too many; -1 where nobody counts them.
    """

    door_requests: int
    door_connections: int
    pool_requests: int
    pool_connections: int
    sent_bytes: int = -1
    refused: int = -1

    def since(self, earlier: Counts) -> Counts:
        """Return what came after an earlier look.

        Parameters
        ----------
        earlier : `Counts`
            The earlier look.

        Returns
        -------
        counts : `Counts`
            The differences.
        """
        return Counts(
            self.door_requests - earlier.door_requests,
            self.door_connections - earlier.door_connections,
            self.pool_requests - earlier.pool_requests,
            self.pool_connections - earlier.pool_connections,
            -1 if self.sent_bytes < 0 else self.sent_bytes - earlier.sent_bytes,
            -1 if self.refused < 0 else self.refused - earlier.refused,
        )


class Target(Protocol):
    """A running server."""

    @property
    def name(self) -> str:
        """Which one; a key of `TARGETS`."""
        ...

    @property
    def version(self) -> str:
        """What the server is, in its own words."""
        ...

    @property
    def access(self) -> Access:
        """How clients reach it."""
        ...

    def provide(self, stem: str, size: int, data: bytes | None = None) -> str:
        """Place a file without a client, unless it is there, and return its name.

        Parameters
        ----------
        stem : `str`
            Beginning of the name.
        size : `int`
            Bytes of `~.work.contents`.
        data : `bytes`, optional
            Or these.
        """
        ...

    def new_name(self, stem: str, size: int) -> str:
        """Return a name for an upload of `contents` of this size.

        Parameters
        ----------
        stem : `str`
            Beginning of the name.
        size : `int`
            Size in bytes.
        """
        ...

    def size(self, name: str) -> int | None:
        """Return the size of a file as the server's side sees it; `None` if it is not there.

        Parameters
        ----------
        name : `str`
            Its name.
        """
        ...

    def clear(self, prefix: str) -> None:
        """Remove all files whose names begin so.

        Parameters
        ----------
        prefix : `str`
            Beginning of the names.
        """
        ...

    def counts(self) -> Counts | None:
        """Return what the servers counted so far; `None` where they do not count."""
        ...

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that its processes have used."""
        ...


class LocalTarget:
    """A server whose files lie in a folder of ours.

    Parameters
    ----------
    name : `str`
        A key of `~.servers.TARGETS`.
    run : `~pathlib.Path`
        Folder of this run.
    tls : `bool`
        Whether everything is encrypted.
    processes : `list` [`subprocess.Popen`]
        Takes the processes.
    """

    access: Access

    def __init__(self, name: str, run: Path, tls: bool, processes: list[subprocess.Popen[Any]]) -> None:
        self.name = name
        self.version = ""
        self._run = run
        self._tls = tls
        self._scheme = "https" if tls else "http"
        self._data = run / "data"
        self._data.mkdir()
        self._processes = processes
        self.run, self.folder, self.processes = run, self._data, processes
        self._checksums: dict[int, str] = {}
        write_certificates(run)

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
        path = self._data / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(contents(size) if data is None else data)
            give_to_nobody(path)
            give_to_nobody(path.parent)
        return name

    def size(self, name: str) -> int | None:
        """Return the size of a file, `None` if there is none.

        Parameters
        ----------
        name : `str`
            Its name.
        """
        path = self._data / name
        return path.stat().st_size if path.exists() else None

    def clear(self, prefix: str) -> None:
        """Remove what begins so.

        Parameters
        ----------
        prefix : `str`
            Beginning of the names.
        """
        for path in sorted(self._data.rglob("*"), reverse=True):
            if str(path.relative_to(self._data)).startswith(prefix):
                path.rmdir() if path.is_dir() else path.unlink()

    def counts(self) -> Counts | None:
        """Return `None`: nobody counts."""
        return None

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of all processes so far."""
        return cpu_seconds({process.pid for process in self._processes})

    def set_up_client(self, port: int) -> Access:
        """Write the site's file, and return how clients get in; a stand-in limits nobody, so pacing is off.

        Parameters
        ----------
        port : `int`
            Of the door.
        """
        ca_file = str(self._run / "ca.pem") if self._tls else None
        host = "localhost" if self._tls else "127.0.0.1"
        entry: dict[str, object] = {
            "base_url": f"{'davs' if self._tls else 'dav'}://{host}:{port}/",
            "dcache": {"requests_per_second": 0},
        }
        if ca_file is not None:
            entry["trusted_authorities"] = ca_file
        site = self._run / "webdav.yaml"
        site.write_text(yaml.safe_dump([entry], sort_keys=False))
        return Access(
            url=f"{self._scheme}://{host}:{port}/",
            environment={"LSST_RESOURCES_WEBDAV_CONFIG": str(site)},
            ca_file=ca_file,
        )
