"""The library boto3, with s3transfer, as it comes."""

from __future__ import annotations

import importlib
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..work import Job, Outcome, UnsupportedWorkError
from .parallel import add_up

__all__ = ("make",)

_AT_ONCE = 1000


class _Boto:
    who = resource.RUSAGE_SELF
    idle: Callable[[], Outcome] | None = None

    def prepare(self, job: Job) -> Callable[[], Outcome]:
        try:
            boto3 = importlib.import_module("boto3")
        except ModuleNotFoundError as error:
            raise UnsupportedWorkError("boto3 is not installed") from error
        configuration = importlib.import_module("botocore.config").Config(s3={"addressing_style": "path"})
        client = boto3.client("s3", endpoint_url=job.access.url, config=configuration)
        bucket, work = job.access.bucket, job.work
        if job.contact:
            client.head_object(Bucket=bucket, Key=job.contact)
        match work.operation:
            case "get":
                return lambda: Outcome(add_up(_getter(client, job), enumerate(job.names), work.threads))
            case "put":
                return lambda: Outcome(add_up(_putter(client, job), job.names, work.threads))
            case "delete":
                return lambda: _delete(client, job)
        raise UnsupportedWorkError("boto3 does not do this")


def _getter(client: Any, job: Job) -> Callable[[tuple[int, str]], int]:
    bucket = job.access.bucket

    def one(numbered: tuple[int, str]) -> int:
        number, name = numbered
        if job.work.sink == "memory":
            return len(client.get_object(Bucket=bucket, Key=name)["Body"].read())
        path = Path(job.scratch) / str(number)
        client.download_file(bucket, name, str(path))
        return path.stat().st_size

    return one


def _putter(client: Any, job: Job) -> Callable[[str], int]:
    bucket, size = job.access.bucket, job.work.size_bytes
    data = Path(job.source).read_bytes() if size <= 1024 * 1024 else b""

    def one(name: str) -> int:
        if data:
            client.put_object(Bucket=bucket, Key=name, Body=data)
        else:
            client.upload_file(job.source, bucket, name)
        return size

    return one


def _delete(client: Any, job: Job) -> Outcome:
    deleted = 0
    for begin in range(0, len(job.names), _AT_ONCE):
        keys = [{"Key": name} for name in job.names[begin : begin + _AT_ONCE]]
        answer = client.delete_objects(Bucket=job.access.bucket, Delete={"Objects": keys})
        deleted += len(answer["Deleted"])
    return Outcome(deleted)


def make(name: str) -> _Boto:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Boto()
