"""Processes of servers: found, started as nobody, waited for, stopped."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = (
    "MissingServerError",
    "cpu_seconds",
    "default_folder",
    "first_line",
    "free_ports",
    "give_to_nobody",
    "launch",
    "program",
    "stop",
    "wait_for",
)

START_SECONDS = 20.0
_STOP_SECONDS = 5.0
_MEMORY_BYTES = 2 * 1024**3
_TICKS = os.sysconf("SC_CLK_TCK")


class MissingServerError(Exception):
    """A server is not installed here; the text says how to get it."""


def default_folder() -> Path:
    """Return where files lie that are measured: where ``TMPDIR`` says, else in memory if there is enough.

    A ``TMPDIR`` into which the servers' user may not look is left alone.
    """
    memory = Path("/dev/shm")  # noqa: S108
    wanted = "TMPDIR" in os.environ and _lets_servers_in(Path(tempfile.gettempdir()))
    if wanted or not (memory.is_dir() and os.access(memory, os.W_OK)):
        return Path(tempfile.gettempdir())
    # A container often has 64 MB of it.
    return memory if shutil.disk_usage(memory).free >= _MEMORY_BYTES else Path(tempfile.gettempdir())


def _lets_servers_in(folder: Path) -> bool:
    """Tell whether the user that servers run as (nobody, if we are root) can reach what lies in a folder."""
    return os.geteuid() != 0 or all(each.stat().st_mode & 0o001 for each in (folder, *folder.parents))


def program(name: str, packages: str) -> str:
    """Return the path of a program.

    Parameters
    ----------
    name : `str`
        Its name.
    packages : `str`
        Who brings it, for the message.

    Raises
    ------
    MissingServerError
        If it is not installed.
    """
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        raise MissingServerError(f"{name} is not installed; Debian has it in {packages}")
    return found


def first_line(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    """Return the first line that a program says.

    Parameters
    ----------
    command : `list` [`str`]
        Program and arguments.
    environment : `~collections.abc.Mapping`, optional
        Its variables.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return (done.stdout + done.stderr).strip().splitlines()[0]


def launch(
    processes: list[subprocess.Popen[Any]],
    command: list[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    as_nobody: bool = True,
) -> None:
    """Start a server in a session of its own, as nobody where we are root (nginx does that itself).

    Parameters
    ----------
    processes : `list` [`subprocess.Popen`]
        Takes the process.
    command : `list` [`str`]
        Program and arguments.
    log : `~pathlib.Path`
        What it says goes there.
    environment : `~collections.abc.Mapping`, optional
        Its variables.
    as_nobody : `bool`, optional
        Not, if it works in a folder of the user's, into which nobody else may look.
    """
    identity: dict[str, Any] = {}
    if as_nobody and os.geteuid() == 0 and not command[0].endswith("nginx"):
        identity = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    with log.open("wb") as output:
        processes.append(
            subprocess.Popen(
                command,
                env=environment,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **identity,
            )
        )


def wait_for(port: int, processes: list[subprocess.Popen[Any]], run: Path) -> None:
    """Wait until something listens on a port.

    Parameters
    ----------
    port : `int`
        Of loopback.
    processes : `list` [`subprocess.Popen`]
        Those that must live meanwhile.
    run : `~pathlib.Path`
        Folder with their logs.

    Raises
    ------
    MissingServerError
        If nothing does.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and all(process.poll() is None for process in processes):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    logs = "\n".join(path.read_text(errors="replace")[-400:] for path in sorted(run.glob("*.log")))
    raise MissingServerError(f"nothing listens on port {port} after {START_SECONDS:g} s\n{logs}")


def stop(processes: list[subprocess.Popen[Any]]) -> None:
    """End processes and their children.

    Parameters
    ----------
    processes : `list` [`subprocess.Popen`]
        Each leads a session of its own.
    """
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            # Each leads a session of its own, with its workers.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # of what it did not read any more
                    stream.close()


def cpu_seconds(sessions: set[int]) -> float:
    """Return the CPU seconds of all living processes of some sessions; 0 where there is no ``/proc``.

    Parameters
    ----------
    sessions : `set` [`int`]
        Numbers of the processes that lead them.
    """
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) in sessions:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def free_ports(count: int) -> list[int]:
    """Return ports that are free now, outside the range of outgoing connections.

    Parameters
    ----------
    count : `int`
        How many.
    """
    found: list[int] = []
    candidates = random.sample(range(20000, 32000), 6000)
    while len(found) < count:
        port = candidates.pop()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found


def give_to_nobody(path: Path) -> None:
    """Hand files to the user that the servers run as, where we are not an ordinary user ourselves.

    Parameters
    ----------
    path : `~pathlib.Path`
        A file, or a folder with all that it holds.
    """
    if os.geteuid() != 0:
        return
    user = pwd.getpwnam("nobody")
    for each in [path, *(path.rglob("*") if path.is_dir() else [])]:
        os.chown(each, user.pw_uid, user.pw_gid, follow_symlinks=False)
