"""How a new file ends: its ``close`` publishes it, and nothing else does.

Half a file must not be published, though whoever writes it may not say that it is half. Three ways lead to
``close`` without a program's wanting it:

- A ``with`` block is left by an error. Where the ``with`` is not ours (``with fsspec.open(...)``, pandas,
  `contextlib.closing`, `io.TextIOWrapper`), its ``__exit__`` knows of the error and calls ``close`` all the
  same, as it would for a local file, where half a file harms less. The interpreter shows it: the frame that
  is left stands at the instruction which calls ``__exit__`` with an error, whoever implements it.
- The garbage collector closes a file object that wraps ours. Those of `io` say so by ``_dealloc_warn``, as
  they do to their own files; a ``__del__`` in Python has a frame.
- The interpreter ends. What is still open then is discarded before anything is taken apart.

A ``close`` that the program itself calls publishes, in an ``except`` or ``finally`` clause as well.
"""

from __future__ import annotations

import atexit
import dis
import logging
import os
import sys
import warnings
import weakref
from types import FrameType, TracebackType

from .errors import DcacheError
from .model import FileInfo

__all__ = ("NewFile",)

_log = logging.getLogger(__name__)

_CALLS_EXIT_WITH_ERROR = dis.opmap["WITH_EXCEPT_START"]


class NewFile:
    """A file that is published when it is closed; to be mixed in before the class of the file.

    Parameters
    ----------
    url : `str`
        Its URL.
    published_by_close : `bool`, optional
        If `False`, `close` leaves the file as it is, for a later `commit` or `discard`.
    """

    info: FileInfo | None = None
    """What was published."""

    def __init__(self, url: str, *, published_by_close: bool = True) -> None:
        self._url = url
        self._published_by_close = published_by_close
        self._ends_around = _ends_under_way()
        self._is_settled = False
        if published_by_close:
            _open_files.add(self)

    @property
    def name(self) -> str:
        """URL of the file."""
        return self._url

    def commit(self) -> FileInfo:
        """Publish what was written and close.

        Returns
        -------
        info : `~lsst.daf.butler_dcache.model.FileInfo`
            The published file.
        """
        # Whatever comes of it: there is no second attempt by close() or by the garbage collector.
        self._is_settled = True
        self.info = self._publish()
        return self.info

    def discard(self) -> None:
        """Close without publishing; a second time, or after `commit`, it is no error."""
        if not self._is_settled:
            self._is_settled = True
            self._drop()

    def close(self) -> None:
        """Publish, if that was not done, and close."""
        if self._is_settled or not self._published_by_close:
            return
        if _ends_under_way() > self._ends_around:
            _log.warning("not published, for its block is left by an error: %s", self._url)
            self.discard()
        else:
            self.commit()

    def _publish(self) -> FileInfo:
        """Publish and close."""
        raise NotImplementedError

    def _drop(self) -> None:
        """Close without publishing."""
        raise NotImplementedError

    def _forget(self) -> None:
        """Close without publishing and without waiting for anything, from the garbage collector."""
        self._drop()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            self.discard()
        elif self._published_by_close and not self._is_settled:
            self.commit()

    def __del__(self) -> None:
        # io.IOBase closes what is forgotten, which would publish half a file.
        if not getattr(self, "_is_settled", True):
            self._is_settled = True
            self._forget()
            if self._published_by_close:
                warnings.warn(
                    f"forgotten without being closed, so not published: {self._url}",
                    ResourceWarning,
                    stacklevel=2,
                    source=self,
                )

    def _dealloc_warn(self, source: object) -> None:
        """Learn that a file of `io` above this one was forgotten, and that it flushes and closes now."""
        self.__del__()


_open_files: weakref.WeakSet[NewFile] = weakref.WeakSet()


def _ends_under_way() -> int:
    """Count the blocks that this thread is leaving because of an error, and the finalisers that it runs."""
    fails = sys.exception() is not None
    count = 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or (fails and code.co_code[frame.f_lasti] == _CALLS_EXIT_WITH_ERROR):
            count += 1
        frame = frame.f_back
    return count


def _discard_open_files() -> None:
    for file in list(_open_files):
        if not file._is_settled:
            _log.warning("not published, for the program ended before it was closed: %s", file._url)
            try:
                file.discard()
            except (DcacheError, OSError) as error:
                _log.warning("what is left of it could not be removed: %s", error)


atexit.register(_discard_open_files)
os.register_at_fork(after_in_child=_open_files.clear)  # they are the parent's
