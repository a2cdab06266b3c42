"""Directories that the benchmarks borrow at real servers: marked as theirs, and cleaned by their mark.

A run works in a directory of its own, ``dcache-bench-`` and twelve random hexadecimal digits, and the first
file in it is the mark: who made it, on which machine, as which process, and when it was last seen alive. It
is the last one to go. What has no mark, or one that says something else than the name of its directory, is
not ours, whatever it is called.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import ResourceNotFoundError
from ..store.protocol import Store
from ..store.registry import store_for
from ..tree import walk_tree

__all__ = ("MARK", "Borrowed", "clean", "remove_below")

MARK = "dcache-bench.json"
"""Name of the file that says whose a directory is."""

_NAME = re.compile(r"dcache-bench-[0-9a-f]{12}")
_MADE_BY = "dcache-butler bench"
_FORGOTTEN_AFTER = datetime.timedelta(hours=1)
_AT_ONCE = 50
_STARTED = 21
"""Which field of ``/proc/<pid>/stat``, counted from 0, says when a process began (proc(5))."""

Pace = Callable[[int], None]
"""Waits until so many more requests may be sent."""


class Borrowed:
    """A directory of our own below a URL of somebody else's.

    Parameters
    ----------
    url : `str`
        The directory in which it is made, with trailing slash.
    """

    def __init__(self, url: str) -> None:
        self.name = f"dcache-bench-{uuid.uuid4().hex[:12]}"
        self.url = f"{url}{self.name}/"
        self.store = store_for(url)
        self._mark = f"{self.url}{MARK}"

    def sign(self) -> None:
        """Make the directory, or say once more that its owner lives (3 requests at most).

        Raises
        ------
        DcacheError
            If the server does not let us.
        """
        if not self.store.makes_parents:
            with contextlib.suppress(FileExistsError):
                self.store.make_directory(self.url)
        self.store.write(self._mark, json.dumps(_owner(self.name)).encode())

    def give_back(self, pace: Pace) -> None:
        """Remove it with all that it holds; the mark goes last.

        Parameters
        ----------
        pace : `~collections.abc.Callable`
            Waits until so many more requests may be sent.

        Raises
        ------
        DcacheError
            If something could not be removed; then the mark is still there, for `clean`.
        """
        _give_back(self.store, self.url, pace)


def remove_below(store: Store, url: str, pace: Pace, keep: str = "") -> None:
    """Remove what a directory holds, and the directory unless something in it is kept.

    Parameters
    ----------
    store : `~..store.protocol.Store`
        Where.
    url : `str`
        The directory, with trailing slash; one that is not there is not an error.
    pace : `~collections.abc.Callable`
        Waits until so many more requests may be sent.
    keep : `str`, optional
        URL of a file that stays.

    Raises
    ------
    DcacheError
        The first error of a file or directory that could not be removed.
    """
    directories = []
    for directory, _, files in walk_tree(store, url):
        directories.append(directory)
        urls = [entry.url for entry in files if entry.url != keep]
        for at in range(0, len(urls), _AT_ONCE):
            batch = urls[at : at + _AT_ONCE]
            pace(len(batch))
            for error in store.remove_many(batch).values():
                if error is not None and not isinstance(error, FileNotFoundError):
                    raise error
    for directory in reversed(directories[1:] if keep else directories):
        pace(1)
        with contextlib.suppress(ResourceNotFoundError):
            store.remove(directory)


def clean(url: str, tell: Callable[[str], None] = lambda text: None) -> list[str]:
    """Remove the directories that runs have left which were killed.

    Parameters
    ----------
    url : `str`
        The directory in which they were made: ``davs``, ``dav`` or ``s3``.
    tell : `~collections.abc.Callable`, optional
        Is told of each directory that looks like one of ours what becomes of it, and why.

    Returns
    -------
    removed : `list` [`str`]
        URLs of those that were removed.

    Raises
    ------
    DcacheError
        If the server cannot be asked, or something could not be removed.
    ResourceNotFoundError
        If there is no such directory.

    Notes
    -----
    Removed is what has a mark of ours, and an owner that is a process of this machine and has ended, or was
    last heard of more than an hour ago on another machine.
    """
    url = url if url.endswith("/") else f"{url}/"
    store = store_for(url)
    removed = []
    for entry in store.list_directory(url):
        if not (entry.is_directory and _NAME.fullmatch(entry.name)):
            continue
        directory = f"{url}{entry.name}/"
        reason = _why_kept(store, directory, entry.name)
        if reason:
            tell(f"{directory} stays: {reason}")
            continue
        _give_back(store, directory, lambda count: None)
        tell(f"{directory} is removed")
        removed.append(directory)
    return removed


def _give_back(store: Store, url: str, pace: Pace) -> None:
    mark = f"{url}{MARK}"
    remove_below(store, url, pace, keep=mark)
    pace(2)
    for gone in (mark, url):
        with contextlib.suppress(ResourceNotFoundError):
            store.remove(gone)


def _why_kept(store: Store, url: str, name: str) -> str:
    try:
        owner = json.loads(store.read(f"{url}{MARK}"))
    except ResourceNotFoundError:
        return "it has no mark of ours"
    except ValueError:
        return "its mark is not ours"
    try:
        if owner["made_by"] != _MADE_BY or owner["directory"] != name:
            return "its mark is not ours"
        seen = datetime.datetime.fromisoformat(owner["seen"])
        age = datetime.datetime.now(datetime.UTC) - seen
    except (KeyError, TypeError, ValueError):
        return "its mark is not ours"
    here = _owner(name)
    if owner.get("machine") == here["machine"]:
        return "its owner is at work" if _started(owner.get("process")) == owner.get("started") else ""
    return "" if age > _FORGOTTEN_AFTER else "its owner, on another machine, was at work within the last hour"


def _owner(name: str) -> Mapping[str, Any]:
    return {
        "made_by": _MADE_BY,
        "directory": name,
        "machine": [platform.node(), *_this_boot()],
        "process": os.getpid(),
        "started": _started(os.getpid()),
        "seen": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _this_boot() -> Iterator[str]:
    """What distinguishes this machine, since it was switched on, and this container from any other."""
    with contextlib.suppress(OSError):
        yield Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        yield os.readlink("/proc/self/ns/pid")


def _started(process: object) -> str | None:
    """When a process began; `None` if there is none."""
    if not isinstance(process, int) or process <= 0:
        return None
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[_STARTED - 2]
    except OSError:
        pass
    try:
        os.kill(process, 0)
    except PermissionError:
        return ""
    except OSError:
        return None
    return ""
