"""The S3 client of awscrt, which is written in C; s3transfer makes its requests."""

from __future__ import annotations

import importlib
import io
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..work import Job, Outcome, UnsupportedWorkError
from .parallel import add_up

__all__ = ("make",)

_REGION = "us-east-1"


class _Crt:
    who = resource.RUSAGE_SELF
    idle: Callable[[], Outcome] | None = None

    def prepare(self, job: Job) -> Callable[[], Outcome]:
        work = job.work
        if work.operation not in ("get", "put"):
            raise UnsupportedWorkError("awscrt's S3 client gets and puts")
        try:
            manager = _manager(job)
        except ModuleNotFoundError as error:
            raise UnsupportedWorkError(f"{error.name} is not installed") from error
        if job.contact:
            manager.download(job.access.bucket, job.contact, io.BytesIO()).result()
        if work.operation == "get":
            return lambda: Outcome(add_up(_getter(manager, job), enumerate(job.names), work.threads))
        return lambda: Outcome(add_up(_putter(manager, job), job.names, work.threads))


def _manager(job: Job) -> Any:
    crt = importlib.import_module("s3transfer.crt")
    session = importlib.import_module("botocore.session").get_session()
    client = importlib.import_module("botocore.config").Config(s3={"addressing_style": "path"})
    keys = crt.BotocoreCRTCredentialsWrapper(session.get_credentials()).to_crt_credentials_provider()
    verify = job.access.ca_file
    serializer = crt.BotocoreCRTRequestSerializer(
        session,
        {"region_name": _REGION, "endpoint_url": job.access.url, "verify": verify, "config": client},
    )
    secure = job.access.url.startswith("https:")
    return crt.CRTTransferManager(
        crt.create_s3_crt_client(
            region=_REGION, crt_credentials_provider=keys, use_ssl=secure, verify=verify
        ),
        serializer,
    )


def _getter(manager: Any, job: Job) -> Callable[[tuple[int, str]], int]:
    def one(numbered: tuple[int, str]) -> int:
        number, name = numbered
        if job.work.sink == "memory":
            memory = io.BytesIO()
            manager.download(job.access.bucket, name, memory).result()
            return memory.tell()
        path = Path(job.scratch) / str(number)
        manager.download(job.access.bucket, name, str(path)).result()
        while not path.exists():  # the file gets its name a moment after that
            time.sleep(0.0005)
        return path.stat().st_size

    return one


def _putter(manager: Any, job: Job) -> Callable[[str], int]:
    size = job.work.size_bytes
    data = Path(job.source).read_bytes() if size <= 1024 * 1024 else b""

    def one(name: str) -> int:
        source = io.BytesIO(data) if data else job.source
        manager.upload(source, job.access.bucket, name).result()
        return size

    return one


def make(name: str) -> _Crt:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Crt()
