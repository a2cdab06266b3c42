"""What this process wrote itself a moment ago, so that asking for its size costs no request.

A Butler asks for the size of each file right after it wrote it. The answer is known, but only as long as
nobody changes the name; so an entry lives 60 s, is forgotten by every change that this process begins, and is
not made at all where two changes of one name overlapped, because then nobody here knows which of them came
last.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..model import FileInfo
from ..webdav.addresses import decoded_path, origin

__all__ = ("Change", "SizeCache")

LIFETIME_SECONDS = 60.0
_MOST_ENTRIES = 20_000
"""About 10 MB at most; the oldest go first."""


@dataclass(eq=False)
class Change:
    """A change of one name that is under way.

    Parameters
    ----------
    overlapped : `bool`
        Whether another change of the name ran at some time during this one.
    result : `FileInfo` or `None`
        What is there afterwards, where that is known.
    """

    overlapped: bool = False
    result: FileInfo | None = None

    def done(self, info: FileInfo) -> None:
        """Say what the name holds now.

        Parameters
        ----------
        info : `FileInfo`
            What was written and verified.
        """
        self.result = info


class SizeCache:
    """The files that this process wrote within the last minute.

    Parameters
    ----------
    clock : `~collections.abc.Callable`, optional
        Monotonic time in seconds; tests inject their own.
    name : `~collections.abc.Callable`, optional
        What all URLs of one file have in common, directories apart by ``/``; where a server may have several
        names (`join`) and encodes paths in its own way if not given.

    Notes
    -----
    Safe for threads. A forked child begins with an empty one: what its parent wrote is not its own knowledge.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, name: Callable[[str], str] | None = None
    ) -> None:
        self._clock = clock
        self._name = name
        # Which servers are names of one: kept in a forked child, for it is not knowledge of files.
        self._groups: dict[str, str] = {}
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, FileInfo]] = OrderedDict()
        self._changing: dict[str, list[Change]] = {}

    def _in_this_process(self) -> None:
        # The parent's lock may have been held when it forked.
        if self._pid != os.getpid():
            self._reset()

    def clear(self) -> None:
        """Forget all files."""
        self._reset()

    def join(self, urls: Iterable[str]) -> None:
        """Take servers for names of one, so that a change by one name is known by the others.

        Parameters
        ----------
        urls : `~collections.abc.Iterable` [ `str` ]
            Any URL of each, as ``frontend_base_urls`` of the site's file names them.
        """
        self._in_this_process()
        names = {origin(url) for url in urls}
        with self._lock:
            roots = {self._groups.get(name, name) for name in names}
            names |= {name for name, root in self._groups.items() if root in roots}
            self._groups |= dict.fromkeys(names, min(roots))

    def get(self, url: str) -> FileInfo | None:
        """Return what is known of a file, `None` if the server has to be asked.

        Parameters
        ----------
        url : `str`
            URL of a file.
        """
        self._in_this_process()
        key = self._key(url)
        with self._lock:
            known = self._known.get(key)
            if known is None:
                return None
            if self._clock() - known[0] > LIFETIME_SECONDS:
                del self._known[key]
                return None
        info = known[1]
        # It may have been written by another name of the server.
        is_as_written = info.url == url or (self._name is None and origin(info.url) == origin(url))
        return info if is_as_written else dataclasses.replace(info, url=url)

    @contextmanager
    def change(self, url: str, *, below: bool = False) -> Iterator[Change]:
        """Forget a name for as long as it is changed, and remember afterwards what `Change.done` says.

        Parameters
        ----------
        url : `str`
            URL of what is written, moved or removed.
        below : `bool`, optional
            Whether everything below it is forgotten as well.

        Yields
        ------
        change : `Change`
            To be told of the result; without one the name stays forgotten.
        """
        self._in_this_process()
        key, change = self._key(url), Change()
        with self._lock:
            others = self._changing.setdefault(key, [])
            for other in others:
                other.overlapped = change.overlapped = True
            others.append(change)
            self._forget(key, below)
        try:
            yield change
        finally:
            if self._pid == os.getpid():
                with self._lock:
                    others.remove(change)
                    if not others:
                        self._changing.pop(key, None)
                    self._forget(key, below)
                    if change.result is not None and not change.overlapped:
                        self._known[key] = (self._clock(), change.result)
                        while len(self._known) > _MOST_ENTRIES:
                            self._known.popitem(last=False)

    def _key(self, url: str) -> str:
        if self._name is not None:
            return self._name(url)
        name = origin(url)
        return self._groups.get(name, name) + decoded_path(url)

    def _forget(self, key: str, below: bool) -> None:
        self._known.pop(key, None)
        if below:
            prefix = key.rstrip("/") + "/"
            for name in [name for name in self._known if name.startswith(prefix)]:
                del self._known[name]
