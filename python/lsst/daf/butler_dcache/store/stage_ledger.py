"""The account of a staging campaign: its list in parts, the state of each file, and the journal of it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ..errors import DcacheError, UnsupportedError
from ..rest.tape import tape_path
from .stage_journal import RecordedPart, StageJournal
from .stage_progress import FileChange, FileState

__all__ = ("StageFile", "StageLedger", "StagePart")


@dataclass(slots=True)
class StageFile:
    """A file that is not on disk yet.

    Parameters
    ----------
    url : `str`
        Its URL.
    path : `str`
        Its path, as the tape API knows it.
    state : `FileState`
        How far it is.
    """

    url: str
    path: str
    state: FileState = FileState.WAITING


@dataclass(eq=False)
class StagePart:
    """Neighbours in the list, and the request that brings those which are not there yet.

    Parameters
    ----------
    start, stop : `int`
        Positions of the first file and behind the last one.
    pending : `dict` [ `int`, `StageFile` ]
        Those that are not there yet, by position.
    request : `str`
        The server's name for the request, empty if there is none.
    failures : `dict` [ `int`, `DcacheError` ]
        Why others will not come.
    wait_seconds : `float`
        The last wait between two questions.
    setbacks : `int`
        How often something went wrong since it last went well.
    losses : `int`
        How many of its requests the server has forgotten.
    """

    start: int
    stop: int
    pending: dict[int, StageFile]
    request: str = ""
    failures: dict[int, DcacheError] = field(default_factory=dict)
    wait_seconds: float = 0.0
    setbacks: int = 0
    losses: int = 0

    @property
    def urls(self) -> list[str]:
        """URLs of the files that are not there yet."""
        return [file.url for file in self.pending.values()]

    def pieces(self, most: int) -> Iterator[StagePart]:
        """Yield parts in its place that have at most so many pending files.

        Parameters
        ----------
        most : `int`
            How many.
        """
        positions = list(self.pending)
        bounds = [self.start, *positions[most::most], self.stop]
        for start, stop in itertools.pairwise(bounds):
            pending = {key: file for key, file in self.pending.items() if start <= key < stop}
            failures = {key: error for key, error in self.failures.items() if start <= key < stop}
            yield StagePart(start, stop, pending, failures=failures, losses=self.losses)


class StageLedger:
    """What has become of the files of a campaign.

    Parameters
    ----------
    files : `int`
        How many there are.
    journal : `StageJournal` or `None`
        Where the ends of parts are kept.
    on_change : `~collections.abc.Callable` or `None`
        Called with each `FileChange`.
    """

    def __init__(
        self, files: int, journal: StageJournal | None, on_change: Callable[[FileChange], object] | None
    ) -> None:
        self.counts: Counter[FileState] = Counter({FileState.WAITING: files})
        self._journal = journal
        self._on_change = on_change

    def parts(self, urls: Iterable[str], most: Callable[[], int]) -> Iterator[StagePart]:
        """Yield the parts of the list in which something is left to do; what has ended before is counted.

        Parameters
        ----------
        urls : `~collections.abc.Iterable` [ `str` ]
            The list, read no further than need be.
        most : `~collections.abc.Callable`
            How many files a request may have now.
        """
        rest = iter(urls)
        recorded = [] if self._journal is None else list(self._journal.parts)
        position = 0
        while True:
            known = recorded[0] if recorded and recorded[0].start == position else None
            if known is not None:
                count = known.stop - known.start
                del recorded[0]
            else:
                count = min(most(), recorded[0].start - position if recorded else most())
            chunk = list(itertools.islice(rest, count))
            if not chunk:
                return
            part = StagePart(position, position + len(chunk), {}, "" if known is None else known.request)
            position = part.stop
            for number, url in enumerate(chunk, part.start):
                self._take(part, number, url, known)
            if part.pending:
                yield part
            elif known is None:
                self.end(part)

    def move(
        self, file: StageFile, state: FileState, error: DcacheError | None = None, note: str = ""
    ) -> None:
        """Note how far a file is.

        Parameters
        ----------
        file : `StageFile`
            The file.
        state : `FileState`
            How far.
        error : `DcacheError`, optional
            Why it is not on disk.
        note : `str`, optional
            See `FileChange`.
        """
        if state is file.state and error is None:
            return
        self.counts[file.state] -= 1
        self.counts[state] += 1
        file.state = state
        if self._on_change is not None:
            self._on_change(FileChange(file.url, state, error, note))

    def finish(
        self,
        part: StagePart,
        position: int,
        state: FileState,
        error: DcacheError | None = None,
        note: str = "",
    ) -> None:
        """Note the end of a file of a part.

        Parameters
        ----------
        part : `StagePart`
            The part.
        position : `int`
            Which file.
        state : `FileState`
            How far it is.
        error : `DcacheError`, optional
            Why it is not on disk.
        note : `str`, optional
            See `FileChange`.
        """
        if error is not None:
            part.failures[position] = error
        self.move(part.pending.pop(position), state, error, note)

    def end(self, part: StagePart) -> None:
        """Note that nothing is left to do for a part.

        Parameters
        ----------
        part : `StagePart`
            The part.
        """
        if self._journal is not None:
            self._journal.ended(part.start, part.stop, part.failures)

    def _take(self, part: StagePart, position: int, url: str, known: RecordedPart | None) -> None:
        file = StageFile(url, "")
        if known is not None and not known.request:
            error = known.failures.get(position)
            self.move(file, FileState.STAGED if error is None else FileState.FAILED, error)
            return
        try:
            file.path = tape_path(url)
        except UnsupportedError as error:
            part.failures[position] = error
            self.move(file, FileState.FAILED, error)
            return
        part.pending[position] = file
        if known is not None:
            self.move(file, FileState.SUBMITTED)
