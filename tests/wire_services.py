"""The scripts of `wire_scenarios`, continued: macaroons, third-party copies, REST frontend, tape."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from wire_client import Answer
from wire_replay import DATA, Replay
from wire_scenarios import SCALE, cut_upload, scenario, settle, until


# --------------------------------------------------------------------------------------------- macaroons
def attenuate(token: str, *caveats: str) -> str:
    """Append caveats to a macaroon, as any holder can."""
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    head, signature = raw[:-47], raw[-33:-1]  # the last packet is 4 + len("signature ") + 32 + 1 bytes
    for caveat in caveats:
        packet = f"cid {caveat}\n".encode()
        head += b"%04x" % (len(packet) + 4) + packet
        signature = hmac.digest(signature, caveat.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(head + raw[-47:-33] + signature + b"\n").decode().rstrip("=")


NARROWED: dict[str, list[str]] = {
    "subset": ["activity:DOWNLOAD"],
    "path": ["path:/file.bin"],
    "path-other": ["path:/none.bin"],
    "path-no-slash": ["path:file.bin"],
    "path-twice": ["path:/sub", "path:/s.bin"],
    "path-up": ["path:/../"],
    "before": ["before:2035-01-01T00:00:00Z"],
    "before-offset": ["before:2035-01-01T00:00:00+01:00"],
    "past": ["before:2020-01-01T00:00:00Z"],
    "ip": ["ip:127.0.0.0/8,::1"],
    "wrong-ip": ["ip:192.0.2.1"],
    "ip-forwarded": ["ip:198.18.0.0/15"],
    "bad-ip": ["ip:nonsense"],
    "superset": ["activity:DOWNLOAD,DELETE"],
    "disjoint": ["activity:DOWNLOAD", "activity:LIST"],
    "metadata": ["activity:DOWNLOAD,READ_METADATA"],
    "lower-case": ["activity:download"],
    "unknown": ["colour:red"],
    "no-colon": ["red"],
    "second-iid": ["iid:AAAAAAAA"],
    "second-id": ["id:0;0;root"],
    "max-upload-0": ["max-upload:0"],
    "max-upload": ["max-upload:5"],
    "home": ["home:/x"],
    "path-list": ["path:/file.bin"],
    "path-list-parent": ["path:/file.bin"],
    "root": ["root:~/mac/in"],
    "root-old-path": ["root:~/mac/in"],
}

REQUESTED: dict[str, bytes] = {
    "mac-mint-empty": b"",
    "mac-mint-badjson": b"{",
    "mac-mint-badvalidity": b'{"validity": "soon"}',
    "mac-mint-unknown": b'{"caveats": ["colour:red"]}',
    "mac-mint-nocolon": b'{"caveats": ["red"]}',
    "mac-mint-past": b'{"caveats": ["before:2020-01-01T00:00:00Z"]}',
    "mac-mint-long": b'{"validity": "P30D"}',
    "mac-mint-badactivity": b'{"caveats": ["activity:DANCE"]}',
    "mac-mint-charset": b"{}",
    "mac-mint-anonymous": b"{}",
}


@scenario("mac-")
def macaroons(replay: Replay) -> None:
    replay.put("~/mac/in/file.bin")
    replay.put("~/mac/out.bin")
    door, ask = replay.door, replay.ask
    body = {"caveats": ["activity:DOWNLOAD,LIST"], "validity": "PT10M"}
    ask("mac-mint", door + replay.expand("~/mac/in"), body)
    ask("mac-mint-root", door + "/", {"caveats": [], "validity": "PT10M"})
    for ident, text in REQUESTED.items():
        ask(ident, body=text)
    read = replay.mint("~/mac/in", "activity:DOWNLOAD,LIST")
    bearer = f"Bearer {read}"
    ask("mac-read-get", auth=bearer)
    ask("mac-read-query")
    ask("mac-read-lowercase", auth=f"bearer {read}")
    replay.to("mac-read-outside", auth=bearer)
    upload = f"Bearer {replay.mint('~/mac/in', 'activity:UPLOAD')}"
    replay.to("mac-up-get", auth=upload)
    url = replay.redirect("~/mac/in/ruin", "PUT", auth=upload)
    replay.send("PUT", url, body=DATA, cut=5000)
    settle(replay, "~/mac/in/ruin")
    replay.to("mac-up-ruin-delete", auth=upload)
    small = replay.mint("~/mac/in", "activity:UPLOAD", "max-upload:100")
    ask("mac-max-upload", auth=f"Bearer {small}")
    short = replay.mint("~/mac/in", "activity:DOWNLOAD,LIST", validity="PT0.2S")
    time.sleep(0.25)
    ask("mac-expired", auth=f"Bearer {short}")
    ask("mac-tampered", auth=f"Bearer {read[:-6]}AAAAAA")
    ask("mac-truncated", auth=f"Bearer {read[:-40]}")
    replay.tokens.append(read)
    ask("mac-both-same", auth=bearer)
    ask("mac-both-other", auth=upload)
    ask("mac-access-token")
    replay.put("~/mac/in/sub/s.bin")

    def narrowed(name: str) -> str:
        replay.tokens.append(attenuate(read, *(replay.expand(caveat) for caveat in NARROWED[name])))
        return f"Bearer {replay.tokens[-1]}"

    for name in NARROWED:
        ask(f"mac-off-{name}", auth=narrowed(name))
    for name, path, caveats, validity in (
        ("wider-path", "~/mac", ["activity:DOWNLOAD"], ""),
        ("longer", "~/mac/in", [], "PT1H"),
        ("wider-activity", "~/mac/in", ["activity:DOWNLOAD,DELETE"], ""),
        ("narrower", "~/mac/in/sub", ["activity:DOWNLOAD"], ""),
    ):
        body = {"caveats": caveats, **({"validity": validity} if validity else {})}
        answer = ask(f"mac-again-{name}", door + replay.expand(path), body, auth=bearer)
        if answer.status == 200:
            token = json.loads(answer.body)["macaroon"]
            for method in ("get", "delete"):
                ask(f"mac-again-{name}-{method}", auth=f"Bearer {token}")
    replay.to("mac-rest-outside", auth=bearer)
    ask("mac-rest-expired", auth=narrowed("past"))


# ------------------------------------------------------------------------------------- third-party copies
@scenario("tpc-")
def third_party(replay: Replay) -> None:
    replay.put("~/tpc/src.bin")
    replay.mint("~/tpc", "activity:DOWNLOAD,LIST,UPLOAD,DELETE,MANAGE")
    replay.to()


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """A server to copy from and to; the words of a path say how it behaves."""

    protocol_version = "HTTP/1.1"

    def _answer(self, with_body: bool) -> None:
        if "ill" in self.path:
            self.send_error(500, "source is ill")
            return
        if "forbidden" in self.path:
            self.send_error(403)
            return
        size = 15_000 if "slow" in self.path else 5_000
        checksum = zlib.adler32(b"x" * size) ^ ("wrong" in self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        if "digest" in self.path and not (with_body and "headonly" in self.path):
            self.send_header("Digest", f"adler32={checksum:08x}")
        self.end_headers()
        for piece in range(size // 1000 if with_body else 0):
            if "cut" in self.path and piece == 2:
                self.close_connection = True
                return
            self.wfile.write(b"x" * 1000)
            if "slow" in self.path:
                time.sleep(SCALE)

    def do_GET(self) -> None:
        try:
            self._answer(True)
        except OSError:  # the copy was cancelled
            self.close_connection = True

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_DELETE(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def elsewhere() -> Iterator[str]:
    """Run a server to copy from and to; gives host and port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"localhost:{server.server_port}"
        server.shutdown()
        thread.join()


@scenario("tpc2-")
def third_party_sources(replay: Replay) -> None:
    with elsewhere() as host:
        replay.remote = host
        replay.put("~/tpc2/src")
        replay.to("tpc2-bad-credential-head")
        replay.remote = "localhost:1"  # nobody listens there
        replay.to("tpc2-no-host-head")
        replay.remote = host
        replay.put("~/tpc2/old", b"old")
        replay.to("tpc2-overwrite-fails-head")
        replay.put("~/tpc2/old2", b"old")
        replay.to("tpc2-slow")
        # the door notices at its next marker that the client went away
        replay.ask("tpc2-gone", cut=0)
        url = replay.door + replay.expand("~/tpc2/gone")
        for _ in range(200):
            if replay.send("HEAD", url).status == 404:
                break
            time.sleep(0.05)
        replay.ask("tpc2-gone-head")


# ------------------------------------------------------------------------------------------- the frontend
REST_BODIES: dict[str, object] = {
    "rest-mkdir": {"action": "mkdir", "name": "made"},
    "rest-mkdir-exists": {"action": "mkdir", "name": "made"},
    "rest-mv": {"action": "mv", "destination": "~/rest/moved.bin"},
    "rest-mv-over": {"action": "mv", "destination": "~/rest/dir/a.bin"},
    "rest-mv-relative": {"action": "mv", "destination": "rel.bin"},
    "rest-mv-self": {"action": "mv", "destination": "~/rest/dir/rel.bin"},
    "rest-mv-onto-dir": {"action": "mv", "destination": "~/rest/full"},
    "rest-mv-missing": {"action": "mv", "destination": "~/rest/x"},
    "rest-mv-no-parent": {"action": "mv", "destination": "~/rest/no/such/x"},
    "rest-xattr": {"action": "set-xattr", "mode": "CREATE", "attributes": {"colour": "red", "k": "v"}},
    "rest-xattr-again": {"action": "set-xattr", "mode": "CREATE", "attributes": {"colour": "red"}},
    "rest-rm-xattr": {"action": "rm-xattr", "names": ["k"]},
    "rest-rm-xattr-missing": {"action": "rm-xattr", "names": ["k"]},
    "rest-label": {"action": "set-label", "label": "good"},
    "rest-pin": {"action": "pin", "lifetime": 60, "lifetime-unit": "SECONDS"},
    "rest-bad-action": {"action": "dance"},
    "rest-bad-json": "text",
}


@scenario("rest-")
def rest_namespace(replay: Replay) -> None:
    replay.put("~/rest/file.bin")
    replay.put("~/rest/dir/a.bin")
    replay.put("~/rest/dir/b.bin", DATA[:5])
    while replay.left:
        ident = replay.left[0]
        if ident == "rest-mv-onto-dir":
            replay.put("~/rest/full/x.bin")
        replay.ask(ident, body=REST_BODIES.get(ident))


def many(count: int) -> list[str]:
    """Name files that do not exist."""
    return [f"~/bulk/x{number}" for number in range(count)]


def delete(*targets: str, **more: object) -> dict[str, object]:
    """Write a bulk request that deletes."""
    return {"activity": "DELETE", "target": list(targets), **more}


BULK_BODIES: dict[str, object] = {
    "bulk-delete": delete("~/bulk/a.bin", "~/bulk/none.bin"),
    "bulk-501": delete(*many(501)),
    "bulk-all": delete("~/bulk", expandDirectories="ALL"),
    "bulk-500": delete(*many(500)),
    "bulk-targets-11": delete(*many(11), expandDirectories="TARGETS"),
    "bulk-delete-dir": delete("~/bulk/dir"),
    "bulk-delete-dir-targets": delete("~/bulk/dir", expandDirectories="TARGETS"),
    "bulk-prefix": delete("c.bin", "none.bin", targetPrefix="~/bulk"),
    "bulk-stage-bad-argument": {
        "activity": "STAGE", "target": ["~/bulk/b.bin"], "arguments": {"diskLifetime": "PT10M"},
    },
    "bulk-empty": delete(),
    "bulk-bad-activity": {"activity": "DANCE", "target": ["/x"]},
    "bulk-unknown-key": delete("/x", colour="red"),
    "bulk-pin": {
        "activity": "PIN", "target": ["~/bulk/b.bin"],
        "arguments": {"lifetime": "60", "lifetimeUnit": "SECONDS"},
    },
    "tape-archiveinfo": {"paths": ["~/bulk/b.bin", "~/bulk/none.bin", "~/bulk"]},
    "tape-stage-501": {"files": [{"path": path} for path in many(501)]},
    "tape-stage-unknown-key": {"files": [{"path": "/x"}], "colour": "red"},
    "tape-archiveinfo-bad": {"files": []},
    "tape-stage": {"files": [{"path": "~/bulk/b.bin", "diskLifetime": "PT1H"}, {"path": "~/bulk/none.bin"}]},
    "tape-cancel": {"paths": ["~/bulk/b.bin"]},
    "tape-release": {"paths": ["~/bulk/b.bin"]},
    "tape-cancel-foreign": {"paths": ["~/bulk/zzz.bin"]},
    "tape-release-foreign": {"paths": ["~/bulk/zzz.bin"]},
}  # fmt: skip


@scenario("bulk-", "tape-archive", "tape-stage", "tape-cancel", "tape-release", "tape-delete", "tape-gone")
def rest_bulk(replay: Replay) -> None:
    for name in "abc":
        replay.put(f"~/bulk/{name}.bin", DATA[:9])
    while replay.left:
        ident = replay.left[0]
        url = ""
        if ident == "bulk-delete-dir":
            replay.put("~/bulk/dir/one.bin", DATA[:9])
        if ident == "bulk-missing":
            url = f"{replay.frontend}/api/v1/bulk-requests/00000000-0000-4000-8000-000000000000"
        if ident.endswith("-state"):
            until(replay, replay.where, b"completedAt" if ident.startswith("tape") else b"COMPLETED")
        if ident == "bulk-500-clear":
            until(replay, replay.where, b"COMPLETED")
        replay.ask(ident, url, BULK_BODIES.get(ident))


@scenario("event-")
def events(replay: Replay) -> None:
    replay.put("~/events/first")
    replay.ask("event-channel", body={})
    channel = replay.where
    flags = ["IN_CREATE", "IN_CLOSE_WRITE", "IN_DELETE", "IN_MOVED_FROM", "IN_MOVED_TO"]
    replay.ask("event-subscribe", body={"path": "~/events", "flags": flags})
    line = replay.connect(channel)
    rows = [f"GET {urlsplit(channel).path} HTTP/1.1", f"Host: {urlsplit(channel).netloc}"]
    rows += [f"Authorization: {replay.own}", "Accept: text/event-stream", "", ""]
    line.sock.sendall("\r\n".join(rows).encode())
    seen = line.answer("HEAD", 20.0, Answer())  # the body has no end
    replay.put("~/events/proxied")
    url = replay.redirect("~/events/redirected", "PUT")
    replay.send("PUT", url, body=DATA)
    cut_upload(replay, "~/events/cut")
    moved = {"Destination": replay.expand("~/events/moved")}
    replay.send("MOVE", replay.door + replay.expand("~/events/proxied"), moved)
    replay.send("DELETE", replay.door + replay.expand("~/events/moved"))
    stream = b""
    while b"IN_DELETE" not in stream and (piece := line.until(b"\n", 10.0)) is not None:
        stream += piece + b"\n"
    line.close()
    told = []
    for row in stream.decode().splitlines():
        if row.startswith("data: "):
            event = json.loads(row.removeprefix("data: ")).get("event", {})
            words = [*event.get("mask", []), event.get("name", ""), "cookie" if "cookie" in event else ""]
            told.append(" ".join(words).strip())
    seen.body = "".join(f"{row}\n" for row in told).encode()
    replay.note(seen)
    replay.ask("event-delete", channel)


# ------------------------------------------------------------------------------------------------- tape
@scenario("tape-put", "tape-fresh", "tape-flushed")
def tape_write(replay: Replay) -> None:
    assert replay.dcache.site.tape is not None
    replay.dcache.site.tape.flush_seconds = 2.0  # long enough to look at the file before
    replay.to("tape-fresh-get")
    until(replay, f"{replay.frontend}/api/v1/namespace{replay.tape}/wire-file?locality=true", b"AND_NEARLINE")
    replay.to("tape-flushed-get")
    paths = ["<tape>/wire-file", "<tape>", "<tape>/none"]
    replay.ask("tape-flushed-archiveinfo", body={"paths": paths})
    replay.to()


def near(*numbers: int) -> list[str]:
    """Name files that are on tape only."""
    return [f"<nearline>/n{number}" for number in numbers]


NEAR_BODIES: dict[str, object] = {
    "near-archiveinfo": {"paths": near(0, 1)},
    "near-stage": {
        "files": [
            {"path": near(1)[0], "diskLifetime": "PT10M"}, {"path": near(2)[0]}, {"path": "<nearline>/none"},
        ],
    },
    "near-release": {"paths": near(1)},
    "near-cancel-done": {"paths": near(2)},
    "near-pin": {"action": "pin", "lifetime": 60, "lifetime-unit": "SECONDS"},
    "near-bulk-stage": {"activity": "STAGE", "target": near(4)},
    "near-put-over": b"new",
    "near-deleted-archiveinfo": {"paths": near(7)},
}  # fmt: skip


@scenario("near-")
def tape_read(replay: Replay) -> None:
    for number in range(10):
        replay.dcache.place(f"{replay.tape}/n{number}", DATA, locality="NEARLINE")
    while replay.left:
        ident = replay.left[0]
        if ident.endswith("-state"):
            until(replay, replay.where, b"COMPLETED" if "bulk" in ident else b"completedAt")
        if ident == "near-pinned-head":
            until(
                replay, f"{replay.frontend}/api/v1/namespace{replay.tape}/n3?locality=true", b"AND_NEARLINE"
            )
        replay.ask(ident, body=NEAR_BODIES.get(ident))
