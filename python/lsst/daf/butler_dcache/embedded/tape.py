"""The tape system: files of one directory are flushed to tape, restored from it and pinned on disk.

A file written there is ONLINE until it is flushed, then ONLINE_AND_NEARLINE; once its disk copy is gone it is
NEARLINE, and reading it waits for a restore. That can fail in three ways (protocol page, surprise 19): the
tape system refuses at once, no pool may stage, or the wait is over while the restore goes on. All files can
have such a misfortune, or some of them.
"""

import fnmatch
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from .clockwork import Clockwork
from .entry import Entry
from .namespace import Change, Namespace

__all__ = ["TapeError", "TapeSystem"]

MisfortuneKind = Literal["lost", "stuck", "forbidden"]


class TapeError(Exception):
    """A restore that fails; the text is what the door writes after ``Internal problem:``."""


@dataclass(frozen=True)
class _Misfortune:
    path: str
    kind: MisfortuneKind
    text: str


class TapeSystem:
    """Tape of one dCache.

    Parameters
    ----------
    namespace : `Namespace`
        Whose files it keeps.
    clockwork : `Clockwork`
        Runs flushes and restores.
    pools : `~collections.abc.Callable`
        Names of the disk pools that can take a restored file.
    flush_seconds : `float`, optional
        From the end of an upload to the copy on tape; on a real dCache some
        twenty seconds.
    restore_seconds : `float`, optional
        How long a restore takes.
    wait_seconds : `float`, optional
        How long a GET waits for one (pool manager's time-out).

    Attributes
    ----------
    failure : `str`
        The tape system's complaint about every restore; empty while it works.
    is_stuck : `bool`
        Whether restores never end.
    may_stage : `bool`
        Whether users may stage at all.
    keep_seconds : `float` or `None`
        How long a file that is on tape stays on disk unless it is pinned; `None` is for ever.

    Notes
    -----
    Thread-safe.
    """

    def __init__(
        self,
        namespace: Namespace,
        clockwork: Clockwork,
        pools: Callable[[], Sequence[str]],
        *,
        flush_seconds: float = 5.0,
        restore_seconds: float = 0.2,
        wait_seconds: float = 180.4,
    ) -> None:
        self._namespace = namespace
        self._clockwork = clockwork
        self._pools = pools
        self.flush_seconds = flush_seconds
        self.restore_seconds = restore_seconds
        self.wait_seconds = wait_seconds
        self.failure = ""
        self.is_stuck = False
        self.may_stage = True
        self.keep_seconds: float | None = None
        self._changed = threading.Condition()
        self._restoring: set[str] = set()
        self._pins: dict[str, dict[str, float]] = {}
        self._misfortunes: list[_Misfortune] = []
        namespace.watchers.append(self._watch)

    def claim(self, directory: Entry) -> None:
        """Let the files of a directory, and of those made in it later, go to tape.

        Parameters
        ----------
        directory : `Entry`
            Its entries take their storage class from it.
        """
        directory.access_latency, directory.retention_policy = "NEARLINE", "CUSTODIAL"

    def strike(self, path: str, kind: MisfortuneKind, text: str = "") -> None:
        """Let some files have a misfortune.

        Parameters
        ----------
        path : `str`
            Shell pattern on the path in the namespace, as in ``"*/raw/*.fits"``.
        kind : `str`
            ``"lost"``: the tape cannot be read, so that a GET fails at once and a stage request never ends;
            ``"stuck"``: the recall takes for ever; ``"forbidden"``: nobody may stage it.
        text : `str`, optional
            The tape system's words about a tape that is lost.
        """
        if kind not in get_args(MisfortuneKind):
            raise ValueError(f"no misfortune of tape: {kind!r}")
        self._misfortunes.append(_Misfortune(path, kind, text or "HSM script failed: no such volume"))

    def heal(self) -> None:
        """End all misfortunes of single files; what is under way goes on."""
        self._misfortunes.clear()
        with self._changed:
            self._changed.notify_all()

    def permits(self, entry: Entry) -> bool:
        """Tell whether a file may be staged at all.

        Parameters
        ----------
        entry : `Entry`
            The file.
        """
        return self.may_stage and self._struck(entry, "forbidden") is None

    def locality(self, entry: Entry) -> str:
        """Tell where the bytes of a file are, in dCache's words (protocol page, sections 1.7 and 8.4).

        Parameters
        ----------
        entry : `Entry`
            The file. The only disk copy on a pool that is down counts as none.
        """
        return entry.locality_with(self._pools())

    def _struck(self, entry: Entry, kind: MisfortuneKind) -> _Misfortune | None:
        if not self._misfortunes:
            return None
        path = entry.path
        return next(
            (m for m in self._misfortunes if m.kind == kind and fnmatch.fnmatchcase(path, m.path)), None
        )

    def _complaint(self, entry: Entry) -> str:
        """Return what the tape system says of a restore; empty while it works."""
        lost = self._struck(entry, "lost")
        return self.failure or ("" if lost is None else lost.text)

    def flush(self, entry: Entry) -> None:
        """Copy a file to tape now.

        Parameters
        ----------
        entry : `Entry`
            The file; one that is broken or gone is left alone.
        """
        if not entry.is_removed and not entry.broken and entry.size is not None:
            entry.on_tape = True
            self._purge_later(entry)

    def purge(self, entry: Entry) -> None:
        """Remove the disk copies of a file that is on tape.

        Parameters
        ----------
        entry : `Entry`
            The file.
        """
        if not entry.on_tape:
            raise ValueError(f"{entry.path} is not on tape")
        entry.locations = []

    def restore(self, entry: Entry) -> None:
        """Wait until a file is on disk.

        Parameters
        ----------
        entry : `Entry`
            A file that is on tape only.

        Raises
        ------
        TapeError
            If that fails or takes too long.
        """
        problem = self._begin(entry)
        if problem:
            raise TapeError(problem)
        deadline = time.monotonic() + self.wait_seconds
        with self._changed:
            while not self._is_on_disk(entry) and not entry.is_removed and not self._complaint(entry):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TapeError("Request to [>PoolManager@local] timed out.")
                self._changed.wait(min(left, 0.5))
        if not self._is_on_disk(entry):
            raise TapeError(self._complaint(entry) or f"No such file or directory: {entry.pnfsid}")

    def stage(self, entry: Entry) -> bool:
        """Ask for a file on disk without waiting.

        Parameters
        ----------
        entry : `Entry`
            The file.

        Returns
        -------
        ready : `bool`
            Whether it is there. If not, ask again: a recall that fails on
            tape stays under way for ever, as on a real dCache.
        """
        if not self._is_on_disk(entry):
            self._begin(entry)
        return self._is_on_disk(entry)

    def pin(self, entry: Entry, name: str, seconds: float) -> None:
        """Keep a file on disk for a while.

        Parameters
        ----------
        entry : `Entry`
            The file.
        name : `str`
            Who pins it: a request's identifier.
        seconds : `float`
            For how long.
        """
        with self._changed:
            self._pins.setdefault(entry.pnfsid, {})[name] = time.monotonic() + seconds

    def unpin(self, entry: Entry, name: str) -> bool:
        """Let go of a file.

        Parameters
        ----------
        entry : `Entry`
            The file.
        name : `str`
            Who pinned it.

        Returns
        -------
        released : `bool`
            Whether there was such a pin.
        """
        with self._changed:
            return self._pins.get(entry.pnfsid, {}).pop(name, None) is not None

    def pins(self, entry: Entry) -> list[str]:
        """Tell who keeps a file on disk.

        Parameters
        ----------
        entry : `Entry`
            The file.

        Returns
        -------
        names : `list` [`str`]
            The pins that have not run out.
        """
        with self._changed:
            now = time.monotonic()
            return [name for name, end in self._pins.get(entry.pnfsid, {}).items() if end > now]

    def _is_on_disk(self, entry: Entry) -> bool:
        return any(name in entry.locations for name in self._pools())

    def _begin(self, entry: Entry) -> str:
        """Start a restore; return why not, if so."""
        if complaint := self._complaint(entry):
            return complaint
        if not self._pools():
            return "No pool candidates available/configured/left for stage"
        with self._changed:
            fresh = entry.pnfsid not in self._restoring
            self._restoring.add(entry.pnfsid)
        if fresh:
            self._clockwork.after(self.restore_seconds, lambda: self._restored(entry))
        return ""

    def _restored(self, entry: Entry) -> None:
        pools = self._pools()
        is_stuck = self.is_stuck or self._struck(entry, "stuck") is not None
        if is_stuck or self._complaint(entry) or not pools:
            self._clockwork.after(max(self.restore_seconds, 0.05), lambda: self._restored(entry))
            return
        with self._changed:
            self._restoring.discard(entry.pnfsid)
            if not self._is_on_disk(entry) and not entry.is_removed:
                entry.locations = [*entry.locations, pools[hash(entry.pnfsid) % len(pools)]]
            self._changed.notify_all()
        self._purge_later(entry)

    def _purge_later(self, entry: Entry) -> None:
        if self.keep_seconds is not None:
            self._clockwork.after(self.keep_seconds, lambda: self._purge_unless_pinned(entry))

    def _purge_unless_pinned(self, entry: Entry) -> None:
        if self.pins(entry):
            self._purge_later(entry)
        elif entry.on_tape and not entry.is_removed:
            self.purge(entry)

    def _watch(self, change: Change) -> None:
        if change.kind == "written" and change.entry.retention_policy == "CUSTODIAL":
            self._clockwork.after(self.flush_seconds, lambda: self.flush(change.entry))
