"""Who makes things go wrong at the embedded dCache, and looks at its name space behind the client's back."""

from __future__ import annotations

import abc
import threading
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import yaml

from ...embedded import EmbeddedDcache, Fault
from ...embedded.namespace import Change
from .misfortunes import PATIENCE_SECONDS, Misfortune
from .steps import SHARED, Step
from .worker import Told
from .world import ABSENT, DIRECTORY, Sight, fingerprint

__all__ = ("RUIN", "EmbeddedReferee", "Referee")

RUIN = "an unfinished upload"

_HOME = "/data/"
_RECOVERY_SECONDS = 2.0
"""A server that crashed is back by then, and clients have noticed that their kept connections are cut."""
_TEMPORARY = ".dcb-"


class Referee(abc.ABC):
    """Watches servers behind the back of their clients.

    Parameters
    ----------
    folder : `~pathlib.Path`
        For the files of the clients: settings and tokens, one each.
    """

    home = ""
    url = ""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._restarts_seen = 0
        self._restarted_at = -_RECOVERY_SECONDS

    @property
    def requests(self) -> int:
        """How many requests the servers got, if they count them."""
        return 0

    @property
    @abc.abstractmethod
    def restarts(self) -> int:
        """How often a server was killed and came back."""

    @abc.abstractmethod
    def environment(self, process: int, *, with_frontend: bool) -> dict[str, str]:
        """Return the variables of a client of its own.

        Parameters
        ----------
        process : `int`
            Number of the client.
        with_frontend : `bool`
            Whether it knows the frontend.
        """

    @abc.abstractmethod
    def renew(self, process: int) -> None:
        """Give a client another token.

        Parameters
        ----------
        process : `int`
            Number of the client.
        """

    def serve(self, process: int, worker: Connection) -> Iterator[Told | tuple[Any, ...]]:
        """Answer a worker until it ends.

        Parameters
        ----------
        process : `int`
            Its number.
        worker : `multiprocessing.connection.Connection`
            The line to it.

        Yields
        ------
        told : `~.worker.Told` or `tuple`
            What it tells of each step, and what it tells at its end.
        """
        step: Step | None = None
        restarts, began_at = 0, 0.0
        while True:
            try:
                message = worker.recv()
            except EOFError:
                return
            if isinstance(message, Told):
                yield message
                continue
            match message:
                case ("begin", step, misfortunes):
                    restarts, began_at = self._restarts(), time.monotonic()
                    self._arm(process, misfortunes)
                    worker.send(None)
                case ("end",):
                    assert step is not None
                    hits = self._disarm(process)
                    is_calm = (
                        self._restarts() == restarts and began_at - self._restarted_at > _RECOVERY_SECONDS
                    )
                    worker.send(self._sight(process, step, hits, is_calm))
                case ("renew",):
                    self.renew(process)
                    worker.send(None)
                case _:
                    yield message
                    return

    @abc.abstractmethod
    def calm_down(self) -> None:
        """Let nothing go wrong any more."""

    @abc.abstractmethod
    def names(self, directory: str) -> dict[str, str]:
        """Return what a directory and all below it hold, by name; directories are left out.

        Parameters
        ----------
        directory : `str`
            Name below the home of the server.
        """

    @abc.abstractmethod
    def temporaries(self, directory: str) -> list[str]:
        """Return the temporary names below a directory.

        Parameters
        ----------
        directory : `str`
            Name below the home of the server.
        """

    @abc.abstractmethod
    def state(self, path: str) -> str:
        """Return what a path holds.

        Parameters
        ----------
        path : `str`
            Path, from the home of the server on.
        """

    @staticmethod
    def place(process: int, step: Step) -> str:
        """Return the directory of a step, below the home of the server.

        Parameters
        ----------
        process : `int`
            Whose step.
        step : `Step`
            The step.
        """
        return "campaign/" + ("shared" if step.kind in SHARED else f"p{process}") + "/"

    def _sight(self, process: int, step: Step, hits: list[str], is_calm: bool) -> Sight:
        base = self.home + self.place(process, step)
        paths = {base + name.rstrip("/"): name for name in step.names}
        arrivals, departures = self._movements(paths)
        states = {name: self.state(path) for path, name in paths.items()}
        return Sight(states, arrivals, departures, hits, is_calm)

    @abc.abstractmethod
    def _restarts(self) -> int:
        """Return a number that changes with each restart."""

    @abc.abstractmethod
    def _arm(self, process: int, misfortunes: list[Misfortune]) -> None:
        """Let things go wrong for a client."""

    @abc.abstractmethod
    def _disarm(self, process: int) -> list[str]:
        """Let nothing more go wrong; return the names of what did."""

    def _movements(self, paths: dict[str, str]) -> tuple[dict[str, int], dict[str, int]]:
        """Return how often something got each name of a step and was removed from it, where that is known."""
        return {}, {}


class EmbeddedReferee(Referee):
    """Watches one embedded dCache, and makes things go wrong there.

    Parameters
    ----------
    dcache : `~lsst.daf.butler_dcache.embedded.EmbeddedDcache`
        The server, running.
    folder : `~pathlib.Path`
        For the files of the clients.
    """

    home = _HOME

    def __init__(self, dcache: EmbeddedDcache, folder: Path) -> None:
        super().__init__(folder)
        self._dcache = dcache
        self.url = dcache.url
        self._lock = threading.Lock()
        self._changes: list[Change] = []
        self._faults: dict[int, list[tuple[Misfortune, Fault]]] = {}
        self._past_restarts = 0
        dcache.site.namespace.watchers.append(self._note)

    @property
    def requests(self) -> int:
        """How many requests the servers got."""
        return len(self._dcache.transcript())

    @property
    def restarts(self) -> int:
        """See `Referee`."""
        return self._past_restarts

    def calm_down(self) -> None:
        """Let nothing go wrong any more."""
        self._dcache.faults.clear()

    def environment(self, process: int, *, with_frontend: bool) -> dict[str, str]:
        """Return the variables of a client of its own.

        Parameters
        ----------
        process : `int`
            Number of the client.
        with_frontend : `bool`
            Whether it knows the frontend.
        """
        dcache = self._dcache
        own: dict[str, object] = {
            "total_timeout_seconds": 60,
            "idle_timeout_seconds": PATIENCE_SECONDS,
            "requests_per_second": 0,
        }
        if with_frontend:
            own["frontend_url"] = dcache.frontend_url
        entry = {
            "base_url": dcache.url[: -len("data/")],
            "timeout_connect": PATIENCE_SECONDS,
            "timeout_read": PATIENCE_SECONDS,
            "trusted_authorities": dcache.ca_file,
            "token": str(self._folder / f"token{process}"),
            "dcache": own,
        }
        self.renew(process)
        path = self._folder / f"webdav{process}.yaml"
        path.write_text(yaml.safe_dump([entry]))
        return {"LSST_RESOURCES_WEBDAV_CONFIG": str(path)}

    def renew(self, process: int) -> None:
        """Give a client another token.

        Parameters
        ----------
        process : `int`
            Number of the client.
        """
        access = self._dcache.site.access
        token = access.mint.issue(access.accounts[self._dcache.user].login, "/", b'{"validity": "PT24H"}')
        path = self._folder / f"token{process}"
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(token)
        fresh.replace(path)

    def names(self, directory: str) -> dict[str, str]:
        """Return what a directory and all below it hold, by name; directories are left out.

        Parameters
        ----------
        directory : `str`
            Name below the home of the server.
        """
        top = self._dcache.site.namespace.find(_HOME + directory)
        if top is None:
            return {}
        length = len(top.path.rstrip("/")) + 1
        every = [entry.path for entry in top.walk() if not entry.is_directory]
        return {path[length:]: self.state(path) for path in every}

    def temporaries(self, directory: str) -> list[str]:
        """Return the temporary names below a directory.

        Parameters
        ----------
        directory : `str`
            Name below the home of the server.
        """
        top = self._dcache.site.namespace.find(_HOME + directory)
        every = [] if top is None else list(top.walk())
        return [entry.path for entry in every if entry.name.startswith(_TEMPORARY)]

    def state(self, path: str) -> str:
        """Return what a path holds.

        Parameters
        ----------
        path : `str`
            Path in the name space.
        """
        entry = self._dcache.site.namespace.find(path)
        if entry is None:
            return ABSENT
        if entry.is_directory:
            return DIRECTORY
        if entry.size is None or entry.broken or entry.content is None:
            return RUIN
        with entry.content.open() as file:
            data = file.read()
        return fingerprint(data) if len(data) == entry.size else RUIN

    def _note(self, change: Change) -> None:
        if change.kind in ("create", "delete", "move"):
            with self._lock:
                self._changes.append(change)

    def _restarts(self) -> int:
        with self._lock:
            every = [fault for pairs in self._faults.values() for _, fault in pairs]
            count = self._past_restarts + sum(fault.hits for fault in every if fault.kind == "restart")
            if count != self._restarts_seen:
                self._restarts_seen, self._restarted_at = count, time.monotonic()
            return count

    def _arm(self, process: int, misfortunes: list[Misfortune]) -> None:
        armed = []
        for one in misfortunes:
            arguments = {key: value for key, value in one.items() if key != "name"}
            armed.append((one, Fault(path=f"*/p{process}/*", **arguments)))
        with self._lock:
            mine = f"{_HOME}campaign/p{process}/"
            self._changes = [one for one in self._changes if not one.path.startswith(mine)]
            self._faults[process] = armed
        for _, fault in armed:
            self._dcache.faults.add(fault)

    def _disarm(self, process: int) -> list[str]:
        with self._lock:
            armed = self._faults.pop(process, [])
            self._past_restarts += sum(fault.hits for _, fault in armed if fault.kind == "restart")
        self._dcache.faults.remove([fault for _, fault in armed])
        return [str(one["name"]) for one, fault in armed if fault.hits]

    def _movements(self, paths: dict[str, str]) -> tuple[dict[str, int], dict[str, int]]:
        with self._lock:
            changes = [one for one in self._changes if one.path in paths]
        arrivals = Counter(paths[one.path] for one in changes if one.kind != "delete")
        departures = Counter(paths[one.path] for one in changes if one.kind == "delete")
        return dict(arrivals), dict(departures)
