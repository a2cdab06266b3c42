"""``kill -9`` at random moments of writing: a name holds the old or the new file, whole."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ...embedded import EmbeddedDcache
from ...orphans import find_orphans, remove_orphans
from ...store.protocol import Store
from ...store.registry import store_for
from .referee import EmbeddedReferee, Referee
from .world import ABSENT, fingerprint

__all__ = ("KillReport", "kill_writers", "remove_what_is_left")

_KINDS = ("small", "large", "streamed", "create", "rename")
_NAMES = ("a", "b", "c", "d")
_LONGEST_DELAY_SECONDS = 0.05
_SETTLE_SECONDS = 20.0
_WEEK_SECONDS = 7 * 86400.0


@dataclass
class KillReport:
    """What came of it.

    Parameters
    ----------
    seed, kills : `int`
        What it was.
    seconds : `float`
        How long it took.
    moments : `collections.Counter`
        How often each kind of writing was hit, and what the name held afterwards.
    orphans : `int`
        Temporary names that were left, before the clean-up.
    problems : `list` [`str`]
        What must not be.
    """

    seed: int
    kills: int
    seconds: float = 0.0
    moments: Counter[tuple[str, str]] = field(default_factory=Counter)
    orphans: int = 0
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return a table for people, in Markdown."""
        lines = [
            f"Seed {self.seed}: {self.kills} writers killed in {self.seconds:.0f} s.",
            "",
            "| killed during | times | old | new |",
            "| --- | ---: | ---: | ---: |",
        ]
        for kind in sorted({kind for kind, _ in self.moments}):
            old, new = self.moments[kind, "old"], self.moments[kind, "new"]
            lines.append(f"| {kind} | {old + new} | {old} | {new} |")
        lines += [
            "",
            f"{self.orphans} temporary names were left and removed by the clean-up.",
            f"{len(self.problems)} problems.",
        ]
        return "\n".join([*lines, *(f"- {problem}" for problem in self.problems)]) + "\n"


def kill_writers(*, seed: int, kills: int, tell: Callable[[str], object] = lambda text: None) -> KillReport:
    """Let processes write to the embedded dCache and kill each of them.

    Parameters
    ----------
    seed : `int`
        Decides what is written, and about when they are killed.
    kills : `int`
        How many.
    tell : `~collections.abc.Callable`, optional
        Is told of each problem as it shows.

    Returns
    -------
    report : `KillReport`
        What came of it.
    """
    report = KillReport(seed, kills)
    started = time.monotonic()
    # Its children are forked from a process that has imported everything and has no threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with (
        tempfile.TemporaryDirectory(prefix="dcache-kills-") as name,
        EmbeddedDcache(limiter=False) as dcache,
    ):
        referee = EmbeddedReferee(dcache, Path(name))
        environments = [referee.environment(number, with_frontend=number == 1) for number in range(2)]
        states = dict.fromkeys(_NAMES, ABSENT)
        url = dcache.url + "campaign/p0/"
        for number in range(kills):
            line, other = context.Pipe()
            arguments = (environments[number % 2], url, f"{seed}/{number}", other)
            process = context.Process(target=_write, args=arguments)
            process.start()
            other.close()
            draw = random.Random(f"{seed}:{number}")
            at, delay = draw.randint(0, 4), _LONGEST_DELAY_SECONDS * draw.random() ** 2
            told = _listen_and_kill(line, process, at, delay)
            _wait_until_silent(dcache)
            problems = _judge(referee, states, told, report.moments)
            for problem in problems:
                tell(f"kill {number}: {problem}")
            report.problems += [f"kill {number}: {problem}" for problem in problems]
        report.orphans = len(referee.temporaries("campaign"))
        cleaner = context.Process(
            target=remove_what_is_left, args=(environments[0], dcache.url + "campaign/")
        )
        cleaner.start()
        cleaner.join()
        left = referee.temporaries("campaign")
        report.problems += [f"after the clean-up there still is {path}" for path in left]
    report.seconds = time.monotonic() - started
    return report


def remove_what_is_left(environment: dict[str, str], url: str) -> None:
    """Remove the temporary names of processes that have ended, in a process of its own.

    Parameters
    ----------
    environment : `dict` [`str`, `str`]
        Variables of the client.
    url : `str`
        The directory.
    """
    os.environ.update(environment)
    store = store_for(url)
    found = find_orphans(store, url, older_than_seconds=_WEEK_SECONDS, lock_seconds=0.0)
    remove_orphans(store, list(found))


def _write(environment: dict[str, str], url: str, seed: str, line: Connection) -> None:
    """Write and write, and tell of each time."""
    os.environ.pop("BEARER_TOKEN_FILE", None)
    os.environ.update(environment)
    store = store_for(url)
    draw = random.Random(seed)
    while True:
        kind, name = draw.choice(_KINDS), draw.choice(_NAMES)
        most = {"small": 60_000, "create": 60_000, "large": 600_000, "streamed": 2_500_000}.get(kind, 1)
        data = draw.randbytes(draw.randint(most // 2, most))
        target = draw.choice([other for other in _NAMES if other != name])
        line.send(("begin", kind, name, target, fingerprint(data)))
        try:
            _one(store, kind, url + name, url + target, data)
        except (FileExistsError, FileNotFoundError):
            line.send(("end", False))
        else:
            line.send(("end", True))


def _one(store: Store, kind: str, url: str, target: str, data: bytes) -> None:
    match kind:
        case "rename":
            store.move(url, target, overwrite=True)
        case "streamed":
            writer = store.open_writer(url)
            for at in range(0, len(data), 200_000):
                writer.write(data[at : at + 200_000])
            writer.commit()
        case _:
            store.write(url, data, overwrite=kind != "create")


def _listen_and_kill(line: Connection, process: Any, at: int, delay: float) -> list[tuple[Any, ...]]:
    """Kill a writer some time after it has begun for the n-th time; return what it told."""
    told: list[tuple[Any, ...]] = []
    begun = 0
    try:
        while begun <= at:
            message = line.recv()
            told.append(message)
            begun += message[0] == "begin"
        time.sleep(delay)
        process.kill()
        while True:
            told.append(line.recv())
    except (EOFError, OSError):
        process.join()
    if process.exitcode != -signal.SIGKILL:
        told.append(("ended by itself", process.exitcode))
    return told


def _wait_until_silent(dcache: EmbeddedDcache) -> None:
    """Wait until the servers have noticed that the client is gone."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        if dcache.open_connections() == 0:
            return
        time.sleep(0.002)


def _judge(
    referee: Referee,
    states: dict[str, str],
    told: list[tuple[Any, ...]],
    moments: Counter[tuple[str, str]],
) -> list[str]:
    """Compare what a writer told with what is there, and go on from that."""
    problems: list[str] = []
    begun: tuple[Any, ...] | None = None
    for message in told:
        if message[0] == "begin":
            begun = message
        elif message[0] == "end" and begun is not None:
            if message[1]:
                states.update(_changed(states, begun))
            begun = None
        if message[0] == "ended by itself":
            problems.append(f"the writer ended by itself with status {message[1]}")
    there = {name: referee.state(f"/data/campaign/p0/{name}") for name in states}
    if begun is not None:
        changed = {**states, **_changed(states, begun)}
        if changed != states:
            moments[begun[1], "new" if there == changed else "old"] += 1
        if there == changed:
            states.update(changed)
    for name, state in states.items():
        if there[name] != state:
            problems.append(f"{name} held {state}, was hit by {begun}, and holds {there[name]}")
    states.update(there)
    return problems


def _changed(states: dict[str, str], begun: tuple[Any, ...]) -> dict[str, str]:
    _, kind, name, target, new = begun
    if kind == "rename":
        return {} if states[name] == ABSENT else {name: ABSENT, target: states[name]}
    return {} if kind == "create" and states[name] != ABSENT else {name: new}
