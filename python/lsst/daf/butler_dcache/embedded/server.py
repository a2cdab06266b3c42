"""`EmbeddedDcache`: a door, pools and a frontend in one process."""

from __future__ import annotations

import contextlib
import json
import shutil
import ssl
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import yaml

from .access import Access, Account, AnonymousPolicy
from .bulk import BulkService
from .certificates import make_certificates
from .checksum import Digester
from .door import Door
from .entry import Entry
from .faults import Faults
from .frontend import Frontend, answer_tape_discovery
from .latency import Latency
from .macaroons import MacaroonMint
from .namespace import EntryExistsError, Namespace
from .pool import Pool
from .site import Site
from .tape import TapeSystem
from .third_party import ThirdPartyCopy
from .transcript import Record
from .version import Version
from .wire import Listener

__all__ = ["EmbeddedDcache"]

Locality = Literal["ONLINE", "NEARLINE", "ONLINE_AND_NEARLINE", "UNAVAILABLE", "LOST"]

_HOME = "/data"
_DAY = b'{"validity": "PT24H"}'
_RESTORE_SECONDS = 3.0
"""Short for a tape, and longer than anybody waits for a file that is on disk."""

_LEAST_RESTORE_SECONDS = 0.2


class _Neighbours:
    """The instances of this process, which trust one another, as the sites of one grid do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: list[tuple[ssl.SSLContext, str | None]] = []

    def join(self, trust: ssl.SSLContext, ca_file: str | None) -> Callable[[], None]:
        """Let the pools of an instance trust all others, and theirs trust it; return what ends that."""
        member = trust, ca_file
        with self._lock:
            for other_trust, other_file in self._known:
                if ca_file is not None:
                    other_trust.load_verify_locations(ca_file)
                if other_file is not None:
                    trust.load_verify_locations(other_file)
            self._known.append(member)

        def leave() -> None:
            with self._lock:
                self._known = [known for known in self._known if known is not member]

        return leave


_neighbours = _Neighbours()


class EmbeddedDcache:
    """A dCache on loopback; a context manager that runs while it is entered.

    Parameters
    ----------
    tls : `bool`
        Whether door, pools and frontend speak TLS, with a throw-away authority. Without it there is no token:
        dCache refuses bearer tokens over plain http.
    redirect : `bool`
        Whether the door sends clients to pools; otherwise it passes all bytes on itself.
    anonymous : ``"none"``, ``"readonly"`` or ``"full"``
        What whoever shows no credential may do.
    tape : `str` or `None`
        A directory (below the one of `url`, or absolute) whose files go to tape.
    limiter : `bool`
        Whether door and frontend limit rates, at dCache's own figures.
    version : `str`
        Release that is imitated, from 10.2 to 12.0.
    pools : `int`
        Number of pools.
    doors : `int`
        Number of doors, each with a limiter of its own; the first is the one of `url`.
    port : `int`
        Port of the door; 0 is any free one.
    root : `str`, `pathlib.Path` or `None`
        Folder in which files, names and passwords outlive this object; by default nothing does.
    frontend : `bool`
        Whether there is a REST frontend.
    frontend_port : `int`
        Its port; 0 is any free one.
    time_scale : `float`
        Factor on dCache's long waits (a mover's 300 s, the limiter's 10 s and 20 s, waits for pools and
        tape), so that tests need not sleep.
    latency : `float`
        Factor on the times that a real server takes; 0 is as fast as possible.

    Attributes
    ----------
    url : `str`
        Directory for the client's files, with trailing slash, such as ``davs://localhost:2880/data/``; it
        exists and is alice's.
    frontend_url : `str`
        Base of the REST frontend with trailing slash; empty without one.
    environment : `dict` [`str`, `str`]
        What a client process needs: ``LSST_RESOURCES_WEBDAV_CONFIG`` and, over TLS, ``BEARER_TOKEN_FILE``.
    user : `str`
        The account of the files: ``alice``. Another one, ``bob``, may read.
    password_file : `str`
        File with alice's password.
    password_files : `dict` [`str`, `str`]
        The same for every account.
    ca_file : `str` or `None`
        Certificate of the authority.
    faults : `Faults`
        What shall go wrong.
    bulk : `BulkService`
        The bulk requests of the frontend, and how many targets each may have.
    site : `Site`
        The inside, for tests that need more.

    Notes
    -----
    Several instances run side by side in one process, and their pools trust one another. Everything listens
    on loopback only.
    """

    user = "alice"

    def __init__(
        self,
        tls: bool = True,
        redirect: bool = True,
        anonymous: AnonymousPolicy = "none",
        tape: str | None = None,
        limiter: bool = True,
        version: str = "11.2.4",
        pools: int = 2,
        port: int = 0,
        root: str | Path | None = None,
        *,
        frontend: bool = True,
        frontend_port: int = 0,
        time_scale: float = 1.0,
        latency: float = 0.0,
        doors: int = 1,
    ) -> None:
        self._tls, self._redirect, self._anonymous = tls, redirect, anonymous
        self._limiter, self._version, self._pools = limiter, Version(version), pools
        self._ports = (port, frontend_port)
        self._root = Path(root) if root is not None else None
        self._with_frontend, self._time_scale = frontend, time_scale
        self._latency = latency
        self._door_count = doors
        self._doors: list[Door] = []
        self.tape = None if tape is None else self._absolute(tape)
        self.faults = Faults()
        self.url = self.frontend_url = ""
        self.environment: dict[str, str] = {}
        self.password_files: dict[str, str] = {}
        self.ca_file: str | None = None
        self._frontends: list[Listener] = []
        self.bulk: BulkService
        self._running = contextlib.ExitStack()

    @staticmethod
    def _absolute(path: str) -> str:
        return path if path.startswith("/") else f"{_HOME}/{path}"

    # ---- life
    def start(self) -> None:
        """Start all servers; they accept connections when this returns.

        Raises
        ------
        OSError
            Raised if a port is taken.
        """
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._running = stack.pop_all()

    def _start(self, stack: contextlib.ExitStack) -> None:
        folder = Path(tempfile.mkdtemp(prefix="embedded-dcache-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        self._folder = folder
        context: ssl.SSLContext | None = None
        trust = self._trust = ssl.create_default_context()
        if self._tls:
            ca_file, context = make_certificates(folder)
            self.ca_file = str(ca_file)
            trust.load_verify_locations(ca_file)
        stack.callback(_neighbours.join(trust, self.ca_file))
        namespace = Namespace(self._root)
        stack.callback(namespace.close)
        site = self.site = Site(
            self._version,
            namespace,
            Access(namespace, MacaroonMint(), self._anonymous),
            redirects=self._redirect,
            has_limiter=self._limiter,
            time_scale=self._time_scale,
            faults=self.faults,
            latency=Latency(self._latency),
        )
        stack.callback(site.clockwork.stop)
        self._keep_passwords()
        self._lay_out()
        for number in range(self._pools):
            site.pools.append(Pool(site, f"pool{number + 1}", context))
            stack.callback(site.pools[-1].stop)
        tape = site.tape = TapeSystem(
            namespace,
            site.clockwork,
            lambda: [pool.name for pool in site.pools if pool.is_up],
            restore_seconds=max(_LEAST_RESTORE_SECONDS, _RESTORE_SECONDS * self._time_scale),
            wait_seconds=180.4 * self._time_scale,
        )
        if self.tape is not None:
            tape.claim(self._directory(self.tape))
        discovery = ""
        if self._with_frontend:
            frontend = Frontend(site, context, tape, ports=(self._ports[1],))
            stack.callback(frontend.stop)
            self._frontends = [frontend.listener]
            self.bulk = frontend.bulk
            self.frontend_url = site.frontend_url = frontend.url
            discovery = frontend.discovery_url
        self._doors = []
        for number in range(self._door_count):
            door = Door(
                site,
                context,
                port=0 if number else self._ports[0],
                well_known=lambda exchange: answer_tape_discovery(exchange, discovery),
                third_party=ThirdPartyCopy(site, trust).handle,
            )
            stack.callback(door.stop)
            self._doors.append(door)
            site.door_urls.append(f"{'https' if self._tls else 'http'}://localhost:{door.port}/")
        self.url = f"{'davs' if self._tls else 'dav'}://localhost:{self._doors[0].port}{_HOME}/"
        self._write_environment()
        self.faults.stopping.clear()
        stack.callback(self._release)

    def _release(self) -> None:
        """Wake up whoever waits on purpose, so that stopping does not take as long as a stall."""
        self.faults.stopping.set()
        self.site.latency.stopping.set()

    def stop(self) -> None:
        """Stop all servers and remove what is temporary; no thread and no socket is left. Idempotent."""
        self._running.close()

    def restart_door(self, number: int = 0) -> None:
        """Let a door crash and come back on its port: clients are cut off, URLs at the pools live on."""
        self.stop_door(number)
        self.start_door(number)

    def stop_door(self, number: int = 0) -> None:
        """Cut off the clients of a door; nobody listens on its port until `start_door`."""
        self._doors[number].stop()

    def start_door(self, number: int = 0) -> None:
        """Let a door that was stopped listen again, on the same port."""
        self._doors[number].start()

    @property
    def door_urls(self) -> list[str]:
        """Base URLs of all doors."""
        return list(self.site.door_urls)

    def open_connections(self) -> int:
        """Return how many connections clients have to all servers together."""
        doors = [door.listener for door in self._doors]
        pools = [listener for pool in self.site.pools for listener in pool.listeners.values()]
        return sum(one.open_connections() for one in [*doors, *self._frontends, *pools])

    def stop_pool(self, number: int) -> None:
        """Let a pool (counted from 0) go away: its URLs are refused, its files unavailable."""
        self.site.pools[number].stop()

    def start_pool(self, number: int) -> None:
        """Let a pool that was stopped come back."""
        self.site.pools[number].start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def trust(self, ca_file: str) -> None:
        """Let the pools trust another authority as well, for third-party copies; until `stop`.

        Parameters
        ----------
        ca_file : `str`
            Certificate of an authority of another process; those of this one are trusted anyway.
        """
        self._trust.load_verify_locations(ca_file)

    # ---- what clients need
    @property
    def password_file(self) -> str:
        """Path of the file with alice's password."""
        return self.password_files[self.user]

    def _secret(self, name: str, text: str) -> str:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        return str(path)

    def _keep_passwords(self) -> None:
        accounts = self.site.access.accounts
        if self._root is not None:
            kept = self._root / "passwords.json"
            if kept.exists():
                for name, password in json.loads(kept.read_text()).items():
                    old = accounts[name]
                    accounts[name] = Account(name, password, old.uid, old.gid)
            else:
                kept.touch(mode=0o600)
                kept.write_text(json.dumps({a.name: a.password for a in accounts.values()}))
        for account in accounts.values():
            self.password_files[account.name] = self._secret(f"{account.name}.password", account.password)

    def _write_environment(self) -> None:
        settings: dict[str, object] = {"base_url": self.url[: -len(_HOME)]}
        alice = self.site.access.accounts[self.user]
        self.environment = {}
        if self._tls:
            token = self._secret("token", self.site.access.mint.issue(alice.login, "/", _DAY))
            settings |= {"trusted_authorities": self.ca_file, "token": token}
            self.environment["BEARER_TOKEN_FILE"] = token
        else:
            settings |= {"user_name": alice.name, "user_password": alice.password}
        path = self._secret("webdav.yaml", yaml.safe_dump([settings], sort_keys=False))
        self.environment["LSST_RESOURCES_WEBDAV_CONFIG"] = path

    # ---- what tests need
    def transcript(self) -> list[Record]:
        """Return a record of each request so far."""
        return self.site.transcript.snapshot()

    def _directory(self, path: str) -> Entry:
        alice = self.site.access.accounts[self.user]
        namespace = self.site.namespace
        namespace.make_parents(path + "/.", alice.uid, alice.gid)
        try:
            return namespace.mkdir(path, alice.uid, alice.gid)
        except EntryExistsError:
            entry = namespace.find(path)
            assert entry is not None
            return entry

    def _lay_out(self) -> None:
        self._directory(_HOME)
        self._directory("/private").mode = 0o700

    def place(self, path: str, data: bytes, locality: Locality = "ONLINE") -> None:
        """Put a file there without a request; missing directories are made, an old file is replaced.

        Parameters
        ----------
        path : `str`
            Below the directory of `url`, or absolute in the namespace.
        data : `bytes`
            The content.
        locality : `str`
            ``"ONLINE"``; ``"NEARLINE"`` is on tape only; ``"ONLINE_AND_NEARLINE"``; ``"UNAVAILABLE"`` and
            ``"LOST"`` are nowhere to be had.
        """
        namespace, alice = self.site.namespace, self.site.access.accounts[self.user]
        real = self._absolute(path)
        namespace.make_parents(real, alice.uid, alice.gid)
        if (old := namespace.find(real)) is not None:
            namespace.remove(old)
        entry = namespace.create(real, alice.uid, alice.gid)
        namespace.content_of(entry).write([data])
        digester = Digester()
        digester.update(data)
        pool = self.site.write_pool()
        namespace.commit(entry, len(data), digester.values(), pool.name if pool else "")
        if locality in ("NEARLINE", "ONLINE_AND_NEARLINE"):
            entry.on_tape = True
            entry.access_latency, entry.retention_policy = "NEARLINE", "CUSTODIAL"
        entry.is_lost = locality == "LOST"
        if locality in ("NEARLINE", "UNAVAILABLE", "LOST"):
            entry.locations = []
