"""The same campaign against real servers: HAProxy and nginx as a door with pools, and a cluster of XRootD.

Faults cannot be aimed at a request there. Instead a share of all requests is refused or cut off by HAProxy,
before or after nginx has done what they ask for, and servers are killed and started again all the time. So
any step may fail, but the truth is as strict: it is read from the folder where the servers keep their files.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ..processes import launch
from ..servers import start
from ..stand_in import LocalTarget
from .misfortunes import PATIENCE_SECONDS, Misfortune
from .referee import RUIN, Referee
from .world import ABSENT, DIRECTORY, fingerprint

__all__ = ("STAND_INS", "StandInReferee")

STAND_INS = ("door", "xrootd")

_SHORTEST_PEACE_SECONDS = 0.5
_LONGEST_PEACE_SECONDS = 2.0
_MARK = '  http-after-response set-header Server "dCache/11.2.4"\n'
_DISTURBANCES = """\
  http-request return status 429 content-type text/plain string "slow down" if { rand(1000) lt 20 }
  http-request return status 503 content-type text/plain string "busy" if { rand(1000) lt 20 }
  http-request reject if { rand(1000) lt 20 }
  http-response deny deny_status 502 if { rand(1000) lt 20 }
"""


class StandInReferee(Referee):
    """Watches servers whose files lie in a folder.

    Parameters
    ----------
    target : `~..target.LocalTarget`
        The servers, running.
    folder : `~pathlib.Path`
        For the files of the clients.
    """

    home = ""

    def __init__(self, target: LocalTarget, folder: Path) -> None:
        super().__init__(folder)
        self._target = target
        self.url = "dav" + target.access.url.removeprefix("http")
        self._files = target.folder
        self._disturber: _Disturber | None = None
        self._killed = 0

    @classmethod
    @contextmanager
    def run(cls, name: str, seed: int, folder: Path) -> Iterator[StandInReferee]:
        """Run servers and disturb them for as long as the context lasts.

        Parameters
        ----------
        name : `str`
            One of `STAND_INS`.
        seed : `int`
            Decides about when which server is killed.
        folder : `~pathlib.Path`
            For the files of the clients.

        Yields
        ------
        referee : `StandInReferee`
            Who watches.
        """
        with start(name) as target:
            assert isinstance(target, LocalTarget)
            referee = cls(target, folder)
            referee._disturber = _Disturber(target, seed)
            try:
                yield referee
            finally:
                referee.calm_down()

    @property
    def restarts(self) -> int:
        """See `Referee`."""
        return self._killed if self._disturber is None else self._disturber.killed

    def environment(self, process: int, *, with_frontend: bool) -> dict[str, str]:
        """See `Referee`; there is no frontend.

        Parameters
        ----------
        process : `int`
            Number of the client.
        with_frontend : `bool`
            Not used.
        """
        entry = {
            "base_url": self.url,
            "timeout_connect": PATIENCE_SECONDS,
            "timeout_read": PATIENCE_SECONDS,
            "dcache": {
                "total_timeout_seconds": 60,
                "idle_timeout_seconds": PATIENCE_SECONDS,
                "requests_per_second": 0,
                "exclusive": "best_effort",
            },
        }
        path = self._folder / f"webdav{process}.yaml"
        path.write_text(yaml.safe_dump([entry]))
        return {"LSST_RESOURCES_WEBDAV_CONFIG": str(path)}

    def renew(self, process: int) -> None:
        """Do nothing: nobody asks for a token here.

        Parameters
        ----------
        process : `int`
            Number of the client.
        """

    def calm_down(self) -> None:
        """See `Referee`."""
        if self._disturber is not None:
            self._disturber.stop()
            self._killed, self._disturber = self._disturber.killed, None

    def names(self, directory: str) -> dict[str, str]:
        """See `Referee`.

        Parameters
        ----------
        directory : `str`
            Name below the folder of the files.
        """
        top = self._files / directory
        every = [path for path in top.rglob("*") if not path.is_dir()]
        return {str(path.relative_to(top)): self.state(str(path.relative_to(self._files))) for path in every}

    def temporaries(self, directory: str) -> list[str]:
        """See `Referee`.

        Parameters
        ----------
        directory : `str`
            Name below the folder of the files.
        """
        return [str(path) for path in (self._files / directory).rglob(".dcb-*")]

    def state(self, path: str) -> str:
        """See `Referee`.

        Parameters
        ----------
        path : `str`
            Path below the folder of the files.
        """
        try:
            return fingerprint((self._files / path).read_bytes())
        except FileNotFoundError:
            return ABSENT
        except IsADirectoryError:
            return DIRECTORY
        except OSError:
            return RUIN

    def _restarts(self) -> int:
        # Something is going on at any time.
        self._restarts_seen += 1
        return self._restarts_seen

    def _arm(self, process: int, misfortunes: list[Misfortune]) -> None:
        pass

    def _disarm(self, process: int) -> list[str]:
        return []


class _Disturber:
    """Kills servers and starts them again."""

    def __init__(self, target: LocalTarget, seed: int) -> None:
        self._target = target
        self._draw = random.Random(f"{seed}?")
        self._over = threading.Event()
        self.killed = 0
        self._configuration = target.run / "haproxy.cfg"
        if self._configuration.exists():
            self._peaceful = self._configuration.read_text()
            assert _MARK in self._peaceful
            self._configuration.write_text(self._peaceful.replace(_MARK, _MARK + _DISTURBANCES))
            self._restart(len(target.processes) - 1)
        self._thread = threading.Thread(target=self._disturb)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        if self._configuration.exists():
            self._configuration.write_text(self._peaceful)
            self._restart(len(self._target.processes) - 1)

    def _disturb(self) -> None:
        while not self._over.wait(self._draw.uniform(_SHORTEST_PEACE_SECONDS, _LONGEST_PEACE_SECONDS)):
            # Not the managers of XRootD's cluster, which take a minute to find one another again.
            able = [n for n, one in enumerate(self._target.processes) if "cmsd" not in str(_command(one)[0])]
            self._restart(self._draw.choice(able))
            self.killed += 1

    def _restart(self, number: int) -> None:
        processes = self._target.processes
        old = processes[number]
        os.killpg(old.pid, signal.SIGKILL)
        old.wait()
        environment = {**os.environ, "LD_LIBRARY_PATH": str(self._target.run / "lib")}
        new: list[subprocess.Popen[Any]] = []
        launch(new, _command(old), self._target.run / f"again{number}.log", environment=environment)
        processes[number] = new[0]


def _command(process: subprocess.Popen[Any]) -> list[str]:
    assert isinstance(process.args, list)
    return [str(part) for part in process.args]
