"""A cluster of real XRootD servers on free ports of this machine.

One redirector and its data servers, over TLS with a certificate authority of their own, with macaroons and
one shared name space: GET at the redirector is 302, nearly everything else 307, so that a client meets the
answers of another author. Or one server with a tape API, which works on two folders. The processes run as
nobody where the tests run as root, since XRootD refuses to run as root; each has its own small file of
configuration. XRootD listens on every address (it cannot do otherwise) but serves this machine only.

``python tests/xrootd_server.py`` runs a cluster until it is interrupted, and prints a client's variables.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

START_TIMEOUT_SECONDS = 20.0
STOP_TIMEOUT_SECONDS = 5.0
ACTIVITIES = "DOWNLOAD,UPLOAD,MANAGE,DELETE,LIST,READ_METADATA"
USER_DN = "/O=Test/CN=Test User"


@dataclass(frozen=True)
class XrootdCluster:
    """A running cluster.

    Parameters
    ----------
    url : `str`
        Writeable directory at the redirector, a ``davs://`` URL with its trailing slash.
    environment : `~collections.abc.Mapping` [ `str`, `str` ]
        Variables for a client: its configuration file and its token.
    folder : `~pathlib.Path`
        Certificates, logs (``log/``) and the data (``data/``).
    """

    url: str
    environment: Mapping[str, str]
    folder: Path


def find() -> Path | None:
    """Folder of an XRootD 6 server: the one that ``.ci/xrootd-build`` made, else one on ``PATH``."""
    built = Path(__file__).resolve().parent.parent / ".xrootd"
    on_path = shutil.which("xrootd")
    candidates = [built.resolve()] + ([Path(on_path).resolve().parent.parent] if on_path else [])
    for prefix in candidates:
        program = prefix / "bin" / "xrootd"
        if program.exists() and _version(program).startswith("v6."):
            return prefix
    return None


def _version(program: Path) -> str:
    """Version as the program tells it, on its standard error."""
    done = subprocess.run(
        [program, "-v"], env=_library_path(program.parent.parent), capture_output=True, text=True, check=False
    )
    return (done.stdout + done.stderr).strip()


def _library_path(prefix: Path) -> dict[str, str]:
    return {**os.environ, "LD_LIBRARY_PATH": str(prefix / "lib")}


@dataclass(frozen=True)
class XrootdTape(XrootdCluster):
    """A running server with a tape API; everybody may read and write there, without a credential.

    A file is on disk if it is in ``disk``, on tape if it is in ``archive``. Staging copies it at once.
    """

    @property
    def disk(self) -> Path:
        """What the server shows."""
        return self.folder / "tape" / "disk"

    @property
    def archive(self) -> Path:
        """What is on tape."""
        return self.folder / "tape" / "archive"


@contextlib.contextmanager
def run(prefix: Path, data_servers: int = 2) -> Iterator[XrootdCluster]:
    """Run a cluster for as long as the context lasts.

    Parameters
    ----------
    prefix : `~pathlib.Path`
        Folder with the server's ``bin/`` and ``lib/``, from `find`.
    data_servers : `int`, optional
        How many data servers stand behind the redirector.

    Yields
    ------
    cluster : `XrootdCluster`
        The cluster, ready to be written to.
    """
    with _prepared(prefix, "data/rw") as (folder, processes):
        (folder / "macaroon.secret").write_bytes(base64.encodebytes(secrets.token_bytes(64)))
        (folder / "gridmap").write_text(f'"{USER_DN}" tester\n')
        (folder / "authdb").write_text("u tester / a\n")
        ports = _free_ports(2 + data_servers)
        names = ["redirector"] + [f"data{number}" for number in range(1, data_servers + 1)]
        for name, port in zip(names, [ports[0], *ports[2:]], strict=True):
            role = "manager" if name == "redirector" else "server"
            (folder / f"{name}.cfg").write_text(_configuration(folder, role, port, cluster_port=ports[1]))
        _give_to_nobody(folder)
        for program in ("cmsd", "xrootd"):
            for name in names:
                processes.append(_start(folder, program, name))
        url = f"https://localhost:{ports[0]}/rw/"
        _wait_until_ready(folder, "PUT", f"{url}ready", 307, processes)
        yield XrootdCluster(
            url=url.replace("https:", "davs:", 1),
            environment=_client_environment(folder, url),
            folder=folder,
        )


@contextlib.contextmanager
def run_tape(prefix: Path) -> Iterator[XrootdTape]:
    """Run a server with a tape API for as long as the context lasts.

    Parameters
    ----------
    prefix : `~pathlib.Path`
        Folder with the server's ``bin/`` and ``lib/``, from `find`.

    Yields
    ------
    tape : `XrootdTape`
        The server; its files are made and looked at in its folders.
    """
    with _prepared(prefix, "tape/archive", "tape/disk", "tape/requests") as (folder, processes):
        port, other = _free_ports(2)
        (folder / "tape.cfg").write_text(_tape_configuration(folder, port, other))
        _give_to_nobody(folder)
        processes.append(_start(folder, "xrootd", "tape"))
        url = f"https://localhost:{port}/"
        _wait_until_ready(folder, "GET", f"{url}.well-known/wlcg-tape-rest-api", 200, processes)
        yield XrootdTape(
            url=url.replace("https:", "davs:", 1),
            environment={
                "LSST_RESOURCES_WEBDAV_CONFIG": _write_entry(folder, url, {"anonymous": True}),
                "BEARER_TOKEN_FILE": "",
            },
            folder=folder,
        )


@contextlib.contextmanager
def _prepared(prefix: Path, *folders: str) -> Iterator[tuple[Path, list[subprocess.Popen[bytes]]]]:
    """Make a folder with programs and certificates; stop what was started there, and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="xrootd-"))
    folder.chmod(0o755)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        # The programs lie where the user nobody can reach them, whatever the mode of our own folders.
        for part in ("bin", "lib"):
            shutil.copytree(prefix / part, folder / part, symlinks=True)
        for part in ("run", "log", *folders):
            (folder / part).mkdir(parents=True)
        write_certificates(folder)
        yield folder, processes
    finally:
        _stop(processes)
        shutil.rmtree(folder)


def _tape_configuration(folder: Path, port: int, other_port: int) -> str:
    return f"""\
all.role server
all.sitename TEST
all.export /
all.adminpath {folder}/run
all.pidpath {folder}/run
oss.localroot {folder}/tape/disk
xrd.network nodnr norpipa
xrd.allow host 127.0.0.1
xrd.allow host localhost
xrd.port {other_port}
xrd.protocol http:{port} libXrdHttp.so
xrd.tls {folder}/host.pem {folder}/host.key
xrd.tlsca certfile {folder}/ca.pem
xrootd.chksum max 2 adler32 md5
http.listingdeny no
http.exthandler xrdhttptapeapi libXrdHttpTapeApi.so {folder}/tape 4m
"""


def _configuration(folder: Path, role: str, port: int, cluster_port: int) -> str:
    """Directives of one node, for its xrootd and its cmsd alike."""
    return f"""\
all.role {role}
all.sitename TEST
all.export /
all.adminpath {folder}/run
all.pidpath {folder}/run
all.manager localhost:{cluster_port}
oss.localroot {folder}/data
xrd.network nodnr norpipa
xrd.allow host 127.0.0.1
xrd.allow host localhost
xrd.port {port} if exec xrootd
{f"xrd.port {cluster_port} if exec cmsd" if role == "manager" else ""}
# One shared name space: every data server is as good as another, and no file is waited for.
cms.delay startup 1 servers 1 lookup 1 qdl 2 suspend 1
cms.dfs lookup distrib mdhold 0 redirect immed
if exec xrootd
xrd.protocol http:{port} libXrdHttp.so
xrd.tls {folder}/host.pem {folder}/host.key
xrd.tlsca certfile {folder}/ca.pem
xrootd.chksum max 2 adler32 md5
http.listingdeny no
http.desthttps yes
http.gridmap {folder}/gridmap
http.header2cgi Authorization authz
http.exthandler xrdmacaroons libXrdMacaroons.so
http.exthandler xrdtpc libXrdHttpTPC.so
macaroons.secretkey {folder}/macaroon.secret
ofs.authorize 1
ofs.authlib libXrdMacaroons.so
acc.authdb {folder}/authdb
tpc.allow local
tpc.allow private
fi
"""


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, outside the range of outgoing connections."""
    found: list[int] = []
    candidates = random.sample(range(26000, 32000), 6000)
    while len(found) < count:
        port = candidates.pop()
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            found.append(port)
    return found


def write_certificates(folder: Path) -> None:
    """Write ``ca.pem`` and, signed by it, ``host.pem`` and ``user.pem`` with their ``.key``."""
    now = datetime.datetime.now(datetime.UTC)

    def name(common_name: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test"),
                x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            ]
        )

    def start(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
        )

    authority = name("Test CA")
    authority_key = ec.generate_private_key(ec.SECP256R1())
    usage: dict[str, Any] = dict.fromkeys(
        [
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ],
        False,
    )
    certificate = (
        start(authority, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{**usage, "key_cert_sign": True, "crl_sign": True}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    addresses = [
        x509.DNSName("localhost"),
        x509.DNSName(socket.gethostname()),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    for file, subject, alternatives in (("host", "localhost", addresses), ("user", "Test User", [])):
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            start(name(subject), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**{**usage, "digital_signature": True}), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        signed = builder.sign(authority_key, hashes.SHA256())
        (folder / f"{file}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        private = folder / f"{file}.key"
        private.touch(0o600)
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


def _give_to_nobody(folder: Path) -> None:
    """Hand the files to the user that the servers run as, where we are not an ordinary user ourselves."""
    if os.geteuid() != 0:
        return
    for path in [folder, *folder.rglob("*")]:
        shutil.chown(path, "nobody", "nogroup", follow_symlinks=False)


def _start(folder: Path, program: str, name: str) -> subprocess.Popen[bytes]:
    command = [str(folder / "bin" / program), "-I", "v4", "-n", name, "-c", str(folder / f"{name}.cfg")]
    if shutil.which("setpriv"):
        command = ["setpriv", "--pdeathsig", "TERM", *command]  # a test run that is killed leaves no server
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        identity = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    with (folder / "log" / f"{program}.{name}").open("wb") as log:
        return subprocess.Popen(
            command,
            env=_library_path(folder),
            cwd=folder / "run",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            **identity,
        )


def _wait_until_ready(
    folder: Path, method: str, url: str, status: int, processes: list[subprocess.Popen[bytes]]
) -> None:
    """Return once a request is answered as it should be; a redirector sends an upload to a data server."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    answer = "none"
    while time.monotonic() < deadline:
        if any(process.poll() is not None for process in processes):
            break
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            with _session(folder) as session:
                response = session.request(method, url, data=b"", timeout=2, allow_redirects=False)
            answer = str(response.status_code)
            if response.status_code == status:
                return
        time.sleep(0.05)
    logs = "\n".join(
        path.read_text(errors="replace")[-1500:]
        for path in sorted((folder / "log").rglob("*"))
        if path.is_file()
    )
    raise RuntimeError(f"XRootD is not ready after {START_TIMEOUT_SECONDS} s, last answer {answer}\n{logs}")


def _session(folder: Path) -> requests.Session:
    """A session that logs in with the user's certificate, whatever the environment says."""
    session = requests.Session()
    session.trust_env = False
    session.verify = str(folder / "ca.pem")
    session.cert = (str(folder / "user.pem"), str(folder / "user.key"))
    return session


def _client_environment(folder: Path, url: str) -> dict[str, str]:
    """Mint a macaroon with the user's certificate and write the two files that a client reads."""
    with _session(folder) as session:
        response = session.post(
            url,
            headers={"Content-Type": "application/macaroon-request"},
            data=json.dumps({"caveats": [f"activity:{ACTIVITIES}"], "validity": "PT12H"}),
            timeout=10,
        )
    response.raise_for_status()
    token = folder / "token"
    token.touch(0o600)
    token.write_text(response.json()["macaroon"])
    configuration = _write_entry(folder, url.removesuffix("rw/"), token=str(token))
    return {"LSST_RESOURCES_WEBDAV_CONFIG": configuration, "BEARER_TOKEN_FILE": str(token)}


def _write_entry(folder: Path, url: str, own: Mapping[str, Any] | None = None, **more: str) -> str:
    """Write a client's configuration, and return its name."""
    configuration = folder / "webdav.yaml"
    entry = {
        "base_url": url.replace("https:", "davs:", 1),
        "trusted_authorities": str(folder / "ca.pem"),
        "dcache": {"requests_per_second": 0, **(own or {})},  # here nobody limits
        **more,
    }
    configuration.write_text(yaml.safe_dump([entry]))
    return str(configuration)


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> int:
    """Run a cluster until this program is interrupted or terminated."""
    prefix = find()
    if prefix is None:
        print("no XRootD 6 server in .xrootd/ or on PATH: build one with .ci/xrootd-build", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with run(prefix) as cluster, contextlib.suppress(KeyboardInterrupt):
        for name, value in cluster.environment.items():
            print(f"export {name}={value}")
        print(f"export DCACHE_URL={cluster.url}", flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
