"""The same work by many workers at once, on as many nodes as a cluster gives: by way of Parsl.

Parsl starts the workers, wherever its configuration says, and carries jobs to them and figures back; how
they begin together is `meeting`'s part. Each worker runs the same child process as a benchmark on one machine
does (`~.child`), and does all the work of a row. The figures of all are one sample: what was done is added
up, histograms are merged, and the wall time is that of who ended last.

A worker needs what the child needs: this package in the same version and, for a real server, the
configuration and the credential of its user on that node. Files to be sent are made where they are sent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import os
import platform
import runpy
import shlex
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from .histogram import Histogram
from .meeting import Attendance, CalledOffError, Invitation, Meeting, MeetingError, Round
from .peer_process import PeerFailedError, PeerProcess
from .processes import default_folder
from .stopping import Stop
from .work import Job, UnsupportedWorkError, pieces

__all__ = ("Crew", "CrewError", "Team", "merged")

_NOTICE_SECONDS = 0.3
"""From the word to begin to the beginning, so that the last one has heard it by then."""
_END_SECONDS = 10.0
_GRACE_SECONDS = 5.0
"""A child that is late says so itself; its worker kills it after so much more, then nobody waits any more."""
_CLEANING_SECONDS = 50.0
_PIECE_BYTES = 1024**2
_LONGEST_FOLDER = 64
"""The path of a socket has at most 107 bytes, of which Python's multiprocessing needs some."""
_DISTRIBUTION = "lsst-daf-butler-dcache"


class CrewError(Exception):
    """There are no workers, or not as many as there should be; the text says why."""


class Crew:
    """Workers that Parsl has started, as a context manager.

    Parameters
    ----------
    size : `int`
        How many.
    folder : `~pathlib.Path`
        Where Parsl writes what it must, if there is no configuration.
    config_file : `~pathlib.Path`, optional
        A Python file that defines ``config``, a `parsl.config.Config`, as Parsl's own documentation has it.
        Without it the workers are processes of this machine.
    seconds : `float`, optional
        How long to wait for them.

    Attributes
    ----------
    size : `int`
        How many.
    nodes : `list` [`dict`]
        What each host is, with the number of workers there.

    Notes
    -----
    For the main thread.
    """

    def __init__(
        self, size: int, folder: Path, config_file: Path | None = None, seconds: float = 900.0
    ) -> None:
        self.size = size
        self.nodes: list[dict[str, Any]] = []
        self._folder = folder
        self._config_file = config_file
        self._seconds = seconds
        self._kernel: Any = None
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Have all workers there.

        Raises
        ------
        CrewError
            If they do not come, are of another version than this process, or there is no Parsl.
        ~.stopping.StoppedError
            If it was interrupted meanwhile.
        """
        with self._closing as closing:
            with Stop(self._seconds + _CLEANING_SECONDS, _CLEANING_SECONDS) as stop:
                self._start(closing)
                self.nodes = self._roll_call(stop)
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with Stop(_CLEANING_SECONDS, _CLEANING_SECONDS):  # signals must not disturb it
            self._closing.close()

    def team(self, jobs: Sequence[Job], stop: Stop, seconds: float, prefix: Sequence[str] = ()) -> Team:
        """Return those who do one job each, as `~.peer_process.PeerProcess` does one.

        Parameters
        ----------
        jobs : `~collections.abc.Sequence` [`~.work.Job`]
            As many as there are workers.
        stop : `~.stopping.Stop`
            Interrupts the waiting.
        seconds : `float`
            They are called off after so long.
        prefix : `~collections.abc.Sequence` [`str`], optional
            Program that starts each child.
        """
        return Team(self._meeting.round(len(jobs)), self._submit, jobs, stop, seconds, tuple(prefix))

    @property
    def is_elsewhere(self) -> bool:
        """Whether there are workers on other machines than this one."""
        return {node["host"] for node in self.nodes} != {socket.gethostname()}

    def _start(self, closing: contextlib.ExitStack) -> None:
        if importlib.util.find_spec("parsl") is None:
            raise CrewError(
                "--executor parsl needs Parsl. Install it with\n"
                "    pip install 'lsst-daf-butler-dcache[bench]'"
            )
        config = _local(self.size, self._folder) if self._config_file is None else _read(self._config_file)
        # Parsl's programs lie beside this interpreter, which need not be in the path.
        path = os.environ.get("PATH", os.defpath)
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"
        closing.callback(os.environ.__setitem__, "PATH", path)
        self._meeting = Meeting(_addresses(config))
        closing.callback(self._meeting.close)
        try:
            self._kernel = importlib.import_module("parsl.dataflow.dflow").DataFlowKernel(config)
        except Exception as error:  # what a provider or a user's configuration raises is anything
            raise CrewError(f"Parsl does not start: {type(error).__name__}: {error}") from error
        closing.callback(self._kernel.cleanup)

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = self._kernel.submit(
            function, arguments, executors="all", cache=False, ignore_for_cache=None, app_kwargs={}
        )
        return future

    def _roll_call(self, stop: Stop) -> list[dict[str, Any]]:
        patience = self._seconds + _END_SECONDS  # who waits longer than they do says better what is wrong
        with self._meeting.round(self.size) as roll:
            futures = [self._submit(_attend, roll.invitation(each), patience) for each in range(self.size)]
            try:
                said = roll.gather(futures, self._seconds, stop)
                roll.begin(0.0)
                roll.results(futures, _END_SECONDS, stop)
            except MeetingError as error:
                raise CrewError(f"not all workers are there: {error}") from error
        here = version(_DISTRIBUTION)
        for node in said:
            if node["version"] != here:
                raise CrewError(
                    f"{node['host']} has version {node['version']} of {_DISTRIBUTION}, not {here}"
                )
        workers = Counter(node["host"] for node in said)
        by_host = {node["host"]: node for node in said}
        return [{**by_host[host], "workers": workers[host]} for host in sorted(workers)]


class Team:
    """Workers who do one job each, and begin together.

    Parameters
    ----------
    meeting : `~.meeting.Round`
        Where they are awaited.
    submit : `~collections.abc.Callable`
        Has a function called by a worker.
    jobs : `~collections.abc.Sequence` [`~.work.Job`]
        One for each.
    stop : `~.stopping.Stop`
        Interrupts the waiting.
    seconds : `float`
        They are called off after so long.
    prefix : `tuple` [`str`, ...]
        Program that starts each child.
    """

    def __init__(
        self,
        meeting: Round,
        submit: Callable[..., Future[Any]],
        jobs: Sequence[Job],
        stop: Stop,
        seconds: float,
        prefix: tuple[str, ...],
    ) -> None:
        self._round = meeting
        self._stop = stop
        self._deadline = time.monotonic() + seconds
        self._futures = [
            submit(_work, self._round.invitation(number), job.to_json(), seconds, prefix)
            for number, job in enumerate(jobs)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._round.__exit__()
        # They are free for others when they have ended; who does not, is Parsl's.
        wait(self._futures, _END_SECONDS)

    @property
    def _left(self) -> float:
        return max(self._deadline - time.monotonic(), 1.0)

    def prepare(self) -> Mapping[str, Any]:
        """Wait until all children are ready.

        Returns
        -------
        answer : `~collections.abc.Mapping`
            What they say then.

        Raises
        ------
        UnsupportedWorkError
            If one cannot do it.
        PeerFailedError
            If one ends, or the time is over.
        """
        try:
            said = self._round.gather(self._futures, self._left, self._stop)
        except MeetingError as error:
            raise PeerFailedError(str(error)) from error
        for answer in said:
            _see(answer)
        return {"ready": True}

    def go(self) -> Mapping[str, Any]:
        """Let all begin at one moment.

        Returns
        -------
        figures : `~collections.abc.Mapping`
            Of all of them together, see `merged`.

        Raises
        ------
        UnsupportedWorkError
            If it turns out that one cannot do it.
        PeerFailedError
            If one ends, or the time is over.
        """
        self._round.begin(_NOTICE_SECONDS)
        try:
            results = self._round.results(self._futures, self._left + 2 * _GRACE_SECONDS, self._stop)
        except MeetingError as error:
            raise PeerFailedError(str(error)) from error
        for result in results:
            _see(result)
        return merged(results)


def merged(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make one set of figures of those of all workers.

    Parameters
    ----------
    results : `~collections.abc.Sequence` [`~collections.abc.Mapping`]
        ``host``, ``start_at`` and ``figures`` of each.

    Returns
    -------
    figures : `dict`
        As those of one child. ``wall_seconds`` lasts from the beginning that all had agreed upon to the end
        of the last, ``first_done_seconds`` to that of the first; CPU times, operations, bytes, errors and
        counts are added up; ``peak_bytes`` is that of the largest.
    """
    every = [result["figures"] for result in results]
    late = [result["figures"]["began_at"] - result["start_at"] for result in results]
    done = [after + figures["wall_seconds"] for after, figures in zip(late, every, strict=True)]
    peaks = [figures["peak_bytes"] for figures in every]
    histograms: dict[str, Histogram] = {}
    for figures in every:
        for name, text in figures["histograms"].items():
            histograms.setdefault(name, Histogram()).add(Histogram.decode(text))
    notes = list(dict.fromkeys(note for figures in every for note in figures["notes"]))
    hosts = len({result["host"] for result in results})
    notes.append(
        f"{len(every)} workers on {hosts} {'host' if hosts == 1 else 'hosts'}, which began within "
        f"{1e3 * (max(late) - min(late)):.0f} ms; the first had done after {min(done):.3f} s, the last after "
        f"{max(done):.3f} s"
    )
    return {
        **{name: sum(figures[name] for figures in every) for name in ("user_seconds", "system_seconds")},
        **{name: sum(figures[name] for figures in every) for name in ("operations", "bytes_moved")},
        **{name: _added(figures[name] for figures in every) for name in ("errors", "counted")},
        "wall_seconds": max(done),
        "first_done_seconds": min(done),
        "workers": len(every),
        "peak_bytes": None if None in peaks else max(peaks),
        "histograms": {name: histogram.encode() for name, histogram in histograms.items()},
        "notes": notes,
    }


def _added(counts: Any) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


def _see(answer: Mapping[str, Any]) -> None:
    """Raise what a worker could not."""
    if "unsupported" in answer:
        raise UnsupportedWorkError(answer["unsupported"])
    if "failed" in answer:
        raise PeerFailedError(f"{answer['host']}: {answer['failed']}")


# -- what the workers do


def _attend(invitation: Invitation, seconds: float) -> None:
    """Say what this node is."""
    with Attendance(invitation) as attendance:
        attendance.begin(
            {
                "host": socket.gethostname(),
                "system": f"{platform.system()} {platform.release()}",
                "python": platform.python_version(),
                "processors": os.cpu_count(),
                "version": version(_DISTRIBUTION),
            },
            seconds,
        )


def _work(
    invitation: Invitation, record: dict[str, Any], seconds: float, prefix: tuple[str, ...]
) -> dict[str, Any]:
    """Do a job when all others do theirs."""
    host = socket.gethostname()
    scratch = Path(tempfile.mkdtemp(prefix="dcache-bench-", dir=default_folder()))
    try:
        with Attendance(invitation) as attendance:
            try:
                job = _settled(Job.from_json(record), scratch)
                limit = Stop(seconds, 0.0)
                with PeerProcess(job, limit, seconds + _GRACE_SECONDS, prefix) as child:
                    child.prepare()
                    start_at = attendance.begin({"ready": True}, seconds + _GRACE_SECONDS)
                    attendance.if_called_off(child.kill)
                    figures = child.go(start_at)
            except UnsupportedWorkError as error:
                answer = {"host": host, "unsupported": str(error)}
            except PeerFailedError as error:
                answer = {"host": host, "failed": str(error)}
            else:
                return {"host": host, "start_at": start_at, "figures": dict(figures)}
            with contextlib.suppress(CalledOffError):
                attendance.begin(answer, 0.001)
            return answer
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _settled(job: Job, scratch: Path) -> Job:
    """Give a job what it needs of this machine's files."""
    sources = []
    wanted = [(job.source, job.work.size_bytes)]
    wanted += [(one, step.size_bytes) for one, step in zip(job.sources, job.work.steps, strict=True)]
    for source, size in wanted:
        path = scratch / f"source-{size}" if source else None
        if path is not None and not path.exists():
            with path.open("wb") as file:
                file.writelines(pieces(size, _PIECE_BYTES))
        sources.append("" if path is None else str(path))
    return dataclasses.replace(job, scratch=str(scratch), source=sources[0], sources=tuple(sources[1:]))


# -- Parsl's configuration


def _local(size: int, folder: Path) -> Any:
    """Workers on this machine, which are reached over loopback alone."""
    htex = importlib.import_module("parsl.executors.high_throughput.executor")
    # What its processes leave behind when they are killed goes with everything else, if sockets can be there.
    is_short = len(os.fsencode(folder)) <= _LONGEST_FOLDER
    temporary = str(folder) if is_short else "/tmp"  # noqa: S108
    executor = htex.HighThroughputExecutor(
        label="local",
        address="127.0.0.1",
        # In a session of its own Ctrl-C at the terminal does not end it before it is told to end.
        interchange_launch_cmd=[*(["setsid"] if shutil.which("setsid") else []), "interchange.py"],
        max_workers_per_node=size,
        cores_per_worker=1e-6,
        encrypted=False,
        provider=importlib.import_module("parsl.providers").LocalProvider(
            init_blocks=1,
            min_blocks=1,
            max_blocks=1,
            worker_init=f"export TMPDIR={shlex.quote(temporary)}",
        ),
    )
    return importlib.import_module("parsl.config").Config(
        executors=[executor],
        run_dir=str(folder / "parsl"),
        strategy="none",
        initialize_logging=False,
        usage_tracking=0,
    )


def _read(file: Path) -> Any:
    kind = importlib.import_module("parsl.config").Config
    try:
        config = runpy.run_path(str(file)).get("config")
    except Exception as error:  # it is the user's program
        raise CrewError(f"{file}: {type(error).__name__}: {error}") from error
    if not isinstance(config, kind):
        raise CrewError(f"{file} does not define config, a parsl.config.Config")
    return config


def _addresses(config: Any) -> list[str]:
    """By which workers reach this machine: as the executors say, or by all that it has."""
    said = [getattr(executor, "address", None) for executor in config.executors]
    names = [address for address in said if address] or [socket.gethostname()]
    found = {
        str(place[0])
        for name in names
        for *_, place in socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    }
    if not any(said):
        interfaces = importlib.import_module("psutil").net_if_addrs().values()
        found |= {one.address for each in interfaces for one in each if one.family == socket.AF_INET}
        found = {address for address in found if not address.startswith("127.")} or {"127.0.0.1"}
    return sorted(found)
