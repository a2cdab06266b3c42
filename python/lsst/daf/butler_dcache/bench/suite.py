"""A run: rows are chosen, servers are started one after the other, and what comes of it is kept."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import DcacheError
from .measure import DoesNotFitError, NoSpaceError, RefusedJobError, Site
from .peer_process import PeerDiedError, PeerFailedError
from .peers.registry import OURS, PEERS
from .plan import Entry, Plan, Turn
from .processes import MissingServerError
from .real_target import is_url
from .result import Result
from .row import Row
from .sample import Sample
from .servers import kind_of
from .spread import Crew
from .stopping import Stop, StoppedError
from .target import Target, TargetGoneError
from .work import UnsupportedWorkError

__all__ = ("Run", "select")

_LEAST_PATIENCE_SECONDS = 20.0
_MOST_PATIENCE_SECONDS = 900.0
_SHARE_OF_ONE_PEER = 0.25
"""Of the budget: longer no client may take for one repetition."""


def select(
    rows: Sequence[Row],
    names: Sequence[str] = (),
    targets: Sequence[str] = (),
    factor: float = 1,
    peers: Sequence[str] = (),
    levels: Sequence[str] = (),
) -> list[Row]:
    """Return some of the rows, against some of the servers, by some of the clients.

    Parameters
    ----------
    rows : `~collections.abc.Sequence` [`~.row.Row`]
        All of them.
    names : `~collections.abc.Sequence` [`str`], optional
        Which ones, by name or, if no row has it, by its beginning; all if there are none.
    targets : `~collections.abc.Sequence` [`str`], optional
        At which servers, if they speak what a row needs; where each row wants if there are none.
    factor : `float`, optional
        Of sizes and numbers.
    peers : `~collections.abc.Sequence` [`str`], optional
        By which clients; by all if there are none.
    levels : `~collections.abc.Sequence` [`str`], optional
        At which levels; programs have none and stay.

    Returns
    -------
    rows : `list` [`~.row.Row`]
        Those that have at least one server and one client.

    Raises
    ------
    ValueError
        If a name, a server or a client is not known, or nothing is left.
    """
    known = [row.name for row in rows]
    wanted = set(known if not names else ())
    for name in names:
        found = [name] if name in known else [each for each in known if each.startswith(name)]
        if not found:
            raise ValueError(f"no row is called {name}; there are {', '.join(known)}")
        wanted.update(found)
    for peer in peers:
        if peer not in PEERS:
            raise ValueError(f"no client is called {peer}; there are {', '.join(PEERS)}")
    kinds = {target: kind_of(target) for target in targets}
    left = []
    for row in rows:
        if row.name not in wanted:
            continue
        places = tuple(name for name in targets if kinds[name] in row.kinds) if targets else row.targets
        spoken = {kind_of(place) for place in places}
        able = tuple(
            peer
            for peer in row.peers
            if (not peers or peer in peers)
            and (not levels or PEERS[peer].level in (*levels, "program"))
            and spoken & set(PEERS[peer].kinds)
        )
        if places and able:
            left.append(replace(row, targets=places, peers=able).scaled(factor))
    if not left:
        raise ValueError("none of these rows is measured at these servers with these clients")
    return left


@dataclass
class Run:
    """Rows measured at their servers, within a budget of time.

    Parameters
    ----------
    rows : `~collections.abc.Sequence` [`~.row.Row`]
        What, the most important first.
    begin : `~collections.abc.Callable`
        Starts a server of this name, with its files in this folder.
    folder : `~pathlib.Path`
        For everything that is not kept.
    stop : `~.stopping.Stop`
        Interrupts.
    budget : `float`
        Seconds for all.
    repetitions : `int` or `None`
        How often each row is measured; `None`: until its intervals are narrow.
    seed : `int`
        Of the order of the clients.
    tell : `~collections.abc.Callable`
        Is told what is going on, once more for what stays.
    keep : `~collections.abc.Callable`
        Is called whenever there is more to keep.
    crew : `~.spread.Crew` or `None`
        Workers each of whom does the work of each row; `None`: one process does.
    """

    rows: Sequence[Row]
    begin: Callable[[str, Path], AbstractContextManager[Target]]
    folder: Path
    stop: Stop
    budget: float
    repetitions: int | None = None
    seed: int = 1
    tell: Callable[[str], None] = lambda text: None
    keep: Callable[[], None] = lambda: None
    crew: Crew | None = None
    results: list[Result] = field(default_factory=list, init=False)
    targets: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    problems: list[str] = field(default_factory=list, init=False)
    skipped: list[dict[str, str]] = field(default_factory=list, init=False)
    reason: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._begun = time.monotonic()
        self._draw = random.Random(self.seed)

    def measure(self) -> None:
        """Measure everything that fits; what ends it early is left in ``reason``."""
        names = list(dict.fromkeys(name for row in self.rows for name in row.targets))
        todo = {name: [row for row in self.rows if name in row.targets] for name in names}
        for place, name in enumerate(names):
            ahead = sum(len(todo[later]) for later in names[place:])
            left = self.budget - (time.monotonic() - self._begun)
            until = time.monotonic() + left * len(todo[name]) / ahead
            try:
                self._measure_at(name, todo[name], until)
            except (MissingServerError, TargetGoneError, DcacheError) as error:
                self._complain(f"{name}: {error}")
                if not isinstance(error, MissingServerError):
                    self.reason = self.problems[-1]
                self._skip_rest(name, todo[name], str(error))
            except (NoSpaceError, StoppedError) as error:
                self.reason = str(error)
                if not isinstance(error, StoppedError) or error.status == 1:
                    self._complain(f"{name}: {error}")
                for later in names[place:]:
                    self._skip_rest(later, todo[later], self.reason)
                return
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self.reason = f"{name}: no space is left: {error}"
                self._complain(self.reason)
                for later in names[place:]:
                    self._skip_rest(later, todo[later], self.reason)
                return

    def _complain(self, text: str) -> None:
        self.problems.append(text)
        self.tell(text)

    def _skip(self, row: str, target: str, peer: str, reason: str) -> None:
        self.skipped.append({"row": row, "target": target, "peer": peer, "reason": reason})

    def _skip_rest(self, target: str, rows: Sequence[Row], reason: str) -> None:
        done = {(result.row.name, result.target) for result in self.results if result.samples}
        named = {(one["row"], one["target"]) for one in self.skipped}
        for row in rows:
            if (row.name, target) not in done | named:
                self._skip(row.name, target, "", reason)

    def _measure_at(self, name: str, rows: Sequence[Row], until: float) -> None:
        if time.monotonic() >= until:
            self._skip_rest(name, rows, "no time was left")
            return
        if self.crew is not None and self.crew.is_elsewhere and not is_url(name):
            hosts = ", ".join(node["host"] for node in self.crew.nodes)
            raise MissingServerError(
                f"it is started on this machine, and listens on loopback only, which the workers on {hosts} "
                "do not reach: name a server by its URL"
            )
        self.tell(f"{name}: starting")
        with self.begin(name, self.folder) as target:
            self.targets[name] = target.describe()
            site = Site(target, self.folder, self.stop, self.crew)
            plan = Plan([Result(row.at(target.kind), name) for row in rows], self.repetitions)
            present: Entry | None = None
            try:
                while turn := plan.next(until - time.monotonic()):
                    if turn.entry is not present:
                        site.rest()  # the memory that another row has left would count in this one
                        present = turn.entry
                    self._take(site, turn)
            finally:
                site.rest()
            self._skip_rest(name, rows, "no time was left")

    def _take(self, site: Site, turn: Turn) -> None:
        entry, result = turn.entry, turn.entry.result
        begun = time.monotonic()
        peers = list(turn.peers)
        self._draw.shuffle(peers)
        if result not in self.results:
            self.results.append(result)
        try:
            for peer in peers:
                if not self._let(site, entry, peer, turn.observe):
                    break
        finally:
            result.load.append(os.getloadavg()[0])
            if not result.samples:
                self.results.remove(result)
        if turn.observe:
            entry.is_observed = True
        else:
            entry.repetitions += 1
            entry.seconds = time.monotonic() - begun
        self.keep()

    def _let(self, site: Site, entry: Entry, peer: str, observe: bool) -> bool:
        """Let a peer do its turn; false if the row is not to be measured at all."""
        result = entry.result
        row, name = result.row, result.target
        what = f"{row.name} {name} {peer}"
        self.tell(f"{what} …")
        try:
            done, sample, notes = site.run(row, peer, entry.repetitions, self._patience(), observe)
        except (DoesNotFitError, RefusedJobError) as error:
            entry.peers.clear()
            self._skip(row.name, name, "", str(error))
            if isinstance(error, DoesNotFitError):
                self._complain(f"{row.name} on {name}: {error}")
                self.reason = "not all files fitted on the disk"
            else:
                self.tell(f"{what} not done: {error}")
            return False
        except (UnsupportedWorkError, PeerFailedError) as error:
            word = "cannot" if isinstance(error, UnsupportedWorkError) else "failed"
            if isinstance(error, PeerDiedError) and result.samples.get(peer) and peer not in entry.revived:
                entry.revived.add(peer)
                self._complain(f"{row.name} on {name}, {peer} died and was started again: {error}")
                return True
            result.notes[peer] = [f"{word}: {error}"]
            entry.peers.remove(peer)
            self._skip(row.name, name, peer, f"{word}: {error}")
            if word == "failed":
                self.problems.append(f"{row.name} on {name}, {peer} failed: {error}")
            self.tell(f"{what} {word}: {error}")
            return True
        result.row = replace(done, peers=row.peers)
        result.notes[peer] = notes
        if observe:
            result.observed[peer] = sample
        else:
            result.samples.setdefault(peer, []).append(sample)
        self.tell(f"{what} {_short(sample, result, peer)}")
        return True

    def _patience(self) -> float:
        """How long a client may take for one repetition."""
        share = self.budget * _SHARE_OF_ONE_PEER
        wanted = min(max(share, _LEAST_PATIENCE_SECONDS), _MOST_PATIENCE_SECONDS)
        return max(min(wanted, self.stop.seconds_left), 1.0)


def _short(sample: Sample, result: Result, peer: str) -> str:
    text = f"{sample.wall_seconds:.3f} s, CPU {sample.cpu_seconds:.3f} s"
    if sample is result.observed.get(peer):
        text += ", each request recorded"
    if sample.errors:
        text += f", {sum(sample.errors.values())} errors"
    ratio = None if peer in OURS else result.ratio("wall", peer)
    if ratio is not None and ratio.half_width < 1:
        text += f"; {result.client} / {peer}: {ratio.ratio:.2f} +-{100 * ratio.half_width:.0f} %"
    return text
