"""What was seen of where files are: directories whose files go to tape, and files that are on disk, too."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..model import FileInfo, Locality
from .addresses import decoded_path

__all__ = ("Localities",)

_LIFETIME_SECONDS = 60.0
_MOST = 1000
_OF_TAPE = frozenset({Locality.NEARLINE, Locality.ONLINE_AND_NEARLINE})


class Localities:
    """The memory of one process, bounded in size.

    Parameters
    ----------
    clock : `~collections.abc.Callable`, optional
        Seconds that only grow; tests move it.

    Notes
    -----
    Thread-safe: each step is one operation on a dictionary. Nothing is stored for files and directories that
    have nothing to do with tape.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._of_tape: dict[str, float] = {}
        self._on_disk: dict[str, float] = {}

    def noted(self, entry: FileInfo) -> FileInfo:
        """Take what a server says of a name, and return it.

        Parameters
        ----------
        entry : `FileInfo`
            From a listing, or a look at the name alone.
        """
        if entry.locality in _OF_TAPE:
            path = decoded_path(entry.url)
            self._put(self._of_tape, _directory(path))
            if entry.locality is Locality.ONLINE_AND_NEARLINE:
                self._put(self._on_disk, path)
        return entry

    def note_tape(self, url: str) -> None:
        """Remember that the files of a directory go to tape.

        Parameters
        ----------
        url : `str`
            One of them.
        """
        self._put(self._of_tape, _directory(decoded_path(url)))

    def note_on_disk(self, url: str) -> None:
        """Remember for a minute that a file is on disk, wherever else it is.

        Parameters
        ----------
        url : `str`
            The file.
        """
        self._put(self._on_disk, decoded_path(url))

    def is_tape(self, url: str) -> bool:
        """Tell whether a file's directory is one whose files go to tape.

        Parameters
        ----------
        url : `str`
            The file.
        """
        return _directory(decoded_path(url)) in self._of_tape

    def is_on_disk(self, url: str) -> bool:
        """Tell whether a file was on disk within the last minute.

        Parameters
        ----------
        url : `str`
            The file.
        """
        seen = self._on_disk.get(decoded_path(url))
        return seen is not None and self._clock() - seen < _LIFETIME_SECONDS

    def _put(self, memory: dict[str, float], key: str) -> None:
        memory.pop(key, None)
        memory[key] = self._clock()
        while len(memory) > _MOST:
            try:
                memory.pop(next(iter(memory)), None)
            except (StopIteration, RuntimeError):
                return  # another thread was faster


def _directory(path: str) -> str:
    return path.rpartition("/")[0]
