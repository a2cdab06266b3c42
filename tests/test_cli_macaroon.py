"""``dcache-butler macaroon``."""

from __future__ import annotations

import configparser
import json
import os
import shlex
import stat
import subprocess
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lsst.daf.butler_dcache import DcacheFileSystem, DcacheResourcePath
from lsst.daf.butler_dcache.auth.macaroon import Activity, Macaroon
from lsst.daf.butler_dcache.cli import quantities
from lsst.daf.butler_dcache.cli.main import main
from request_counter import counted
from test_macaroon import mint as make
from test_macaroon_scope import FIRST
from test_minting import account
from test_store_webdav import endpoint

DATA = b"handed out"


def run(*arguments: Any, status: int = 0, text: str | None = None) -> Result:
    result = CliRunner().invoke(main, ["macaroon", *map(str, arguments)], input=text)
    assert result.exit_code == status, result.output
    if status:
        assert result.stdout == ""
        assert "Traceback" not in result.output
    return result


@pytest.fixture
def url(embedded: Any) -> str:
    base = f"{embedded.url}{uuid.uuid4().hex[:8]}/"
    DcacheFileSystem().pipe({f"{base}a%20file": DATA, f"{base}other": DATA})
    return f"{base}a%20file"


@pytest.fixture
def macaroon_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(make(*FIRST, "path:/a", "activity:DOWNLOAD,LIST", "colour:red") + "\n")
    path.chmod(0o600)
    return path


# inspect


def test_inspect(macaroon_file: Path) -> None:
    token = macaroon_file.read_text().strip()
    for result in (run("inspect", macaroon_file), run("inspect", text=token)):
        lines = result.stdout.splitlines()
        assert "path:        /a" in lines
        assert "activities:  LIST, DOWNLOAD, READ_METADATA" in lines
        assert any(line.startswith("refused:     colour:red") for line in lines)
        assert any(line.startswith("expires:") and "(in " in line for line in lines)
        assert token not in result.output
        assert token[-30:] not in result.output
    document = json.loads(run("inspect", "--json", macaroon_file).stdout)
    assert document["path"] == "/a"
    assert token[-30:] not in json.dumps(document)


def test_inspect_what_others_wrote(tmp_path: Path, macaroon_file: Path, embedded: Any) -> None:
    token = macaroon_file.read_text().strip()
    rclone = tmp_path / "share.conf"
    rclone.write_text(f"[share]\ntype = webdav\nurl = https://door/\nbearer_token = {token}\n")
    for source in (rclone, f"https://door.example/f?authz={token}"):
        assert json.loads(run("inspect", "--json", source).stdout)["path"] == "/a"
    own = json.loads(run("inspect", "--json", embedded.url).stdout)
    assert own["issuer"] == "dCache"


@pytest.mark.parametrize("text", ["", "no macaroon", "a.b.c", "M" * 70_000])
def test_inspect_garbage(text: str) -> None:
    assert run("inspect", text=text, status=1).stderr.startswith("Error: ")


def test_caveats_cannot_write_on_the_terminal() -> None:
    token = make(*FIRST, "path:/\x1b[31mred", "a\x07b:c")
    assert "\x1b" not in run("inspect", text=token).output
    assert "\x07" not in run("inspect", text=token).output


# attenuate


def test_attenuate(macaroon_file: Path, tmp_path: Path) -> None:
    result = run("attenuate", macaroon_file, "--activity", "download", "--path", "/a/b", "--lifetime", "15m",
                 "--ip", "127.0.0.1, ::1")  # fmt: skip
    narrowed = Macaroon.parse(result.stdout.strip())
    assert narrowed.activities == {Activity.DOWNLOAD, Activity.READ_METADATA}
    assert narrowed.scope.path == "/a/b"
    assert narrowed.scope.addresses == ("127.0.0.1,::1",)
    assert narrowed.expires is not None
    assert narrowed.expires <= datetime.now(UTC) + timedelta(minutes=15)
    target = tmp_path / "narrow"
    result = run("attenuate", macaroon_file, target, "--output", "file", "--caveat", "home:/x")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert target.read_text().strip() not in result.output
    assert Macaroon.parse(target.read_text()).scope.home == "/x"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--activity", "DELETE"], "enlarge"),
        (["--path", "/b"], "the macaroon is for /a"),
        (["--before", "2020-01-01T00:00:00Z"], "passed"),
        (["--before", "tomorrow"], "expected a moment"),
        (["--caveat", "colour:blue"], "no such caveat"),
        (["--ip", "home"], "expected addresses"),
        (["--output", "file"], "wants a NAME"),
    ],
)
def test_attenuations_that_are_refused(macaroon_file: Path, options: list[str], reason: str) -> None:
    assert reason in run("attenuate", macaroon_file, *options, status=1).stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--activity", "DANCE"],
        ["--lifetime", "soon"],
        ["--lifetime", "0s"],
        ["--lifetime", "P"],
        ["--max-upload", "0"],
    ],
)
def test_options_that_mean_nothing(macaroon_file: Path, options: list[str]) -> None:
    run("attenuate", macaroon_file, *options, status=2)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5h", 5400), ("7d", 604800), ("PT12H", 43200), ("p1w2dt3m4s", 777784)],
)
def test_a_duration(text: str, seconds: float) -> None:
    assert quantities.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "P", "PT", "-1h", "h", "12 h", "PT1.5H", "1y"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        quantities.seconds(text)


# mint and share


def test_mint(embedded: Any, url: str, tmp_path: Path) -> None:
    with endpoint(embedded, tmp_path, **account(embedded)), counted(embedded) as counter:
        result = run("mint", url, "--permissions", "DOWNLOAD", "--duration", "PT10M")
        document = json.loads(run("mint", url, "--json", tmp_path / "m", "--output", "file").stdout)
    assert counter.methods() == ["door POST"] * 2
    assert Macaroon.parse(result.stdout.strip()).activities == {Activity.DOWNLOAD, Activity.READ_METADATA}
    assert document["file"] == str(tmp_path / "m")
    assert "macaroon" not in document
    assert document["activities"] == ["LIST", "DOWNLOAD", "READ_METADATA"]


def test_a_refusal_in_one_line(embedded: Any, url: str, tmp_path: Path) -> None:
    with endpoint(embedded, tmp_path, **account(embedded)):
        error = run("mint", url, "--lifetime", "30d", status=1).stderr
    assert "beyond maximum allowed" in error
    assert error.count("\n") == 1


def test_share_a_link(embedded: Any, url: str, tmp_path: Path) -> None:
    with counted(embedded) as counter:
        link = run("share", url, "--lifetime", "10m").stdout.strip()
    assert counter.records == []
    with endpoint(embedded, tmp_path, token=None):
        assert DcacheResourcePath(link).read() == DATA
    document = json.loads(run("share", url, "--json").stdout)
    assert document["link"].startswith("https://")
    assert document["activities"] == ["DOWNLOAD", "READ_METADATA"]


def test_whoever_gets_a_link_uses_it_here(embedded: Any, url: str, tmp_path: Path) -> None:
    link = run("share", url).stdout.strip()
    token = link.partition("authz=")[2]
    (tmp_path / "here").mkdir()
    with endpoint(embedded, tmp_path, token=None):
        for form in (link, link.replace("https:", "davs:")):
            assert CliRunner().invoke(main, ["cat", form]).stdout_bytes == DATA
            result = CliRunner().invoke(main, ["cp", form, str(tmp_path / "here")])
            assert result.exit_code == 0, result.output
            assert token not in result.output
        for command in ("ls", "stat", "checksum", "rm", "doctor"):
            for form in (link, link.replace("https:", "davs:")):
                result = CliRunner().invoke(main, [command, form])
                assert (result.exit_code == 0) == (command not in ("rm", "doctor")), result.output
                assert "a%20file" in result.output
                assert token not in result.output
    assert {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()} == {"a file": DATA}
    result = CliRunner().invoke(main, ["cat", link.replace("https:", "s3:")])
    assert result.exit_code == 1
    assert token not in result.output


def test_share_a_directory_as_root(embedded: Any, url: str, tmp_path: Path) -> None:
    link = run("share", url.rpartition("/")[0] + "/", "--chroot").stdout.strip()
    base, _, query = link.partition("?")
    with endpoint(embedded, tmp_path, token=None):
        assert DcacheResourcePath(f"{base}a%20file?{query}").read() == DATA


def test_qr_code(url: str) -> None:
    plain, coded = run("share", url).stdout, run("share", url, "--qr").stdout
    assert coded.startswith("https://")
    rows = coded.splitlines()[1:]
    assert len(rows) > 30 > len(plain.splitlines())
    assert set("".join(rows)) - set("\x1b[0123456789;m \n") <= set("▀▄█")


def test_share_as_curl_commands(embedded: Any, url: str, tmp_path: Path) -> None:
    (command,) = run("share", url, "--output", "curl").stdout.splitlines()
    subprocess.run([*shlex.split(command), "--silent"], cwd=tmp_path, check=True, timeout=30)
    assert (tmp_path / "a file").read_bytes() == DATA
    source = tmp_path / "FILE"
    source.write_bytes(b"from curl")
    (command,) = run("share", url + "2", "--activity", "UPLOAD", "--output", "curl").stdout.splitlines()
    subprocess.run([*shlex.split(command), "--silent"], cwd=tmp_path, check=True, timeout=30)
    assert DcacheFileSystem().cat_file(url + "2") == b"from curl"


def test_share_as_rclone_remote(embedded: Any, url: str, tmp_path: Path) -> None:
    result = run("share", url, tmp_path / "my-share", "--output", "rclone")
    file = tmp_path / "my-share.conf"
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    parser = configparser.ConfigParser()
    parser.read(file)
    remote = parser["my-share"]
    assert remote["type"] == "webdav"
    assert remote["url"].startswith("https://")
    assert remote["bearer_token"] not in result.output
    assert Macaroon.parse(remote["bearer_token"]).scope.reaches("/") is False
    assert json.loads(run("inspect", "--json", file).stdout)["activities"] == ["DOWNLOAD", "READ_METADATA"]


def test_share_needs_names_where_it_writes(url: str, tmp_path: Path) -> None:
    assert "wants a NAME" in run("share", url, "--output", "rclone", status=1).stderr
    assert "takes no NAME" in run("share", url, "name", status=1).stderr
    assert "no remotes" in run("share", url, tmp_path / "[x]", "--output", "rclone", status=1).stderr
    assert os.listdir(tmp_path) == []
