"""The commands that look at trees and lists of names: ls -R, find, du, rm, checksum --check."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from lsst.daf.butler_dcache import DcacheFileSystem
from lsst.daf.butler_dcache.cli.main import main

ODD = "we#ird %41+;é \U0001f600 "
ODD_URL = "we%23ird%20%2541%2B%3B%C3%A9%20%F0%9F%98%80%20"


def run(*arguments: str | Path, status: int = 0, input: str | None = None) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=input)
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of this machine."""
    root = tmp_path_factory.mktemp("tree")
    for name, size in (("a/1.txt", 6), ("a/b/big.fits", 3000), (f"c/{ODD}", 1), ("empty", 0)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    os.utime(root / "empty", (1_000_000_000, 1_000_000_000))
    return root


@pytest.fixture(params=["base_url", "s3_url", "local"])
def root(request: pytest.FixtureRequest, local: Path) -> str:
    """The same tree in each of three places."""
    if request.param == "local":
        return str(local)
    url = request.getfixturevalue(request.param)
    run("cp", "--quiet", "-r", f"{local}/", url)
    return f"{url}{local.name}"


def odd(root: str) -> str:
    return f"{root}/c/{ODD_URL if '://' in root else ODD}"


def lines(result: Result) -> list[str]:
    return result.stdout.splitlines()


def test_du(root: str) -> None:
    assert [line.split() for line in lines(run("du", root))] == [
        ["3000", "1", f"{root}/a/b"],
        ["3006", "2", f"{root}/a"],
        ["1", "1", f"{root}/c"],
        ["3007", "4", root],
    ]
    assert [line.split() for line in lines(run("du", "-h", "--max-depth", "1", root))] == [
        ["2.9K", "2", f"{root}/a"],
        ["1", "1", f"{root}/c"],
        ["2.9K", "4", root],
    ]
    (total,) = json.loads(run("du", "-s", "--json", root).stdout)
    assert total == {"name": root, "bytes": 3007, "files": 4}


def test_find(root: str) -> None:
    assert lines(run("find", root)) == [
        root, f"{root}/a", f"{root}/c", f"{root}/empty", f"{root}/a/1.txt", f"{root}/a/b",
        f"{root}/a/b/big.fits", odd(root),
    ]  # fmt: skip
    assert lines(run("find", root, "--type", "f", "--size", "+1k")) == [f"{root}/a/b/big.fits"]
    assert lines(run("find", root, "--size", "-1", "--size", "0")) == [f"{root}/empty"]
    assert lines(run("find", root, "--type", "d", "--max-depth", "1")) == [root, f"{root}/a", f"{root}/c"]
    assert lines(run("find", root, "--name", "*#ird %41*")) == [odd(root)]
    assert run("find", root, "--print0", "--name", "*.txt").stdout == f"{root}/a/1.txt\0"
    (found,) = json.loads(run("find", "--json", "--name", "*#*", root).stdout)
    assert (found["name"], found["type"], found["size"]) == (odd(root), "file", 1)


def test_find_by_time(local: Path) -> None:
    assert lines(run("find", local, "--type", "f", "--older-than", "2001-09-10")) == [f"{local}/empty"]
    assert f"{local}/empty" not in lines(run("find", local, "--newer-than", "2001-09-09T01:46:41Z"))
    assert lines(run("find", local, "--older-than", "90m", "--type", "f")) == [f"{local}/empty"]


def test_find_by_locality(base_url: str) -> None:
    DcacheFileSystem().pipe_file(f"{base_url}a", b"x")
    assert lines(run("find", base_url, "--locality", "online")) == [f"{base_url}a"]
    assert lines(run("find", base_url, "--locality", "NEARLINE")) == []


@pytest.mark.parametrize(
    "arguments", [["--size", "many"], ["--newer-than", "yesterday"], ["--locality", "MOON"], ["--type", "l"]]
)
def test_find_refuses_nonsense(local: Path, arguments: list[str]) -> None:
    assert arguments[1] in run("find", local, *arguments, status=2).stderr


def test_ls(root: str) -> None:
    assert lines(run("ls", "-R", root)) == [
        f"{root}:", "a/", "c/", "empty", "", f"{root}/a:", "1.txt", "b/", "", f"{root}/a/b:", "big.fits", "",
        f"{root}/c:", odd(root).rpartition("/")[2],
    ]  # fmt: skip
    assert lines(run("ls", "-d", root, f"{root}/empty")) == [f"{root}/", f"{root}/empty"]
    assert len(json.loads(run("ls", "-R", "--json", root).stdout)) == 7
    assert ("ONLINE" in run("ls", "-l", root).stdout) == root.startswith("davs:")


@pytest.mark.parametrize("command", ["ls", "stat", "cat", "du", "find", "checksum"])
def test_a_missing_name_hides_no_other(root: str, command: str) -> None:
    result = run(command, f"{root}/nothing", f"{root}/a/1.txt", status=1)
    assert "xxxxxx" in result.stdout if command == "cat" else "1.txt" in result.stdout
    assert result.stderr.startswith("Error: ")
    assert f"{root}/nothing" in result.stderr
    assert result.stderr.count("\n") == 1


def test_rm_of_lists(root: str, tmp_path: Path) -> None:
    run("cp", "-q", "-r", root, tmp_path / "copy")
    root = str(tmp_path / "copy") if root.startswith("/") else root
    names = "".join(f"{root}/{name}\n" for name in ("a/1.txt", "nothing", "empty"))
    # S3 does not tell whether there was a file of a name that it is to remove.
    tells = not root.startswith("s3:")
    result = run("rm", "--from-file", "-", input=names, status=int(tells))
    assert result.stderr.count("\n") == tells
    assert not tells or f"{root}/nothing" in result.stderr
    found = json.loads(run("rm", "-f", "--json", "--from-file", "-", input=names).stdout)
    assert [item["removed"] for item in found] == [not tells] * 3
    assert lines(run("find", root, "--type", "f")) == [f"{root}/a/b/big.fits", odd(root)]
    run("rm", odd(root))
    assert "--recursive" in run("rm", f"{root}/a", status=1).stderr
    run("rm", "-r", root)
    if tells:
        run("ls", root, status=1)
    else:
        assert not DcacheFileSystem().find(root)


@pytest.mark.parametrize("path", ["/", "", "/data/..", "/%2E", "//"])
def test_rm_refuses_a_root(base_url: str, path: str) -> None:
    url = f"davs://{base_url.split('/')[2]}{path}"
    assert "--no-preserve-root" in run("rm", "-r", url, status=1).stderr


def test_checksum_lists(root: str, tmp_path: Path) -> None:
    names = [f"{root}/a/1.txt", odd(root)]
    algorithm = "md5" if root.startswith("s3:") else "adler32"
    sums = run("checksum", "-a", algorithm, *names).stdout
    assert lines(run("checksum", "--check", "-", input=sums)) == [f"{name}: OK" for name in names]
    wrong = sums.replace(":", ":0", 1).replace("  ", " *")
    result = run("checksum", "--check", "-", "--verify", input=f"# nonsense\n{wrong}", status=1)
    assert "line 1" in result.stderr
    assert [line.partition(": ")[2].split()[0] for line in lines(result)] == ["FAILED,", "OK"]


def test_checksums_that_the_server_has_not(root: str) -> None:
    name = f"{root}/a/1.txt"
    expected = hashlib.sha256(b"xxxxxx").hexdigest()
    assert run("checksum", "-a", "sha-256", "--verify", name).stdout == f"sha-256:{expected}  {name}\n"
    if root.startswith("davs"):
        assert "--verify" in run("checksum", "-a", "sha-256", name, status=1).stderr
