"""Settings of endpoints: the site's file keeps its meaning, and mistakes are named."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lsst.daf.butler_dcache.config import loading
from lsst.daf.butler_dcache.config.loading import load_file, settings_for
from lsst.daf.butler_dcache.config.settings import BulkSettings, EndpointSettings, origin_of
from lsst.daf.butler_dcache.errors import ConfigurationError

URL = "davs://door.example.org:2880/a/b"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("LSST_RESOURCES_WEBDAV_CONFIG", "BEARER_TOKEN", "BEARER_TOKEN_FILE", "X509_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    loading.reset()
    yield
    loading.reset()


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "webdav.yaml"
        path.write_text(text)
        monkeypatch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(path))
        loading.reset()
        return path

    return write


def test_defaults_without_a_file() -> None:
    settings = settings_for(URL)
    assert settings == EndpointSettings("https://door.example.org:2880/")
    assert (settings.connect_timeout_seconds, settings.read_timeout_seconds) == (10.0, 300.0)
    assert (settings.publish, settings.exclusive, settings.dialect) == ("atomic", "exact", "auto")
    assert (settings.proxy_upload_max_bytes, settings.requests_per_second) == (100_000, None)
    assert settings.http_pools == "without_credential"
    assert settings.origins == {("https", "door.example.org", 2880)}


def test_the_sites_keys(configure: Callable[[str], Path]) -> None:
    path = configure(
        """
- base_url: "davs://door.example.org:2880/"
  persistent_connections_per_host: 10
  timeout_connect: 20.0
  timeout_read: 120
  retries: 5
  retry_backoff_min: 1.5
  retry_backoff_max: 4.0
  buffer_size: 7
  block_size: 2
  user_name: carol
  user_password: pass
  reuse_connection: false
  enable_fsspec: false
  request_checksum: "MD5"
  collect_memory_usage: true
  frontend_base_urls: ["davs://door2.example.org:2880/x", "davs://door3.example.org"]
"""
    )
    settings = settings_for(URL)
    assert settings.source == str(path)
    assert settings.persistent_connections == 10
    assert (settings.connect_timeout_seconds, settings.read_timeout_seconds) == (20.0, 120.0)
    assert (settings.retries, settings.retry_backoff_min_seconds, settings.retry_backoff_max_seconds) == (
        5,
        1.5,
        4,
    )
    assert (settings.buffer_size_bytes, settings.block_size_bytes) == (7 * 2**20, 2 * 2**20)
    assert settings.user_name == "carol"
    assert settings.user_password is not None
    assert settings.user_password.reveal() == "pass"
    assert not settings.reuse_connections
    assert not settings.enable_fsspec
    assert settings.request_checksum == "md5"
    assert settings.door_urls == ("https://door2.example.org:2880/", "https://door3.example.org:443/")
    assert ("https", "door3.example.org", 443) in settings.origins
    assert settings.unknown_keys == ()
    assert settings_for("davs://other.example.org/").source == ""


def test_our_keys(configure: Callable[[str], Path], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    configure(
        f"""
- base_url: davs://door.example.org:2880/
  dcache:
    frontend_url: https://door.example.org:3880/api/v1
    proxy_upload_max_bytes: 0
    total_timeout_seconds: 12.5
    requests_per_second: 50
    token_file: {token}
    publish: in_place
    exclusive: best_effort
    http_pools: allow
    dialect: xrootd
    bulk: {{list_from_names: 5, entries_per_question: 12.5, delete_from_files: 50}}
"""
    )
    settings = settings_for(URL)
    assert settings.frontend_url == "https://door.example.org:3880/"
    assert settings.origins == {("https", "door.example.org", 2880), ("https", "door.example.org", 3880)}
    assert settings.proxy_upload_max_bytes == 0
    assert (settings.total_timeout_seconds, settings.requests_per_second) == (12.5, 50.0)
    assert settings.token_file == str(token)
    assert (settings.publish, settings.exclusive, settings.dialect) == ("in_place", "best_effort", "xrootd")
    assert settings.http_pools == "allow"
    assert settings.bulk == BulkSettings(5, 12.5, 50, archive_info_from_names=20)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("- timeout_read: 3", "base_url"),
        ("- base_url: ftp://x/", "base_url"),
        ("- base_url: davs://x:port/", "base_url"),
        ("- base_url: davs://x/\n  timeout_read: soon", "timeout_read"),
        ("- base_url: davs://x/\n  timeout_read: -1", "timeout_read"),
        ("- base_url: davs://x/\n  timeout_read: .nan", "timeout_read"),
        ("- base_url: davs://x/\n  buffer_size: 0", "buffer_size"),
        ("- base_url: davs://x/\n  reuse_connection: perhaps", "reuse_connection"),
        ("- base_url: davs://x/\n  request_checksum: crc32", "request_checksum"),
        ("- base_url: davs://x/\n  token: ''", "token"),
        ("- base_url: davs://x/\n  frontend_base_urls: dav://x/", "frontend_base_urls"),
        ("- base_url: davs://x/\n  frontend_base_urls: ['dav://x/']", "frontend_base_urls"),
        ("- base_url: davs://x/\n  dcache: 3", "dcache"),
        ("- base_url: davs://x/\n  dcache: {frontend: 'https://x'}", "dcache: frontend"),
        ("- base_url: davs://x/\n  dcache: {publish: sometimes}", "dcache: publish"),
        ("- base_url: davs://x/\n  dcache: {bulk: 3}", "dcache: bulk"),
        (
            "- base_url: davs://x/\n  dcache: {bulk: {delete_from_files: 0}}",
            "dcache: bulk: delete_from_files",
        ),
        ("- base_url: davs://x/\n  dcache: {bulk: {delete_from: 3}}", "dcache: bulk: delete_from"),
        ("- base_url: davs://x/\n  token: abc\n  dcache: {token_file: t}", "dcache: token_file"),
        ("- base_url: davs://x/\n- base_url: davs://X:443", "base_url"),
        ("- just text", "entry 1"),
        ("base_url: davs://x/", "list"),
        ("", "list"),
        ("- [: }", "YAML"),
    ],
)
def test_mistakes_name_file_and_key(configure: Callable[[str], Path], text: str, key: str) -> None:
    path = configure(text)
    with pytest.raises(ConfigurationError) as caught:
        settings_for("davs://x/")
    assert str(path) in str(caught.value)
    assert key in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_missing_file_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(tmp_path / "missing.yaml"))
    for _ in range(2):  # the second question finds no half-made answer
        with pytest.raises(ConfigurationError, match=r"missing\.yaml"):
            settings_for(URL)


def test_yaml_errors_do_not_quote_the_file(configure: Callable[[str], Path]) -> None:
    configure("- base_url: davs://x/\n  token: SECRETWORD: more\n")
    with pytest.raises(ConfigurationError) as caught:
        settings_for(URL)
    assert "SECRETWORD" not in str(caught.value)
    assert "line 2" in str(caught.value)


@pytest.mark.parametrize(
    "path", ["/no/such/token", "~/token", "./token", "some/token", "$NOT_SET_ANYWHERE", "a b"]
)
def test_what_looks_like_a_path_is_never_a_token(configure: Callable[[str], Path], path: str) -> None:
    configure(f"- base_url: davs://door.example.org:2880/\n  token: '{path}'")
    with pytest.raises(ConfigurationError, match=r"webdav\.yaml.*key token: no such file"):
        settings_for(URL)
    assert settings_for("davs://elsewhere.example.org/").token_file is None


@pytest.mark.parametrize("key", ["trusted_authorities", "user_cert"])
def test_missing_files_are_errors(configure: Callable[[str], Path], key: str) -> None:
    configure(f"- base_url: davs://door.example.org:2880/\n  {key}: /no/such/file")
    with pytest.raises(ConfigurationError, match=f"key {key}: no such file"):
        settings_for(URL)


def test_token_by_value_and_by_path(
    configure: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure("- base_url: davs://door.example.org:2880/\n  token: abc.def-ghi")
    token = settings_for(URL).token
    assert token is not None
    assert token.reveal() == "abc.def-ghi"
    assert "abc.def" not in repr(settings_for(URL))
    (tmp_path / "token").write_text("abc")
    monkeypatch.setenv("MY_DIRECTORY", str(tmp_path))
    configure("- base_url: davs://door.example.org:2880/\n  token: $MY_DIRECTORY/token")
    assert settings_for(URL).token_file == str(tmp_path / "token")


def test_unknown_keys_warn_once(configure: Callable[[str], Path], caplog: pytest.LogCaptureFixture) -> None:
    configure("- base_url: davs://door.example.org:2880/\n  time_out: 3\n  colour: red")
    with caplog.at_level(logging.WARNING):
        assert settings_for(URL).unknown_keys == ("colour", "time_out")
        load_file(settings_for(URL).source)
    assert [record.getMessage().split()[-3] for record in caplog.records] == ["colour", "time_out"]


def test_discovery(configure: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(tmp_path / "bt"))
    assert settings_for(URL).token_file == str(tmp_path / "bt")
    assert settings_for(URL).credential_origin == "BEARER_TOKEN_FILE"
    assert settings_for("dav://door.example.org:2880/").token_file is None
    monkeypatch.setenv("BEARER_TOKEN", " abc\n")
    token = settings_for(URL).token
    assert token is not None
    assert token.reveal() == "abc"
    assert settings_for(URL).token_file is None
    configure("- base_url: davs://door.example.org:2880/\n  user_name: u\n  user_password: p")
    assert settings_for(URL).token is None  # what is configured wins
    assert settings_for("davs://elsewhere.example.org/").token is not None


def test_hashed_directory_of_the_grid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("X509_CERT_DIR", str(tmp_path))
    assert settings_for(URL).trusted_authorities == str(tmp_path)
    monkeypatch.setenv("X509_CERT_DIR", str(tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match="X509_CERT_DIR"):
        settings_for(URL)


def test_one_object_until_the_environment_changes(
    configure: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = settings_for(URL)
    assert settings_for("https://DOOR.example.org:2880/other") is first
    configure("- base_url: davs://door.example.org:2880/\n  timeout_read: 7")
    assert settings_for(URL).read_timeout_seconds == 7
    other = tmp_path / "other.yaml"
    other.write_text("- base_url: davs://door.example.org:2880/\n  timeout_read: 8")
    monkeypatch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(other))
    assert settings_for(URL).read_timeout_seconds == 8


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("davs://h/x", ("https", "h", 443)),
        ("dav://H:80/x", ("http", "h", 80)),
        ("https://[::1]:2880/", ("https", "::1", 2880)),
    ],
)
def test_origins(url: str, origin: tuple[str, str, int]) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize("url", ["s3://h/x", "davs:///x", "davs://h:99999/", "/x", "davs://[::1/"])
def test_not_an_origin(url: str) -> None:
    with pytest.raises(ConfigurationError):
        origin_of(url)
