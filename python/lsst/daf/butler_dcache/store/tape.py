"""What a site with tape can be asked: where files are, and to bring them to disk and keep them there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence

from ..errors import (
    DcacheError,
    NearlineError,
    ResourceIsDirectoryError,
    ResourceNotFoundError,
    UnsupportedError,
)
from ..model import ON_DISK, Locality
from ..rest.bulk import BulkRequests
from ..rest.tape import TapeApi
from ..transport.deadline import Deadline
from .stage_journal import StageJournal
from .stage_progress import FileChange, FileState
from .staging import StageCampaign

__all__ = ("Tape",)


class Tape:
    """The tape of an endpoint.

    Parameters
    ----------
    api : `TapeApi`
        Its tape API.
    bulk : `BulkRequests` or `None`
        What pins; only dCache has it.
    request_seconds : `float`
        Longest time for a single request.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self, api: TapeApi, bulk: BulkRequests | None, request_seconds: float) -> None:
        self.api = api
        self._bulk = bulk
        self._request_seconds = request_seconds

    def localities(self, urls: Iterable[str]) -> dict[str, Locality | DcacheError]:
        """Ask where files are (1 request per thousand).

        Parameters
        ----------
        urls : `~collections.abc.Iterable` [ `str` ]
            URLs of the endpoint.

        Returns
        -------
        localities : `dict`
            For each URL the locality, or why there is none: `ResourceNotFoundError` where the server says so.
        """
        return self.api.archive_info(list(urls), deadline=Deadline(self._request_seconds))

    def campaign(
        self,
        urls: Iterable[str],
        files: int,
        *,
        lifetime_seconds: int,
        deadline: Deadline,
        journal: StageJournal | None = None,
        on_change: Callable[[FileChange], object] | None = None,
        on_setback: Callable[[DcacheError], object] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> StageCampaign:
        """Prepare to bring many files to disk; see `StageCampaign`.

        Parameters
        ----------
        urls : `~collections.abc.Iterable` [ `str` ]
            URLs of the endpoint.
        files : `int`
            How many they are.
        lifetime_seconds : `int`
            How long each stays on disk once it is there.
        deadline : `Deadline`
            When to stop waiting.
        journal : `StageJournal`, optional
            What makes it outlive this process.
        on_change : `~collections.abc.Callable`, optional
            Called with a `FileChange` whenever a file comes further.
        on_setback : `~collections.abc.Callable`, optional
            Called with what is waited out.
        sleep : `~collections.abc.Callable`, optional
            Waits some seconds between two questions.
        """
        return StageCampaign(
            self.api,
            urls,
            files,
            lifetime_seconds=lifetime_seconds,
            deadline=deadline,
            request_seconds=self._request_seconds,
            journal=journal,
            on_change=on_change,
            on_setback=on_setback,
            sleep=sleep,
        )

    def stage_and_wait(
        self,
        urls: Sequence[str],
        *,
        lifetime_seconds: int,
        deadline: Deadline,
        on_change: Callable[[FileChange], object] | None = None,
    ) -> dict[str, DcacheError | None]:
        """Bring files to disk and wait for them (1 request per 500, and polls).

        Parameters
        ----------
        urls : `~collections.abc.Sequence` [ `str` ]
            URLs of the endpoint.
        lifetime_seconds : `int`
            How long each stays on disk once it is there.
        deadline : `Deadline`
            When to stop waiting. Their recall goes on.
        on_change : `~collections.abc.Callable`, optional
            Called with a `FileChange` whenever a file comes further.

        Returns
        -------
        errors : `dict` [ `str`, `DcacheError` or `None` ]
            For each URL why it is not on disk, `None` where it is.
        """
        errors: dict[str, DcacheError | None] = {}

        def note(change: FileChange) -> None:
            if change.state is FileState.STAGED or change.error is not None:
                errors[change.url] = change.error
            if on_change is not None:
                on_change(change)

        wanted = list(dict.fromkeys(urls))
        report = self.campaign(
            wanted, len(wanted), lifetime_seconds=lifetime_seconds, deadline=deadline, on_change=note
        ).run()
        return {url: errors.get(url, report.stopped) for url in wanted}

    def pin(self, urls: Sequence[str], *, lifetime_seconds: int, name: str) -> dict[str, DcacheError | None]:
        """Keep files on disk that are there (2 requests per 500, 1 per thousand, and polls).

        Parameters
        ----------
        urls : `~collections.abc.Sequence` [ `str` ]
            URLs of the endpoint.
        lifetime_seconds : `int`
            For how long.
        name : `str`
            Name of the pins, by which `unpin` finds them.

        Returns
        -------
        errors : `dict` [ `str`, `DcacheError` or `None` ]
            For each URL why it is not pinned, `None` where it is; `NearlineError` for one that has to be
            staged first, which a pin would do without telling how far it is.

        Raises
        ------
        UnsupportedError
            Raised if the site is no dCache.
        """
        bulk = self._pins()
        errors: dict[str, DcacheError | None] = {}
        there: list[str] = []
        for url, where in self.localities(urls).items():
            if isinstance(where, DcacheError):
                errors[url] = where
            elif where in ON_DISK:
                there.append(url)
            elif where is Locality.NONE:
                errors[url] = ResourceIsDirectoryError("a directory is not pinned", operation="pin", url=url)
            else:
                errors[url] = NearlineError(
                    f"the file is {where.value}, so that there is nothing to keep on disk",
                    locality=where.value,
                    operation="pin",
                    url=url,
                    hint="Stage it instead: dcache-butler stage.",
                )
        arguments = {"lifetime": str(lifetime_seconds), "lifetimeUnit": "SECONDS", "id": name}
        return errors | bulk.run("PIN", there, arguments=arguments, deadline=Deadline(self._request_seconds))

    def unpin(self, urls: Sequence[str], *, name: str) -> dict[str, DcacheError | None]:
        """Give up pins of `pin` (2 requests per 500, and polls); where there is none, that is no error.

        Parameters
        ----------
        urls : `~collections.abc.Sequence` [ `str` ]
            URLs of the endpoint.
        name : `str`
            Name of the pins.

        Returns
        -------
        errors : `dict` [ `str`, `DcacheError` or `None` ]
            For each URL why its pin may still be there.

        Raises
        ------
        UnsupportedError
            Raised if the site is no dCache.
        """
        deadline = Deadline(self._request_seconds)
        return self._pins().run("UNPIN", urls, arguments={"id": name}, deadline=deadline)

    def release(self, request: str, urls: Sequence[str], *, forget: bool = False) -> None:
        """Give up what a stage request keeps on disk (1 request per 500).

        Parameters
        ----------
        request : `str`
            The server's name for it. One that the server has forgotten holds nothing any more.
        urls : `~collections.abc.Sequence` [ `str` ]
            Files of the request.
        forget : `bool`, optional
            Whether these are all its files, and the server is to forget it.
        """
        deadline = Deadline(self._request_seconds)
        with contextlib.suppress(ResourceNotFoundError):
            self.api.release(request, urls, deadline=deadline)
        if forget:
            self.api.delete(request, deadline=deadline)

    def _pins(self) -> BulkRequests:
        if self._bulk is None:
            raise UnsupportedError(
                "only the frontend of a dCache pins files, and none is known here",
                operation="pin",
                hint="A stage request keeps its files on disk, too.",
            )
        return self._bulk
