"""Debian's XRootD 5.5.3 with SciTokens: a real verifier of WLCG tokens, and an issuer that is only a key.

The server never asks the issuer: its key stands in the cache of libSciTokens (an SQLite table), so that
nothing but this machine is needed. It listens with TLS on a free port and serves this machine only.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import xrootd_server
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

PROGRAM = Path("/usr/bin/xrootd")
PLUGIN = "libXrdAccSciTokens-5.so"
ISSUER = "https://issuer.example:8443"
AUDIENCE = "https://wlcg.cern.ch/jwt/v1/any"


def find() -> Path | None:
    """The program, where Debian's packages xrootd-server, -server-plugins and -scitokens-plugins are."""
    there = PROGRAM.exists() and any(Path("/usr/lib").glob(f"*/{PLUGIN}"))
    return PROGRAM if there else None


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Issuer:
    """Who signs the tokens."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public_keys(self) -> dict[str, Any]:
        """What the issuer would publish (RFC 7517)."""
        point = self._key.public_key().public_numbers()
        x, y = (_encoded(number.to_bytes(32, "big")) for number in (point.x, point.y))
        key = {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "k1", "use": "sig", "alg": "ES256"}
        return {"keys": [key]}

    def token(self, scope: str, *, lifetime_seconds: int = 600, **claims: Any) -> str:
        """Sign a token of the WLCG profile."""
        now = int(time.time())
        end = now + lifetime_seconds
        document = {
            "iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "wlcg.ver": "1.0", "scope": scope,
            "iat": min(now, end) - 10, "nbf": min(now, end) - 10, "exp": end, "jti": str(uuid.uuid4()),
        } | claims  # fmt: skip
        header = {"typ": "JWT", "alg": "ES256", "kid": "k1"}
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, document))
        signature = self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
        numbers = (number.to_bytes(32, "big") for number in decode_dss_signature(signature))
        return f"{text}.{_encoded(b''.join(numbers))}"


@dataclass(frozen=True)
class SciTokensServer:
    """A running server.

    Parameters
    ----------
    url : `str`
        Directory that tokens may be for, a ``davs://`` URL with its trailing slash.
    environment : `dict`
        The configuration of a client, without a credential.
    issuer : `Issuer`
        Who signs.
    """

    url: str
    environment: dict[str, str]
    issuer: Issuer


@contextlib.contextmanager
def run() -> Iterator[SciTokensServer]:
    """Run a server for as long as the context lasts."""
    folder = Path(tempfile.mkdtemp(prefix="scitokens-"))
    folder.chmod(0o755)
    issuer = Issuer()
    try:
        for part in ("run", "log", "data/store", "cache/scitokens"):
            (folder / part).mkdir(parents=True)
        xrootd_server.write_certificates(folder)
        _publish(folder, issuer)
        (port,) = xrootd_server._free_ports(1)
        (folder / "scitokens.cfg").write_text(
            f"[Global]\naudience = {AUDIENCE}\n"
            f"[Issuer CI]\nissuer = {ISSUER}\nbase_path = /\ndefault_user = nobody\n"
        )
        (folder / "authdb").write_text("u nobody-in-particular / l\n")
        (folder / "server.cfg").write_text(_configuration(folder, port))
        xrootd_server._give_to_nobody(folder)
        configuration = folder / "webdav.yaml"
        entry = {
            "base_url": f"davs://localhost:{port}/",
            "trusted_authorities": str(folder / "ca.pem"),
            "dcache": {"requests_per_second": 0},
        }
        configuration.write_text(yaml.safe_dump([entry]))
        environment = {"LSST_RESOURCES_WEBDAV_CONFIG": str(configuration)}
        url = f"https://localhost:{port}/store/"
        with _kept_running(folder) as process:
            _wait_until_ready(folder, url, process)
            yield SciTokensServer(url.replace("https:", "davs:", 1), environment, issuer)
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _kept_running(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server, and again when it crashes, as Debian's 5.5.3 did in OpenSSL, once in many runs."""
    lock = threading.Lock()
    is_over = False
    processes = [_start(folder)]

    def watch() -> None:
        while True:
            processes[-1].wait()
            with lock:
                if is_over:
                    return
                processes.append(_start(folder))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield processes[0]
    finally:
        with lock:
            is_over = True
        xrootd_server._stop(processes[-1:])
        watcher.join()


def _publish(folder: Path, issuer: Issuer) -> None:
    tomorrow = int(time.time()) + 86400
    known = {"jwks": issuer.public_keys, "expires": tomorrow, "next_update": tomorrow}
    with contextlib.closing(sqlite3.connect(folder / "cache/scitokens/scitokens_cpp.sqllite")) as cache:
        cache.execute("CREATE TABLE keycache (issuer text UNIQUE PRIMARY KEY NOT NULL,keys text NOT NULL)")
        cache.execute("INSERT INTO keycache VALUES (?, ?)", (ISSUER, json.dumps(known)))
        cache.commit()


def _configuration(folder: Path, port: int) -> str:
    return f"""\
all.role server
all.sitename TEST
all.export /
all.adminpath {folder}/run
all.pidpath {folder}/run
oss.localroot {folder}/data
xrd.network nodnr norpipa
xrd.allow host 127.0.0.1
xrd.allow host localhost
xrd.port {port}
xrd.protocol http:{port} libXrdHttp.so
xrd.tls {folder}/host.pem {folder}/host.key
xrd.tlsca certfile {folder}/ca.pem
xrootd.chksum max 2 adler32 md5
http.listingdeny no
http.header2cgi Authorization authz
ofs.authorize 1
ofs.authlib libXrdAccSciTokens.so config={folder}/scitokens.cfg
acc.authdb {folder}/authdb
"""


def _start(folder: Path) -> subprocess.Popen[bytes]:
    command = [str(PROGRAM), "-I", "v4", "-n", "server", "-c", str(folder / "server.cfg")]
    if shutil.which("setpriv"):
        command = ["setpriv", "--pdeathsig", "TERM", *command]
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        identity = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    with (folder / "log" / "server").open("wb") as log:
        return subprocess.Popen(
            command,
            env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
            cwd=folder / "run",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            **identity,
        )


def _wait_until_ready(folder: Path, url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + xrootd_server.START_TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(requests.ConnectionError, requests.Timeout), requests.Session() as session:
            session.trust_env = False
            if session.get(url, verify=str(folder / "ca.pem"), timeout=2).status_code == 403:
                return
        time.sleep(0.05)
    log = (folder / "log" / "server").read_text(errors="replace")[-3000:]
    raise RuntimeError(f"XRootD with SciTokens is not ready\n{log}")
