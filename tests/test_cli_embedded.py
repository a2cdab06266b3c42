"""``dcache-butler embedded``, and the program around it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import requests
from click.testing import CliRunner
from lsst.daf.butler_dcache.cli import main as program
from lsst.daf.butler_dcache.cli.main import Subcommand, main

DCACHE_BUTLER = Path(sysconfig.get_path("scripts")) / "dcache-butler"


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run the command; give its process and the variables that it has printed."""
    with subprocess.Popen(
        [DCACHE_BUTLER, "embedded", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            # The line on standard error comes after the last variable.
            assert process.stderr.readline().startswith("# dCache")
            variables = {}
            while "LSST_RESOURCES_WEBDAV_CONFIG" not in variables or "DCACHE_URL" not in variables:
                word, assignment = shlex.split(process.stdout.readline())
                assert word == "export"
                name, _, value = assignment.partition("=")
                variables[name] = value
            yield process, variables
        finally:
            process.kill()


def head(url: str, variables: dict[str, str]) -> requests.Response:
    """Ask for a path as somebody who has nothing but those variables."""
    token = Path(variables["BEARER_TOKEN_FILE"]).read_text().strip()
    response = requests.head(
        url.replace("davs://", "https://"),
        headers={"Authorization": f"Bearer {token}"},
        verify=False,
        timeout=20,
        allow_redirects=False,
    )
    return response


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    with running("--pools", "3", "--version", "12.0.1") as (process, variables):
        assert variables["DCACHE_URL"].startswith("davs://")
        assert variables["DCACHE_URL"].endswith("/")
        response = head(variables["DCACHE_URL"] + "absent", variables)
        assert response.status_code == 404
        assert response.headers["Server"] == "dCache/12.0.1"
        process.send_signal(number)
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == "# stopped\n"
    # What it wrote for its clients goes with it: a token that outlives its server is of use to nobody.
    assert not Path(variables["BEARER_TOKEN_FILE"]).exists()


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_files_go_to_tape_and_leave_the_disk() -> None:
    with running("--tape", "raw", "--tape-seconds", "0", "0", "60") as (_, variables):
        token = Path(variables["BEARER_TOKEN_FILE"]).read_text().strip()
        url = variables["DCACHE_URL"].replace("davs://", "https://") + "raw/file"
        wish = '<D:propfind xmlns:D="DAV:"><D:prop><s:FileLocality xmlns:s="http://srm.lbl.gov/'
        wish += 'StorageResourceManager"/></D:prop></D:propfind>'
        with requests.Session() as session:
            session.verify, session.trust_env = False, False
            session.headers["Authorization"] = f"Bearer {token}"
            assert session.put(url, data=b"x", timeout=20).status_code == 201
            for _ in range(200):
                body = session.request("PROPFIND", url, data=wish, headers={"Depth": "0"}, timeout=20).text
                if ">NEARLINE<" in body:
                    return
                time.sleep(0.02)
    raise AssertionError(body)


def test_files_in_a_folder_are_there_again(tmp_path: Path) -> None:
    def stored(method: str, data: bytes | None = None) -> requests.Response:
        with running("--plain", "--root", str(tmp_path / "store")) as (process, variables):
            url = variables["DCACHE_URL"].replace("dav://", "http://") + "kept.txt"
            login = login_of(variables)
            response = requests.request(method, url, data=data, auth=login, timeout=20)
            process.terminate()
            assert process.wait(timeout=20) == 0
        return response

    assert stored("PUT", b"still here").status_code == 201
    assert stored("GET").content == b"still here"


def login_of(variables: dict[str, str]) -> tuple[str, str]:
    """Read name and password as every client of the configuration file does."""
    import yaml

    (endpoint, *_) = yaml.safe_load(Path(variables["LSST_RESOURCES_WEBDAV_CONFIG"]).read_text())
    assert "BEARER_TOKEN_FILE" not in variables
    return endpoint["user_name"], endpoint["user_password"]


def test_a_shell_can_read_what_it_prints() -> None:
    script = 'eval "$(head -n 3 <&3)"; printf %s "$DCACHE_URL"'
    reading, writing = os.pipe()
    with subprocess.Popen(
        [DCACHE_BUTLER, "embedded"], stdout=writing, stderr=subprocess.DEVNULL, text=True
    ) as process:
        os.close(writing)
        try:
            shell = subprocess.run(
                ["bash", "-c", f"exec 3<&{reading}; {script}"],
                pass_fds=[reading],
                capture_output=True,
                text=True,
                timeout=20,
                check=True,
            )
        finally:
            os.close(reading)
            process.terminate()
        assert shell.stdout.startswith("davs://")


def test_help_lists_all_commands_without_importing_them() -> None:
    script = (
        "import sys; from lsst.daf.butler_dcache.cli.main import main;"
        "main(['--help'], standalone_mode=False);"
        "print([name for name in sys.modules if name.startswith('lsst.daf.butler_dcache.demo')])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "  demo " in result.stdout
    assert "  embedded " in result.stdout
    assert result.stdout.endswith("[]\n")


def test_a_command_whose_packages_are_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'lsst.images'", name="lsst.images")

    monkeypatch.setattr(program.importlib, "import_module", missing)
    result = CliRunner().invoke(main, ["demo", "--url", "davs://door.example.org/"])
    assert result.exit_code == 1
    assert "demo needs the package lsst.images" in result.output
    assert "pip install 'lsst-daf-butler-dcache[demo]'" in result.output


def test_a_defect_of_our_own_is_not_called_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Subcommand("no_such_module", "Nothing.", extra="demo")
    monkeypatch.setitem(program.SUBCOMMANDS, "broken", broken)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        main.get_command(click.Context(main), "broken")


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["nonsense"])
    assert result.exit_code == 2
    assert "No such command 'nonsense'" in result.output
