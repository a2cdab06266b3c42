"""Where credentials come from: the order, each place, and what is wrong with them."""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from lsst.daf.butler_dcache.auth.clock import clock_offset
from lsst.daf.butler_dcache.auth.credential import Credential
from lsst.daf.butler_dcache.auth.sources import source_for
from lsst.daf.butler_dcache.config import discovery, loading
from lsst.daf.butler_dcache.config.loading import settings_for
from lsst.daf.butler_dcache.errors import ConfigurationError, CredentialConfigurationError, CredentialError

URL = "davs://door.example.org:2880/a/b"
BASE = "https://door.example.org:2880/"


def jwt(**claims: object) -> str:
    parts = [json.dumps({"alg": "none"}), json.dumps(claims), "sig"]
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An environment without any credential; the folder stands for ``/tmp``."""
    for name in ("LSST_RESOURCES_WEBDAV_CONFIG", *discovery.VARIABLES):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(discovery, "_TEMPORARY", str(folder))
    loading.reset()
    yield folder
    loading.reset()


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def write(**keys: Any) -> None:
        path = tmp_path / "webdav.yaml"
        path.write_text(json.dumps([{"base_url": "davs://door.example.org:2880/", **keys}]))
        monkeypatch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(path))
        loading.reset()

    return write


def secret(path: Path, content: str | bytes = "abc", mode: int = 0o600) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return str(path)


def credential(url: str = URL) -> Credential:
    return source_for(settings_for(url)).current()


def header(url: str = URL) -> str | None:
    return credential(url).header()


def refusal(url: str = URL) -> str:
    with pytest.raises(CredentialError) as caught:
        credential(url)
    text = str(caught.value)
    assert "nothing was sent" in text
    return text


def program(text: str, *arguments: str) -> list[str]:
    return [sys.executable, "-S", "-c", text, *arguments]


# -- the order


def test_the_order_of_discovery(tmp_path: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the last place to the first, each wins over those that were there before."""
    assert header() is None
    user = os.geteuid()
    monkeypatch.setenv("HOME", str(tmp_path))
    secret(tmp_path / ".netrc", "machine door.example.org login Aladdin password opensesame")
    loading.reset()
    assert header() == "Basic QWxhZGRpbjpvcGVuc2VzYW1l"
    chain(nowhere / f"x509up_u{user}")
    loading.reset()
    assert (credential().kind, credential().origin) == ("certificate", "proxy of this user")
    certificate, key = chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    monkeypatch.setenv("X509_USER_CERT", certificate)
    monkeypatch.setenv("X509_USER_KEY", key)
    assert credential().origin == "X509_USER_CERT and X509_USER_KEY"
    monkeypatch.setenv("X509_USER_PROXY", chain(tmp_path / "proxy.pem")[0])
    assert credential().origin == "X509_USER_PROXY"
    secret(nowhere / f"bt_u{user}", " four\n")
    loading.reset()
    assert header() == "Bearer four"
    runtime = tmp_path / "run"
    runtime.mkdir()
    secret(runtime / f"bt_u{user}", "three\n")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert header() == "Bearer three"
    monkeypatch.setenv("BEARER_TOKEN_FILE", secret(tmp_path / "bt", "two"))
    assert header() == "Bearer two"
    monkeypatch.setenv("BEARER_TOKEN", " one ")
    assert header() == "Bearer one"
    assert header("dav://door.example.org:2880/") is None, "nothing is sent in the clear"


def test_the_configuration_wins(configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEARER_TOKEN", "of-the-environment-5f2c")
    configure(dcache={"token": "of-the-entry"})
    assert header() == "Bearer of-the-entry"
    assert header("davs://elsewhere.example.org/") == "Bearer of-the-environment-5f2c"
    configure(dcache={"anonymous": True})
    assert header() is None
    configure(dcache={"anonymous": False})
    assert header() == "Bearer of-the-environment-5f2c"


@pytest.mark.parametrize("content", ["", " \n", "two words", b"\xff\x00", "eyJhbGciOiJub25lIn0.e30"])
def test_what_is_found_and_bad_ends_the_search(
    content: str | bytes, tmp_path: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret(nowhere / f"bt_u{os.geteuid()}", "good")
    monkeypatch.setenv("BEARER_TOKEN_FILE", secret(tmp_path / "bad", content))
    text = refusal()
    assert "bad" in text
    assert "BEARER_TOKEN_FILE" in text
    monkeypatch.delenv("BEARER_TOKEN_FILE")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    secret(tmp_path / f"bt_u{os.geteuid()}", content)
    assert f"bt_u{os.geteuid()}" in refusal()


@pytest.mark.parametrize("token", [" ", "a b", "/no/such/file", "~/token"])
def test_a_bad_variable_ends_the_search(token: str, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret(nowhere / f"bt_u{os.geteuid()}", "good")
    monkeypatch.setenv("BEARER_TOKEN", token)
    assert "BEARER_TOKEN" in refusal()


def test_an_empty_variable_is_none(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret(nowhere / f"bt_u{os.geteuid()}", "good")
    for name in ("BEARER_TOKEN", "BEARER_TOKEN_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, "")
    assert header() == "Bearer good"


@pytest.mark.parametrize("user", ["me:pass-word@", "pass-word@"])
def test_a_url_holds_no_account(user: str) -> None:
    with pytest.raises(CredentialConfigurationError, match="user_password") as caught:
        settings_for(f"davs://{user}door.example.org:2880/a@b")
    assert "pass-word" not in str(caught.value)
    assert settings_for("davs://door.example.org:2880/a@b").base_url == "https://door.example.org:2880/"


def test_a_missing_file_that_is_named_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(tmp_path / "nothing"))
    assert "No such file" in refusal()
    monkeypatch.delenv("BEARER_TOKEN_FILE")
    monkeypatch.setenv("X509_USER_PROXY", str(tmp_path / "nothing"))
    assert "X509_USER_PROXY" in refusal()
    monkeypatch.delenv("X509_USER_PROXY")
    monkeypatch.setenv("X509_USER_KEY", str(tmp_path / "nothing"))
    with pytest.raises(ConfigurationError, match=r"X509_USER_KEY is set, and X509_USER_CERT is not"):
        settings_for(URL)


def test_a_token_that_appears_later_is_found(nowhere: Path) -> None:
    source = source_for(settings_for(URL))
    assert source.current().kind == "none"
    path = nowhere / f"bt_u{os.geteuid()}"
    secret(path, "later")
    assert source.current().header() == "Bearer later"
    path.unlink()
    with pytest.raises(CredentialError):  # and is missed when it goes: nobody becomes anonymous unasked
        source.current()


def test_a_token_of_somebody_else_in_a_common_place(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret(nowhere / f"bt_u{os.geteuid()}", "planted")
    other = os.geteuid() + 1
    (nowhere / f"bt_u{os.geteuid()}").rename(nowhere / f"bt_u{other}")
    monkeypatch.setattr(os, "geteuid", lambda: other)
    if (nowhere / f"bt_u{other}").stat().st_uid == 0:
        os.chown(nowhere / f"bt_u{other}", other + 1, -1)
    assert "belongs to somebody else" in refusal()


# -- keys of the configuration


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({"token": "a", "dcache": {"token": "b"}}, ["dcache: token", "key token"]),
        ({"token": "a", "dcache": {"token_command": "b"}}, ["dcache: token_command", "key token"]),
        ({"dcache": {"token": "a", "token_file": "b"}}, ["dcache: token ", "dcache: token_file"]),
        ({"dcache": {"oidc": {}, "token_command": "b"}}, ["dcache: token_command", "dcache: oidc"]),
        ({"dcache": {"token": "/a/path"}}, ["dcache: token looks like"]),
        ({"dcache": {"token": "token.txt"}}, ["dcache: token looks like"]),
        ({"dcache": {"token": ["a"]}}, ["dcache: token must be a text"]),
        ({"dcache": {"token_file": "/no/such"}}, ["dcache: token_file: no such file: /no/such"]),
        ({"dcache": {"netrc_file": "/no/such"}}, ["dcache: netrc_file: no such file"]),
        ({"token": "token.txt"}, ["key token: no such file"]),
        ({"user_name": "u", "user_password": "/no/such"}, ["user_password: no such file"]),
        ({"dcache": {"token_command": ""}}, ["token_command"]),
        ({"dcache": {"token_command": "'open"}}, ["token_command cannot be divided"]),
        ({"dcache": {"token_command": [1]}}, ["token_command must be"]),
        ({"dcache": {"token_command": "x", "token_command_timeout_seconds": 0}}, ["_timeout_seconds"]),
        ({"dcache": {"anonymous": "yes"}}, ["anonymous must be true or false"]),
        ({"dcache": {"oidc": "x"}}, ["dcache: oidc must be a mapping"]),
        ({"dcache": {"oidc": {"client_id": "x"}}}, ["oidc: issuer is missing"]),
        ({"dcache": {"oidc": {"issuer": "http://i/", "client_id": "x"}}}, ["oidc: issuer must be an https"]),
        ({"dcache": {"oidc": {"issuer": "https://i/", "client_id": "x"}}}, ["oidc: client_secret_file"]),
        ({"dcache": {"oidc": {"issuer": "https://i/", "secret": "x"}}}, ["oidc: secret is unknown"]),
        (
            {"dcache": {"oidc": {"issuer": "https://i/", "client_id": "x", "client_secret_file": "/no/s"}}},
            ["oidc: client_secret_file: no such file"],
        ),
    ],
)
def test_mistakes_in_keys(configure: Callable[..., None], keys: dict[str, Any], names: list[str]) -> None:
    configure(**keys)
    with pytest.raises(ConfigurationError) as caught:
        settings_for(URL)
    assert "webdav.yaml" in str(caught.value)
    if "must be" not in str(caught.value) and "is unknown" not in str(caught.value):
        assert isinstance(caught.value, CredentialError)
        assert "nothing was sent" in str(caught.value)
    for name in names:
        assert name in str(caught.value)


def test_our_keys_make_account_and_certificate_void(configure: Callable[..., None], tmp_path: Path) -> None:
    configure(user_name="u", user_password="p", user_cert="/no/such", dcache={"token": "abc"})
    assert header() == "Bearer abc"
    assert settings_for(URL).user_certificate is None


# -- files of other tools


RCLONE = """
[other]
type = webdav
url = https://elsewhere.example.org:2880/
bearer_token = OTHER

[mine]
type = webdav
url = https://door.example.org:2880/data/
vendor = other
user =
pass =
bearer_token = MDAmine
"""


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("abc==\n", "abc=="),
        ("\ufeffabc\n", "abc"),
        (RCLONE, "MDAmine"),
        ("bearer_token = abc\n", "abc"),
        ("# ada\nbearer_token=abc==\nurl = https://door.example.org/\n", "abc=="),
        ("[a]\nbearer_token = abc\n", "abc"),
        ("Authorization: Bearer abc\n", "abc"),
        ('header = "Authorization: Bearer abc"', "abc"),
        ('--header "Authorization: bearer abc"\n', "abc"),
        ('-H "Authorization: Bearer abc"\nsilent\n', "abc"),
    ],
)
def test_files_of_other_tools(text: str, token: str, configure: Callable[..., None], tmp_path: Path) -> None:
    configure(dcache={"token_file": secret(tmp_path / "token", text)})
    assert header() == f"Bearer {token}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (RCLONE.replace("door.example.org", "third.example.org"), "none for door.example.org"),
        (RCLONE.replace("elsewhere.example.org", "door.example.org"), "several lines bearer_token"),
        ("[a]\ntype = webdav\nbearer_token =\n", "no line bearer_token"),
        ("[a]\nbearer_token_command = oidc-token x\n", "token_command"),
        ("abc\ndef\n", "more than one line"),
        ("Authorization: Bearer a\nAuthorization: Bearer b", "several lines with a header"),
        ("# nothing\n#\n", "no token"),
        ("<html><body>SECRETWORD</body></html>", "no token has"),
        ("[a]\nurl = https://[/\nbearer_token = SECRETWORD", "a malformed URL"),
        (b"\x00\x01\x02", "no token has"),
        (b"\xff\xfe", "is not text"),
        ("x" * (1024 * 1024 + 1), "longer than"),
        (jwt(groups=["x" * 1000] * 100), "more than any server takes"),
    ],
)
def test_files_that_hold_no_token(
    text: str | bytes, words: str, configure: Callable[..., None], tmp_path: Path
) -> None:
    configure(dcache={"token_file": secret(tmp_path / "token", text)})
    message = refusal()
    assert words in message
    assert "dcache: token_file" in message
    assert str(tmp_path / "token") in message
    assert "SECRETWORD" not in message


def test_ten_megabytes_of_claims(configure: Callable[..., None], tmp_path: Path) -> None:
    configure(dcache={"token_file": secret(tmp_path / "token", jwt(groups=["x" * 1000] * 10000))})
    begun = time.process_time()
    assert "longer than" in refusal()
    assert time.process_time() - begun < 1


def test_pipes_and_devices_do_not_hold_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)
        listener.bind("socket")
        for name in ("pipe", "link", "socket", "."):
            monkeypatch.setenv("BEARER_TOKEN_FILE", name)
            refusal()


def test_a_token_of_another_issuer_or_for_another_server(
    configure: Callable[..., None], tmp_path: Path
) -> None:
    path = tmp_path / "token"
    configure(dcache={"token_file": str(path), "expected_issuer": "https://i/", "expected_audience": BASE})
    for claims in (
        {"iss": "https://i/", "aud": BASE},
        {"iss": "https://i/", "aud": ["x", BASE]},
        {"iss": "https://i/", "aud": "https://wlcg.cern.ch/jwt/v1/any"},
        {"iss": "https://i/"},
    ):
        secret(path, jwt(**claims))
        assert header() == f"Bearer {path.read_text()}"
    secret(path, jwt(iss="https://j/", aud=BASE))
    assert "of the issuer https://j/, and https://i/ is expected" in refusal()
    secret(path, jwt(iss="https://i/", aud="https://other/"))
    assert "for https://other/, and https://door.example.org:2880/ is expected" in refusal()


def test_a_macaroon_that_its_issuer_refuses(configure: Callable[..., None], tmp_path: Path) -> None:
    packets = [(b"location", b"x"), (b"identifier", b"12345678"), (b"cid", b"iid:12345678")]
    for caveat in (b"before:tomorrow", b"colour:red", b"no colon"):
        lines = [*packets, (b"cid", caveat), (b"signature", b"s" * 32)]
        raw = b"".join(b"%04x" % (len(k) + len(v) + 6) + k + b" " + v + b"\n" for k, v in lines)
        token = base64.urlsafe_b64encode(raw).decode().rstrip("=")
        configure(dcache={"token_file": secret(tmp_path / "token", token)})
        assert "a macaroon that its issuer refuses" in refusal()
        secret(tmp_path / "token", token[:-7])
        assert "is damaged" in refusal()


# -- warnings


def test_a_credential_that_ends_soon_is_said_once(
    configure: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "token"
    configure(dcache={"token_file": secret(path, jwt(exp=int(time.time()) + 60))})
    source = source_for(settings_for(URL))
    for _ in range(3):
        source.current().check(BASE)
    assert len(caplog.records) == 1
    text = caplog.records[0].getMessage()
    assert "ends in" in text
    assert f"write a new token to {path}" in text
    caplog.clear()
    configure(dcache={"token": jwt(exp=int(time.time()) + 60)})
    credential()
    assert "dcache: token" in caplog.records[0].getMessage()
    caplog.clear()
    configure(user_cert=chain(tmp_path / "proxy", life=timedelta(hours=1, seconds=60))[0])
    credential()
    assert "voms-proxy-init" in caplog.records[0].getMessage()
    caplog.clear()
    configure(dcache={"token": jwt(exp=int(time.time()) + 3600)})
    credential()
    assert caplog.records == []


def test_an_expired_token_names_place_and_remedy(configure: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "token"
    configure(dcache={"token_file": secret(path, jwt(exp=int(time.time()) - 1))})
    with pytest.raises(
        CredentialError, match=r"expired at .*nothing was sent; write a new token to"
    ) as caught:
        credential().check(BASE)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("sent", "received", "offset"),
    [
        (0.1, 0.2, 0),
        (-0.4, 0.5, 0),  # the answer was made in between
        (0.9, 1.3, 0),  # the header has whole seconds
        (301.0, 301.2, 300),
        (-300.5, -300.0, -300),
    ],
)
def test_clocks_are_compared(sent: float, received: float, offset: float) -> None:
    theirs = datetime(2026, 1, 1, tzinfo=UTC)
    found = clock_offset(
        "Thu, 01 Jan 2026 00:00:00 GMT",
        theirs + timedelta(seconds=sent),
        theirs + timedelta(seconds=received),
    )
    assert found == timedelta(seconds=offset)


@pytest.mark.parametrize("date", ["", "now", "Thu, 32 Jan 2026 00:00:00 GMT", "0", "Thu, 01 Jan 99999"])
def test_what_is_no_date(date: str) -> None:
    now = datetime.now(UTC)
    assert clock_offset(date, now, now) is None


# -- netrc


def test_netrc(configure: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rc"
    text = (
        "# machine door.example.org login no password no\n"
        "machine other.example.org\n login x password y\n"
        "macdef init\nmachine door.example.org login macro password macro\n\n"
        'machine DOOR.example.org account z password "open \\"sesame\\"" login Aladdin\n'
        "machine door.example.org login second password second\n"
        "default login anybody password anything\n"
    )
    monkeypatch.setenv("NETRC", secret(path, text))
    expected = base64.b64encode(b'Aladdin:open "sesame"').decode()
    assert header() == f"Basic {expected}"
    assert header("davs://unknown.example.org/") is None, "the default entry is for nobody in particular"
    assert header("dav://door.example.org:2880/") is None
    configure(dcache={"netrc_file": str(path)})
    assert header() == f"Basic {expected}"
    path.write_text("machine other.example.org login x password y")
    assert "no entry with login and password for door.example.org" in refusal()
    path.write_text("machine door.example.org login x password y")
    path.chmod(0o644)
    assert "chmod 600" in refusal()


def test_entries_of_others_are_no_reason_to_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    secret(tmp_path / ".netrc", "machine other.example.org login x password y", 0o644)
    assert header() is None
    secret(tmp_path / ".netrc", "machine door.example.org login x password y", 0o644)
    loading.reset()
    assert "chmod 600" in refusal()


# -- a program


def test_a_program(configure: Callable[..., None]) -> None:
    configure(dcache={"token_command": program("import sys; print(sys.argv[1:])", "$HOME", "; echo x")})
    # Not a token, and the proof that no shell read it.
    assert "no token has" in refusal()
    configure(dcache={"token_command": program("print('  abc  ')")})
    assert header() == "Bearer abc"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import sys; sys.stderr.write('SECRETWORD'); sys.exit(3)", "ended with status 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "ended by signal 15"),
        ("print('a'); print('b')", "2 lines"),
        ("pass", "printed nothing"),
        ("print()", "printed nothing"),
        ("import os; os.write(1, b'\\xff')", "no token"),
        ("while True: print('x' * 10000)", "more than 131072 bytes"),
        ("print('SECRET WORD')", "no token has"),
        ("print('/no/such/file')", "looks like the path"),
    ],
)
def test_programs_that_fail(
    text: str, words: str, configure: Callable[..., None], caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    configure(dcache={"token_command": program(text)})
    message = refusal()
    assert words in message
    assert "dcache: token_command" in message
    assert "SECRET" not in message + caplog.text + "".join(capfd.readouterr())


def test_a_program_that_is_not_there(configure: Callable[..., None]) -> None:
    configure(dcache={"token_command": "/no/such/program --password SECRETWORD"})
    message = refusal()
    assert "cannot be run: No such file" in message
    assert "SECRETWORD" not in message


def test_a_program_that_hangs_is_killed_with_its_children(
    configure: Callable[..., None], tmp_path: Path
) -> None:
    """It holds its output open through a grandchild, whose end is seen by the end of a pipe."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    os.mkfifo(tmp_path / "alive")
    watch = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    text = (
        "import subprocess, sys, time\n"
        "file = open(sys.argv[1], 'w')\n"
        "subprocess.Popen(['sleep', '60'], stdout=1, pass_fds=[file.fileno()])\n"
        "file.write('ready'); file.flush()\n"
        "time.sleep(60)"
    )
    configure(
        dcache={
            "token_command": program(text, str(tmp_path / "alive")),
            "token_command_timeout_seconds": 1.0,
        }
    )
    begun = time.monotonic()
    assert "did not end within 1 s and was killed" in refusal()
    assert time.monotonic() - begun < 20
    os.set_blocking(watch, True)
    content = b""
    while piece := os.read(watch, 100):  # it ends when nobody holds the other end any more
        content += piece
    assert content == b"ready"
    for descriptor in (read, write, watch):
        os.close(descriptor)


# -- certificates


def chain(
    certificate_path: Path,
    key_path: Path | None = None,
    *,
    begin: timedelta = timedelta(hours=-1),
    life: timedelta = timedelta(hours=12),
    encryption: KeySerializationEncryption | None = None,
    mode: int = 0o600,
) -> tuple[str, str]:
    """Write a certificate that its own key signs; without a second path the file is like a proxy."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Someone")])
    now = datetime.now(UTC).replace(microsecond=0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begin)
        .not_valid_after(now + begin + life)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    if key_path is None:
        path = secret(certificate_path, pem + private, mode)
        return path, path
    return secret(certificate_path, pem, 0o644), secret(key_path, private, mode)


def test_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "proxy"
    monkeypatch.setenv("X509_USER_PROXY", chain(path)[0])
    source = source_for(settings_for(URL))
    first = source.current()
    assert source.current() is first
    assert (first.kind, first.header()) == ("certificate", None)
    assert first.expires is not None
    assert timedelta(hours=10) < first.expires - datetime.now(UTC) < timedelta(hours=11)
    chain(tmp_path / "new")
    (tmp_path / "new").rename(path)
    assert source.current().fingerprint != first.fingerprint, "a refusal of the old one is over"
    chain(path, begin=timedelta(days=-2))
    with pytest.raises(CredentialError, match=r"expired at .*X509_USER_PROXY.*voms-proxy-init"):
        source.current().check(BASE)
    chain(path, begin=timedelta(hours=2))
    with pytest.raises(CredentialError, match="not valid before"):
        source.current().check(BASE)


def test_certificates_that_cannot_be_used(tmp_path: Path, configure: Callable[..., None]) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    chain(certificate, key)
    configure(user_cert=str(certificate), user_key=str(key))
    assert credential().kind == "certificate"
    key.chmod(0o640)
    assert "others" in refusal()
    chain(tmp_path / "x", key)
    assert "does not belong to the certificate" in refusal()
    chain(certificate, key, encryption=BestAvailableEncryption(b"pass"))
    assert "is encrypted" in refusal()
    for path in (certificate, key):
        chain(certificate, key)
        secret(path, "-----BEGIN NONSENSE-----\nAAAA\n-----END NONSENSE-----\n")
        assert "PEM" in refusal()
    chain(certificate, key)
    key.unlink()
    assert str(key) in refusal()
