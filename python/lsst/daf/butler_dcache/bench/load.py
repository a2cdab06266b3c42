"""The loop that calls a client's operations: so many, so many at a time, or as they arrive.

In a closed loop each thread begins the next operation when its last has ended. In an open one operations
arrive at moments drawn beforehand (a Poisson process), and the time of each is taken from its arrival: when
all threads are busy since the server is slow, what waits is slow, too. A closed loop does not see that; the
literature calls it coordinated omission.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..redaction import redact_text
from . import partial
from .peers.client import Client, Done, Sink, Source
from .work import Job, Outcome, Step, UnsupportedWorkError, Work, pieces

__all__ = ("LoadError", "WrongAnswerError", "arrivals", "drive")

_KEPT_IN_MEMORY_BYTES = 1024 * 1024
_BULK = frozenset({"exists_many", "delete"})


class LoadError(Exception):
    """A client did less than half of its work, or not in time; the text says what is known."""


class WrongAnswerError(Exception):
    """A client says something else than what is so."""


def arrivals(count: int, rate: float, seed: int) -> list[float]:
    """Return when operations arrive that know nothing of one another: a Poisson process.

    Parameters
    ----------
    count : `int`
        How many.
    rate : `float`
        So many per second, on average.
    seed : `int`
        The same for the same moments.

    Returns
    -------
    moments : `list` [`float`]
        Seconds from the beginning, ascending.
    """
    draw = random.Random(seed)
    return list(itertools.accumulate(draw.expovariate(rate) for _ in range(count)))


def drive(client: Client, job: Job) -> Callable[[], Outcome]:
    """Return what does a job, operation by operation.

    Parameters
    ----------
    client : `~.peers.client.Client`
        Who does it; connected.
    job : `~.work.Job`
        What.

    Returns
    -------
    run : `~collections.abc.Callable`
        Does it once. An operation that fails is counted and timed, and the work goes on.

    Raises
    ------
    UnsupportedWorkError
        If the client cannot; the run may raise that, too.

    Notes
    -----
    The run raises `LoadError` if more than half of the operations failed, or not all were done before
    ``job.deadline_seconds``.
    """
    return _Loop(client, job).run


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of the client: part of each operation of the loop."""

    label: str
    do: Callable[[Sequence[str], int], Done]
    """Takes names and a number that no other call has."""
    at: int
    taken: int
    """Its names among those of the operation: the first, and how many."""


@dataclass(slots=True)
class _Tally:
    """What one thread did."""

    times: list[float] = field(default_factory=list)
    service: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    first_byte: list[float] = field(default_factory=list)
    steps: dict[str, list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    moved: int = 0


class _Cap:
    """Lets operations begin one after the other, never more per second than is allowed."""

    def __init__(self, rate: float) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self, weight: int) -> float:
        """Wait for the turn of so many operations, and return how long that took."""
        if not self._gap:
            return 0.0
        begun = time.perf_counter()
        with self._lock:
            turn = max(self._next, begun)
            self._next = turn + self._gap * weight
        time.sleep(turn - begun)
        return time.perf_counter() - begun


class _Loop:
    def __init__(self, client: Client, job: Job) -> None:
        work = job.work
        self._job = job
        self._closing = contextlib.ExitStack()
        self._calls = _calls(client, job, self._closing)
        self._stride = sum(call.taken for call in self._calls)
        self._arrivals = arrivals(work.count, work.rate, work.seed) if work.rate else None
        self._is_mix = work.operation == "mix"
        self._cap = _Cap(job.max_rate)
        self._notes = client.notes(work)
        self._numbers: Iterator[int] = iter(range(work.count))
        self._begun = 0.0
        self._until = math.inf
        self._lock = threading.Lock()
        self._failures = 0
        self._last_error: Exception | None = None
        self._unsupported: UnsupportedWorkError | None = None

    def run(self) -> Outcome:
        """Do it."""
        job, threads = self._job, self._job.work.threads
        tallies = [_Tally() for _ in range(threads)]
        self._begun = time.perf_counter()
        if job.deadline_seconds:
            self._until = self._begun + job.deadline_seconds
        with self._closing:
            if threads == 1:
                self._work(tallies[0])
            else:
                workers = [
                    threading.Thread(target=self._work, args=(tally,), daemon=True) for tally in tallies
                ]
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()
        return self._outcome(tallies)

    def _work(self, tally: _Tally) -> None:
        half = self._job.work.count / 2
        while self._failures <= half and self._unsupported is None:
            # One step of an iterator in C, which no other thread interrupts.
            number = next(self._numbers, None)
            if number is None:
                return
            arrival = None
            if self._arrivals is not None:
                arrival = self._begun + self._arrivals[number]
                time.sleep(max(0.0, min(arrival, self._until) - time.perf_counter()))
            if time.perf_counter() >= self._until:
                return
            self._once(number, arrival, tally)

    def _once(self, number: int, arrival: float | None, tally: _Tally) -> None:
        moved, done = 0, Done()
        begun = time.perf_counter()
        try:
            for call in self._calls:
                begun += self._cap.wait(call.taken)  # that is not the client's time
                names = self._names(number * self._stride + call.at, call.taken)
                if self._is_mix:
                    called = time.perf_counter()
                    done = call.do(names, number * self._stride + call.at)
                    tally.steps.setdefault(call.label, []).append(time.perf_counter() - called)
                else:
                    done = call.do(names, number)
                moved += done.bytes_moved
        except UnsupportedWorkError as error:
            self._unsupported = error
        except Exception as error:  # clients raise what they like; each class is counted
            tally.failed.append(time.perf_counter() - (begun if arrival is None else arrival))
            tally.errors[type(error).__name__] += 1
            with self._lock:
                self._failures += 1
                self._last_error = error
        else:
            ended = time.perf_counter()
            tally.times.append(ended - (begun if arrival is None else arrival))
            if arrival is not None:
                tally.service.append(ended - begun)
            if done.first_byte_seconds is not None and not self._is_mix:
                tally.first_byte.append(done.first_byte_seconds)
            tally.moved += moved

    def _names(self, begin: int, count: int) -> Sequence[str]:
        names = self._job.names
        if count == 1:
            return (names[begin % len(names)],)
        return [names[index % len(names)] for index in range(begin, begin + count)]

    def _outcome(self, tallies: list[_Tally]) -> Outcome:
        if self._unsupported is not None:
            raise self._unsupported
        count = self._job.work.count
        if self._failures > count / 2:
            assert self._last_error is not None
            last = f"{type(self._last_error).__name__}: {redact_text(str(self._last_error))}"
            raise LoadError(f"{self._failures} of {count} operations failed, at last {last}")
        seconds: dict[str, Sequence[float]] = {
            "operation": _together(tally.times for tally in tallies),
            "service": _together(tally.service for tally in tallies),
            "failed": _together(tally.failed for tally in tallies),
            "first_byte": _together(tally.first_byte for tally in tallies),
        }
        for label in dict.fromkeys(call.label for call in self._calls if self._is_mix):
            seconds[f"mix.{label}"] = _together(tally.steps.get(label, ()) for tally in tallies)
        done = len(seconds["operation"])
        if done + self._failures < count:
            raise LoadError(
                f"{done} of {count} operations were done in {time.perf_counter() - self._begun:.1f} s"
            )
        return Outcome(
            bytes_moved=sum(tally.moved for tally in tallies),
            notes=self._notes,
            operations=done,
            errors=dict(sum((tally.errors for tally in tallies), Counter())),
            seconds={name: times for name, times in seconds.items() if times},
        )


def _together(lists: Iterator[Sequence[float]]) -> list[float]:
    return list(itertools.chain.from_iterable(lists))


def _calls(client: Client, job: Job, closing: contextlib.ExitStack) -> list[_Call]:
    work = job.work
    if work.operation != "mix":
        do = _operation(client, job, Step(work.operation, work.size_bytes), job.source, closing)
        return [_Call(work.operation, do, 0, work.batch if work.operation in _BULK else 1)]
    calls: list[_Call] = []
    at = 0
    for step, source in zip(work.steps, job.sources, strict=True):
        do = _operation(client, job, step, source, closing)
        taken = step.count if step.operation in _BULK else 1
        for _ in range(step.count // taken):
            calls.append(_Call(step.operation, do, at, taken))
            at += taken
    return calls


def _operation(
    client: Client, job: Job, step: Step, source: str, closing: contextlib.ExitStack
) -> Callable[[Sequence[str], int], Done]:
    """What calls a client once, and sees that the answer is right."""
    work, operation = job.work, step.operation
    if operation in partial.OPERATIONS:
        client.require("filesystem" if operation in ("column_by_name", "read_scattered") else "open")
        reader = partial.reader(client, work)
        closing.callback(reader.close)
        return lambda names, number: reader.read(names[0], number)
    match operation:
        case "get":
            client.require("get")
            return _get(client, work.sink, step.size_bytes, job.scratch)
        case "put":
            client.require("put")
            return _put(client, source, step.size_bytes)
        case "write_sequential":
            client.require("create")
            return lambda names, number: _write_sequential(client, names[0], work)
        case "read_vector":
            client.require("read_ranges")
            return _read_vector(client, work)
        case _:
            return _on_names(client, work, operation)


def _get(client: Client, kind: str, size: int, scratch: str) -> Callable[[Sequence[str], int], Done]:
    def get(names: Sequence[str], number: int) -> Done:
        sink = Sink(kind, f"{scratch}/{number}" if kind == "file" else "")
        return _of_size(client.get(names[0], sink), size)

    return get


def _put(client: Client, path: str, size: int) -> Callable[[Sequence[str], int], Done]:
    data = Path(path).read_bytes() if size <= _KEPT_IN_MEMORY_BYTES else None
    source = Source(path, size, data)
    return lambda names, number: _of_size(client.put(names[0], source), size)


def _write_sequential(client: Client, name: str, work: Work) -> Done:
    moved = 0
    with client.create(name) as file:
        for piece in pieces(work.size_bytes, work.piece_bytes):
            moved += file.write(piece)
    return _of_size(Done(moved), work.size_bytes)


def _read_vector(client: Client, work: Work) -> Callable[[Sequence[str], int], Done]:
    offsets, batch = work.offsets(), work.batch

    def read(names: Sequence[str], number: int) -> Done:
        mine = offsets[number * batch : (number + 1) * batch]
        done = client.read_ranges(names[0], [(offset, offset + work.piece_bytes) for offset in mine])
        return _of_size(done, work.piece_bytes * batch)

    return read


def _on_names(client: Client, work: Work, operation: str) -> Callable[[Sequence[str], int], Done]:
    method = {"look": "exists", "delete": "remove_many"}.get(operation, operation)
    client.require(method)
    # A mix looks for what it is about to write.
    there = 0 if work.operation == "mix" else work.batch

    def do(names: Sequence[str], number: int) -> Done:
        name = names[0]
        match operation:
            case "look":
                _expect(client.exists(name), f"{name} is not there")
            case "exists_many":
                _expect_count(client.exists_many(names), there)
            case "walk":
                _expect_count(client.walk(name), work.batch)
            case "delete":
                _expect_count(client.remove_many(names), len(names))
            case "remove":
                client.remove(name)
            case "rename":
                client.rename(name, f"{name}-renamed")
            case "mint":
                client.mint(name)
            case "presign":
                client.presign(name)
        return _NOTHING

    return do


_NOTHING = Done()


def _of_size(done: Done, size: int) -> Done:
    if done.bytes_moved != size:
        raise WrongAnswerError(f"{done.bytes_moved} bytes of {size}")
    return done


def _expect_count(found: int, wanted: int) -> None:
    _expect(found == wanted, f"{found} files instead of {wanted}")


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise WrongAnswerError(otherwise)
