"""HAProxy and nginx as door and pools."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from pathlib import Path

from .processes import MissingServerError, first_line, free_ports, give_to_nobody, launch, program, wait_for
from .stand_in import Ground, LocalTarget
from .target import Counts

__all__ = ("Door", "Pool")

_LOG_SECONDS = 0.2


class Door(LocalTarget):
    """HAProxy and nginx.

    Parameters
    ----------
    ground : `~.stand_in.Ground`
        Where.
    """

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        run, tls, processes = ground.run, ground.tls, ground.processes
        nginx = program("nginx", "the packages nginx and libnginx-mod-http-dav-ext")
        haproxy = program("haproxy", "the package haproxy")
        self.version = f"{first_line([nginx, '-v'])}, {first_line([haproxy, '-v'])}"
        for part in ("incoming", "t"):
            (run / part).mkdir()
        namespace, pool1, pool2, status, door = free_ports(5)
        self.pool_url = f"{self._scheme}://{'localhost' if tls else '127.0.0.1'}:{pool1}/"
        self._status_url = ("127.0.0.1", status)
        (run / "nginx.conf").write_text(_nginx_configuration(run, namespace, (pool1, pool2), status, tls))
        (run / "haproxy.cfg").write_text(_haproxy_configuration(run, namespace, (pool1, pool2), door, tls))
        give_to_nobody(run)
        nginx_command = [nginx, "-e", str(run / "error.log"), "-p", str(run), "-c", str(run / "nginx.conf")]
        launch(processes, nginx_command, run / "nginx.log")
        launch(processes, [haproxy, "-f", str(run / "haproxy.cfg")], run / "haproxy.log")
        for port in (pool1, door):
            wait_for(port, processes, run)
        self.access = self.set_up_client(door)

    def counts(self) -> Counts | None:
        """Return what HAProxy and nginx counted so far, the questions themselves left out."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(self.run / "haproxy.sock"))
            peer.sendall(b"show stat\n")
            text = b"".join(iter(lambda: peer.recv(65536), b"")).decode()
        header, *lines = text.lstrip("# ").splitlines()
        table = [dict(zip(header.split(","), line.split(","), strict=False)) for line in lines if line]
        door = next(row for row in table if row["pxname"] == "door" and row["svname"] == "FRONTEND")
        server = next(row for row in table if row["pxname"] == "namespace" and row["svname"] == "files")
        with self._ground.spaces.server(), socket.create_connection(self._status_url) as peer:
            peer.sendall(b"GET /status HTTP/1.0\r\n\r\n")
            body = b"".join(iter(lambda: peer.recv(65536), b"")).decode().partition("\r\n\r\n")[2]
        accepts, _, requests = (int(word) for word in body.splitlines()[2].split())
        self._looks = getattr(self, "_looks", 0) + 1
        connections = accepts - int(server["connect"]) - self._looks
        # HAProxy before 2.3 does not count these; the first are those that did not resume another.
        sessions, again = (int(door.get(column) or -1) for column in ("ssl_sess", "ssl_reused_sess"))
        resumed = self._resumed_at_pools(connections) if self._ground.tls else 0
        return Counts(
            door_requests=int(door["req_tot"]),
            door_connections=int(door["conn_tot"]),
            pool_requests=requests - int(server["stot"]) - self._looks,
            pool_connections=connections,
            door_handshakes=sessions,
            pool_handshakes=connections - resumed if self._ground.tls else 0,
            resumed=-1 if again < 0 else again + resumed,
        )

    def _resumed_at_pools(self, connections: int) -> int:
        """How many connections to pools went on with an earlier TLS session; each has a line in a log."""
        deadline = time.monotonic() + _LOG_SECONDS
        while True:
            lines = (self.run / "tls.log").read_text().split()
            # A line is written after the answer; a connection without a request has none.
            if len(lines) >= connections or time.monotonic() > deadline:
                return lines.count("r")
            time.sleep(0.01)


class Pool(Door):
    """One of the pools, to which clients come directly."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self.access = dataclasses.replace(self.access, url=self.pool_url)


def _nginx_configuration(run: Path, namespace: int, pools: tuple[int, int], status: int, tls: bool) -> str:
    kind = " ssl" if tls else ""
    nobody = "user nobody nogroup;" if os.geteuid() == 0 else ""
    digest = 'if ($uri ~ "\\.a([0-9a-f]{8})\\.dat") { set $adler32 "adler32=$1"; }'
    return f"""\
load_module {_dav_ext_module()};
{nobody}
daemon off;
worker_processes 2;
pid {run}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  # Of each connection to a pool its first request: r if it went on with an earlier TLS session.
  map $connection_requests $is_first {{ default ""; 1 1; }}
  log_format session "$ssl_session_reused";
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  client_max_body_size 0;
  default_type application/octet-stream;
  # On the file system of the files: a PUT ends in rename(), so it is atomic.
  client_body_temp_path {run}/incoming;
  proxy_temp_path {run}/t/p;
  fastcgi_temp_path {run}/t/f;
  uwsgi_temp_path {run}/t/u;
  scgi_temp_path {run}/t/s;
  root {run}/data;
  ssl_certificate {run}/host.pem;
  ssl_certificate_key {run}/host.key;
  server {{
    # The name space; nginx wants a slash at the end of a collection's name.
    listen 127.0.0.1:{namespace};
    set $adler32 "";
    location / {{
      {digest}
      if ($request_method = MKCOL) {{ rewrite ^(.*[^/])$ $1/ break; }}
      if (-d $request_filename) {{ rewrite ^(.*[^/])$ $1/ break; }}
      add_header Digest $adler32 always;
      dav_methods PUT DELETE MKCOL COPY MOVE;
      create_full_put_path on;
      dav_access user:rw group:r all:r;
      dav_ext_methods PROPFIND OPTIONS;
      autoindex on;
    }}
  }}
  server {{
    # Pools. No answer without the key of the transfer.
    listen 127.0.0.1:{pools[0]}{kind};
    listen 127.0.0.1:{pools[1]}{kind};
    {f"access_log {run}/tls.log session if=$is_first;" if tls else ""}
    set $adler32 "";
    location / {{
      {digest}
      if ($arg_dcache-http-uuid = "") {{ return 403; }}
      add_header Digest $adler32 always;
      dav_methods PUT;
      create_full_put_path on;
      dav_access user:rw group:r all:r;
    }}
  }}
  server {{
    listen 127.0.0.1:{status};
    location /status {{ stub_status; }}
  }}
}}
"""


def _haproxy_configuration(run: Path, namespace: int, pools: tuple[int, int], door: int, tls: bool) -> str:
    scheme = "https" if tls else "http"
    host = "localhost" if tls else "127.0.0.1"
    place = f"{scheme}://{host}:%[var(txn.pool)]%[path]?dcache-http-uuid=%[uuid()]"
    return f"""\
global
  maxconn 2000
  nbthread 1
  stats socket {run}/haproxy.sock mode 600
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-keep-alive 60s
frontend door
  bind 127.0.0.1:{door}{f" ssl crt {run}/both.pem" if tls else ""}
  http-after-response set-header Server "dCache/11.2.4"
  http-request return status 200 if {{ path /.well-known/dcache-butler-stand-in }}
  http-request set-var(txn.pool) str({pools[0]})
  http-request set-var(txn.pool) str({pools[1]}) if {{ rand(2) 1 }}
  http-request redirect location "{place}" code 302 if {{ method GET }} !{{ path_end / }}
  http-request redirect location "{place}" code 307 if {{ method PUT }} {{ req.hdr(expect) -i 100-continue }}
  # nginx accepts no other scheme than that of its own connection.
  http-request replace-header Destination ^https:(.*) http:\\1
  default_backend namespace
backend namespace
  server files 127.0.0.1:{namespace}
"""


def _dav_ext_module() -> str:
    module = Path("/usr/lib/nginx/modules/ngx_http_dav_ext_module.so")
    if not module.exists():
        raise MissingServerError("nginx has no dav-ext module; Debian has it in libnginx-mod-http-dav-ext")
    return str(module)
