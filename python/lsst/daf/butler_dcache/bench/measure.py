"""Work done by several peers in turn, each time in a new process, and what came of it.

A repetition lets every peer do the work once, in an order that is drawn anew: what slows the machine for a
while slows all of them. Ratios are taken within a repetition. Medians are given with their range; no figure
stands without the number of repetitions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from .peers.registry import OURS
from .processes import default_folder
from .row import FASTEST, Claim, Row
from .target import Counts, Target
from .work import Job, UnsupportedWorkError, Work, contents

__all__ = ("PeerFailedError", "Result", "Sample", "Spread", "measure", "spread")

_PACKAGE = __name__.rpartition(".")[0]
_CHILD_SECONDS = 900.0
_FILLS_SECONDS = 1.1
_GIB = 1024**3
_PLACED_AT_ONCE = 8


class PeerFailedError(Exception):
    """A client ended before it had done its work, or did not do it; the text says what is known."""


@dataclass(frozen=True)
class Sample:
    """One peer's figures of one repetition.

    Parameters
    ----------
    wall_seconds, cpu_seconds : `float`
        Of the client, without its start; user and system CPU together.
    peak_bytes : `int` or `None`
        Resident memory over the one before the work; `None` where it is not known.
    server_cpu_seconds : `float`
        Of all processes of the server.
    counts : `~.target.Counts` or `None`
        What the server counted meanwhile.
    seconds_each : `float` or `None`
        Median of the single operations.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int | None
    server_cpu_seconds: float
    counts: Counts | None
    seconds_each: float | None


@dataclass(frozen=True)
class Spread:
    """A median and its range."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return median and range.

    Parameters
    ----------
    values : `~collections.abc.Sequence` [`float`]
        At least one.

    Returns
    -------
    spread : `Spread`
        Of them.
    """
    return Spread(statistics.median(values), min(values), max(values))


@dataclass
class Result:
    """What was measured in one row against one server.

    Parameters
    ----------
    row : `Row`
        What.
    target : `str`
        Against which server.
    version : `str`
        What that server is.
    samples : `dict` [`str`, `list` [`Sample`]]
        By peer, one for each repetition.
    notes : `dict` [`str`, `list` [`str`]]
        By peer; why there are no figures, or what is to be known of them.
    load : `tuple` [`float`, `float`]
        The machine's load average before and after.
    """

    row: Row
    target: str
    version: str
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    load: tuple[float, float] = (0.0, 0.0)

    def values(self, claim: Claim) -> list[float] | None:
        """Return a claim's quantity for each repetition.

        Parameters
        ----------
        claim : `Claim`
            Which quantity, against which peer.

        Returns
        -------
        values : `list` [`float`] or `None`
            `None` if it was not measured here.
        """
        own = self.samples.get(claim.client)
        if not own:
            return None
        figures = [_quantity(claim.quantity, sample, self.row.work) for sample in own]
        if not claim.peer:
            return None if None in figures else [value for value in figures if value is not None]
        others = self.samples.get(self._fastest() if claim.peer == FASTEST else claim.peer)
        if not others:
            return None
        theirs = [_quantity(claim.quantity, sample, self.row.work) for sample in others]
        pairs = [(a, b) for a, b in zip(figures, theirs, strict=True) if a is not None and b is not None]
        if claim.quantity == "cpu_excess":
            return [a - b for a, b in pairs] or None
        return [a / b for a, b in pairs if b > 0] or None

    def _fastest(self) -> str:
        """Name of the client of others with the least median of wall time; empty if there is none."""
        medians = {
            peer: statistics.median(sample.wall_seconds for sample in samples)
            for peer, samples in self.samples.items()
            if peer not in OURS
        }
        return min(medians, key=medians.__getitem__, default="")

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        record = dataclasses.asdict(self)
        del record["row"]["make_file"], record["row"]["needs"]
        return record


def _quantity(name: str, sample: Sample, work: Work) -> float | None:
    counts = sample.counts
    match name:
        case "wall":
            return sample.wall_seconds
        case "cpu":
            return sample.cpu_seconds
        case "cpu_excess":
            return sample.cpu_seconds / (work.total_bytes / _GIB)
        case "server_cpu":
            return sample.server_cpu_seconds
        case "peak":
            return sample.peak_bytes
        case "each":
            return sample.seconds_each
        case "door":
            return None if counts is None else counts.door_requests
        case "pool":
            return None if counts is None else counts.pool_requests
        case "requests":
            return None if counts is None else counts.door_requests + counts.pool_requests
        case "connections":
            return None if counts is None else counts.pool_connections
        case "bytes":
            return None if counts is None or counts.sent_bytes < 0 else counts.sent_bytes / work.total_bytes
        case "rate":
            if counts is None or counts.refused < 0:
                return None
            return (counts.door_requests - counts.refused) / sample.wall_seconds
        case "refused":
            return None if counts is None or counts.refused < 0 else counts.refused
    raise ValueError(f"no quantity is called {name}")


def measure(
    row: Row,
    target: Target,
    *,
    repetitions: int = 5,
    tell: Callable[[str], None] = lambda text: None,
    draw: random.Random | None = None,
) -> Result:
    """Let all peers of a row do its work, in turn.

    Parameters
    ----------
    row : `Row`
        What is measured.
    target : `~.target.Target`
        A running server.
    repetitions : `int`, optional
        How often each peer does it.
    tell : `~collections.abc.Callable`, optional
        Is told what is going on.
    draw : `random.Random`, optional
        Draws the order.

    Returns
    -------
    result : `Result`
        All figures.
    """
    draw = draw or random.Random()
    row, names = _provide(row, target)
    work = row.work
    contact = target.provide("ready", 1)
    result = Result(row, target.name, target.version)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="dcache-bench-client-", dir=default_folder()) as folder:
        source = Path(folder) / "source"
        if work.operation == "put":
            source.write_bytes(contents(work.size_bytes))
        peers = list(row.peers)
        for repetition in range(repetitions):
            draw.shuffle(peers)
            for peer in list(peers):
                scratch = Path(folder) / f"{peer}-{repetition}"
                scratch.mkdir()
                uploads = f"put-{uuid.uuid4().hex[:8]}"
                job = Job(
                    peer=peer,
                    work=work,
                    access=target.access,
                    names=names or _new_names(work, target, uploads),
                    contact=contact,
                    scratch=str(scratch),
                    source=str(source),
                )
                if work.operation == "delete":
                    _provide_all(job, target)
                try:
                    sample, notes = _in_child(job, target)
                    if work.operation == "delete":
                        _verify_deletions(job, target)
                    elif not names:
                        _verify_uploads(job, target)
                except (UnsupportedWorkError, PeerFailedError) as error:
                    # Without this client: its ratios need each repetition.
                    word = "cannot" if isinstance(error, UnsupportedWorkError) else "failed"
                    result.notes[peer] = [f"{word}: {error}"]
                    result.samples.pop(peer, None)
                    peers.remove(peer)
                    tell(f"{row.name} {target.name} {peer} {result.notes[peer][0]}")
                else:
                    result.samples.setdefault(peer, []).append(sample)
                    result.notes[peer] = notes
                    tell(f"{row.name} {target.name} {repetition + 1}/{repetitions} {peer}: {_short(sample)}")
                target.clear(uploads)
                shutil.rmtree(scratch)
    result.load = (before, os.getloadavg()[0])
    return result


def _short(sample: Sample) -> str:
    return f"{sample.wall_seconds:.3f} s, CPU {sample.cpu_seconds:.3f} s"


def _provide(row: Row, target: Target) -> tuple[Row, tuple[str, ...]]:
    """Place the files that the work reads."""
    work = row.work
    if row.make_file is not None and row.needs is not None:
        data = row.make_file(work)
        work = dataclasses.replace(work, size_bytes=len(data), needed_bytes=row.needs(data))
        name = target.provide(f"{work.operation}-{len(data)}", len(data), data)
        return dataclasses.replace(row, work=work), (name,)
    if work.file_count == 1:
        return row, (target.provide(f"file-{work.size_bytes}", work.size_bytes),)
    return row, tuple(
        target.provide(f"many-{work.size_bytes}/{number:05d}", work.size_bytes)
        for number in range(work.file_count)
    )


def _new_names(work: Work, target: Target, directory: str) -> tuple[str, ...]:
    if work.count == 1:
        return (target.new_name(directory, work.size_bytes),)
    return tuple(
        target.new_name(f"{directory}/{number:05d}", work.size_bytes) for number in range(work.count)
    )


def _provide_all(job: Job, target: Target) -> None:
    """Place the files that are to be removed."""
    with ThreadPoolExecutor(_PLACED_AT_ONCE) as executor:
        stems = [name.removesuffix(Path(name).suffix) for name in job.names]
        placed = executor.map(lambda stem: target.provide(stem, job.work.size_bytes), stems)
        assert tuple(placed) == job.names


def _verify_deletions(job: Job, target: Target) -> None:
    left = [name for name in job.names[:: len(job.names) // 10 or 1] if target.size(name) is not None]
    if left:
        raise PeerFailedError(f"{left[0]} is still there")


def _verify_uploads(job: Job, target: Target) -> None:
    for name in job.names:
        size = target.size(name)
        if size != job.work.size_bytes:
            raise PeerFailedError(f"{name} has {size} bytes of {job.work.size_bytes}")


def _in_child(job: Job, target: Target) -> tuple[Sample, list[str]]:
    with _Child(job) as child:
        ready = child.read()
        if "unsupported" in ready:
            raise UnsupportedWorkError(ready["unsupported"])
        if target.name.startswith("rehearsal"):
            # The door keeps up to a second's worth of requests for a host. Whoever comes soon after another
            # client finds that full, and whoever has just been the first finds it empty: now it is for all.
            time.sleep(_FILLS_SECONDS)
        counts, cpu = target.counts(), target.cpu_seconds()
        child.go()
        figures = child.read()
        after = target.counts()
    each = figures["seconds_each"]
    sample = Sample(
        wall_seconds=figures["wall_seconds"],
        cpu_seconds=figures["user_seconds"] + figures["system_seconds"],
        peak_bytes=figures["peak_bytes"],
        server_cpu_seconds=target.cpu_seconds() - cpu,
        counts=None if counts is None or after is None else after.since(counts),
        seconds_each=statistics.median(each) if each else None,
    )
    return sample, figures["notes"]


class _Child:
    """A child process: it says when it is ready, is told to go, and says its figures."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by __exit__)
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{_PACKAGE}.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **_environment(job)},
        )
        self._alarm = threading.Timer(_CHILD_SECONDS, self._process.kill)
        self._alarm.start()
        self._tell(json.dumps(job.to_json()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._alarm.cancel()
        if error[0] is not None:
            self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what is wrong is seen when the answer is read
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def go(self) -> None:
        """Let the work begin."""
        self._tell("go")

    def read(self) -> Mapping[str, Any]:
        """Return the next thing that the child says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            words = self._errors.read().strip().splitlines() or ["it ended without a word"]
            raise PeerFailedError(words[-1])
        answer: Mapping[str, Any] = json.loads(line)
        return answer


def _environment(job: Job) -> dict[str, str]:
    """Variables that a child must have when it starts: who owns the scheme."""
    return {**job.access.environment, "DAF_BUTLER_DCACHE_REGISTER": "no"}
