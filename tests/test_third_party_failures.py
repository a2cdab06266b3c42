"""What becomes of copies between servers when a server fails, lies, falls silent or refuses."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.auth.macaroon import Activity, Macaroon
from lsst.daf.butler_dcache.config import loading
from lsst.daf.butler_dcache.embedded import EmbeddedDcache, Fault
from lsst.daf.butler_dcache.embedded import third_party as embedded
from lsst.daf.butler_dcache.store import third_party as decisions
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.webdav import third_party
from request_counter import counted
from two_dcaches import ADLER32, DATA, Sites, Told, copy, name, names, read, sites, two

__all__ = ("sites", "two")  # fixtures

OTHER = b"other bytes"


@pytest.fixture
def source(sites: Sites) -> str:
    return f"{sites.near.url}source"


@pytest.fixture
def place(sites: Sites) -> str:
    """A new directory at the far side, below its own."""
    directory = name()
    sites.far.place(f"{directory}/old", OTHER)
    return directory


@pytest.fixture
def target(sites: Sites, place: str) -> Iterator[str]:
    """A name at the far side that holds something; whatever happens, nothing else is left beside it."""
    yield f"{sites.far.url}{place}/old"
    sites.far.faults.clear()
    eventually(lambda: names(sites.far, f"{place}/") in (["old"], []))


def eventually(condition: Any) -> None:
    for _ in range(300):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")


class TestVerdict:
    """Ours, whatever the servers say."""

    def test_success_without_a_verdict(self, sites: Sites, source: str, target: str) -> None:
        cut = sites.far.faults.add(Fault("cut_download", server="door", method="COPY"))
        with counted(sites.far) as far:
            copy(source, target)
        assert cut.hits == 1
        assert far.methods().count("door COPY") == 1
        assert read(target) == DATA

    def test_a_lost_answer_before_anything_was_copied(self, sites: Sites, source: str, target: str) -> None:
        lost = sites.far.faults.add(Fault("lose_answer", server="door", method="COPY"))
        with counted(sites.far) as far:
            copy(source, target)
        assert lost.hits == 1
        # The first is looked at and removed, the second has another name.
        copies = [record["path"] for record in far.records if record["method"] == "COPY"]
        assert len(set(copies)) == 2
        assert read(target) == DATA

    def test_a_door_that_restarts(self, sites: Sites, source: str, target: str) -> None:
        sites.far.faults.add(Fault("restart", server="door", method="COPY", has_effect=True))
        copy(source, target)
        assert read(target) == DATA

    def test_success_with_other_bytes(
        self, sites: Sites, source: str, target: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The source tells no checksum with its GET, so that dCache compares nothing."""
        entry = sites.near.site.namespace.find("/data/source")
        assert entry is not None
        honest = entry.checksums.copy()
        told: list[str] = []
        offered = {"adler32": "00000001"}
        store = store_for(source)
        offer = type(store).offer

        def lying(self: Any, url: str, *options: Any) -> Any:
            entry.checksums = dict(offered)
            info = offer(self, url, *options)
            entry.checksums = {}
            return info

        monkeypatch.setattr(type(store), "offer", lying)
        with counted(sites.far) as far:
            copy(source, target, on_way=told.append)
        entry.checksums = honest
        # Twice by the servers, both times refused by us; what this process reads is what is there.
        assert far.methods().count("door COPY") == 2
        assert told == ["server", "client"]
        assert read(target) == DATA

    def test_a_source_without_checksum(
        self, sites: Sites, target: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        sites.near.place("plain", DATA)
        entry = sites.near.site.namespace.find("/data/plain")
        assert entry is not None
        entry.checksums = {}
        with caplog.at_level(logging.INFO), counted(sites.far) as far:
            info = copy(f"{sites.near.url}plain", target)
        assert far.methods() == ["door COPY", "door PROPFIND", "door MOVE"]
        assert dict(info.checksums) == {}
        assert "unverified" in caplog.text
        # What the server knows is told to whoever asks it.
        assert store_for(target).info(target).checksums == {"adler32": ADLER32}
        assert read(target) == DATA

    def test_a_source_that_was_replaced_since_somebody_looked(self, sites: Sites, target: str) -> None:
        source = f"{sites.near.url}{name()}"
        store = store_for(source)
        store.write(source, OTHER * 3)
        (known,) = store.info_many([source], fresh=True).values()
        with counted(sites.near) as near:
            copy(source, target, known=known)
        assert near.methods() == ["door GET", "pool GET"]
        assert read(target) == OTHER * 3
        store.write(source, DATA)
        with counted(sites.near) as near, counted(sites.far) as far:
            info = copy(source, target, known=known)
        assert far.methods() == ["door COPY", "door PROPFIND", "door MOVE"]
        assert near.methods() == ["door GET", "pool GET", "door PROPFIND"]
        assert (info.size, dict(info.checksums)) == (len(DATA), {"adler32": ADLER32})
        assert read(target) == DATA
        store.remove(source)
        with pytest.raises(errors.ResourceNotFoundError):
            copy(source, target, known=known)
        assert read(target) == DATA

    def test_a_source_that_has_its_checksum_only_for_head(
        self, sites: Sites, source: str, target: str
    ) -> None:
        """dCache fails such a copy, if it is told to require a verification."""
        silent = sites.near.faults.add(Fault("no_digest", server="pool", method="GET", times=None))
        with counted(sites.far) as far:
            copy(source, target)
        assert silent.hits == 1
        assert far.methods() == ["door COPY", "door PROPFIND", "door MOVE"]
        assert read(target) == DATA


class TestFarSide:
    """The other server is ill."""

    def test_sends_half_and_stops(self, sites: Sites, source: str, target: str) -> None:
        sites.near.faults.add(Fault("cut_download", server="pool", at_byte=1000))
        with counted(sites.far) as far:
            copy(source, target)
        assert far.methods().count("door COPY") == 2
        assert read(target) == DATA

    def test_never_sends_all(self, sites: Sites, source: str, target: str) -> None:
        sites.near.faults.add(Fault("cut_download", server="pool", at_byte=1000, times=None))
        with counted(sites.far) as far, counted(sites.near) as near:
            copy(source, target)
        assert far.methods().count("door COPY") == 2
        assert near.methods()[-1] == "door COPY", "then it pushes"
        assert read(target) == DATA

    def test_falls_silent(
        self, sites: Sites, source: str, target: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sites.configure(monkeypatch, far={"stall_seconds": 0.3})
        sites.near.faults.add(Fault("stall_download", server="pool", at_byte=1000, seconds=20, times=None))
        told = Told()
        with counted(sites.near) as near:
            copy(source, target, progress=told)
        assert near.methods()[-1] == "door COPY", "it pushes"
        with counted(sites.near) as near:
            copy(source, target)
        assert near.methods() == ["door PROPFIND", "door COPY"], "the other way is not tried again"
        assert read(target) == DATA

    def test_refuses(self, sites: Sites, source: str, target: str) -> None:
        """The macaroon is not good there from where the pool comes."""
        sites.near.faults.add(Fault("status", server="door", method="GET", status=401, times=None))
        with counted(sites.near) as near:
            copy(source, target)
        assert near.methods() == ["door PROPFIND", "door GET", "door COPY"]
        assert read(target) == DATA

    def test_is_not_known_by_name(
        self, sites: Sites, source: str, target: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """400, and an entry without size stays."""
        monkeypatch.setattr(embedded, "_resolves", lambda url: not url.startswith(sites.near.door_urls[0]))
        with counted(sites.far) as far:
            copy(source, target)
        assert far.methods()[:2] == ["door COPY", "door DELETE"]
        assert read(target) == DATA

    def test_is_broken(self, sites: Sites, target: str) -> None:
        sites.near.place("ruin", DATA)
        entry = sites.near.site.namespace.find("/data/ruin")
        assert entry is not None
        entry.broken = True
        with pytest.raises(errors.FileBrokenError):
            copy(f"{sites.near.url}ruin", target)
        assert read(target) == OTHER

    def test_is_missing(self, sites: Sites, target: str) -> None:
        with counted(sites.far) as far, pytest.raises(errors.ResourceNotFoundError):
            copy(f"{sites.near.url}nothing", target)
        assert far.methods() == []
        assert read(target) == OTHER

    def test_is_down(self, sites: Sites, source: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
        sites.configure(monkeypatch, near={"total_timeout_seconds": 0.5})
        sites.near._doors[0].stop()
        try:
            with (
                counted(sites.far) as far,
                pytest.raises((errors.DoorUnavailableError, errors.DeadlineError)),
            ):
                copy(source, target)
            assert far.methods() == []
        finally:
            sites.near._doors[0].start()
        assert read(target) == OTHER


class TestTarget:
    """Our own side refuses, or holds something."""

    def test_a_missing_right_is_no_refused_credential(
        self, sites: Sites, source: str, target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        token = Path(sites.far.environment["BEARER_TOKEN_FILE"]).read_text()
        weak = tmp_path / "token"
        weak.touch(0o600)
        weak.write_text(Macaroon.parse(token).narrow(activities=[Activity.DOWNLOAD, Activity.LIST]))
        sites.configure(monkeypatch)
        text = sites.file.read_text().replace(sites.far.environment["BEARER_TOKEN_FILE"], str(weak))
        sites.file.write_text(text)
        loading.reset()
        with counted(sites.far) as far, pytest.raises(errors.AccessDeniedError) as caught:
            copy(source, target)
        assert type(caught.value) is errors.AccessDeniedError
        assert caught.value.status == 401
        assert far.methods() == ["door COPY"], "neither again nor otherwise nor a removal"
        assert read(target) == OTHER

    def test_an_existing_file(self, sites: Sites, source: str, target: str) -> None:
        with pytest.raises(errors.ResourceExistsError):
            copy(source, target, overwrite=False)
        assert read(target) == OTHER
        copy(source, target, overwrite=True)
        assert read(target) == DATA

    def test_a_large_file_is_not_copied_in_vain(
        self, sites: Sites, source: str, target: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decisions, "_LOOK_FIRST_BYTES", 1000)
        with counted(sites.far) as far, pytest.raises(errors.ResourceExistsError):
            copy(source, target, overwrite=False)
        assert far.methods() == ["door PROPFIND"]

    @pytest.mark.parametrize("third_party", ["pull", "push"])
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_one_of_several(
        self, sites: Sites, place: str, monkeypatch: pytest.MonkeyPatch, overwrite: bool, third_party: str
    ) -> None:
        sites.configure(monkeypatch, near={"third_party": third_party}, far={"third_party": third_party})
        new = f"{sites.far.url}{place}/new"
        ends: list[object] = []
        contents = [os.urandom(100_000) for _ in range(4)]
        for number, content in enumerate(contents):
            sites.near.place(f"one{number}", content)

        def run(number: int) -> None:
            try:
                info = copy(f"{sites.near.url}one{number}", new, overwrite=overwrite)
                ends.append(info.checksums["adler32"])
            except errors.ResourceExistsError as error:
                ends.append(type(error))

        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ends) == 4
        assert ends.count(errors.ResourceExistsError) == (0 if overwrite else 3)
        there = read(new)
        assert there in contents
        assert f"{zlib.adler32(there):08x}" in ends
        assert names(sites.far, f"{place}/") == ["new", "old"]

    @pytest.mark.parametrize(
        ("status", "reason"), [(507, "quota-not-exceeded"), (500, "All pools full"), (507, "no space left")]
    )
    def test_no_space(self, sites: Sites, source: str, target: str, status: int, reason: str) -> None:
        full = Fault("status", server="door", method="COPY", status=status, reason=reason, times=None)
        sites.far.faults.add(full)
        with pytest.raises(errors.StoreFullError):
            copy(source, target)
        assert full.hits == 1
        assert read(target) == OTHER

    def test_a_server_without_such_copies(
        self, sites: Sites, source: str, target: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        for site in (sites.near, sites.far):
            site.faults.add(Fault("status", server="door", method="COPY", status=501, times=None))
        told: list[str] = []
        with caplog.at_level(logging.WARNING):
            copy(source, target, on_way=told.append)
            with counted(sites.far) as far:
                copy(source, target, on_way=told.append)
        assert told == ["server", "client", "client"]
        assert "door COPY" not in far.methods()
        assert caplog.text.count("pass through this process") == 1
        assert "501" in caplog.text
        assert read(target) == DATA

    def test_a_publication_of_which_nobody_knows_is_not_made_again(
        self, sites: Sites, source: str, place: str
    ) -> None:
        new = f"{sites.far.url}{place}/new"
        sites.far.faults.add(Fault("lose_answer", server="door", method="MOVE"))
        sites.far.faults.add(
            Fault("status", server="door", method="PROPFIND", after=1, status=503, times=None)
        )
        with counted(sites.far) as far, pytest.raises(errors.DcacheError):
            copy(source, new, overwrite=False, deadline=Deadline(3))
        assert far.methods().count("door COPY") == 1


class TestEnd:
    """Who gives up."""

    def test_a_callback_that_raises_cancels(self, sites: Sites, source: str, target: str) -> None:
        class Cancelled(Exception):
            pass

        class Cancelling(Told):
            def absolute_update(self, value: int) -> None:
                raise Cancelled

        sites.near.faults.add(Fault("stall_download", server="pool", at_byte=1000, seconds=20))
        with pytest.raises(Cancelled):
            copy(source, target, progress=Cancelling())
        sites.near.faults.clear()
        assert read(target) == OTHER

    @pytest.mark.parametrize(
        "silent", [Fault("stall", seconds=1000), Fault("stall_download", seconds=1000, at_byte=0)]
    )
    @pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
    def test_a_silent_copy_can_be_cancelled(
        self,
        sites: Sites,
        source: str,
        target: str,
        monkeypatch: pytest.MonkeyPatch,
        silent: Fault,
        kind: type[BaseException],
    ) -> None:
        class Cancelling(Told):
            def absolute_update(self, value: int) -> None:
                raise kind

        monkeypatch.setattr(third_party, "_WAKE_SECONDS", 0.1)
        silent = sites.far.faults.add(dataclasses.replace(silent, server="door", method="COPY"))
        started = time.monotonic()
        with pytest.raises(kind):
            copy(source, target, progress=Cancelling())
        assert time.monotonic() - started < 5
        assert silent.hits == 1
        assert read(target) == OTHER

    def test_a_deadline_that_is_ended_early(
        self, sites: Sites, source: str, target: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [0.0]

        class Ending(Told):
            def absolute_update(self, value: int) -> None:
                now[0] = 1000

        monkeypatch.setattr(third_party, "_WAKE_SECONDS", 0.1)
        sites.far.faults.add(Fault("stall", server="door", method="COPY", seconds=1000))
        started = time.monotonic()
        with pytest.raises(errors.DeadlineError):
            copy(source, target, progress=Ending(), deadline=Deadline(500, lambda: now[0]))
        assert time.monotonic() - started < 5
        assert read(target) == OTHER

    def test_a_deadline(self, sites: Sites, source: str, target: str) -> None:
        sites.near.faults.add(Fault("stall_download", server="pool", at_byte=1000, seconds=20))
        started = time.monotonic()
        with pytest.raises(errors.DeadlineError):
            copy(source, target, deadline=Deadline(0.5))
        assert time.monotonic() - started < 5
        assert read(target) == OTHER

    @pytest.mark.parametrize("third_party", ["auto", "pull", "never"])
    def test_one_deadline_for_all_ways(
        self, sites: Sites, source: str, target: str, monkeypatch: pytest.MonkeyPatch, third_party: str
    ) -> None:
        # Each way alone would wait for two minutes of the server's time, and the stream for one of ours.
        settings = {"stall_seconds": 60, "third_party": third_party}
        sites.configure(monkeypatch, near=settings | {"total_timeout_seconds": 1}, far=settings)
        sites.near.faults.add(Fault("stall_download", at_byte=1000, seconds=3000, times=None))
        started = time.monotonic()
        with pytest.raises(errors.DeadlineError):
            copy(source, target)
        assert time.monotonic() - started < 6
        sites.near.faults.clear()
        assert read(target) == OTHER

    def test_a_deadline_says_what_was_tried(
        self, sites: Sites, source: str, target: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for site in (sites.near, sites.far):
            site.faults.add(Fault("status", server="door", method="COPY", status=501, times=None))
        sites.configure(monkeypatch, far={"total_timeout_seconds": 2})
        sites.near.faults.add(Fault("stall_download", at_byte=1000, seconds=3000, times=None))
        with pytest.raises(errors.DeadlineError, match=r"2 s \(pull: .*; push: .*; through this process: "):
            copy(source, target)

    def test_a_large_file_may_take_longer_unless_somebody_says_how_long(self) -> None:
        now = [0.0]
        patient = Deadline(30, lambda: now[0], is_fixed=False)
        patient.allow(decisions.needed_seconds(10))
        assert patient.left == 30
        patient.allow(decisions.needed_seconds(100 * 1024**2))
        assert (patient.left, patient.seconds) == (100, 100)
        fixed = Deadline(30, lambda: now[0])
        fixed.allow(100)
        assert fixed.left == 30

    def test_a_token_that_has_ended(
        self, sites: Sites, source: str, target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        ended = tmp_path / "token"
        ended.touch(0o600)
        token = Path(sites.near.environment["BEARER_TOKEN_FILE"]).read_text()
        ended.write_text(Macaroon.parse(token).narrow(before=datetime.now(UTC) + timedelta(seconds=1)))
        eventually(lambda: Macaroon.parse(ended.read_text()).expires <= datetime.now(UTC))
        text = sites.file.read_text().replace(sites.near.environment["BEARER_TOKEN_FILE"], str(ended))
        sites.file.write_text(text)
        loading.reset()
        with counted(sites.far) as far, pytest.raises(errors.CredentialError, match="expired"):
            copy(source, target)
        assert far.methods() == []
        assert read(target) == OTHER


class TestVersions:
    """dCache 12.0.1, whose copies never end."""

    def test_it_is_left_at_once(self, sites: Sites, source: str, caplog: pytest.LogCaptureFixture) -> None:
        with EmbeddedDcache(time_scale=1.0, version="12.0.1") as new, pytest.MonkeyPatch.context() as patch:
            assert new.ca_file is not None
            sites.near.trust(new.ca_file)
            Sites(sites.near, new, sites.file).configure(patch)
            target = f"{new.url}copy"
            started = time.monotonic()
            with counted(new) as far:
                copy(source, target)
                copy(source, f"{new.url}another")
            assert time.monotonic() - started < 8
            assert far.methods().count("door COPY") == 1
            assert far.methods().count("door PUT") == 2, "the other one pushes"
            assert read(target) == DATA
            with caplog.at_level(logging.WARNING):
                copy(target, f"{new.url}third")
            assert "12.0.1 do not end" in caplog.text
            assert read(f"{new.url}third") == DATA
            eventually(lambda: names(new) == ["another", "copy", "third"])

    def test_without_encryption_the_bytes_pass_through(
        self, sites: Sites, source: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with EmbeddedDcache(tls=False) as plain, pytest.MonkeyPatch.context() as patch:
            Sites(sites.near, plain, sites.file).configure(patch)
            with caplog.at_level(logging.WARNING):
                for number in range(2):
                    copy(source, f"{plain.url}{number}")
                    copy(f"{plain.url}{number}", f"{sites.near.url}back{number}")
            assert caplog.text.count("pass through this process") == 2, "once for each direction"
            assert read(f"{sites.near.url}back1") == DATA
