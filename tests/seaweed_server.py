"""The S3 server of the tests: a SeaweedFS of their own, or the one that ``S3_URL`` names.

``python tests/seaweed_server.py`` runs a SeaweedFS until it is interrupted, and prints a client's variables.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lsst.daf.butler_dcache.bench.seaweedfs import SeaweedFs, kill

__all__ = ("SeaweedServer", "external_url", "run")


class SeaweedServer(SeaweedFs):
    """A SeaweedFS that clients reach without a profile, by the variables that all S3 clients know."""

    @property
    def environment(self) -> dict[str, str]:
        """Variables for any S3 client: the endpoint over http, the account, and nobody else's files."""
        return self.variables()

    @property
    def tls_environment(self) -> dict[str, str]:
        """The same over TLS."""
        return self.variables(tls=True)

    @property
    def reader_environment(self) -> dict[str, str]:
        """The variables of somebody who may read and list."""
        return self.environment_of(self.reader_access_key, self.reader_secret_key)

    def environment_of(self, access_key: str, secret_key: str) -> dict[str, str]:
        """Variables of an account, which there need not be."""
        return self.variables(access_key=access_key, secret_key=secret_key)


@contextlib.contextmanager
def run() -> Iterator[SeaweedServer]:
    """Run a server for as long as the context lasts."""
    folder = Path(tempfile.mkdtemp(prefix="seaweedfs-"))
    folder.chmod(0o755)
    processes: list[subprocess.Popen[Any]] = []
    try:
        yield SeaweedServer(folder, processes)
    finally:
        kill(processes)
        shutil.rmtree(folder)


def external_url() -> str | None:
    """Directory at the S3 server that the tests shall use instead, if any: ``s3://bucket/prefix/``."""
    url = os.environ.get("S3_URL")
    return f"{url.rstrip('/')}/" if url else None


def main() -> int:
    """Run a server until this program is interrupted or terminated."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with run() as server, contextlib.suppress(KeyboardInterrupt):
        for name, value in server.environment.items():
            print(f"export {name}={value}")
        print(f"export S3_URL=s3://{server.bucket}/", flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
