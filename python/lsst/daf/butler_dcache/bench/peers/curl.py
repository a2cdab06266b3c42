"""The program curl, in a process of its own that is given all transfers at once in a configuration file."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

from ..work import Job, Outcome, UnsupportedWorkError

__all__ = ("make",)


class _Curl:
    who = resource.RUSAGE_CHILDREN

    def __init__(self, moves: bool) -> None:
        self._moves = moves
        self.idle: Callable[[], Outcome] | None = self._start_for_nothing

    def prepare(self, job: Job) -> Callable[[], Outcome]:
        work = job.work
        if work.operation not in ("get", "put", "read_random"):
            raise UnsupportedWorkError("curl does not do this")
        notes = []
        if work.operation == "get" and work.sink == "memory":
            notes.append("curl throws the bytes away")
        if work.digest:
            notes.append("curl verifies no checksum")
        if work.operation == "put" and work.publish == "atomic" and not self._moves:
            notes.append("curl writes in place: a reader can see a part")
        steps = [self._configuration(job, "transfers", self._transfers(job))]
        if self._moves:
            if work.operation != "put":
                raise UnsupportedWorkError("nothing to move")
            steps.append(self._configuration(job, "moves", self._renames(job)))
        commands = [self._command(path, work.threads) for path in steps]

        def run() -> Outcome:
            for command in commands:
                subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            return Outcome(work.total_bytes, notes)

        return run

    @staticmethod
    def _start_for_nothing() -> Outcome:
        subprocess.run(["curl", "-s", "-o", os.devnull, "file:///dev/null"], check=True)
        return Outcome(0)

    @staticmethod
    def _command(configuration: Path, threads: int) -> list[str]:
        parallel = ["-Z", "--parallel-max", str(threads)] if threads > 1 else []
        # --config comes first: what stands before it would belong to its first transfer alone.
        return ["curl", "--config", str(configuration), *parallel]

    def _transfers(self, job: Job) -> list[list[str]]:
        work, base = job.work, job.access.url
        transfers: list[list[str]] = []
        if work.operation == "put":
            for name in job.names:
                place = f"{name}.tmp" if self._moves else name
                transfers.append([f'url = "{base}{place}"', f'upload-file = "{job.source}"'])
        elif work.operation == "get":
            for number, name in enumerate(job.names):
                out = f"{job.scratch}/{number}" if work.sink == "file" else os.devnull
                transfers.append([f'url = "{base}{name}"', f'output = "{out}"'])
        else:
            for offset in work.offsets():
                span = f"{offset}-{offset + work.piece_bytes - 1}"
                url = f'url = "{base}{job.names[0]}"'
                transfers.append([url, f'range = "{span}"', f'output = "{os.devnull}"'])
        return transfers

    def _renames(self, job: Job) -> list[list[str]]:
        base = job.access.url
        return [
            [
                f'url = "{base}{name}.tmp"',
                'request = "MOVE"',
                f'header = "Destination: {base}{name}"',
                f'output = "{os.devnull}"',
            ]
            for name in job.names
        ]

    @staticmethod
    def _configuration(job: Job, name: str, transfers: list[list[str]]) -> Path:
        """Write a configuration file, for nobody else's eyes; each transfer repeats what all share."""
        access = job.access
        # A door that limits its clients refuses some of eight at once; curl repeats what is refused.
        shared = ["silent", "show-error", "fail", "location", "retry = 20"]
        if access.ca_file is not None:
            shared.append(f'cacert = "{access.ca_file}"')
        if access.token_file is not None:
            shared.append(f'oauth2-bearer = "{Path(access.token_file).read_text().strip()}"')
        if access.user is not None and access.password_file is not None:
            shared.append(f'user = "{access.user}:{Path(access.password_file).read_text().strip()}"')
        path = Path(job.scratch) / f"{name}.curl"
        path.touch(0o600)
        if all(
            len(transfer) == 2 for transfer in transfers
        ):  # nothing but a URL and a file: no settings differ
            lines = [*shared, *("\n".join(transfer) for transfer in transfers)]
        else:
            lines = ["\nnext\n".join("\n".join([*shared, *transfer]) for transfer in transfers)]
        path.write_text("\n".join(lines) + "\n")
        return path


def make(name: str) -> _Curl:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Curl(moves=name == "curl-move")
