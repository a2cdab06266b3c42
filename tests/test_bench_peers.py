"""That the clients beside which ours is measured do what they say, or say that they cannot."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from lsst.daf.butler_dcache.bench.peers import gfal
from lsst.daf.butler_dcache.bench.peers.client import Client, Sink, Source
from lsst.daf.butler_dcache.bench.peers.program import ProgramFailedError
from lsst.daf.butler_dcache.bench.peers.receiving import receive
from lsst.daf.butler_dcache.bench.peers.registry import PEERS, load
from lsst.daf.butler_dcache.bench.peers.signing_in import Login, login
from lsst.daf.butler_dcache.bench.servers import start
from lsst.daf.butler_dcache.bench.target import Target
from lsst.daf.butler_dcache.bench.work import Access, Job, UnsupportedWorkError, Work, contents
from lsst.daf.butler_dcache.store.registry import store_for

LIBRARIES = {
    "webdavclient3": "webdav3",
    "webdav4": "webdav4",
    "fsspec-http": "aiohttp",
    "dcachefs": "dcachefs",
    "upstream-http": "lsst.resources",
}
PROGRAMS = {"davix": "davix-get", "xrdcp": "xrdcp", "rclone": "rclone"}
SMALL, LARGE = contents(5000), contents(2_000_000)


@pytest.fixture(scope="module", params=["embedded", "embedded-tls"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    with (
        start(request.param, limiter=False) as target,
        mock.patch.dict(os.environ, target.access.environment),
    ):
        yield target


@pytest.fixture(scope="module")
def cluster() -> Iterator[Target]:
    with start("xrootd") as target, mock.patch.dict(os.environ, target.access.environment):
        yield target


def job(peer: str, access: Access, scratch: Path, work: Work, *names: str, contact: str = "") -> Job:
    """A job whose source is there."""
    source = scratch / "source"
    source.write_bytes(contents(work.size_bytes))
    return Job(peer, work, access, names, contact, str(scratch), str(source), deadline_seconds=60)


def far_away(**more: str) -> Access:
    return Access("https://door.example.org:2880/data/", {}, **more)


def programs(folder: Path, **scripts: str) -> None:
    """Put programs into a folder."""
    for name, lines in scripts.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)


class TestRegistry:
    @pytest.mark.parametrize("name", PEERS)
    def test_each_can_be_made_without_its_library(self, name: str) -> None:
        client = load(name)
        assert isinstance(client, Client)
        assert client.name.endswith(name.removeprefix("crowd-"))

    @pytest.mark.parametrize("entry", PEERS.values(), ids=PEERS)
    def test_each_says_where_it_belongs(self, entry: object) -> None:
        assert entry.level in ("store", "path", "butler", "program")  # type: ignore[attr-defined]
        assert entry.kinds  # type: ignore[attr-defined]
        assert set(entry.kinds) <= {"webdav", "s3"}  # type: ignore[attr-defined]


class TestLibraries:
    """Each of them against the embedded dCache, or what it says where it is missing."""

    @pytest.mark.parametrize("peer", LIBRARIES)
    def test_whole_files(self, peer: str, target: Target, tmp_path: Path) -> None:
        client = load(peer)
        contact = target.provide("ready", 1)
        name = target.provide("many/one", len(LARGE))
        here = job(peer, target.access, tmp_path, Work("get", len(LARGE)), name, contact=contact)
        if importlib.util.find_spec(LIBRARIES[peer]) is None:
            with pytest.raises(UnsupportedWorkError, match="not installed"):
                client.connect(here)
            return
        # What the class for http is told lies in the environment.
        with mock.patch.dict(os.environ):
            client.connect(here)
            assert client.get(name, Sink("memory")).bytes_moved == len(LARGE)
            assert client.get(name, Sink("discard")).bytes_moved == len(LARGE)
            small, large = (target.new_name(f"from-{peer}/{what}", 0) for what in ("small", "large"))
            assert client.put(small, Source(here.source, len(SMALL), SMALL)).bytes_moved == len(SMALL)
            assert client.put(large, Source(here.source, len(LARGE))).bytes_moved == len(LARGE)
        root = target.access.root
        assert store_for(root).read(root + small) == SMALL
        assert store_for(root).read(root + large) == LARGE

    def test_names(self, target: Target, tmp_path: Path) -> None:
        names = [target.provide(f"names/{number}/file", 10) for number in range(2)]
        client = load("webdavclient3")
        client.connect(job("webdavclient3", target.access, tmp_path, Work("look", 10), names[0]))
        assert client.exists(names[0])
        assert not client.exists(f"{names[0]}-renamed")
        assert client.walk("names") == 2
        client.rename(names[0], f"{names[0]}-renamed")
        assert (target.size(names[0]), target.size(f"{names[0]}-renamed")) == (None, 10)
        client.remove(f"{names[0]}-renamed")
        assert target.size(f"{names[0]}-renamed") is None

    def test_a_part_through_fsspec(self, target: Target, tmp_path: Path) -> None:
        client = load("upstream-http")
        name = target.provide("parts", len(LARGE))
        here = job("upstream-http", target.access, tmp_path, Work("read_vector", len(LARGE)), name)
        with mock.patch.dict(os.environ):
            client.connect(here)
            if importlib.util.find_spec("aiohttp") is not None and target.access.ca_file is not None:
                assert client.read_ranges(name, [(0, 10), (1_000_000, 1_000_090)]).bytes_moved == 100
            elif target.access.ca_file is None:
                with pytest.raises(UnsupportedWorkError, match="signs no URLs"):
                    client.presign(name)
            with client.open(name) as file:
                file.seek(1_000_000)
                assert file.read(1000) == LARGE[1_000_000:1_001_000]

    def test_without_a_rest_frontend_dcachefs_moves_bytes_only(self, tmp_path: Path) -> None:
        found = importlib.util.find_spec("dcachefs") is not None
        with pytest.raises(UnsupportedWorkError, match="REST API" if found else "not installed"):
            load("dcachefs").connect(job("dcachefs", far_away(), tmp_path, Work("look", 1), "x"))


class TestPrograms:
    @pytest.mark.parametrize("peer", ["davix", "rclone"])
    def test_whole_files(self, peer: str, target: Target, tmp_path: Path) -> None:
        name = target.provide("many/one", len(LARGE))
        new = target.new_name(f"from-{peer}", len(LARGE))
        if shutil.which(PROGRAMS[peer]) is None and not (Path(sys.executable).parent / peer).exists():
            with pytest.raises(UnsupportedWorkError, match="not installed"):
                load(peer).prepare(job(peer, target.access, tmp_path, Work("get", len(LARGE)), name))
            return
        for operation, which in (("get", name), ("put", new)):
            scratch = tmp_path / operation
            scratch.mkdir()
            client = load(peer)
            run = client.prepare(job(peer, target.access, scratch, Work(operation, len(LARGE)), which))
            if run is not None:
                assert run().bytes_moved == len(LARGE)
            elif operation == "get":
                assert client.get(which, Sink("file", str(scratch / "file"))).bytes_moved == len(LARGE)
                assert (scratch / "file").read_bytes() == LARGE
            else:
                client.put(which, Source(str(scratch / "source"), len(LARGE)))
        root = target.access.root
        assert store_for(root).read(root + new) == LARGE

    @pytest.mark.parametrize("peer", ["davix", "xrdcp"])
    def test_what_is_not_installed_says_where_it_comes_from(
        self, peer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(UnsupportedWorkError, match="is not installed; Debian has it in"):
            load(peer).connect(job(peer, far_away(), tmp_path, Work("get", 1), "x"))

    def test_davix_gets_no_secret_that_others_could_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        programs(
            tmp_path, **dict.fromkeys(("davix_get", "davix_put", "davix_mv", "davix_rm", "davix_ls"), "")
        )
        monkeypatch.setenv("PATH", str(tmp_path))
        token = tmp_path / "token"
        token.write_text("secret")
        with pytest.raises(UnsupportedWorkError, match="command line"):
            load("davix").connect(
                job("davix", far_away(token_file=str(token)), tmp_path, Work("get", 1), "x")
            )

    @pytest.mark.parametrize(
        ("script", "error"),
        [("exit 255", UnsupportedWorkError), ("echo no such file >&2; exit 255", ProgramFailedError)],
    )
    def test_a_known_defect_is_told_from_a_failure(
        self, script: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        programs(tmp_path, davix_mv=script, davix_get="", davix_put="", davix_rm="", davix_ls="")
        monkeypatch.setenv("PATH", str(tmp_path))
        client = load("davix")
        client.connect(job("davix", far_away(), tmp_path, Work("rename", 1), "x"))
        with pytest.raises(error):
            client.rename("x", "y")

    def test_xrdcp_goes_where_its_protocol_is_spoken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = tmp_path / "log"
        programs(
            tmp_path,
            xrdcp=f'echo "$@" >>{log}',
            xrdfs='[ "$3" = /data/x ] && exit 0; echo "[FATAL] Redirect limit has been reached" >&2; exit 53',
        )
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        client = load("xrdcp")
        with pytest.raises(UnsupportedWorkError, match="this target does not"):
            client.connect(job("xrdcp", far_away(), tmp_path, Work("put", 1), "x"))
        spoken = far_away(xroot_url="root://door.example.org:1094//data/")
        here = job("xrdcp", spoken, tmp_path, Work("put", 1), "x")
        client.connect(here)
        client.put("x", Source(here.source, 1))
        assert log.read_text().split()[-1] == "root://door.example.org:1094//data/x"
        assert client.exists("x")
        assert not client.exists("y")

    def test_rclone_says_that_it_follows_no_redirect(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        programs(tmp_path, rclone="echo 'x: 307 Temporary Redirect: 307 Temporary Redirect' >&2; exit 1")
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        run = load("rclone").prepare(job("rclone", far_away(), tmp_path, Work("put", 10), "x"))
        assert run is not None
        with pytest.raises(UnsupportedWorkError, match="follows no redirect"):
            run()


class TestXrootd:
    """Where every request is sent elsewhere, and another protocol is spoken beside."""

    def test_its_own_protocol(self, cluster: Target, tmp_path: Path) -> None:
        client = load("xrdcp")
        here = job("xrdcp", cluster.access, tmp_path, Work("put", len(LARGE)), "x")
        if shutil.which("xrdcp") is None:
            with pytest.raises(UnsupportedWorkError, match="not installed"):
                client.connect(here)
            return
        client.connect(here)
        name = cluster.new_name("xrdcp/large", len(LARGE))
        client.put(name, Source(here.source, len(LARGE)))
        assert store_for(cluster.access.root).read(cluster.access.root + name) == LARGE
        client.get(name, Sink("file", str(tmp_path / "file")))
        assert (tmp_path / "file").read_bytes() == LARGE
        assert (client.exists(name), client.walk("xrdcp")) == (True, 1)
        client.rename(name, f"{name}-renamed")
        client.remove(f"{name}-renamed")
        assert cluster.size(name) is cluster.size(f"{name}-renamed") is None

    @pytest.mark.parametrize(
        ("peer", "found", "why"),
        [
            ("webdav4", "webdav4", "no redirect of a PROPFIND"),
            ("fsspec-http", "aiohttp", "without being asked"),
        ],
    )
    def test_who_cannot_write_there(
        self, peer: str, found: str, why: str, cluster: Target, tmp_path: Path
    ) -> None:
        contact = cluster.provide("ready", 1)
        here = job(peer, cluster.access, tmp_path, Work("put", 20_000_000), "x", contact=contact)
        client = load(peer)
        expected = why if importlib.util.find_spec(found) is not None else "not installed"
        name = cluster.new_name("new", 20_000_000)

        def write() -> None:
            client.connect(here)
            client.put(name, Source(here.source, 20_000_000))

        with pytest.raises(UnsupportedWorkError, match=expected):
            write()


FAKE = """
import os, shutil
class GError(Exception):
    code = 2
class Context:
    def set_opt_string_list(self, *what): pass
    class transfer_parameters: pass
    def filecopy(self, how, source, target):
        shutil.copyfile(*(place.partition("://")[2].removeprefix("nowhere") for place in (source, target)))
    def stat(self, place): raise GError("not there")
    def unlink(self, place): raise ValueError("Bearer abcdefghijklmnop is not allowed to")
    def rename(self, place, other): os._exit(3)
creat_context = Context
"""


class TestGfal:
    """The other Python is this one, with a module that copies files."""

    @pytest.fixture
    def access(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Access:
        (tmp_path / "gfal2.py").write_text(FAKE)
        programs(tmp_path, python=f'shift; PYTHONPATH={tmp_path} exec {sys.executable} "$@"')
        monkeypatch.setattr(gfal, "_PYTHON", str(tmp_path / "python"))
        (tmp_path / "there").mkdir()
        return Access(f"http://nowhere{tmp_path}/there/", {})

    def test_files_are_copied_by_several_threads(self, access: Access, tmp_path: Path) -> None:
        names = [f"file-{number}" for number in range(6)]
        run = load("gfal2").prepare(job("gfal2", access, tmp_path, Work("put", 1000, 6, 3), *names))
        assert run is not None
        outcome = run()
        assert (outcome.operations, outcome.bytes_moved) == (6, 6000)
        assert all((tmp_path / "there" / name).read_bytes() == contents(1000) for name in names)

    def test_what_went_wrong_is_told(self, access: Access, tmp_path: Path) -> None:
        here = job("gfal2", access, tmp_path, Work("remove", 10, 1), "x")
        run = load("gfal2").prepare(here)
        assert run is not None
        with pytest.raises(Exception, match="not allowed to") as caught:
            run()
        assert "abcdefghijklmnop" not in str(caught.value)

    def test_a_process_that_ends_is_noticed(self, access: Access, tmp_path: Path) -> None:
        run = load("gfal2").prepare(job("gfal2", access, tmp_path, Work("rename", 10, 1), "x"))
        assert run is not None
        with pytest.raises(Exception, match="ended"):
            run()

    def test_no_such_python(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gfal, "_PYTHON", str(tmp_path / "nothing"))
        with pytest.raises(UnsupportedWorkError, match="cannot import gfal2"):
            load("gfal2").prepare(job("gfal2", far_away(), tmp_path, Work("get", 1), "x"))


class TestSigningIn:
    def test_a_token_comes_before_a_password(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("abc\n")
        (tmp_path / "password").write_text("secret\n")
        both = {"user": "alice", "password_file": str(tmp_path / "password")}
        assert login(far_away(token_file=str(tmp_path / "token"), **both)).headers == {
            "Authorization": "Bearer abc"
        }
        assert login(far_away(**both)).headers == {"Authorization": "Basic YWxpY2U6c2VjcmV0"}
        assert login(far_away()).headers == {}

    def test_secrets_are_not_shown(self) -> None:
        assert "secret" not in repr(Login(token="secret", user="alice", password="secret"))

    def test_a_password_lies_where_nobody_else_reads(self, target: Target, tmp_path: Path) -> None:
        with mock.patch.dict(os.environ):
            load("upstream-http").connect(job("upstream-http", target.access, tmp_path, Work("look", 1), "x"))
            assert ("NETRC" in os.environ) == (target.access.user is not None)
        for path in tmp_path.glob("netrc"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["discard", "memory", "file"])
def test_received_bytes_are_counted_from_the_first(kind: str, tmp_path: Path) -> None:
    sink = Sink(kind, str(tmp_path / "file") if kind == "file" else "")
    done = receive(sink, lambda file: (file.write(b"abc"), file.write(b"de")))
    assert done.bytes_moved == 5
    assert done.first_byte_seconds is not None
    assert done.first_byte_seconds >= 0
    assert kind != "file" or (tmp_path / "file").read_bytes() == b"abcde"
