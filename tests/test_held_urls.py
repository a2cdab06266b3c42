"""How many URLs at pools a process keeps, and who may come in between."""

from __future__ import annotations

import gc
import threading

from lsst.daf.butler_dcache.webdav import held_urls


class Holder:
    def __init__(self) -> None:
        self.released = 0

    def release_if_idle(self) -> bool:
        self.released += 1
        return True


class Forgotten(Holder):
    """Is found by the garbage collector alone, and gives its URL back then."""

    def __init__(self) -> None:
        super().__init__()
        self.itself = self
        held_urls.hold(self, 1_000_000)

    def __del__(self) -> None:
        held_urls.let_go(self)


def test_longest_unused_is_given_back() -> None:
    first, second, third = holders = [Holder(), Holder(), Holder()]
    for one in (first, second, first, third):
        held_urls.hold(one, 2)
    assert [one.released for one in holders] == [0, 1, 0]
    for one in holders:
        held_urls.let_go(one)


def test_garbage_collector_may_run_at_any_moment() -> None:
    def work() -> None:
        thresholds = gc.get_threshold()
        gc.set_threshold(1, 1, 1)
        try:
            holders = [Holder() for _ in range(20)]
            for _ in range(300):
                Forgotten()
                for one in holders:
                    held_urls.hold(one, 8)
        finally:
            gc.set_threshold(*thresholds)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "a finalizer waits for its own thread"
