"""That targets are what they say, count what they should, and leave nothing behind."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from lsst.daf.butler_dcache.bench import borrowed, link, real_target
from lsst.daf.butler_dcache.bench.allowance import Guard, GuardError
from lsst.daf.butler_dcache.bench.borrowed import MARK
from lsst.daf.butler_dcache.bench.link import Link, LinkUnavailableError
from lsst.daf.butler_dcache.bench.servers import TARGETS, kind_of, start
from lsst.daf.butler_dcache.bench.target import Counts, Target, TargetGoneError
from lsst.daf.butler_dcache.bench.work import Step, Work
from lsst.daf.butler_dcache.cli.bench_clean import clean_command
from lsst.daf.butler_dcache.config.settings import origin_of
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.transport import presence
from lsst.daf.butler_dcache.tree import walk_tree

FAST = Guard(max_rate=10_000)


@pytest.fixture(scope="module", params=["dav", "davs", "s3"])
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a directory with a file of somebody else's, at a server that nobody here has started."""
    if request.param == "s3":
        server = request.getfixturevalue("seaweed_process")
        url, environment = f"s3://{server.bucket}/bench/", server.variables(tls=True)
        with mock.patch.dict(os.environ, environment):
            store_for(url).write(f"{url}dcache-bench-0123456789ab/results.txt", b"somebody's")
            yield url
        return
    with (
        EmbeddedDcache(tls=request.param == "davs") as dcache,
        mock.patch.dict(os.environ, dcache.environment),
    ):
        dcache.place("bench/dcache-bench-0123456789ab/results.txt", b"somebody's")
        yield f"{dcache.url}bench/"


@pytest.fixture(scope="module")
def stand_in() -> Iterator[Target]:
    """The embedded dCache, started by the benchmarks."""
    with start("embedded", limiter=False) as target:
        yield target


def names(url: str) -> set[str]:
    """Names of what a directory holds; SeaweedFS removes empty directories when it likes."""
    entries = {entry.name: entry for entry in store_for(url).list_directory(url)}
    if url.startswith("s3:"):
        return {name for name, entry in entries.items() if entry.is_file or has_files(f"{url}{name}/")}
    return set(entries)


def has_files(url: str) -> bool:
    return any(files for _, _, files in walk_tree(store_for(url), url))


class TestRealServers:
    def test_a_run_leaves_nothing_and_touches_nothing_else(self, place: str) -> None:
        before = names(place)
        with start(place, guard=FAST) as target:
            (own,) = names(place) - before
            name = target.provide("deep/er/file", 1000)
            assert target.provide("deep/er/file", 1000) == name
            assert target.size(name) == 1000
            assert target.size(target.new_name("other", 1)) is None
            upload = target.new_name("put-1/00000", 5)
            root = target.access.root
            store_for(root).write(f"{root}{upload}", b"bytes")
            assert target.size(upload) == 5
            assert f"{place}{own}/put-1/00000.dat" == f"{root}{upload}"
            target.clear("put-1")
            assert target.size(upload) is None
            assert target.size(name) == 1000
            target.clear("")
            assert target.size(name) is None
            target.check()
        assert names(place) == before
        theirs = f"{place}dcache-bench-0123456789ab/results.txt"
        assert store_for(place).read(theirs) == b"somebody's"

    def test_a_large_file_is_placed_from_the_disk(self, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(real_target, "_IN_MEMORY_BYTES", 100)
        with start(place, guard=FAST) as target:
            assert target.size(target.provide("large", 3_000_000)) == 3_000_000

    def test_it_is_cleaned_up_after_an_interruption(self, place: str) -> None:
        before = names(place)
        with pytest.raises(KeyboardInterrupt):
            interrupted(place)
        assert names(place) == before

    def test_what_a_killed_run_left_is_removed_by_its_mark(self, place: str) -> None:
        before = names(place)
        process = subprocess.Popen(
            [sys.executable, "-c", ABANDONED, place], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        (left,) = names(place) - before
        said: list[str] = []
        assert borrowed.clean(place, said.append) == []
        assert f"{place}{left}/ stays: its owner is at work" in said
        process.kill()
        process.communicate()
        run = CliRunner().invoke(clean_command, [place], catch_exceptions=False)
        assert run.exit_code == 0
        assert f"{place}{left}/ is removed\n" in run.output
        assert run.output.endswith("1 removed\n")
        assert f"{place}dcache-bench-0123456789ab/ stays: it has no mark of ours\n" in run.output
        assert names(place) == before

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"seen": "2026-01-01T00:00:00+00:00"}, ""),
            ({}, "within the last hour"),
            ({"made_by": "me", "seen": "2026-01-01T00:00:00+00:00"}, "not ours"),
            ({"directory": "other", "seen": "2026-01-01T00:00:00+00:00"}, "not ours"),
            ({"seen": "long ago"}, "not ours"),
            ({"seen": "2026-01-01T00:00:00"}, "not ours"),
            (None, "not ours"),
        ],
    )
    def test_runs_on_other_machines(
        self, change: dict[str, str] | None, reason: str, embedded: EmbeddedDcache
    ) -> None:
        name = "dcache-bench-00000000000f"
        now = datetime.datetime.now(datetime.UTC).isoformat()
        mark = {"made_by": "dcache-butler bench", "directory": name, "machine": ["far"], "seen": now}
        text = "[1" if change is None else json.dumps(mark | change)
        embedded.place(f"{name}/{MARK}", text.encode())
        embedded.place(f"{name}/file", b"")
        said: list[str] = []
        removed = borrowed.clean(embedded.url, said.append)
        assert removed == ([] if reason else [f"{embedded.url}{name}/"])
        assert len(said) == 1
        assert reason in said[0]
        assert (name in names(embedded.url)) == bool(reason)
        store_for(embedded.url).remove_many([f"{embedded.url}{name}/{MARK}", f"{embedded.url}{name}/file"])

    def test_the_guard_says_what_is_too_much(self, embedded: EmbeddedDcache) -> None:
        guard = Guard(max_bytes=5000, max_requests=60, max_rate=1000.0)
        with start(embedded.url, guard=guard) as target:
            assert target.admit(Work("get", 1000, 2)) == ""
            assert "5000 bytes in all" in target.admit(Work("get", 1000, 4))
            assert "60 requests in all" in target.admit(Work("look", 0, 100))
            assert "1000 requests a second" in target.admit(Work("look", 0, 1, rate=2000.0))
            assert target.admit(Work("look", 0, 1, rate=900.0)) == ""
            with pytest.raises(GuardError, match="5000 bytes in all"):
                target.provide("file", 4000)
            assert target.rate_limit(Work("look", 0, 10)) == 1000.0
            assert target.rate_limit(Work("mix", 0, steps=(Step("get", 1, 2), Step("put", 1)))) < 200

    def test_our_own_requests_are_paced(self, embedded: EmbeddedDcache) -> None:
        begin = time.monotonic()
        with start(embedded.url, guard=Guard(max_rate=40.0)) as target:
            for number in range(4):
                target.provide(f"file{number}", 1)
        assert time.monotonic() - begin > 4 * 5 / 40.0

    def test_a_stand_in_is_not_called_dcache(
        self, embedded: EmbeddedDcache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with start(embedded.url, guard=FAST) as target:
            assert target.server_header.startswith("dCache/")
            assert not target.is_dcache
            assert target.title.endswith("(not dCache)")
        monkeypatch.setattr("lsst.daf.butler_dcache.embedded.frontend._STAND_IN", "/nowhere")
        with start(embedded.url, guard=FAST) as target:
            assert target.is_dcache
            assert "not" not in target.title

    def test_what_cannot_be_borrowed(self, embedded: EmbeddedDcache) -> None:
        with pytest.raises(ValueError, match="more than a place"), start(f"{embedded.url}?authz=abc"):
            pass
        with pytest.raises(LinkUnavailableError), start(embedded.url, link=Link(rtt_ms=5)):
            pass
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
        with pytest.raises(TargetGoneError, match="no connection"), start(f"dav://127.0.0.1:{port}/data/"):
            pass
        assert CliRunner().invoke(clean_command, ["http://localhost/"]).exit_code == 2

    def test_a_server_that_goes_away(self) -> None:
        with (
            EmbeddedDcache(tls=False) as dcache,
            mock.patch.dict(os.environ, dcache.environment),
            pytest.raises(TargetGoneError, match="bench clean"),
        ):
            stopped(dcache)


def interrupted(place: str) -> None:
    with start(place, guard=FAST) as target:
        target.provide("deep/file", 10)
        raise KeyboardInterrupt


def stopped(dcache: EmbeddedDcache) -> None:
    with start(dcache.url, guard=FAST) as target:
        dcache.stop()
        # As in a process that has waited for it already, which takes more than a minute.
        presence.phase_unconnected(origin_of(dcache.url))
        presence.waited_in_vain(origin_of(dcache.url))
        with pytest.raises(TargetGoneError):
            target.check()


ABANDONED = """
import signal, sys
from lsst.daf.butler_dcache.bench.servers import start
with start(sys.argv[1]) as target:
    target.provide("deep/file", 10)
    print("ready", flush=True)
    signal.pause()
"""


class TestStandIns:
    def test_what_targets_say_of_themselves(self, stand_in: Target) -> None:
        assert all(title.endswith("(not dCache)") for title in TARGETS.values())
        assert [kind_of(name) for name in ("door", "seaweedfs-tls", "davs://a/b/", "s3://b/")] == [
            "webdav",
            "s3",
            "webdav",
            "s3",
        ]
        assert kind_of("S3://b/") == "s3"
        for secret in ("https://me:hunter2@a/", "davs://me:hunter2@a/", "davs://a/?authz=hunter2"):
            with pytest.raises(ValueError, match=r"no server is called|holds more than a place") as caught:
                kind_of(secret)
            assert "hunter2" not in str(caught.value)
        said = stand_in.describe()
        assert stand_in.admit(Work("get", 10**15, 10**6)) == ""
        assert stand_in.rate_limit(Work("get", 1)) == 0
        assert said["kind"] == "webdav"
        assert said["server_header"].startswith("dCache/")
        assert (said["is_dcache"], said["tls"], said["limiter"]) == (False, False, False)
        assert 0 < said["rtt_ms"]["door"] < 1000
        assert said["link"] == {"rtt_ms": None, "loss": 0.0, "bandwidth_mbit": None}

    @pytest.mark.parametrize("name", ["embedded-tls", "door-tls"])
    def test_handshakes_are_counted(self, name: str) -> None:
        with start(name) as target:
            file = target.provide("file", 10)
            begin = counts(target)
            trust = ssl.create_default_context(cafile=target.access.ca_file)
            location, session = fetch(target, trust, target.access.url + file)
            fetch(target, trust, target.access.url + file, session)
            assert location is not None
            _, session = fetch(target, trust, location)
            fetch(target, trust, location, session)
            fetch(target, trust, location, session)
            done = counts(target).since(begin)
        assert (done.door_requests, done.door_handshakes) == (2, 1)
        assert (done.pool_requests, done.pool_handshakes) == (3, 1)
        assert done.resumed == 3

    def test_without_encryption_there_are_no_handshakes(self, stand_in: Target) -> None:
        begin = counts(stand_in)
        with mock.patch.dict(os.environ, stand_in.access.environment):
            store_for(stand_in.access.root).exists(stand_in.access.root)
        done = counts(stand_in).since(begin)
        assert done.door_requests > 0
        assert (done.door_handshakes, done.pool_handshakes, done.resumed) == (0, 0, 0)

    def test_unknown_numbers_stay_unknown(self) -> None:
        assert Counts(5, 1, 0, 0).since(Counts(3, 1, 0, 0)) == Counts(2, 0, 0, 0)

    def test_deep_trees_are_cleared(self, stand_in: Target) -> None:
        with start("door") as door:
            for target in (stand_in, door):
                deep = target.provide("tree/a/b/c/file", 10)
                beside = target.provide("tree/other", 10)
                target.provide("tree/a/d/file", 10)
                target.clear("tree/a")
                assert (target.size(deep), target.size(beside)) == (None, 10)
                target.clear("tr")
                assert target.size(beside) is None

    def test_secrets_go_with_the_server(self) -> None:
        with start("embedded") as target:
            site = Path(target.access.environment["LSST_RESOURCES_WEBDAV_CONFIG"])
            assert site.exists()
        assert not site.parent.exists()

    def test_a_server_that_ended_is_missed(self) -> None:
        with start("embedded") as target:
            target.check()
            target._process.send_signal(signal.SIGKILL)  # type: ignore[attr-defined]
            target._process.wait()  # type: ignore[attr-defined]
            with pytest.raises(TargetGoneError):
                target.check()
            with pytest.raises(TargetGoneError):
                target.counts()


class TestLink:
    def test_what_a_link_can_be(self) -> None:
        for wrong in ({"rtt_ms": -1.0}, {"loss": 100.0}, {"bandwidth_mbit": 0.0}):
            with pytest.raises(ValueError, match="is not between"):
                Link(**wrong)

    def test_without_root_it_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        with pytest.raises(LinkUnavailableError, match="needs root"), link.link_up(Link(rtt_ms=1)):
            pass

    @pytest.mark.parametrize("program", ["ip", "nsenter"])
    def test_without_a_program_it_says_so(self, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.geteuid", lambda: 0)
        monkeypatch.setattr(link, "_TUN", Path(os.devnull))
        which = shutil.which
        monkeypatch.setattr("shutil.which", lambda name: None if name == program else which("sh"))
        with pytest.raises(LinkUnavailableError, match=f"needs {program}, of "), link.link_up(Link(loss=1)):
            pass

    def test_clients_are_far_away(self) -> None:
        try:
            with start("embedded-tls", link=Link(rtt_ms=40, bandwidth_mbit=80)) as target:
                check_link(target)
                pump = int(target.child_prefix[1].split("/")[2])
        except LinkUnavailableError as reason:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(str(reason))
        assert not Path(f"/proc/{pump}").exists()


def check_link(target: Target) -> None:
    """Read a file at the clients' end, by a client that follows to a pool."""
    assert 0.04 <= target.rtt_seconds < 0.2
    name = target.provide("file", 500_000)
    command = ["curl", "-sL", "--cacert", str(target.access.ca_file), "-w", "%{http_code} %{time_total}"]
    command += ["-H", f"Authorization: Bearer {token(target)}", "-o", os.devnull, target.access.url + name]
    done = subprocess.run([*target.child_prefix, *command], capture_output=True, text=True, check=True)
    code, seconds = done.stdout.split()
    assert code == "200"
    # At both servers: TCP, TLS, request. And 500 kB at 10 MB/s, of which a queue may hold some.
    assert float(seconds) > 6 * 0.04
    assert counts(target).pool_requests == 1
    assert target.describe()["link"] == {"rtt_ms": 40, "loss": 0.0, "bandwidth_mbit": 80}


def counts(target: Target) -> Counts:
    found = target.counts()
    assert found is not None
    return found


def token(target: Target) -> str:
    return Path(target.access.token_file).read_text().strip() if target.access.token_file else "none"


def fetch(
    target: Target, trust: ssl.SSLContext, url: str, session: ssl.SSLSession | None = None
) -> tuple[str | None, ssl.SSLSession | None]:
    """Ask once over a new connection; return where to go on, and the TLS session."""
    parts = urlsplit(url)
    with (
        socket.create_connection((parts.hostname, parts.port)) as plain,
        trust.wrap_socket(plain, server_hostname=parts.hostname, session=session) as peer,
    ):
        head = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
        peer.sendall(f"{head}Authorization: Bearer {token(target)}\r\n\r\n".encode())
        answer = b""
        while piece := peer.recv(65536):
            answer += piece
        lines = answer.decode("latin-1").split("\r\n")
        found = [line[10:] for line in lines if line.lower().startswith("location: ")]
        return (found[0] if found else None), peer.session
