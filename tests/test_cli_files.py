"""The commands for files, and the doctor."""

from __future__ import annotations

import json
import socket
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from lsst.daf.butler_dcache import DcacheFileSystem
from lsst.daf.butler_dcache.cli.main import main
from lsst.daf.butler_dcache.embedded import Fault
from lsst.daf.butler_dcache.errors import UnsupportedError
from lsst.daf.butler_dcache.store.webdav_store import WebdavStore
from lsst.daf.butler_dcache.webdav.third_party import ThirdPartyCopies

SMALL = b"some bytes\n"
LARGE = bytes(range(256)) * 1200


def run(*arguments: str | Path, status: int = 0) -> Result:
    """Run the program; errors are one line without a traceback."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    if status:
        assert isinstance(result.exception, SystemExit)
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1, result.stderr
    return result


@pytest.fixture
def root(base_url: str) -> str:
    DcacheFileSystem().pipe(
        {f"{base_url}a.txt": SMALL, f"{base_url}b%20c.dat": LARGE, f"{base_url}dir/d": SMALL}
    )
    return base_url


def test_ls(root: str) -> None:
    assert run("ls", root).output.split("\n") == ["a.txt", "b%20c.dat", "dir/", ""]
    long = run("ls", "-l", root).output.splitlines()
    assert long[0].split()[0] == str(len(SMALL))
    assert long[2].split()[0] == "-"
    entries = json.loads(run("ls", "--json", root).output)
    assert [(entry["name"], entry["size"]) for entry in entries[:2]] == [
        (f"{root}a.txt", len(SMALL)),
        (f"{root}b%20c.dat", len(LARGE)),
    ]


def test_ls_of_local_files(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(SMALL)
    for argument in (str(tmp_path), tmp_path.as_uri()):
        assert run("ls", argument).output == "a b\n"
    assert json.loads(run("stat", "--json", tmp_path / "a b").output)[0]["size"] == len(SMALL)


def test_stat(root: str) -> None:
    (info,) = json.loads(run("stat", "--json", f"{root}a.txt").output)
    assert (info["name"], info["type"], info["size"]) == (f"{root}a.txt", "file", len(SMALL))
    assert info["modified"]
    text = run("stat", f"{root}a.txt", root).output
    assert "size:      11\n" in text
    assert "directory" in text


def test_cat(root: str) -> None:
    assert run("cat", f"{root}a.txt", f"{root}b%20c.dat").stdout_bytes == SMALL + LARGE


def test_cp_there_and_back(root: str, tmp_path: Path) -> None:
    (tmp_path / "x y").write_bytes(LARGE)
    run("cp", tmp_path / "x y", f"{root}new/")
    assert DcacheFileSystem().cat_file(f"{root}new/x%20y") == LARGE
    run("cp", f"{root}new/x%20y", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == LARGE
    run("cp", f"{root}a.txt", f"{root}b%20c.dat", tmp_path)
    assert (tmp_path / "b c.dat").read_bytes() == LARGE
    run("cp", f"{root}a.txt", f"{root}copy")
    assert DcacheFileSystem().cat_file(f"{root}copy") == SMALL
    run("cp", tmp_path / "back", tmp_path / "sub" / "local")
    assert (tmp_path / "sub" / "local").read_bytes() == LARGE


def test_cp_recursive(root: str, tmp_path: Path) -> None:
    run("cp", "-r", root, tmp_path / "tree")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "tree/a.txt",
        "tree/b c.dat",
        "tree/dir/d",
    ]
    output = run("cp", "-r", "--json", tmp_path / "tree", f"{root}again").output
    assert len(json.loads(output)) == 3
    assert DcacheFileSystem().cat_file(f"{root}again/b%20c.dat") == LARGE


def test_cp_does_not_clobber(root: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(LARGE)
    for source, target in (
        (tmp_path / "a.txt", f"{root}a.txt"),
        (f"{root}a.txt", tmp_path / "a.txt"),
        (f"{root}b%20c.dat", f"{root}a.txt"),
    ):
        assert "the name is taken" in run("cp", "--no-clobber", source, target, status=1).stderr
    assert DcacheFileSystem().cat_file(f"{root}a.txt") == SMALL
    assert (tmp_path / "a.txt").read_bytes() == LARGE


def test_mkdir_mv_rm(root: str, tmp_path: Path) -> None:
    fs = DcacheFileSystem()
    run("mkdir", f"{root}x/y", f"{root}x/y", tmp_path / "z")
    assert fs.isdir(f"{root}x/y")
    assert (tmp_path / "z").is_dir()
    run("mv", f"{root}a.txt", f"{root}x/y/")
    assert fs.cat_file(f"{root}x/y/a.txt") == SMALL
    run("mv", f"{root}x/y/a.txt", tmp_path / "a.txt")
    assert not fs.exists(f"{root}x/y/a.txt")
    assert (tmp_path / "a.txt").read_bytes() == SMALL
    assert "recursive" in run("rm", f"{root}x", status=1).stderr
    run("rm", f"{root}b%20c.dat", tmp_path / "a.txt")
    run("rm", "-r", f"{root}x", tmp_path / "z")
    assert fs.ls(root, detail=False) == [f"{root}dir"]
    assert not list(tmp_path.iterdir())


def test_checksum(root: str, embedded: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    expected = f"{zlib.adler32(LARGE):08x}"
    assert f"adler32:{expected}  {root}b%20c.dat" in run("checksum", f"{root}b%20c.dat").output
    assert run("checksum", tmp_path / "file").output == f"adler32:{expected}  {tmp_path}/file\n"
    found = json.loads(run("checksum", "--json", f"{root}b%20c.dat").output)
    assert found[0]["checksums"]["adler32"] == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "{root}missing"),
        ("stat", "{root}missing"),
        ("cat", "{root}missing"),
        ("cp", "{root}missing", "{root}x"),
        ("cp", "/there/is/no/such/file", "{root}x"),
        ("mv", "{root}missing", "{root}x"),
        ("rm", "{root}missing"),
        ("checksum", "{root}missing"),
        ("ls", "ftp://somewhere/else"),
    ],
)
def test_errors_are_one_line(root: str, arguments: tuple[str, ...]) -> None:
    text = run(*(argument.format(root=root) for argument in arguments), status=1).stderr
    assert arguments[1].format(root=root) in text


class TestDoctor:
    """``dcache-butler doctor``."""

    @pytest.fixture
    def configuration(self, embedded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        """The site's file, to be changed by a test."""
        (entry,) = yaml.safe_load(Path(embedded.environment["LSST_RESOURCES_WEBDAV_CONFIG"]).read_text())

        def write(**changes: Any) -> None:
            path = tmp_path / "webdav.yaml"
            path.write_text(yaml.safe_dump([entry | changes]))
            monkeypatch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(path))

        return write

    @staticmethod
    def doctor(url: str, status: int) -> str:
        result = CliRunner().invoke(main, ["doctor", url])
        assert result.exit_code == status, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.output

    def test_all_is_well(self, embedded: Any, root: str) -> None:
        output = self.doctor(root, 0)
        assert "FAILED" not in output
        assert "Server" not in output
        assert "dCache/11.2.4" in output
        assert "bearer, valid until" in output
        assert "pacing: at most 248 requests a second; shared" in output
        assert output.count("pool localhost:2") == 2
        secret = Path(embedded.environment["BEARER_TOKEN_FILE"]).read_text().strip()
        assert secret not in output
        assert sorted(DcacheFileSystem().ls(root, detail=False)) == [
            f"{root}a.txt", f"{root}b%20c.dat", f"{root}dir",
        ]  # fmt: skip

    def test_what_the_server_can_do(self, embedded: Any, root: str) -> None:
        output = self.doctor(root, 0)
        base = embedded.frontend_url.replace("localhost", "127.0.0.1")  # as the door's document has it
        assert f"ok      frontend: {base}, named by the door; it speaks of the same files" in output
        assert "ok      listing: by the door, with PROPFIND" in output
        assert f"ok      tape: {base}api/v1/tape of the site dcache-systest answers" in output
        assert "ok      copies between servers: the door fetches and sends; " in output
        assert "the other server gets a macaroon for the one file" in output

    def test_no_frontend(self, configuration: Any, root: str) -> None:
        configuration(dcache={"discover_frontend": False})
        output = self.doctor(root, 0)
        assert "missing frontend: none is known: `discover_frontend` is false\n        So: the door" in output
        assert "missing tape: look for the tape API" in output
        assert "stage, pin, release and locality fail" in output
        assert output.endswith("Everything works.\n")

    def test_a_frontend_that_is_away(self, configuration: Any, root: str) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            configuration(dcache={"frontend_url": f"https://localhost:{nobody.getsockname()[1]}/"})
            output = self.doctor(root, 0)
        assert "configured: not seen to speak of the same files as the door: " in output
        assert output.count("Connection refused") >= 2
        assert "missing tape: " in output

    def test_no_copies_between_servers(self, configuration: Any, root: str) -> None:
        configuration(dcache={"third_party": "never"})
        assert (
            "missing copies between servers: `third_party: never`\n        So: the bytes of copies"
            in self.doctor(root, 0)
        )

    def test_copies_that_do_not_end(self, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ThirdPartyCopies, "never_end", True)
        assert "copies of dCache 12.0.0 and 12.0.1 do not end, so none is begun" in self.doctor(root, 0)

    def test_no_macaroon(self, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise UnsupportedError("the door mints none")

        monkeypatch.setattr(WebdavStore, "grant", refuse)
        output = self.doctor(root, 0)
        assert "missing copies between servers: no macaroon for another server: the door mints none" in output

    def test_unknown_key(self, configuration: Any, root: str) -> None:
        configuration(tokne="x")
        output = self.doctor(root, 1)
        assert "FAILED  configuration" in output
        assert "tokne" in output
        assert "What to do" in output

    def test_missing_configuration(self, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", "/there/is/no/such/file.yaml")
        assert "/there/is/no/such/file.yaml" in self.doctor(root, 1)

    def test_refused_credential(self, configuration: Any, root: str, tmp_path: Path) -> None:
        token = tmp_path / "token"
        token.write_text("not-a-token-of-this-door")
        token.chmod(0o600)
        configuration(token=str(token))
        output = self.doctor(root, 1)
        assert "FAILED  door" in output
        assert "401" in output
        assert "What to do: " in output
        assert "not-a-token" not in output

    def test_nobody_is_there(self) -> None:
        output = self.doctor("davs://localhost:1/data/", 1)
        assert "FAILED  door" in output
        assert "check host" in output

    def test_no_right_to_write(self, embedded: Any, root: str) -> None:
        output = self.doctor(embedded.url.replace("/data/", "/"), 1)
        assert "FAILED  write through a pool" in output
        assert "403" in output

    def test_missing_directory(self, root: str) -> None:
        output = self.doctor(f"{root}missing/", 1)
        assert "FAILED  directory" in output
        assert "dcache-butler mkdir" in output
        assert not DcacheFileSystem().exists(f"{root}missing")

    def test_unreachable_pool(self, embedded: Any, root: str) -> None:
        embedded.faults.add(Fault("refuse_pool", times=None))
        try:
            output = self.doctor(root, 1)
        finally:
            embedded.faults.clear()
        assert "FAILED  write through a pool" in output
        assert "cannot be reached: have a firewall opened" in output

    def test_no_url(self) -> None:
        assert "FAILED  configuration" in self.doctor("/a/local/path", 1)
