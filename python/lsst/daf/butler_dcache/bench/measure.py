"""One job of one peer at a running server, and what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import partial
from .allowance import GuardError
from .peer_process import PeerFailedError, PeerProcess
from .peers.registry import OURS, PEERS
from .processes import default_folder
from .row import Row
from .sample import Sample
from .spread import Crew, Team
from .stopping import Stop
from .target import Counts, Target, TargetGoneError
from .work import Access, Job, Step, UnsupportedWorkError, Work, pieces

__all__ = ("DoesNotFitError", "NoSpaceError", "RefusedJobError", "Site")

_FILLS_SECONDS = 1.1
_LIMITED_FROM_REQUESTS = 100
_GRACE_SECONDS = 8.0
"""A client that is late says itself how far it came, and is killed after so much more."""
_MIB = 1024**2
_VERIFIED = 20
"""How many of many files are looked at afterwards."""
_SPARE_BYTES = 16 * _MIB
_READS = ("get", "look")
_READS_OF_PARTS = partial.OPERATIONS | {"read_vector"}


class NoSpaceError(Exception):
    """A disk is full; the text says which."""


class DoesNotFitError(Exception):
    """The files of a job are more than the disk has space for; the text says which."""


class RefusedJobError(Exception):
    """A job cannot be done here by anybody, or would take more than is allowed; the text says why."""


class Site:
    """A running server with the files that jobs need.

    Parameters
    ----------
    target : `~.target.Target`
        The server.
    folder : `~pathlib.Path`
        For local files.
    stop : `~.stopping.Stop`
        Interrupts.
    crew : `~.spread.Crew`, optional
        Workers each of whom does all of a job; without them one process does.
    """

    def __init__(self, target: Target, folder: Path, stop: Stop, crew: Crew | None = None) -> None:
        self.target = target
        self._folder = folder
        self._stop = stop
        self._crew = crew
        self._workers = 1 if crew is None else crew.size
        self._made: dict[str, tuple[Row, tuple[str, ...]]] = {}
        self._contact = ""
        self._is_limited = bool(target.describe().get("limiter"))
        self._left_at = 0.0
        self._processes: dict[str, PeerProcess] = {}

    @contextlib.contextmanager
    def _server(self) -> Iterator[None]:
        """Wherever the server itself is asked."""
        try:
            with self._stop.open():
                yield
        except OSError as error:
            raise self._translated(error) from error
        except GuardError as error:
            raise RefusedJobError(str(error)) from error
        except TargetGoneError:
            raise
        except Exception as error:
            # Each target has errors of its own; whatever it is, no figure can be taken here any more.
            raise TargetGoneError(f"{self.target.name} does not answer: {error}") from error

    def _translated(self, error: OSError) -> Exception:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return NoSpaceError(f"no space is left in {self._folder.parent}")
        return TargetGoneError(f"{self.target.name} does not answer: {error}")

    def run(
        self, row: Row, peer: str, repetition: int, seconds: float, observe: bool = False
    ) -> tuple[Row, Sample, list[str]]:
        """Let a peer do the work of a row once.

        Parameters
        ----------
        row : `~.row.Row`
            What.
        peer : `str`
            Who.
        repetition : `int`
            Number of the sample.
        seconds : `float`
            It is killed after so long; placing files for it is not counted.
        observe : `bool`, optional
            Whether each request is recorded, which costs time.

        Returns
        -------
        row : `~.row.Row`
            With the work as it was done: the size of a file may be known only now.
        sample : `Sample`
            The figures.
        notes : `list` [`str`]
            What is to be known of them.

        Raises
        ------
        UnsupportedWorkError
            If the peer cannot.
        PeerFailedError
            If it did not.
        DoesNotFitError
            If its files are more than there is space for.
        RefusedJobError
            If the target's guard does not allow it, or its files cannot be made here.
        NoSpaceError
            If a disk is full all the same.
        TargetGoneError
            If the server does not answer any more.
        """
        whole = dataclasses.replace(row.work, count=row.work.count * self._workers)
        if reason := self.target.admit(whole):
            raise RefusedJobError(reason)
        self._make_room(row.name, whole)
        row, shared = self._provide(row)
        work = row.work
        uploads = f"new-{uuid.uuid4().hex[:8]}"
        try:
            sources = self._sources(work)
            names = [shared or self._names(work, f"{uploads}-{each}") for each in range(self._workers)]
            left = max(min(seconds, self._stop.seconds_left), 1.0)
            job = Job(
                peer=peer,
                work=work,
                access=self._access(),
                names=names[0],
                contact=self._contact,
                scratch=str(self._scratch(peer)),
                source=sources[0],
                sources=sources[1:],
                observe=observe,
                max_rate=self.target.rate_limit(work) / self._workers,
                deadline_seconds=max(left - _GRACE_SECONDS, 1.0),
            )
            jobs = [
                # Or all of them would read the same places at the same moments.
                dataclasses.replace(job, names=own, work=dataclasses.replace(work, seed=work.seed + number))
                for number, own in enumerate(names)
            ]
            first = peer not in self._processes
            figures, counts, cpu = self._in_children(jobs, left)
            if figures["errors"]:
                with self._server():
                    self.target.check()  # or they are not the client's
            elif PEERS[peer].level != "butler":  # which finds its own names, and looks itself
                for own in names:
                    self._verify(work, own)
        except OSError as error:
            raise self._translated(error) from error
        except PeerFailedError:
            with self._server():
                self.target.check()  # a peer is not to blame for a server that is gone
            raise
        finally:
            if not shared and self._stop.error is None:  # else all is removed soon
                with self._server():
                    self.target.clear(uploads)
        sample = Sample(
            repetition=repetition,
            wall_seconds=figures["wall_seconds"],
            cpu_seconds=figures["user_seconds"] + figures["system_seconds"],
            peak_bytes=figures["peak_bytes"],
            server_cpu_seconds=cpu,
            operations=figures["operations"],
            bytes_moved=figures["bytes_moved"],
            counts=counts,
            errors=figures["errors"],
            histograms=figures["histograms"],
            counted=figures["counted"],
            workers=self._workers,
            first_done_seconds=figures.get("first_done_seconds"),
            first=first,
        )
        return row, sample, figures["notes"]

    def _access(self) -> Access:
        """How workers reach the server; keys stay here, and others' users have their own."""
        access = self.target.access
        if self._crew is not None and self._crew.is_elsewhere:
            return dataclasses.replace(access, environment={})
        return access

    def rest(self) -> None:
        """End the processes of all peers; whoever has another turn gets a new one."""
        for peer in list(self._processes):
            self._end(peer)

    def _end(self, peer: str) -> None:
        if (process := self._processes.pop(peer, None)) is not None:
            process.__exit__()
        shutil.rmtree(self._folder / f"scratch-{peer}", ignore_errors=True)

    def _scratch(self, peer: str) -> Path:
        """Folder that lasts as long as the peer's process."""
        folder = self._folder / f"scratch-{peer}"
        folder.mkdir(exist_ok=True)
        return folder

    @contextlib.contextmanager
    def _child(self, jobs: list[Job], seconds: float) -> Iterator[PeerProcess | Team]:
        """Who does a job; the process stays for the next one, unless something is wrong with it."""
        peer, prefix = jobs[0].peer, self.target.child_prefix
        if self._crew is not None:
            with self._crew.team(jobs, self._stop, seconds, prefix) as team:
                yield team
            return
        try:
            if peer in self._processes:
                self._processes[peer].turn_to(jobs[0], seconds)
            else:
                self._processes[peer] = PeerProcess(jobs[0], self._stop, seconds, prefix)
            yield self._processes[peer]
        except BaseException:
            self._end(peer)
            raise

    def _in_children(self, jobs: list[Job], seconds: float) -> tuple[dict[str, Any], Counts | None, float]:
        target = self.target
        with self._child(jobs, seconds) as child:
            child.prepare()
            with self._server():
                self._let_fill(jobs[0])
                before, cpu = target.counts(), target.cpu_seconds()
            figures = dict(child.go())
            with self._server():
                after = target.counts()
                cpu = target.cpu_seconds() - cpu
            self._left_at = time.monotonic()
        counts = None if before is None or after is None else after.since(before)
        return figures, counts, cpu

    def _let_fill(self, job: Job) -> None:
        """Let every client find as much at a door that limits its clients as any other.

        Such a door keeps up to a second's worth of requests for a host: who comes soon after another finds
        the store empty. And this package's own pacer believes it empty until it has waited itself.
        """
        requests = self._workers * job.work.count * max(sum(step.count for step in job.work.steps), 1)
        if self._is_limited and requests >= _LIMITED_FROM_REQUESTS:
            since = time.monotonic() if job.peer in OURS else self._left_at
            time.sleep(max(since + _FILLS_SECONDS - time.monotonic(), 0.0))

    def _make_room(self, name: str, work: Work) -> None:
        """Forget other rows' files if those of this one would not fit beside them."""
        if work.operation in _READS_OF_PARTS:
            needed = work.size_bytes * max(work.files, 1)  # their number and batch are of pieces
        else:
            steps = work.steps or (Step(work.operation, work.size_bytes, work.batch),)
            needed = sum(step.size_bytes * step.count for step in steps) * max(work.count, work.files)
        # On the server, if they are not there yet, and in the scratch folder.
        needed = needed * (1 if name in self._made else 2) + _SPARE_BYTES
        if shutil.disk_usage(default_folder()).free >= needed:
            return
        with self._server():
            self.target.clear("")
        self._made.clear()
        free = shutil.disk_usage(default_folder()).free
        if free < needed:
            raise DoesNotFitError(
                f"it needs {needed / 1e6:.0f} MB in {self._folder.parent}, where {free / 1e6:.0f} MB are free"
            )

    def _provide(self, row: Row) -> tuple[Row, tuple[str, ...]]:
        """Place the files that all clients read, unless they are there; none if each needs its own."""
        if row.name not in self._made:
            with self._server():
                self._contact = self.target.provide("ready", 1)
            self._made[row.name] = self._place(row)
        return self._made[row.name]

    def _place(self, row: Row) -> tuple[Row, tuple[str, ...]]:
        work, provide = row.work, self.target.provide
        if row.make_file is not None and row.needs is not None:
            try:
                data = row.make_file(work)
            except UnsupportedWorkError as error:
                raise RefusedJobError(str(error)) from error
            work = dataclasses.replace(work, size_bytes=len(data), needed_bytes=row.needs(data))
            stem = f"{row.name}-{len(data)}"
            with self._server():
                names = tuple(
                    provide(f"{stem}/{number:05d}", len(data), data) for number in range(work.names_count)
                )
            return dataclasses.replace(row, work=work), names
        if not work.file_count or work.operation == "mix":
            return row, ()
        stems = self._stems(work)
        with self._server():
            names = self._place_many(stems, work.size_bytes)
        if work.operation in ("walk", "mint"):
            # Below the directory that is meant there is one for each share of the files.
            return row, (names[0].rpartition("/")[0].rpartition("/")[0],)
        return row, names

    def _place_many(self, stems: list[str], size: int) -> tuple[str, ...]:
        return self.target.provide_many(stems, size)

    @staticmethod
    def _stems(work: Work) -> list[str]:
        size, many = work.size_bytes, work.names_count
        if work.operation in ("walk", "mint", "exists_many"):
            top = f"{work.operation}-{size}-{work.batch}-{work.directory_count}"
            return [f"{top}/{number % work.directory_count:03d}/{number:05d}" for number in range(work.batch)]
        return [f"file-{size}"] if many == 1 else [f"many-{size}/{number:05d}" for number in range(many)]

    def _names(self, work: Work, directory: str) -> tuple[str, ...]:
        """Names that only one client uses: new ones, and those of files that it uses up."""
        if work.operation == "mix":
            return self._mixed_names(work, directory)
        with self._server():
            if work.uses_files_up:
                stems = [f"{directory}/{number:05d}" for number in range(work.names_count)]
                return self._place_many(stems, work.size_bytes)
            if work.names_count == 1:
                return (self.target.new_name(directory, work.size_bytes),)
            return tuple(
                self.target.new_name(f"{directory}/{number:05d}", work.size_bytes)
                for number in range(work.names_count)
            )

    def _mixed_names(self, work: Work, directory: str) -> tuple[str, ...]:
        names: list[str] = []
        with self._server():
            for number in range(work.count):
                for place, step in enumerate(work.steps):
                    for each in range(step.count):
                        stem = f"{directory}/{number:04d}-{place:02d}-{each:04d}"
                        if step.operation in _READS:
                            shared = f"many-{step.size_bytes}/{each:05d}"
                            names.append(self.target.provide(shared, step.size_bytes))
                        elif step.operation in ("delete", "remove", "rename"):
                            names.append(self.target.provide(stem, step.size_bytes))
                        elif step.operation == "mint":
                            names.append(self.target.new_name(stem, 1).rpartition("/")[0])
                        else:
                            names.append(self.target.new_name(stem, step.size_bytes))
        return tuple(names)

    def _sources(self, work: Work) -> tuple[str, ...]:
        """Local files to send: that of the work, and those of the steps of a mix."""
        wanted = [
            (work.operation, work.size_bytes),
            *((step.operation, step.size_bytes) for step in work.steps),
        ]
        paths = []
        for operation, size in wanted:
            path = self._folder / f"source-{size}"
            if operation != "put":
                paths.append("")
                continue
            if not path.exists():
                with self._stop.open(), path.open("wb") as file:
                    file.writelines(pieces(size, _MIB))
            paths.append(str(path))
        return tuple(paths)

    def _verify(self, work: Work, names: tuple[str, ...]) -> None:
        """See that files are where they should be, and gone from where they should be gone."""
        wanted = _results(work, names)
        few = wanted[:: len(wanted) // _VERIFIED or 1]
        with self._server():
            found = [self.target.size(name) for name, _ in few]
        for (name, size), there in zip(few, found, strict=True):
            if there != size:
                raise PeerFailedError(
                    f"{name} is still there" if size is None else f"{name} has {there} bytes of {size}"
                )


def _results(work: Work, names: tuple[str, ...]) -> list[tuple[str, int | None]]:
    """Names and sizes as they must be after the work; `None` for what must be gone."""
    steps = work.steps or (Step(work.operation, work.size_bytes, max(len(names), 1)),)
    each = [step for step in steps for _ in range(step.count)]
    results: list[tuple[str, int | None]] = []
    for number, name in enumerate(names):
        step = each[number % len(each)]
        match step.operation:
            case "put" | "write_sequential":
                results.append((name, step.size_bytes))
            case "delete" | "remove":
                results.append((name, None))
            case "rename":
                results.append((f"{name}-renamed", step.size_bytes))
    return results
