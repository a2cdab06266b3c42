"""A cluster of XRootD servers."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import time
from pathlib import Path

from .processes import (
    START_SECONDS,
    MissingServerError,
    first_line,
    free_ports,
    give_to_nobody,
    launch,
    program,
    wait_for,
)
from .stand_in import Ground, LocalTarget

__all__ = ("Xrootd",)


class Xrootd(LocalTarget):
    """A redirector and two data servers of XRootD, one shared name space.

    Parameters
    ----------
    ground : `~.stand_in.Ground`
        Where.
    """

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        run, tls, processes = ground.run, ground.tls, ground.processes
        prefix = _find_xrootd()
        libraries = {**os.environ, "LD_LIBRARY_PATH": str(run / "lib")}
        # The programs lie where the user nobody can reach them, whatever the mode of our own folders.
        for part in ("bin", "lib"):
            shutil.copytree(prefix / part, run / part, symlinks=True)
        (run / "run").mkdir()
        self.version = f"XRootD {first_line([str(run / 'bin' / 'xrootd'), '-v'], libraries)}"
        cluster, *ports = free_ports(4)
        alone = ground.spaces.link is not None
        for port in ports:
            role = "manager" if port == ports[0] else "server"
            (run / f"{port}.cfg").write_text(_xrootd_configuration(run, role, port, cluster, tls, alone))
        give_to_nobody(run)
        for kind in ("cmsd", "xrootd"):
            for port in ports:
                executable = str(run / "bin" / kind)
                command = [executable, "-I", "v4", "-n", f"n{port}", "-c", str(run / f"{port}.cfg")]
                launch(processes, command, run / f"{kind}{port}.log", environment=libraries)
        for port in ports:
            wait_for(port, processes, run)
        access = self.set_up_client(ports[0])
        # The same port speaks XRootD's own protocol.
        place = access.url.partition("://")[2]
        self.access = dataclasses.replace(access, xroot_url=f"{'roots' if tls else 'root'}://{place}/")
        self.provide("ready", 1)
        self._await_cluster()

    def _await_cluster(self) -> None:
        """The redirector knows its data servers a moment after it answers."""
        deadline = time.monotonic() + START_SECONDS
        name = self.provide("ready", 1)
        trust = ["--cacert", self.access.ca_file] if self.access.ca_file else []
        command = [program("curl", "the package curl"), "-s", "-o", os.devnull, "-w", "%{http_code}", *trust]
        # Whoever asks too early is kept waiting for 10 s.
        command += ["--max-time", "0.5"]
        while time.monotonic() < deadline:
            done = subprocess.run(
                [*command, self.access.url + name], capture_output=True, text=True, check=False
            )
            if done.stdout in ("302", "307"):
                return
            time.sleep(0.05)
        raise MissingServerError("the XRootD cluster does not become ready")


def _xrootd_configuration(run: Path, role: str, port: int, cluster: int, tls: bool, alone: bool) -> str:
    # Behind a link clients have another address, and there is nobody else.
    allow = "" if alone else "xrd.allow host 127.0.0.1\nxrd.allow host localhost"
    encryption = (
        f"xrd.tls {run}/host.pem {run}/host.key\nxrd.tlsca certfile {run}/ca.pem\nhttp.desthttps yes"
        if tls
        else ""
    )
    return f"""\
all.role {role}
all.sitename BENCH
all.export /
all.adminpath {run}/run
all.pidpath {run}/run
all.manager localhost:{cluster}
oss.localroot {run}/data
xrd.network nodnr norpipa
{allow}
xrd.port {port} if exec xrootd
{f"xrd.port {cluster} if exec cmsd" if role == "manager" else ""}
# One shared name space: every data server is as good as another, and no file is waited for.
cms.delay startup 1 servers 1 lookup 1 qdl 2 suspend 1
cms.dfs lookup distrib mdhold 0 redirect immed
if exec xrootd
xrd.protocol http:{port} libXrdHttp.so
# With more sums wanted at once than this, some GETs with Want-Digest are never answered (XRootD 6.2.1).
xrootd.chksum max 64 adler32
http.listingdeny no
{encryption}
fi
"""


def _find_xrootd() -> Path:
    here = Path(__file__).resolve().parents[5] / ".xrootd"
    on_path = shutil.which("xrootd")
    for prefix in [here.resolve()] + ([Path(on_path).resolve().parent.parent] if on_path else []):
        if (prefix / "bin" / "xrootd").exists():
            return prefix
    raise MissingServerError("no XRootD 6 server, neither in .xrootd/ nor on PATH: see .ci/xrootd-build")
