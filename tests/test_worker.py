"""Credentials of workers: what is in the files, and what a process with them can do."""

from __future__ import annotations

import dataclasses
import os
import stat
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from lsst.daf.butler_dcache import WorkerCredential, errors, worker_credential
from lsst.daf.butler_dcache.auth.macaroon import Activity, Macaroon
from lsst.daf.butler_dcache.auth.secret_writing import write_secret
from lsst.daf.butler_dcache.config.loading import load_file
from lsst.daf.butler_dcache.config.settings import BulkSettings, EndpointSettings
from lsst.daf.butler_dcache.config.writing import configuration_with_token
from lsst.daf.butler_dcache.redaction import Secret
from lsst.daf.butler_dcache.store.registry import store_for
from request_counter import counted
from test_minting import account
from test_store_webdav import endpoint

DATA = b"for the worker"
JOB = """
import sys
from lsst.daf.butler_dcache import DcacheFileSystem
fs = DcacheFileSystem()
job, beside = sys.argv[1:]
print(fs.cat_file(job + "input").decode())
fs.pipe_file(job + "output", b"done")
for refused in (lambda: fs.cat_file(beside), lambda: fs.rm_file(job + "input")):
    try:
        refused()
    except PermissionError:
        print("refused")
"""


@pytest.fixture
def base(embedded: Any) -> str:
    return f"{embedded.url}{uuid.uuid4().hex[:8]}/"


def test_a_spawned_worker_uses_it(embedded: Any, base: str, tmp_path: Path) -> None:
    store = store_for(base)
    store.write(base + "job/input", DATA)
    store.write(base + "beside", DATA)
    with endpoint(embedded, tmp_path, **account(embedded)) as parent:
        parent.presign(base, "GET", 60)
        with counted(embedded) as counter:
            credential = worker_credential(
                base + "job/",
                str(tmp_path / "worker"),
                activities=["LIST", "DOWNLOAD", "UPLOAD", "MANAGE"],
                lifetime_seconds=600,
            )
            environment = credential.environment(os.environ | {"BEARER_TOKEN": "the user's own"})
            done = subprocess.run(
                [sys.executable, "-c", JOB, base + "job/", base + "beside"],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
    assert done.stdout.split("\n") == [DATA.decode(), "refused", "refused", ""], done.stderr
    assert "door POST" not in counter.methods()
    assert "BEARER_TOKEN" not in environment
    assert store.read(base + "job/output") == b"done"


def test_the_files(embedded: Any, base: str, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with endpoint(embedded, tmp_path, **account(embedded)):
        credential = worker_credential(base, str(folder), activities={Activity.LIST}, lifetime_seconds=60)
    password = account(embedded)["user_password"]
    for path in (credential.token_file, credential.configuration_file):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert password not in Path(path).read_text()
    macaroon = Macaroon.parse(Path(credential.token_file).read_text().strip())
    assert macaroon.activities == {Activity.LIST, Activity.READ_METADATA}
    assert macaroon.expires == credential.expires
    assert credential.expires is not None
    assert credential.expires < datetime.now(UTC) + timedelta(seconds=61)
    (settings,) = load_file(credential.configuration_file)
    assert settings.token_file == credential.token_file
    assert settings.trusted_authorities is not None
    assert settings.user_name is None
    assert sorted(os.listdir(folder)) == ["token", "webdav.yaml"]


def test_the_environment_holds_nothing_of_the_users() -> None:
    credential = WorkerCredential("/job/token", "/job/webdav.yaml", None)
    users = {"BEARER_TOKEN": "t", "LSST_HTTP_AUTH_BEARER_TOKEN": "t", "LSST_HTTP_AUTH_CLIENT_KEY": "/k"}
    assert credential.environment({"HOME": "/home/me", "BEARER_TOKEN_FILE": "/t", **users}) == {
        "HOME": "/home/me",
        "BEARER_TOKEN_FILE": "/job/token",
        "LSST_RESOURCES_WEBDAV_CONFIG": "/job/webdav.yaml",
    }


def test_renewal_in_place(embedded: Any, base: str, tmp_path: Path) -> None:
    store_for(base).write(base + "file", DATA)

    def renew(lifetime_seconds: float) -> Any:
        return worker_credential(
            base, str(tmp_path / "w"), activities=["DOWNLOAD"], lifetime_seconds=lifetime_seconds
        )

    first = renew(60)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in first.environment({}).items():
            patch.setenv(name, value)
        assert store_for(base).read(base + "file") == DATA
    second = renew(600)
    assert second.token_file == first.token_file
    assert second.expires > first.expires
    with pytest.MonkeyPatch.context() as patch:
        for name, value in first.environment({}).items():
            patch.setenv(name, value)
        assert store_for(base).read(base + "file") == DATA


def test_more_than_we_have(embedded: Any, base: str, tmp_path: Path) -> None:
    whole = Macaroon.parse(Path(embedded.environment["BEARER_TOKEN_FILE"]).read_text().strip())
    held = whole.narrow(activities={Activity.DOWNLOAD}, path="/mine")
    folder = str(tmp_path / "w")
    with endpoint(embedded, tmp_path, token=held):
        with pytest.raises(errors.AccessDeniedError, match="DELETE"):
            worker_credential(base, folder, activities=["DELETE"], lifetime_seconds=60)
        with pytest.raises(errors.AccessDeniedError, match="does not reach"):
            worker_credential(base, folder, activities=["DOWNLOAD"], lifetime_seconds=60)
        with pytest.raises(errors.ConfigurationError, match="DANCE"):
            worker_credential(base, folder, activities=["DANCE"], lifetime_seconds=60)
    assert not os.path.exists(folder)


# The configuration for workers


def test_nothing_of_a_credential_is_copied(tmp_path: Path) -> None:
    """Every setting is copied, or belongs to the credential, or to where the settings came from."""
    not_copied = {
        "base_url", "user_certificate", "user_key", "user_name", "user_password", "user_password_file",
        "token", "token_file", "token_command", "token_command_timeout_seconds", "oidc", "expected_issuer",
        "expected_audience", "netrc_file", "credential_origin", "credential_is_unasked", "token_candidates",
        "source", "unknown_keys",
    }  # fmt: skip
    samples: dict[str, Any] = {
        "trusted_authorities": str(tmp_path),
        "request_checksum": "md5",
        "door_urls": ("https://a.example:1/", "https://b.example:2/"),
        "frontend_url": "https://c.example:3880/",
        "http_pools": "allow",
        "publish": "in_place",
        "exclusive": "best_effort",
        "dialect": "generic",
        "listing": "propfind",
        "nearline": "wait",
        "third_party": "pull",
        "user_password": Secret("hidden"),
        "token": Secret("hidden"),
        "requests_per_second": 7.0,
        "buffer_size_bytes": 3 * 1024 * 1024,
        "block_size_bytes": 2 * 1024 * 1024,
        "oidc": "hidden",
        "bulk": BulkSettings(delete_from_files=7),
    }
    changed: dict[str, Any] = {"base_url": "https://door.example:2880/"}
    for field in dataclasses.fields(EndpointSettings):
        if field.name in samples:
            changed[field.name] = samples[field.name]
        elif isinstance(field.default, bool):
            changed[field.name] = not field.default
        elif isinstance(field.default, int | float):
            changed[field.name] = field.default + 1
        elif field.name != "base_url":
            changed[field.name] = ("hidden",) if isinstance(field.default, tuple) else "hidden"
    settings = EndpointSettings(**changed)
    text = configuration_with_token(settings, str(tmp_path / "token"))
    assert "hidden" not in text
    assert yaml.safe_load(text)[0]["base_url"] == "davs://door.example:2880/"
    path = tmp_path / "webdav.yaml"
    path.write_text(text)
    (loaded,) = load_file(str(path))
    for name in changed.keys() - not_copied:
        assert getattr(loaded, name) == changed[name], name


def test_writing_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_secret(str(path), "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)
    target = tmp_path / "elsewhere"
    target.write_text("kept")
    (tmp_path / "link").symlink_to(target)
    write_secret(str(tmp_path / "link"), "new")
    assert target.read_text() == "kept"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_secret(str(tmp_path / "folder"), "new")
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "folder", "link", "secret"]
