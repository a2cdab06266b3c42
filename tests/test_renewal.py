"""Renewal: ahead of time, by one thread, and never in a loop."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from lsst.daf.butler_dcache.auth.credential import Credential, RefusedCredentials
from lsst.daf.butler_dcache.auth.renewal import RenewedSource
from lsst.daf.butler_dcache.errors import CredentialError
from lsst.daf.butler_dcache.redaction import Secret

DOOR = ("https", "door", 1)
PATIENCE = 20.0


class Issuer:
    """Hands out tokens by number, when it is let, or fails."""

    def __init__(self, life: float | None = 100.0) -> None:
        self.now = 1_000_000.0
        self.ticks = 0.0
        self.life = life
        self.count = 0
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Semaphore(0)
        self.table = RefusedCredentials()
        self.same = False
        self.source = RenewedSource(
            self,
            PATIENCE,
            "the issuer",
            clock=lambda: self.now,
            monotonic=lambda: self.ticks,
            table=self.table,
        )

    def __call__(self) -> Credential:
        self.count += 1
        number = self.count
        self.asked.release()
        assert self.gate.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        end = None if self.life is None else datetime.fromtimestamp(self.now + self.life, UTC)
        return Credential("bearer", Secret("same" if self.same else f"t{number}"), end, "issuer")

    def current(self) -> str:
        return (self.source.current().header() or "").removeprefix("Bearer ")

    def wait_until_asked(self) -> None:
        assert self.asked.acquire(timeout=PATIENCE)

    def wait_until_done(self) -> None:
        """Until no renewal is under way any more."""
        with self.source._changed:
            assert self.source._changed.wait_for(lambda: self.source._attempt is None, PATIENCE)


def together(count: int, work: Callable[[], str]) -> list[str]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: work(), range(count)))


def test_the_first_is_had_once_and_all_wait_for_it() -> None:
    issuer = Issuer()
    issuer.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(issuer.current) for _ in range(8)]
        issuer.wait_until_asked()
        issuer.gate.set()
        assert {result.result() for result in results} == {"t1"}
    assert issuer.count == 1


def test_it_is_renewed_ahead_of_time_while_others_go_on() -> None:
    issuer = Issuer()
    assert issuer.current() == "t1"
    issuer.wait_until_asked()
    issuer.now += 65  # 35 of 100 s are left
    assert together(4, issuer.current) == ["t1"] * 4
    assert issuer.count == 1
    issuer.now += 11
    issuer.gate.clear()
    assert together(8, issuer.current) == ["t1"] * 8, "nobody waits while the old one is good"
    issuer.wait_until_asked()
    assert issuer.count == 2
    issuer.gate.set()
    issuer.wait_until_done()
    assert issuer.current() == "t2"


def test_callers_wait_only_when_none_is_valid() -> None:
    issuer = Issuer()
    issuer.current()
    issuer.wait_until_asked()
    issuer.now += 101
    issuer.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(issuer.current) for _ in range(4)]
        issuer.wait_until_asked()
        assert not any(result.done() for result in results)
        issuer.gate.set()
        assert {result.result() for result in results} == {"t2"}


def test_a_failure_is_said_once_and_tried_again_ever_later(caplog: pytest.LogCaptureFixture) -> None:
    issuer = Issuer()
    assert issuer.current() == "t1"
    issuer.now += 80
    issuer.error = CredentialError("the issuer is down", hint="wait")
    attempts = []
    with caplog.at_level(logging.WARNING):
        for _ in range(200):
            before = issuer.count
            assert issuer.current() == "t1"
            issuer.wait_until_done()
            if issuer.count > before:
                attempts.append(issuer.ticks)
            issuer.ticks += 0.25
    pauses = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert 4 <= len(attempts) <= 9
    assert pauses == sorted(pauses)
    assert [record.getMessage() for record in caplog.records if "down" in record.getMessage()] != []
    assert len(caplog.records) == 1
    issuer.error = None
    issuer.ticks += 60
    issuer.current()
    issuer.wait_until_done()
    assert issuer.current() == f"t{issuer.count}"


def test_nothing_valid_and_an_issuer_that_is_down() -> None:
    """Each caller gets the reason, in an error of its own, and the issuer is not asked by each of them."""
    issuer = Issuer()
    issuer.error = CredentialError("the issuer is down", hint="wait")
    errors = []
    for _ in range(10):
        with pytest.raises(CredentialError, match="the issuer is down") as caught:
            issuer.current()
        errors.append(caught.value)
    assert issuer.count == 1
    assert len(set(map(id, errors))) == 10
    assert all(error.hint == "wait" for error in errors)
    issuer.error = None
    issuer.ticks += 1.1
    assert issuer.current() == "t2"


def test_an_unexpected_error_shows_nothing() -> None:
    issuer = Issuer()
    issuer.error = KeyError("SECRETWORD")
    with pytest.raises(CredentialError, match="KeyError") as caught:
        issuer.current()
    assert "SECRETWORD" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_token_that_is_over_when_it_comes() -> None:
    issuer = Issuer(life=-1)
    with pytest.raises(CredentialError, match=r"has expired already.*compare the clocks"):
        issuer.current()
    assert issuer.count == 1


def test_an_issuer_that_never_answers() -> None:
    """Callers give up, and so, later, does the renewal: another one is begun."""
    issuer = Issuer()
    issuer.source._timeout = 0.05
    issuer.gate.clear()
    with pytest.raises(CredentialError, match="no new credential after"):
        issuer.current()
    assert issuer.count == 1
    issuer.ticks += 1
    with pytest.raises(CredentialError, match="no answer in time"):
        issuer.current()
    issuer.ticks += 2
    with pytest.raises(CredentialError, match="no new credential after"):
        issuer.current()
    assert issuer.count == 2
    issuer.gate.set()
    issuer.source._timeout = PATIENCE
    assert issuer.current() == "t2", "what comes too late is not used"


def test_a_refusal_is_answered_by_one_new_credential() -> None:
    issuer = Issuer()
    assert issuer.current() == "t1"
    issuer.table.remember(DOOR, issuer.source.current(), "revoked")
    assert together(8, issuer.current) == ["t2"] * 8
    issuer.table.remember(DOOR, issuer.source.current(), "revoked")
    assert together(8, issuer.current) == ["t2"] * 8, "the door would block this host"
    assert issuer.count == 2
    issuer.ticks += 301
    assert issuer.current() == "t3"


def test_a_refusal_and_an_issuer_that_gives_the_same_again() -> None:
    issuer = Issuer()
    issuer.same = True
    for _ in range(3):
        assert issuer.current() == "same"
        issuer.table.remember(DOOR, issuer.source.current(), "revoked")
    assert issuer.count == 2


def test_one_without_an_end_is_kept() -> None:
    issuer = Issuer(life=None)
    for _ in range(5):
        assert issuer.current() == "t1"
        issuer.now += 1e6
    assert issuer.count == 1


def test_any_number_of_renewals() -> None:
    """Two hours of work on tokens of ten seconds: never one that is over, and no wait after the first."""
    issuer = Issuer(life=10)
    for _ in range(7200):
        assert issuer.source.current().expires > datetime.fromtimestamp(issuer.now, UTC)  # type: ignore
        issuer.now += 1
        issuer.ticks += 1
        issuer.wait_until_done()
    assert 7200 / 10 < issuer.count < 7200 / 5


def test_a_child_process_renews_by_itself() -> None:
    """Even if its parent was about to when it forked."""
    issuer = Issuer()
    issuer.current()
    issuer.now += 80
    issuer.gate.clear()
    assert issuer.current() == "t1"
    issuer.wait_until_asked()
    child = os.fork()
    if child == 0:
        issuer.gate = threading.Event()
        issuer.gate.set()
        issuer.now += 30
        os._exit(0 if issuer.current() == "t3" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    issuer.gate.set()
    issuer.wait_until_done()
    assert issuer.current() == "t2"
