"""The library gfal2, on davix, in a process of its own: its module is one of the system's Python."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import subprocess
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, BinaryIO

from ...redaction import redact_text
from ..load import drive
from ..work import Job, Outcome, UnsupportedWorkError, Work
from .client import Client, Done, Sink, Source
from .plain import PlainClient
from .program import ProgramFailedError
from .signing_in import folder_of_authorities, login

__all__ = ("make",)

_PYTHON = "/usr/bin/python3"
_PROGRAM = str(Path(__file__).with_name("gfal_program.py"))
_END_SECONDS = 10.0


class _Helper:
    """The other Python: asked by any thread, answers come in any order."""

    def __init__(self, settings: dict[str, Any], environment: dict[str, str], job: Job) -> None:
        # -I: what belongs to our own environment is not for that Python.
        self._process = subprocess.Popen(
            [_PYTHON, "-I", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **environment},
        )
        self._timeout = job.deadline_seconds or None
        self._numbers = itertools.count()
        self._asked: dict[int, Future[int]] = {}
        self._lock = threading.Lock()
        self._tell(settings)
        threading.Thread(target=self._listen, daemon=True).start()
        if job.contact:
            self.ask("exists", job.access.root + job.contact)

    def _tell(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                answer = json.loads(line)
                future = self._asked.pop(answer["number"])
                if "error" in answer:
                    future.set_exception(ProgramFailedError(f"gfal2: {redact_text(answer['error'])}"))
                else:
                    future.set_result(answer["result"])
        with self._lock:
            left, self._asked = self._asked, {}
        for future in left.values():
            future.set_exception(ProgramFailedError("the process with gfal2 ended"))

    def ask(self, what: str, place: str, other: str = "") -> int:
        future: Future[int] = Future()
        with self._lock:
            number = next(self._numbers)
            self._asked[number] = future
            self._tell({"number": number, "do": what, "place": place, "other": other})
        return future.result(self._timeout)

    def close(self) -> None:
        """Let it end; its CPU time counts from then on."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Gfal(PlainClient):
    who = resource.RUSAGE_CHILDREN

    def connect(self, job: Job) -> None:
        try:
            subprocess.run([_PYTHON, "-I", "-c", "import gfal2"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UnsupportedWorkError(
                f"{_PYTHON} cannot import gfal2; Debian has it in python3-gfal2 and gfal2-plugin-http"
            ) from error
        self._root, self._scratch = job.access.root, job.scratch
        authorities = folder_of_authorities(job.access, job.scratch)
        environment = {} if authorities is None else {"X509_CERT_DIR": authorities}
        signing_in = login(job.access)
        if signing_in.token:
            environment["BEARER_TOKEN"] = signing_in.token
        # For passwords it has no way of its own that works over http.
        headers = {} if signing_in.token else signing_in.headers
        settings = {"threads": job.work.threads, "headers": headers}
        self._begin: Callable[[], _Helper] = lambda: _Helper(settings, environment, job)
        self.idle = self._start_for_nothing

    def notes(self, work: Work) -> list[str]:
        into_files = work.operation == "get" and work.sink != "file"
        return [*super().notes(work), *(["gfal2 puts the bytes into files"] if into_files else [])]

    def prepare(self, job: Job) -> Callable[[], Outcome]:
        self.connect(job)
        run = drive(self, job)

        def begin_and_run() -> Outcome:
            # CPU time is known of processes that have ended, so it begins and ends in here.
            self._helper = self._begin()
            try:
                return run()
            finally:
                self._helper.close()

        return begin_and_run

    def _start_for_nothing(self) -> Outcome:
        self._begin().close()
        return Outcome(0)

    def get(self, name: str, sink: Sink) -> Done:
        path = sink.path or f"{self._scratch}/{uuid.uuid4().hex}"
        self._helper.ask("copy", self._root + name, f"file://{path}")
        size = os.stat(path).st_size
        if not sink.path:
            os.unlink(path)
        return Done(size)

    def put(self, name: str, source: Source) -> Done:
        self._helper.ask("copy", f"file://{source.path}", self._root + name)
        return Done(source.size)

    def open(self, name: str) -> BinaryIO:
        raise UnsupportedWorkError("gfal2 reads parts of files, but in the process of another Python")

    def exists(self, name: str) -> bool:
        return bool(self._helper.ask("exists", self._root + name))

    def walk(self, directory: str) -> int:
        return self._helper.ask("walk", self._root + directory)

    def remove(self, name: str) -> None:
        self._helper.ask("remove", self._root + name)

    def rename(self, name: str, new: str) -> None:
        self._helper.ask("rename", self._root + name, self._root + new)


def make(name: str) -> Client:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Gfal(name)
