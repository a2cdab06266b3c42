"""The program curl, in a process of its own that is given all transfers at once in a configuration file."""

from __future__ import annotations

import os
import resource
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from ..work import Job, Outcome, UnsupportedWorkError, Work
from .client import Client
from .program import ProgramFailedError, run_program

__all__ = ("make",)

_SAID = r'write-out = "%{time_total} %{time_starttransfer} %{size_download} %{url}\n"'
"""After each transfer: its redirect belongs to the times, the first byte is of the last answer's head."""

_TAKEN_IN_TURN = ("url", "upload-file", "output")
"""Transfers that differ in nothing else need not repeat all settings."""


class _Curl(Client):
    who = resource.RUSAGE_CHILDREN

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._moves = name == "curl-move"
        self.idle = self._start_for_nothing

    def notes(self, work: Work) -> list[str]:
        notes = []
        if work.operation == "get" and work.sink == "memory":
            notes.append("curl throws the bytes away")
        if work.digest:
            notes.append("curl verifies no checksum")
        if work.operation == "put" and work.publish == "atomic" and not self._moves:
            notes.append("curl writes in place: a reader can see a part")
        return notes

    def prepare(self, job: Job) -> Callable[[], Outcome]:
        work = job.work
        if work.operation not in ("get", "put", "read_random"):
            raise UnsupportedWorkError("curl does not do this")
        if work.rate:
            raise UnsupportedWorkError("curl takes all its transfers at once, not as they arrive")
        if work.threads > 1 and job.max_rate:
            raise UnsupportedWorkError("curl keeps to no rate with several transfers at a time")
        steps = [self._configuration(job, "transfers", self._transfers(job))]
        if self._moves:
            if work.operation != "put":
                raise UnsupportedWorkError("nothing to move")
            steps.append(self._configuration(job, "moves", self._renames(job)))
        commands = [self._command(path, job) for path in steps]

        def run() -> Outcome:
            said = [run_program(command, deadline_seconds=job.deadline_seconds) for command in commands]
            return self._outcome(work, said)

        return run

    def _outcome(self, work: Work, said: list[str]) -> Outcome:
        seconds: dict[str, list[float]] = defaultdict(list)
        together: dict[str, float] = defaultdict(float)
        wanted = {"get": work.size_bytes, "read_random": work.piece_bytes}.get(work.operation)
        for step, text in enumerate(said):
            for line in text.splitlines():
                total, first, size, url = line.split()
                if wanted is not None and int(size) != wanted:
                    raise ProgramFailedError(f"curl received {size} bytes of {wanted}")
                if self._moves:  # one after the other, to the same file
                    together[url.removesuffix(".tmp")] += float(total)
                else:
                    seconds["operation"].append(float(total))
                if work.operation != "put" and step == 0:
                    seconds["first_byte"].append(float(first))
        if self._moves:
            seconds["operation"] = list(together.values())
        done = len(seconds["operation"])
        if done != work.count:
            raise ProgramFailedError(f"curl did {done} transfers of {work.count}")
        return Outcome(work.total_bytes, self.notes(work), operations=done, seconds=dict(seconds))

    @staticmethod
    def _start_for_nothing() -> Outcome:
        run_program(["curl", "-s", "-o", os.devnull, "file:///dev/null"])
        return Outcome(0)

    @staticmethod
    def _command(configuration: Path, job: Job) -> list[str]:
        threads = job.work.threads
        parallel = ["-Z", "--parallel-max", str(threads)] if threads > 1 else []
        # --config comes first: what stands before it would belong to its first transfer alone.
        return ["curl", "--config", str(configuration), *parallel]

    def _transfers(self, job: Job) -> list[list[str]]:
        work, base = job.work, job.access.url
        names = [job.names[number % len(job.names)] for number in range(work.count)]
        transfers: list[list[str]] = []
        if work.operation == "put":
            for name in names:
                place = f"{name}.tmp" if self._moves else name
                upload = [f'url = "{base}{place}"', f'upload-file = "{job.source}"']
                transfers.append([*upload, f'output = "{os.devnull}"'])
        elif work.operation == "get":
            for number, name in enumerate(names):
                out = f"{job.scratch}/{number}" if work.sink == "file" else os.devnull
                transfers.append([f'url = "{base}{name}"', f'output = "{out}"'])
        else:
            for name, offset in zip(names, work.offsets(), strict=True):
                span = f"{offset}-{offset + work.piece_bytes - 1}"
                transfers.append([f'url = "{base}{name}"', f'range = "{span}"', f'output = "{os.devnull}"'])
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
        shared = ["silent", "show-error", "fail", "location", "retry = 20", _SAID]
        if access.ca_file is not None:
            shared.append(f'cacert = "{access.ca_file}"')
        if access.token_file is not None:
            shared.append(f'oauth2-bearer = "{Path(access.token_file).read_text().strip()}"')
        if access.user is not None and access.password_file is not None:
            shared.append(f'user = "{access.user}:{Path(access.password_file).read_text().strip()}"')
        if job.max_rate:
            shared.append(f'rate = "{max(1, int(job.max_rate * 60))}/m"')
        path = Path(job.scratch) / f"{name}.curl"
        path.touch(0o600)
        if all(line.startswith(_TAKEN_IN_TURN) for transfer in transfers for line in transfer):
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
    return _Curl(name)
