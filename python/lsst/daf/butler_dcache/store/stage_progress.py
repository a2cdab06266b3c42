"""How far files are on their way from tape to disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from ..errors import DcacheError

__all__ = ("FileChange", "FileState", "StageReport")


class FileState(Enum):
    """How far a file is."""

    WAITING = "waiting"
    """Not asked for yet."""
    SUBMITTED = "submitted"
    STARTED = "started"
    STAGED = "staged"
    """On disk."""
    FAILED = "failed"
    CANCELLED = "cancelled"
    OVERDUE = "overdue"
    """Not there when the deadline passed."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """What has become of a file.

    Parameters
    ----------
    url : `str`
        Its URL.
    state : `FileState`
        How far it is.
    error : `DcacheError` or `None`
        Why it is not on disk; only in a state that is final.
    note : `str`
        What is to be known of a file that is on disk although its request did not bring it.
    """

    url: str
    state: FileState
    error: DcacheError | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class StageReport:
    """How a campaign ended, or where it stands.

    Parameters
    ----------
    files : `int`
        All files.
    counts : `~collections.abc.Mapping` [ `FileState`, `int` ]
        Files by state.
    stopped : `DcacheError` or `None`
        What ended it before its files had come: a credential that is over, the deadline.
    """

    files: int
    counts: Mapping[FileState, int]
    stopped: DcacheError | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every file is on disk."""
        return self.counts.get(FileState.STAGED, 0) == self.files
