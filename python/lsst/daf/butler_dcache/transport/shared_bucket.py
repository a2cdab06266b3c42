"""A `Bucket` that all processes of a user on a host share: one small file per server.

Each use of it is: lock, read, change, write, unlock. Whatever dies in between, the others go on:

- The lock is one of the kernel's that belong to a process (``fcntl``): it ends with the process, and a child
  does not inherit it. It is asked for, never waited for, since its owner may be stopped rather than dead.
- The state is read and written by one call each, no mapped memory: a process that is killed has written all
  of it or nothing, and a file that somebody truncates is an error and not a signal.
- A checksum over state and boot tells what is whole and of this boot; anything else is a new beginning.

Times are those of the monotonic clock, which on Linux and macOS is one for all processes of a host. Another
system's that is not shows times of the future, which are a new beginning as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import struct
import threading
import time
import weakref
import zlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from .bucket import Bucket

__all__ = ("SharedBucket",)

_log = logging.getLogger(__name__)

_STATE = struct.Struct("<qqq8d")
_SEAL = struct.Struct("<I")
_SIZE_BYTES = _STATE.size + _SEAL.size
_PATIENCE_SECONDS = 1.0
"""Its owner needs microseconds; on a crowded machine it may have to wait for a processor."""
_ALONE_SECONDS = 5.0
"""How long a process that did not get the lock does without."""
_LOOK_AGAIN_SECONDS = 5.0
"""Temporary directories are tidied."""


def _boot() -> bytes:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:  # elsewhere than on Linux: see above for what happens after a boot
        return b""


class SharedBucket:
    """The state of one server; a context that gives it to one process at a time, inside its ``mutex``.

    Parameters
    ----------
    name : `str`, optional
        Which server; the same in all processes. A bucket without a name belongs to this process.
    folders : `~collections.abc.Sequence` [`~pathlib.Path`], optional
        Where its file may lie; the first that can be used is.

    Attributes
    ----------
    mutex : `threading.Lock`
        Held by whoever uses the context. It is a ``with`` of its own because an interrupt may come before the
        first step of any ``__exit__`` but that of a lock.

    Notes
    -----
    There must be one for each server in a process: a lock of this kind ends when any descriptor of its file
    is closed. In a child after ``fork`` it goes on to be the same file.
    """

    def __init__(self, name: str = "", folders: Sequence[Path] = ()) -> None:
        # The layout is part of the name, so that releases that differ in it do not meet.
        self._file_name = f"pacing-1-{quote(name, safe='')}" if name else ""
        self._folders = folders
        self.mutex = threading.Lock()
        self._seed = zlib.crc32(_boot())
        self._descriptor = -1
        self._path: Path | None = None
        self._private = Bucket()
        self._bucket = self._private
        self._private_until = float("-inf") if name else float("inf")
        self._look_again = float("-inf")
        self.problem = "" if name else "it is nobody else's"
        _all.add(self)

    @property
    def path(self) -> Path | None:
        """The file; `None` if nothing is shared."""
        with self.mutex, self:
            return self._path if self._bucket is not self._private else None

    def __enter__(self) -> Bucket:
        try:
            now = time.monotonic()
            shared = now >= self._private_until and self._open(now) and self._lock(now)
            self._bucket = self._load() if shared else self._private
        except BaseException:  # an interrupt: others must not wait for us
            self._close()
            raise
        return self._bucket

    def __exit__(self, *_: object) -> None:
        if self._bucket is not self._private:
            self._store(self._bucket)

    # -- the file

    def _open(self, now: float) -> bool:
        """Have the file open, the one that others find under its name."""
        if now < self._look_again:
            return True
        if self._path is not None:
            try:
                if os.path.samestat(os.fstat(self._descriptor), os.lstat(self._path)):
                    self._look_again = now + _LOOK_AGAIN_SECONDS
                    return True
            except OSError as error:
                _log.debug("the pacing file is gone: %s", error)
            self._close()
        problems = []
        for folder in self._folders:
            try:
                self._descriptor = _open_private(folder, self._file_name)
            except OSError as error:
                problems.append(str(error))
            else:
                self._path = folder / self._file_name
                self._look_again = now + _LOOK_AGAIN_SECONDS
                return True
        self._do_without("; ".join(problems) or "there is no folder for it", float("inf"))
        return False

    def _lock(self, now: float) -> bool:
        pause = 0.00005
        while True:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                pass  # somebody else has it
            except OSError as error:
                self._do_without(str(error), float("inf"))
                return False
            else:
                return True
            if time.monotonic() - now > _PATIENCE_SECONDS:
                self._do_without("a process that holds the lock is stopped", now + _ALONE_SECONDS)
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.005)

    def _load(self) -> Bucket:
        data = os.pread(self._descriptor, _SIZE_BYTES, 0)
        if len(data) == _SIZE_BYTES:
            state = data[: _STATE.size]
            if _SEAL.pack(zlib.crc32(state, self._seed)) == data[_STATE.size :]:
                return Bucket(*_STATE.unpack(state))
        return Bucket()

    def _store(self, bucket: Bucket) -> None:
        state = _STATE.pack(
            bucket.epoch,
            bucket.kind,
            bucket.second,
            bucket.credit,
            bucket.tail,
            bucket.at,
            bucket.rate,
            bucket.last,
            bucket.alone_until,
            bucket.refused_at,
            bucket.urgent_at,
        )
        try:
            os.pwrite(self._descriptor, state + _SEAL.pack(zlib.crc32(state, self._seed)), 0)
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        except OSError as error:
            self._do_without(str(error), float("inf"))
            self._close()

    def _close(self) -> None:
        """Close the file, which ends the lock, too."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._path = -1, None
        self._look_again = float("-inf")

    def _do_without(self, problem: str, until: float) -> None:
        if problem != self.problem:
            _log.debug("requests of this process are paced apart from those of others: %s", problem)
        self.problem = problem
        self._private_until = until

    def _after_fork(self) -> None:
        self.mutex = threading.Lock()
        self._private = self._bucket = Bucket()


def _open_private(folder: Path, name: str) -> int:
    """Open a file of this user's, in a folder of this user's, and nobody else's.

    Parameters
    ----------
    folder : `~pathlib.Path`
        Made if it is missing; what it lies in is not.
    name : `str`
        Of the file.

    Returns
    -------
    descriptor : `int`
        Open for reading and writing, with room for the state.

    Raises
    ------
    OSError
        If it cannot be opened, or somebody else could have made or can change it.
    """
    with contextlib.suppress(FileExistsError):  # whose it is, is seen below
        folder.mkdir(0o700)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _require_own(os.fstat(directory), str(folder))
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        found = os.fstat(descriptor)
        _require_own(found, f"{folder / name}")
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise PermissionError(f"{folder / name} is not a file of one name")
        if found.st_size < _SIZE_BYTES:
            os.pwrite(
                descriptor, bytes(_SIZE_BYTES - found.st_size), found.st_size
            )  # a full disk says so now
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_own(found: os.stat_result, what: str) -> None:
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{what} is not this user's alone")


_all: weakref.WeakSet[SharedBucket] = weakref.WeakSet()


def _after_fork() -> None:
    for bucket in list(_all):
        bucket._after_fork()


os.register_at_fork(after_in_child=_after_fork)
