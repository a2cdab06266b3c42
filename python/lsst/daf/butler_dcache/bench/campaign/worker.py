"""A process that uses the client, step by step, under the eyes of the referee."""

from __future__ import annotations

import io
import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import quote, unquote

from ...errors import DcacheError
from ...model import ByteRange
from ...store.protocol import Store
from ...store.registry import store_for
from ...transport.retry import Rule, rule_name, watched
from ...webdav.addresses import is_temporary
from .misfortunes import choose
from .steps import SHARED, Step, content, plan
from .world import ABSENT, DIRECTORY, Outcome, Sight, World, fingerprint

__all__ = ("Told", "WorkerJob", "work")


@dataclass(frozen=True)
class WorkerJob:
    """What a worker is to do.

    Parameters
    ----------
    seed : `int`
        Of the campaign.
    process : `int`
        Which worker it is.
    operations : `int`
        How many steps.
    url : `str`
        Directory of the campaign.
    environment : `dict` [`str`, `str`]
        Variables of the client.
    has_faults : `bool`
        Whether misfortunes can be had; otherwise the servers are disturbed by somebody else.
    restarts : `bool`
        Whether servers may crash.
    """

    seed: int
    process: int
    operations: int
    url: str
    environment: dict[str, str]
    has_faults: bool = True
    restarts: bool = True


@dataclass(frozen=True)
class Told:
    """What a worker tells of a step.

    Parameters
    ----------
    step : `Step`
        The step.
    written : `str`
        Fingerprint of what it wrote.
    outcome : `Outcome`
        What the client said.
    sight : `Sight`
        What the referee saw.
    problems : `tuple` [`str`, ...]
        What is wrong.
    unknowable : `bool`
        Whether other bytes came in a range, which nobody could know.
    """

    step: Step
    written: str
    outcome: Outcome
    sight: Sight
    problems: tuple[str, ...]
    unknowable: bool = False


def work(job: WorkerJob, referee: Connection) -> None:
    """Do all steps and tell the referee of each.

    Parameters
    ----------
    job : `WorkerJob`
        What to do.
    referee : `multiprocessing.connection.Connection`
        To whom to talk.
    """
    os.environ.pop("BEARER_TOKEN_FILE", None)
    os.environ.update(job.environment)
    # What goes wrong is the purpose here.
    logging.getLogger("lsst.daf.butler_dcache").setLevel(logging.CRITICAL)
    _Worker(job, referee).run()


class _Worker:
    def __init__(self, job: WorkerJob, referee: Connection) -> None:
        self._job = job
        self._referee = referee
        self._store: Store = store_for(job.url)
        self._world = World()
        self._contents: dict[str, bytes] = {}
        self._acts: dict[str, Callable[[Step], str]] = {
            "put": self._put,
            "create": self._put,
            "race to create": self._put,
            "race to overwrite": self._put,
            "streamed": self._streamed,
            "copy": self._copy,
            "get": self._get,
            "download": self._download,
            "ranges": self._ranges,
            "open": self._open,
            "rename": self._rename,
            "remove": self._remove,
            "mkdir": self._mkdir,
            "list": self._list,
            "stat": self._stat,
        }

    def run(self) -> None:
        rows: Counter[str] = Counter()

        def count(rule: Rule) -> None:
            rows[rule_name(rule)] += 1

        with watched(count):
            for index in range(self._job.operations):
                self._referee.send(self._one(index))
        unsettled = {name: sorted(states) for name, states in self._world.haunted.items()}
        self._referee.send(("end", dict(self._world.states), unsettled, rows))

    def _ask(self, *question: Any) -> Any:
        self._referee.send(question)
        return self._referee.recv()

    def _one(self, index: int) -> Told:
        job, world = self._job, self._world
        step = plan(job.seed, job.process, index, world.files, world.haunted)
        data = content(job.seed, step)
        new = fingerprint(data)
        self._contents[new] = data
        size = step.size or len(self._contents.get(world.state(step.names[0]), b""))
        misfortunes = choose(job.seed, step, size, restarts=job.restarts) if job.has_faults else []
        self._ask("begin", step, misfortunes)
        outcome = self._act(step)
        sight: Sight = self._ask("end")
        if "401 in flight" in sight.hits:
            # As a user would: with another token one may ask again.
            self._ask("renew")
        flipped = {"download flipped"} & set(sight.hits)
        unknowable = bool(flipped and outcome.wrong and step.kind in ("ranges", "open"))
        if unknowable:
            outcome = Outcome()
        problems: list[str] = []
        if step.kind not in SHARED:
            problems = world.judge(step, new, outcome, sight)
        self._contents = {
            key: self._contents[key] for key in set(world.states.values()) & set(self._contents)
        }
        return Told(step, new, outcome, sight, tuple(problems), unknowable)

    def _act(self, step: Step) -> Outcome:
        try:
            if step.kind == "bulk remove":
                urls = {self._url(step, name): name for name in step.names}
                errors = self._store.remove_many(urls)
                each = {urls[url]: type(error).__name__ for url, error in errors.items() if error is not None}
                return Outcome(each=each)
            return Outcome(wrong=self._acts[step.kind](step))
        except DcacheError as error:
            return Outcome(type(error).__name__, str(error))
        except Exception as error:
            # Whatever else comes is a defect, and the campaign goes on.
            return Outcome(type(error).__name__, f"{error!r}")

    def _url(self, step: Step, name: str) -> str:
        place = "shared" if step.kind in SHARED else f"p{step.process}"
        return f"{self._job.url}{place}/{quote(name)}"

    def _held(self, step: Step) -> bytes | None:
        state = self._world.state(step.names[0])
        return None if state in (ABSENT, DIRECTORY) else self._contents[state]

    # What is done; each returns what is wrong with the bytes that came

    def _put(self, step: Step) -> str:
        data = content(self._job.seed, step)
        body = io.BytesIO(data) if step.from_file else data
        info = self._store.write(self._url(step, step.names[0]), body, overwrite=step.overwrite)
        return "" if info.size == len(data) else f"{info.size} bytes are said to be written"

    def _streamed(self, step: Step) -> str:
        data = memoryview(content(self._job.seed, step))
        url = self._url(step, step.names[0])
        writer = self._store.open_writer(url, overwrite=step.overwrite)
        try:
            for at in range(0, len(data), 300_000):
                writer.write(data[at : at + 300_000])
        except BaseException:
            writer.abort()
            raise
        writer.commit()
        return ""

    def _copy(self, step: Step) -> str:
        source, target = (self._url(step, name) for name in step.names)
        self._store.copy(source, target, overwrite=step.overwrite)
        return ""

    def _get(self, step: Step) -> str:
        return self._compare(step, self._store.read(self._url(step, step.names[0])))

    def _download(self, step: Step) -> str:
        target = io.BytesIO()
        self._store.download(self._url(step, step.names[0]), target)
        return self._compare(step, target.getvalue())

    def _spans(self, step: Step, size: int) -> list[ByteRange]:
        starts = [int(start * size) for start, _ in step.spans]
        return [
            ByteRange(start, start + 1 + int(length * size))
            for start, (_, length) in zip(starts, step.spans, strict=True)
        ]

    def _ranges(self, step: Step) -> str:
        held = self._held(step)
        spans = self._spans(step, len(held or b"x"))
        came = self._store.read_ranges(self._url(step, step.names[0]), spans)
        return self._compare_spans(held, [(span.start, span.stop) for span in spans], came)

    def _open(self, step: Step) -> str:
        held = self._held(step)
        reader = self._store.open_reader(self._url(step, step.names[0]))
        try:
            start, tail = reader.read_tail(100)
            spans = self._spans(step, len(held or b"x"))
            came = [reader.read_ranges([span])[0] for span in spans]
            middle = spans[0].start
            rest = b"".join(reader.stream(middle))
        finally:
            reader.close()
        size = start + len(tail)
        places = [*((span.start, span.stop) for span in spans), (start, size), (middle, size)]
        return self._compare_spans(held, places, [*came, tail, rest])

    def _rename(self, step: Step) -> str:
        source, target = (self._url(step, name) for name in step.names)
        self._store.move(source, target, overwrite=step.overwrite)
        return ""

    def _remove(self, step: Step) -> str:
        self._store.remove(self._url(step, step.names[0]))
        return ""

    def _mkdir(self, step: Step) -> str:
        self._store.make_directory(self._url(step, step.names[0]))
        return ""

    def _stat(self, step: Step) -> str:
        info = self._store.stat(self._url(step, step.names[0]))
        held = self._held(step)
        return "" if held is None or info.size == len(held) else f"the size is said to be {info.size}"

    def _list(self, step: Step) -> str:
        directory = step.names[0]
        entries = self._store.list_directory(self._url(step, directory))
        names = {unquote(entry.url.rstrip("/").rpartition("/")[2]) for entry in entries}
        seen = {directory + name for name in names if not is_temporary(name)}
        world = self._world
        known = [name for name in world.states if name.startswith(directory) and name not in world.haunted]
        there = {name for name in known if world.state(name) not in (ABSENT, DIRECTORY)}
        missing = [name for name in there if "/" not in name[len(directory) :] and name not in seen]
        gone = [name for name in known if world.state(name) == ABSENT and name in seen]
        return f"a listing lacks {missing} and has {gone}" if missing or gone else ""

    def _compare(self, step: Step, came: bytes) -> str:
        held = self._held(step)
        if held is None:
            return f"{len(came)} bytes came of a file that is not there"
        return "" if came == held else f"other bytes came: {fingerprint(came)}, not {fingerprint(held)}"

    @staticmethod
    def _compare_spans(held: bytes | None, places: list[tuple[int, int]], came: list[bytes]) -> str:
        if held is None:
            return "bytes came of a file that is not there"
        wrong = [
            f"{start}-{stop}"
            for (start, stop), data in zip(places, came, strict=True)
            if held[start:stop] != data
        ]
        return f"other bytes came of {', '.join(wrong)} of {len(held)}" if wrong else ""
