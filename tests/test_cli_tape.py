"""``dcache-butler stage``, ``release``, ``pin`` and ``locality``."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from conftest import client_environment
from lsst.daf.butler_dcache.cli import patience
from lsst.daf.butler_dcache.cli.main import main
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.embedded.tape import TapeSystem
from lsst.daf.butler_dcache.errors import CredentialError, DoorUnavailableError
from lsst.daf.butler_dcache.rest.tape import TapeApi
from lsst.daf.butler_dcache.store import staging

NEARLINE = ("a", "b# c", "sub/d")


@pytest.fixture(scope="module")
def dcache() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(tape="tape", limiter=False, time_scale=0.01) as running, client_environment(running):
        yield running


@pytest.fixture
def tape(dcache: EmbeddedDcache) -> Iterator[TapeSystem]:
    tape = dcache.site.tape
    assert tape is not None
    tape.restore_seconds = 0.01
    yield tape
    tape.is_stuck, tape.may_stage = False, True


@pytest.fixture
def root(dcache: EmbeddedDcache, tape: TapeSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(staging, "_FIRST_POLL_SECONDS", 0.02)
    folder = f"tape/{tmp_path.name}"
    for name in NEARLINE:
        dcache.place(f"{folder}/{name}", b"1", locality="NEARLINE")
    dcache.place(f"{folder}/disk", b"2", locality="ONLINE_AND_NEARLINE")
    return f"{dcache.url}{folder}/"


def run(*arguments: str | Path, status: int = 0, feed: str | None = None) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=feed)
    assert result.exit_code == status, (result.output, result.stderr, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def localities(*urls: str) -> list[str]:
    rows = json.loads(run("locality", "--json", *urls).stdout)
    return [row["locality"] for row in rows]


def journal(folder: Path) -> Path:
    (path,) = (folder / "state" / "dcache-butler" / "staging").iterdir()
    return path


def asked(dcache: EmbeddedDcache, method: str, part: str) -> int:
    return sum(record.method == method and part in record.path for record in dcache.transcript())


def pins(dcache: EmbeddedDcache, tape: TapeSystem, url: str) -> list[str]:
    entry = dcache.site.namespace.find(f"/data/{url.removeprefix(dcache.url)}")
    assert entry is not None
    return tape.pins(entry)


def test_locality(root: str) -> None:
    result = run("locality", f"{root}a", f"{root}disk", root, "--from-file", "-", feed=f"{root}b%23 c\n\n")
    assert result.stdout.splitlines() == [
        f"NEARLINE             {root}a",
        f"ONLINE_AND_NEARLINE  {root}disk",
        f"NONE                 {root}",
        f"NEARLINE             {root}b%23%20c",
    ]
    assert result.stderr.strip() == "2 NEARLINE, 1 NONE, 1 ONLINE_AND_NEARLINE"
    missing = run("locality", f"{root}a", f"{root}none", status=1)
    assert missing.stdout == f"NEARLINE             {root}a\n"
    assert missing.stderr == (
        f"Error: locality {root}none: no such file or directory "
        f"(No such file or directory /data/tape/{root.split('/')[-2]}/none)\n"
    )


def test_stage_and_release(dcache: EmbeddedDcache, tape: TapeSystem, root: str, tmp_path: Path) -> None:
    urls = [f"{root}{name}" for name in ("a", "b%23%20c", "disk")]
    result = run("stage", *urls, "--lifetime", "1h")
    assert (result.stdout, result.stderr) == ("", "3 of 3 files on disk\n")
    assert localities(*urls) == ["ONLINE_AND_NEARLINE"] * 3
    path = journal(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    (request,) = pins(dcache, tape, urls[0])
    assert pins(dcache, tape, urls[2]) == [request]  # what is on disk already is to stay there
    run("release", urls[0])
    assert pins(dcache, tape, urls[0]) == []
    unknown = run("release", f"{root}sub/d", urls[2], status=1)
    assert pins(dcache, tape, urls[2]) == []
    assert "no journal knows a request for it" in unknown.stderr
    run("release", "--request", request, f"{root}b%23%20c")
    run("release", "--journal", path)
    assert not path.exists()
    assert asked(dcache, "DELETE", request) == 1


def test_stage_tells_each_failure_in_a_line(dcache: EmbeddedDcache, root: str) -> None:
    dcache.place("plain", b"3")
    result = run("stage", f"{root}a", f"{dcache.url}plain", f"{root}none", root, "/local", status=1)
    lines = result.stderr.splitlines()
    assert len(lines) == 5
    assert lines[0] == "Error: /local: a file of this machine is on no tape"
    assert {line.split(": ")[1] for line in lines[1:3]} == {f"stage {root}none", f"stage {root}"}
    assert lines[3] == "2 of 4 files on disk, 2 failed"
    assert lines[4] == "1 of them were on disk without the request's doing"
    rows = json.loads(run("stage", "--json", f"{root}sub/d", f"{root}none", status=1).stdout)
    by_name = {row["name"]: row for row in rows}
    assert by_name[f"{root}sub/d"] == {"name": f"{root}sub/d", "state": "staged"}
    assert by_name[f"{root}none"]["state"] == "failed"
    assert "rc=10001" in by_name[f"{root}none"]["error"]


def test_progress_on_a_terminal(tape: TapeSystem, root: str) -> None:
    """One line that is written anew, and is gone at the end."""
    master, slave = pty.openpty()
    program = "from lsst.daf.butler_dcache.cli.main import main; main()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, "stage", f"{root}a", f"{root}disk"], stderr=slave, check=False
        )
        said = os.read(master, 65536).decode()
    finally:
        os.close(master)
        os.close(slave)
    assert done.returncode == 0
    assert "\r\x1b[K0 of 2 files on disk, 2 submitted" in said
    assert said.endswith("\r\x1b[K2 of 2 files on disk\r\n")


def test_stage_of_a_tree(dcache: EmbeddedDcache, tape: TapeSystem, root: str) -> None:
    result = run("stage", "-r", root)
    assert result.stderr == "1 files are on disk already\n3 of 3 files on disk\n"
    assert pins(dcache, tape, f"{root}disk") == []
    assert run("stage", "-r", root).stderr == "4 files are on disk already\nno files to stage\n"
    assert run("stage", "-r", "--with-online", root).stderr == "4 of 4 files on disk\n"
    assert len(pins(dcache, tape, f"{root}disk")) == 1


def test_who_may_not_stage(tape: TapeSystem, root: str) -> None:
    tape.may_stage = False
    result = run("stage", f"{root}a", status=1)
    assert "may not stage the file" in result.stderr


@pytest.fixture
def away(dcache: EmbeddedDcache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A frontend that is configured and refuses connections."""
    (entry,) = yaml.safe_load(Path(dcache.environment["LSST_RESOURCES_WEBDAV_CONFIG"]).read_text())
    path = tmp_path / "away.yaml"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"https://localhost:{nobody.getsockname()[1]}/"
        path.write_text(yaml.safe_dump([entry | {"dcache": {"frontend_url": url}}]))
        monkeypatch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(path))
        yield url


@pytest.mark.parametrize(
    "command", [["stage"], ["stage", "--no-wait", "--json"], ["release", "--request", "x"], ["locality"]]
)
def test_a_tape_api_that_is_not_there_is_an_error_soon(command: list[str], root: str, away: str) -> None:
    result = run(*command, f"{root}a", status=1)
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert "no connection" in errors[0]
    assert f"Check that the tape API is at {away}api/v1/tape" in errors[0]
    assert ("The same command goes on from here" in result.stderr) == (command[0] == "stage")


def test_what_takes_long_is_told_without_a_terminal(
    tape: TapeSystem, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_FIRST_SECONDS", 0.01)
    tape.is_stuck = True
    result = run("stage", f"{root}a", "--deadline", "1s", status=1)
    assert "waiting; 0 of 1 files on disk, 1 " in result.stderr


def test_setbacks_are_told_once(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    troubles = [DoorUnavailableError("away")] * 3
    state = TapeApi.state

    def trouble(self: TapeApi, request: str, **details: Any) -> Any:
        if troubles:
            raise troubles.pop()
        return state(self, request, **details)

    monkeypatch.setattr(TapeApi, "state", trouble)
    result = run("stage", f"{root}a")
    assert result.stderr == "Warning: staging goes on in spite of: away\n1 of 1 files on disk\n"


def test_pin(dcache: EmbeddedDcache, tape: TapeSystem, root: str) -> None:
    result = run("pin", f"{root}disk", f"{root}a", "--name", "me", status=1)
    assert pins(dcache, tape, f"{root}disk") == ["me"]
    assert f"pin {root}a: the file is NEARLINE" in result.stderr
    run("release", "--pin", "me", f"{root}disk")
    assert pins(dcache, tape, f"{root}disk") == []


def test_overdue(tape: TapeSystem, root: str, tmp_path: Path, dcache: EmbeddedDcache) -> None:
    tape.is_stuck = True
    before = asked(dcache, "POST", "/tape/stage")
    result = run("stage", f"{root}a", "--deadline", "0.2", status=1)
    first, second, third = result.stderr.splitlines()
    assert "still started and NEARLINE after 0.2 s" in first
    assert second == "0 of 1 files on disk, 1 overdue"
    assert third.endswith(
        f"1 files are not on disk. The same command goes on from here (journal {journal(tmp_path)})"
    )
    tape.is_stuck = False
    assert run("stage", f"{root}a").stderr == "1 of 1 files on disk\n"
    assert asked(dcache, "POST", "/tape/stage") == before + 1


def test_without_waiting(tape: TapeSystem, root: str) -> None:
    tape.is_stuck = True
    result = run("stage", f"{root}a", "--no-wait")
    assert result.stderr.startswith("0 of 1 files on disk, 1 submitted\nasked for; the same command without")
    tape.is_stuck = False
    assert run("stage", f"{root}a").stderr == "1 of 1 files on disk\n"


@pytest.mark.parametrize("cancels", [False, True])
def test_interrupted(
    cancels: bool, dcache: EmbeddedDcache, tape: TapeSystem, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape.is_stuck = True
    requests: list[str] = []

    def interrupt(self: TapeApi, request: str, **_: Any) -> Any:
        requests.append(request)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TapeApi, "state", interrupt)
        options = ["--cancel-on-interrupt"] if cancels else []
        result = run("stage", f"{root}a", *options, status=130)
    deleted = asked(dcache, "DELETE", requests[0])
    assert ("cancelled" in result.stderr, deleted) == (cancels, int(cancels))
    assert ("same command goes on" in result.stderr) is not cancels
    assert asked(dcache, "POST", f"{requests[0]}/cancel") == int(cancels)
    tape.is_stuck = False
    before = asked(dcache, "POST", "/tape/stage")
    run("stage", f"{root}a")
    assert asked(dcache, "POST", "/tape/stage") == before + int(cancels)


def test_a_token_that_ends(
    dcache: EmbeddedDcache, tape: TapeSystem, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(self: TapeApi, request: str, **_: Any) -> Any:
        raise CredentialError("the token is over")

    with monkeypatch.context() as patch:
        patch.setattr(TapeApi, "state", end)
        result = run("stage", f"{root}a", f"{root}sub/d", status=1)
    assert result.stderr.splitlines() == [
        "0 of 2 files on disk, 2 submitted",
        "Error: the token is over; 2 files are not on disk. The same command goes on from here "
        f"(journal {journal(tmp_path)})",
    ]
    before = asked(dcache, "POST", "/tape/stage")
    run("stage", f"{root}a", f"{root}sub/d")
    assert asked(dcache, "POST", "/tape/stage") == before


def test_killed_processes_are_gone_on_from(
    dcache: EmbeddedDcache, tape: TapeSystem, root: str, tmp_path: Path
) -> None:
    """Ctrl-C and SIGKILL of real processes; no file is asked for twice."""
    tape.is_stuck = True
    urls = [f"{root}{name}" for name in ("a", "sub/d")]
    # As at a terminal, whoever runs the tests: what is started in the background has Ctrl-C switched off.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from lsst.daf.butler_dcache.cli.main import main; main()"
    )
    before = asked(dcache, "POST", "/tape/stage")
    for sent, status in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        polls = asked(dcache, "GET", "/tape/stage/")
        process = subprocess.Popen(
            [sys.executable, "-c", program, "stage", *urls], env=dict(os.environ), stderr=subprocess.PIPE
        )
        try:
            end = time.monotonic() + 60
            while asked(dcache, "GET", "/tape/stage/") == polls:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.02)
            process.send_signal(sent)
            _, errors = process.communicate(timeout=100)
        finally:
            process.kill()
        assert process.returncode == status, errors
        assert (b"same command goes on" in errors) is (sent == signal.SIGINT)
    tape.is_stuck = False
    assert run("stage", *urls).stderr == "2 of 2 files on disk\n"
    assert asked(dcache, "POST", "/tape/stage") == before + 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "Name files"),
        (["--from-graph", "x.qg"], "need --repo"),
        (["--dataset-query", "raw", "--repo", "r"], "needs --collections"),
        (["davs://d:1/a", "--lifetime", "0"], "a second at least"),
        (["davs://d:1/a", "--lifetime", "soon"], "not a duration"),
    ],
)
def test_wrong_usage(arguments: list[str], complaint: str, root: str) -> None:
    assert complaint in run("stage", *arguments, status=2).stderr


def test_one_server_a_command(root: str) -> None:
    result = run("stage", f"{root}a", "davs://other.example.org:2880/x", status=1)
    assert "One command, one server" in result.stderr


def test_a_missing_package_names_the_extra(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lsst.daf.butler", None)
    monkeypatch.delitem(sys.modules, "lsst.daf.butler_dcache.graph_files", raising=False)
    result = run("stage", "--from-graph", "x.qg", "--repo", "r", status=1)
    assert "needs the package lsst.daf.butler, which is not installed" in result.stderr
    assert "lsst-daf-butler-dcache[demo]" in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        "what somebody wrote\n",
        "and did not end with a newline",
        '{"request": "x", "at": 1}\n',
        '{"campaign": 3, "at": 1}\n',
        '{"request": "x", "files": [0, 1], "paths": ["/a"], "at": "then"}\n',
        '{"ended": [0, 1], "failed": {"0": 3}, "at": 1}\n',
    ],
)
def test_what_is_no_journal_is_left_as_it_is(text: str, root: str, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_text(text)
    result = run("stage", "--json", f"{root}a", "--journal", path, status=1)
    assert json.loads(result.stdout) == []
    assert f"{path}" in result.stderr
    assert "Name another journal" in result.stderr
    assert path.read_text() == text
    if text.endswith("\n"):
        assert "is no record. Name" in run("release", "--journal", path, status=1).stderr
        assert path.read_text() == text


def test_a_journal_is_a_file_of_ours(root: str) -> None:
    assert "is no file of this user" in run("stage", f"{root}a", "--journal", "/dev/null", status=1).stderr


def test_a_damaged_journal_does_not_hide_the_others(
    dcache: EmbeddedDcache, tape: TapeSystem, root: str, tmp_path: Path
) -> None:
    run("stage", f"{root}a")
    (journal(tmp_path).parent / "0.jsonl").write_text("?\n")
    result = run("release", f"{root}a")
    assert result.stderr.startswith("Warning: line 1 of the journal ")
    assert pins(dcache, tape, f"{root}a") == []


def test_a_campaign_under_way_is_not_released(root: str, tmp_path: Path) -> None:
    run("stage", f"{root}a")
    path = journal(tmp_path)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another process works with" in run("release", "--journal", path, status=1).stderr
    assert path.exists()


@pytest.mark.parametrize(
    "command", [["locality"], ["pin"], ["pin", "--lifetime", "0s", "davs://localhost:1/x"]]
)
def test_commands_that_ask_for_nothing(command: list[str]) -> None:
    assert "Usage: " in run(*command, status=2).stderr


def test_interrupted_twice(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(TapeApi, "state", interrupt)
    monkeypatch.setattr(TapeApi, "cancel", interrupt)
    result = run("stage", "--json", "--cancel-on-interrupt", f"{root}a", status=130)
    assert "interrupted; what is asked for comes all the same" in result.stderr
    assert json.loads(result.stdout) == []


@pytest.mark.parametrize("command", ["stage", "locality", "pin"])
def test_dots_that_the_server_would_follow(command: str, root: str) -> None:
    result = run(command, f"{root}sub/%2e%2e/a", status=1)
    assert "the server would take the dots in it for directories" in result.stderr
