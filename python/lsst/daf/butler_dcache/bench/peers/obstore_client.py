"""The library obstore, which is the object_store of Rust."""

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


class _Obstore:
    who = resource.RUSAGE_SELF
    idle: Callable[[], Outcome] | None = None

    def prepare(self, job: Job) -> Callable[[], Outcome]:
        work = job.work
        try:
            obstore = importlib.import_module("obstore")
        except ModuleNotFoundError as error:
            raise UnsupportedWorkError("obstore is not installed") from error
        store = _store(job)
        if job.contact:
            obstore.head(store, job.contact)
        notes = ["obstore compares no checksum"] if work.digest and work.operation == "get" else []
        match work.operation:
            case "get":
                get = _getter(obstore, store, job)
                return lambda: Outcome(add_up(get, enumerate(job.names), work.threads), notes)
            case "put":
                put = _putter(obstore, store, job)
                return lambda: Outcome(add_up(put, job.names, work.threads), notes)
            case "delete":

                def delete() -> Outcome:
                    obstore.delete(store, list(job.names))
                    return Outcome(len(job.names))

                return delete
        raise UnsupportedWorkError("obstore does not do this")


def _store(job: Job) -> Any:
    access = job.access
    options: dict[str, Any] = {"allow_http": True}
    if access.ca_file is not None:
        options["root_certificate"] = Path(access.ca_file).read_text()
    return importlib.import_module("obstore.store").S3Store(
        access.bucket,
        endpoint=access.url.removesuffix("/"),
        region="us-east-1",
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        virtual_hosted_style_request=False,
        client_options=options,
    )


def _getter(obstore: Any, store: Any, job: Job) -> Callable[[tuple[int, str]], int]:
    def one(numbered: tuple[int, str]) -> int:
        number, name = numbered
        answer = obstore.get(store, name)
        if job.work.sink == "memory":
            return len(answer.bytes())
        moved = 0
        with open(f"{job.scratch}/{number}", "wb") as file:
            for piece in answer.stream():
                moved += file.write(piece)
        return moved

    return one


def _putter(obstore: Any, store: Any, job: Job) -> Callable[[str], int]:
    size = job.work.size_bytes
    data = Path(job.source).read_bytes() if size <= 1024 * 1024 else b""

    def one(name: str) -> int:
        obstore.put(store, name, data or Path(job.source))
        return size

    return one


def make(name: str) -> _Obstore:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Obstore()
