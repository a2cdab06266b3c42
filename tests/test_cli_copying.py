"""``dcache-butler cp``: lists, restarts, interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lsst.daf.butler_dcache import DcacheFileSystem
from lsst.daf.butler_dcache.cli.main import main
from lsst.daf.butler_dcache.embedded import Fault
from lsst.daf.butler_dcache.store.registry import reset_stores

TIMEOUT_SECONDS = 60


def run(*arguments: str | Path, status: int = 0, input: str | None = None) -> Result:
    result = CliRunner().invoke(main, ["cp", *map(str, arguments)], input=input)
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number in range(6):
        path = tmp_path / "tree" / str(number % 2) / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * 1000)
    return tmp_path / "tree"


def test_a_tree_and_the_same_again(tree: Path, base_url: str) -> None:
    assert run("-r", tree, base_url).stderr.startswith("6 copied (5.9K in ")
    (tree / "0" / "f0").write_bytes(b"new" * 1000)
    assert ", 5 skipped since verified there" in run("-r", tree, base_url).stderr
    assert DcacheFileSystem().cat_file(f"{base_url}tree/0/f0") == b"new" * 1000
    found = json.loads(run("-r", "--json", tree, base_url).stdout)
    assert {item["outcome"] for item in found} == {"skipped"}
    assert sorted(item["size"] for item in found) == [1000] * 5 + [3000]
    assert run("-r", "-q", tree, base_url).output == ""


@pytest.mark.parametrize("source", ["local", "base_url", "s3_url"])
@pytest.mark.parametrize("target", ["local", "base_url", "s3_url"])
def test_every_pair_of_schemes(
    request: pytest.FixtureRequest, tmp_path: Path, source: str, target: str
) -> None:
    places = {
        name: f"{tmp_path}/" if name == "local" else request.getfixturevalue(name)
        for name in (source, target)
    }
    names = {f"{places[source]}in/{i}": f"{places[target]}out/{i}" for i in range(3)}
    for number, name in enumerate(names):
        (tmp_path / "bytes").write_bytes(bytes([number]) * 5000)
        run(tmp_path / "bytes", name)
    pairs = "".join(f"{one}\t{other}\n" for one, other in names.items())
    for expected in ({"client", "server"}, {"skipped"}):
        reset_stores()
        found = json.loads(run("--json", "--from-file", "-", input=pairs).stdout)
        assert {item["outcome"] for item in found} <= expected, found
        assert [item["size"] for item in found] == [5000] * 3
    (tmp_path / "bytes").write_bytes(b"x" * 5000)
    run(tmp_path / "bytes", next(iter(names)))
    reset_stores()
    found = json.loads(run("--json", "--from-file", "-", input=pairs).stdout)
    assert sorted(item["outcome"] == "skipped" for item in found) == [False, True, True]


def test_a_list(tree: Path, base_url: str, tmp_path: Path) -> None:
    names = {f"{tree}/0/f{number}": f"{base_url}new/g{number}" for number in (0, 2, 4)}
    (tmp_path / "list").write_text("".join(f"{one}\t{other}\n" for one, other in names.items()) + "\nhalf\n")
    result = run("--from-file", tmp_path / "list", status=1)
    assert "line 5: not source, tab and target" in result.stderr
    assert "3 copied" in result.stderr
    assert DcacheFileSystem().cat_file(f"{base_url}new/g4") == b"\4" * 1000
    back = "".join(f"{other}\t{tmp_path}/back/{i}\n" for i, other in enumerate(names.values()))
    run("--from-file", "-", "--dry-run", input=back)
    assert not (tmp_path / "back").exists()
    run("--from-file", "-", input=back)
    assert (tmp_path / "back" / "2").read_bytes() == b"\4" * 1000


def test_a_directory_alone(tree: Path, base_url: str) -> None:
    assert (
        run(tree, base_url, status=1).stderr
        == f"Error: {tree}: a directory; --recursive copies what it holds\n"
    )
    run("-q", "-r", tree, base_url)
    assert "--recursive" in run(f"{base_url}tree", tree.parent / "copy", status=1).stderr


def test_dry_run(tree: Path, base_url: str) -> None:
    lines = run("--dry-run", "-r", tree, base_url).stdout.splitlines()
    assert len(lines) == 6
    assert lines[0] == f"{tree}/0/f0 -> {base_url}tree/0/f0"
    assert not DcacheFileSystem().exists(base_url)


def test_a_tree_under_another_name_and_the_same_again(tree: Path, base_url: str) -> None:
    assert "6 copied" in run("-r", tree, f"{base_url}other").stderr
    assert "6 skipped" in run("-r", "-T", tree, f"{base_url}other").stderr
    assert "6 copied" in run("-r", tree, f"{base_url}other").stderr
    assert DcacheFileSystem().cat_file(f"{base_url}other/tree/0/f0") == bytes(1000)


@pytest.mark.parametrize("inside", ["", "/0", "/0/new"])
def test_a_tree_into_itself(tree: Path, base_url: str, inside: str) -> None:
    assert "into itself" in run("-r", tree, f"{tree}{inside}/", status=1).stderr
    run("-q", "-r", tree, base_url)
    assert "into itself" in run("-r", f"{base_url}tree", f"{base_url}tree{inside}/", status=1).stderr


def test_one_of_many_fails(tree: Path, base_url: str) -> None:
    (tree / "0" / "f0").chmod(0)
    os.mkfifo(tree / "pipe")
    (tree / "dangling").symlink_to("nothing")
    result = run("-r", tree, base_url, status=1)
    assert f"Error: {tree}/pipe: not a plain file\n" in result.stderr
    assert f"Error: {tree}/dangling: No such file or directory\n" in result.stderr
    assert " failed" in result.stderr


def test_a_deadline(tree: Path, base_url: str) -> None:
    result = run("-r", "--deadline", "0s", tree, base_url, status=1)
    assert result.stderr.count("\n") == 2, result.stderr
    assert "0 copied, 6 not tried" in result.stderr
    found = json.loads(run("-r", "--json", "--deadline", "0", tree, base_url, status=1).stdout)
    assert [item["outcome"] for item in found] == ["not tried"] * 6


@pytest.mark.parametrize(
    "arguments", ["", "one", "--from-file - target", "--deadline soon a b", "--in-flight 0 a b", "-T a b c"]
)
def test_usage(arguments: str) -> None:
    assert "Usage: " in run(*arguments.split(), status=2).stderr


def test_a_shared_link(base_url: str, tmp_path: Path) -> None:
    fs = DcacheFileSystem()
    fs.pipe_file(f"{base_url}a#b.txt".replace("#", "%23"), b"bytes")
    link = fs.sign(f"{base_url}a%23b.txt", 600)
    secret = link.rpartition("authz=")[2]
    result = run(link, tmp_path)
    assert (tmp_path / "a#b.txt").read_bytes() == b"bytes"
    run(f"{base_url}a#b.txt", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b"bytes"
    result = run(link.replace("b.txt", "c.txt"), tmp_path, status=1)
    assert secret not in result.output
    assert json.loads(run("--dry-run", "--json", link, tmp_path).stdout)[0]["source"].endswith("a%23b.txt")


class TestInterrupted:
    """A process of its own, and a server that stops in the middle of a file."""

    @pytest.fixture
    def program(self, embedded: Any, base_url: str, tmp_path: Path) -> Iterator[Any]:
        names = [f"{base_url}f{number}" for number in range(4)]
        DcacheFileSystem().pipe({name: name.encode() * 20_000 for name in names})
        stall = Fault("stall_download", server="pool", path="*/f3", at_byte=200_000, seconds=TIMEOUT_SECONDS)
        embedded.faults.add(stall)
        command = [sys.executable, "-c", "from lsst.daf.butler_dcache.cli.main import main; main()"]
        process = subprocess.Popen(
            [*command, "cp", "--in-flight", "1", *names, f"{tmp_path}/"], stderr=subprocess.PIPE, text=True
        )
        while not any(path.name.startswith(".dcb-") for path in tmp_path.iterdir()) or not stall.hits:
            assert process.poll() is None, process.stderr and process.stderr.read()
        yield process
        process.kill()
        process.communicate()
        embedded.faults.clear()

    def test_twice(self, program: Any, tmp_path: Path) -> None:
        program.send_signal(signal.SIGINT)
        assert "once more" in program.stderr.readline()
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=TIMEOUT_SECONDS)
        assert program.returncode == 130
        assert errors.startswith("interrupted: 3 copied (")
        assert errors.endswith("\nthe same command goes on where it was\n")
        assert errors.count("\n") == 2, errors
        assert sorted(path.name for path in tmp_path.iterdir()) == ["f0", "f1", "f2"]

    def test_killed_and_begun_anew(self, embedded: Any, program: Any, base_url: str, tmp_path: Path) -> None:
        program.kill()
        program.communicate(timeout=TIMEOUT_SECONDS)
        embedded.faults.clear()
        names = [f"{base_url}f{number}" for number in range(4)]
        assert "3 skipped since verified there" in (errors := run(*names, tmp_path).stderr), errors
        fs = DcacheFileSystem()
        assert all((tmp_path / f"f{i}").read_bytes() == fs.cat_file(name) for i, name in enumerate(names))
