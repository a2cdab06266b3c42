"""Programs that do one thing to one file and end: a process for each operation."""

from __future__ import annotations

import os
import resource
import shutil
import uuid
from collections.abc import Mapping, Sequence

from ..work import Job, UnsupportedWorkError, Work
from .client import Done, Sink
from .plain import PlainClient
from .program import run_program

__all__ = ("CommandClient", "find")


def find(name: str, package: str) -> str:
    """Return the path of a program.

    Parameters
    ----------
    name : `str`
        Its name.
    package : `str`
        Debian's package with it.

    Raises
    ------
    UnsupportedWorkError
        If it is not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise UnsupportedWorkError(f"{name} is not installed; Debian has it in {package}")
    return found


class CommandClient(PlainClient):
    """Such a program; what it costs to start it belongs to each operation.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """

    who = resource.RUSAGE_CHILDREN
    _environment: Mapping[str, str]

    def connect(self, job: Job) -> None:
        """Keep what every call needs.

        Parameters
        ----------
        job : `~..work.Job`
            What will be done.
        """
        self._scratch = job.scratch
        self._deadline_seconds = job.deadline_seconds
        self._environment = os.environ

    def notes(self, work: Work) -> list[str]:
        """Return what is to be known of its figures.

        Parameters
        ----------
        work : `~..work.Work`
            What it did.
        """
        notes = [*super().notes(work), f"{self.name} is started anew for each operation"]
        if work.operation == "get" and work.sink != "file":
            notes.append(f"{self.name} puts the bytes into files")
        return notes

    def get(self, name: str, sink: Sink) -> Done:
        """Read a whole file, by way of a local one.

        Parameters
        ----------
        name : `str`
            The file.
        sink : `~.client.Sink`
            Where its bytes go.
        """
        if sink.kind == "file":
            self.download(name, sink.path)
            return Done(os.stat(sink.path).st_size)
        path = f"{self._scratch}/{uuid.uuid4().hex}"
        self.download(name, path)
        size = os.stat(path).st_size
        os.unlink(path)
        return Done(size)

    def download(self, name: str, path: str) -> None:
        """Copy a file to the local disk.

        Parameters
        ----------
        name : `str`
            The file.
        path : `str`
            Of the local one.
        """
        raise NotImplementedError

    def run(self, command: Sequence[str]) -> str:
        """Run the program, and return what it said.

        Parameters
        ----------
        command : `~collections.abc.Sequence` [`str`]
            Program and arguments.
        """
        return run_program(command, deadline_seconds=self._deadline_seconds, environment=self._environment)
