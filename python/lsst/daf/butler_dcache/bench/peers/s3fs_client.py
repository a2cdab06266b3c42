"""The library s3fs, which is fsspec's file system for S3."""

from __future__ import annotations

import importlib
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..work import Job, Outcome, UnsupportedWorkError
from .parallel import add_up

__all__ = ("make",)


class _S3fs:
    who = resource.RUSAGE_SELF
    idle: Callable[[], Outcome] | None = None

    def prepare(self, job: Job) -> Callable[[], Outcome]:
        work = job.work
        try:
            s3fs = importlib.import_module("s3fs")
        except ModuleNotFoundError as error:
            raise UnsupportedWorkError("s3fs is not installed") from error
        filesystem = s3fs.S3FileSystem(
            endpoint_url=job.access.url.removesuffix("/"),
            client_kwargs={"verify": job.access.ca_file} if job.access.ca_file else {},
            config_kwargs={"s3": {"addressing_style": "path"}},
            use_listings_cache=False,
        )
        bucket = job.access.bucket
        if job.contact:
            filesystem.info(f"{bucket}/{job.contact}")
        paths = [f"{bucket}/{name}" for name in job.names]
        match work.operation:
            case "get":
                get = _getter(filesystem, job)
                return lambda: Outcome(add_up(get, enumerate(paths), work.threads))
            case "put":
                put = _putter(filesystem, job)
                return lambda: Outcome(add_up(put, paths, work.threads))
            case "delete":
                return lambda: Outcome(_delete(filesystem, paths))
        raise UnsupportedWorkError("s3fs does not do this")


def _getter(filesystem: Any, job: Job) -> Callable[[tuple[int, str]], int]:
    def one(numbered: tuple[int, str]) -> int:
        number, path = numbered
        if job.work.sink == "memory":
            return len(filesystem.cat_file(path))
        target = f"{job.scratch}/{number}"
        filesystem.get_file(path, target)
        return os.stat(target).st_size

    return one


def _putter(filesystem: Any, job: Job) -> Callable[[str], int]:
    size = job.work.size_bytes
    data = Path(job.source).read_bytes() if size <= 1024 * 1024 else b""

    def one(path: str) -> int:
        if data:
            filesystem.pipe_file(path, data)
        else:
            filesystem.put_file(job.source, path)
        return size

    return one


def _delete(filesystem: Any, paths: list[str]) -> int:
    filesystem.rm(paths)
    return len(paths)


def make(name: str) -> _S3fs:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _S3fs()
