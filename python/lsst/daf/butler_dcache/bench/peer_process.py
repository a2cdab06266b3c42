"""A peer at work in a process of its own: told to prepare, told to go, killed when its time is over."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from ..redaction import redact_text
from .stopping import Stop
from .work import Job, UnsupportedWorkError

__all__ = ("PeerDiedError", "PeerFailedError", "PeerProcess")

_PACKAGE = __name__.rpartition(".")[0]
_PIECE_BYTES = 65536
_WORDS_BYTES = 65536
_LONGEST_WORDS = 500


class PeerFailedError(Exception):
    """A client ended before it had done its work, or did not do it; the text says what is known."""


class PeerDiedError(PeerFailedError):
    """Its process ended; a new one may do better."""


class PeerProcess:
    """A child process: says when it is ready, is told to go, says its figures; then it may have another job.

    Parameters
    ----------
    job : `~.work.Job`
        What it is to do. Its scratch folder lasts as long as the process.
    stop : `Stop`
        Interrupts the waiting.
    seconds : `float`
        That the job may take; then the process is killed, with all that it started.
    prefix : `~collections.abc.Sequence` [`str`], optional
        Program that starts it, as ``ip netns exec``.
    """

    def __init__(self, job: Job, stop: Stop, seconds: float, prefix: Sequence[str] = ()) -> None:
        self._job = job
        self._stop = stop
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._pending = b""
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", f"{_PACKAGE}.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            # Ctrl-C at the terminal is for us; and whatever a peer starts can be ended with it.
            start_new_session=True,
            env={
                **os.environ,
                **job.access.environment,
                "DAF_BUTLER_DCACHE_REGISTER": "no",
                # What a client leaves behind that is killed is removed with the job.
                "TMPDIR": job.scratch,
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Its sessions are closed after each job; whatever else it has left running has nothing more to do.
        self.kill()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._words.close()

    def turn_to(self, job: Job, seconds: float) -> None:
        """Take another job of the same peer.

        Parameters
        ----------
        job : `~.work.Job`
            What it is to do.
        seconds : `float`
            That it may take.
        """
        self._job = job
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds

    def prepare(self) -> Mapping[str, Any]:
        """Hand over the job, and wait until the child is ready.

        Returns
        -------
        answer : `~collections.abc.Mapping`
            What it says then.

        Raises
        ------
        UnsupportedWorkError
            If it cannot do it.
        PeerDiedError
            If it ends.
        PeerFailedError
            If its time is over.
        """
        return self._ask(json.dumps(self._job.to_json()))

    def go(self, start_at: float = 0.0) -> Mapping[str, Any]:
        """Let the work begin.

        Parameters
        ----------
        start_at : `float`, optional
            When, in seconds since the epoch; at once by default.

        Returns
        -------
        figures : `~collections.abc.Mapping`
            What came of it.

        Raises
        ------
        UnsupportedWorkError
            If it turns out that it cannot do it.
        PeerDiedError
            If it ends.
        PeerFailedError
            If its time is over.
        """
        return self._ask(repr(start_at))

    def kill(self) -> None:
        """End it at once, from any thread."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _ask(self, line: str) -> Mapping[str, Any]:
        assert self._process.stdin is not None
        with self._stop.open():
            with contextlib.suppress(BrokenPipeError):  # what is wrong is seen when the answer is read
                self._process.stdin.write(line.encode() + b"\n")
                self._process.stdin.flush()
            while True:
                with contextlib.suppress(ValueError):  # a library that prints says something else
                    answer = json.loads(self._read_line())
                    if isinstance(answer, dict):
                        break
        if "unsupported" in answer:
            raise UnsupportedWorkError(redact_text(str(answer["unsupported"])))
        return answer

    def _read_line(self) -> bytes:
        assert self._process.stdout is not None
        file = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            left = self._deadline - time.monotonic()
            if left <= 0 or not select.select([file], [], [], left)[0]:
                raise PeerFailedError(f"did not end within {self._seconds:.0f} s and was killed")
            piece = os.read(file, _PIECE_BYTES)
            if not piece:
                raise PeerDiedError(self._last_words())
            self._pending += piece
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        end = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(end - _WORDS_BYTES, 0))
        words = self._words.read().decode(errors="replace").strip().splitlines()
        if words:
            return redact_text(words[-1])[:_LONGEST_WORDS]
        status = self._process.poll()
        return "it ended without a word" if status is None else f"it ended without a word, status {status}"
