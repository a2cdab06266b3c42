"""Several writers of one name at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from lsst.daf.butler_dcache.config.loading import settings_for
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.store.webdav_store import WebdavStore

WRITERS = 4

AnyStore = TypeVar("AnyStore", bound=Store)


def race(stores: Sequence[AnyStore], write: Callable[[AnyStore, int], object]) -> list[Exception | None]:
    """Let each writer begin at the same moment; return its error or `None`."""
    outcomes: list[Exception | None] = [AssertionError("did not run")] * len(stores)
    start = threading.Barrier(len(stores))

    def run(number: int) -> None:
        start.wait()
        try:
            write(stores[number], number)
            outcomes[number] = None
        except Exception as error:  # judged by the caller
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def assert_one_winner(
    store: Store, url: str, outcomes: list[Exception | None], content: Callable[[int], bytes]
) -> None:
    winners = [number for number, outcome in enumerate(outcomes) if outcome is None]
    assert len(winners) == 1, [str(outcome) for outcome in outcomes]
    losers = [outcome for outcome in outcomes if outcome is not None]
    assert all(isinstance(outcome, FileExistsError) for outcome in losers), outcomes
    assert store.read(url) == content(winners[0])


def writers(url: str) -> list[WebdavStore]:
    """As many clients as there would be processes, each with connections of its own."""
    return [WebdavStore(settings_for(url)) for _ in range(WRITERS)]
