"""What the recordings lack: the scripts that were played when dCache's answers were written down.

Each function is one scenario. ``replay.to(last)`` asks recorded questions in their order; what is said beside
that (uploads before the first question, bodies, kept connections, clients that go away) stands here.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from wire_client import Answer, Line
from wire_replay import DATA, SPOILED, Replay, propfind

Scenario = Callable[[Replay], None]

SCENARIOS: dict[str, tuple[tuple[str, ...], Scenario]] = {}
"""By name: how the ids of its exchanges begin, and the script."""

SCALE = 0.1  # of dCache's long waits, in the server and here
LIMITS_SCALE = 0.5  # where seconds are counted, a slow machine must not lose one of them


def scenario(*prefixes: str) -> Callable[[Scenario], Scenario]:
    """Register a scenario by the beginnings of its exchanges' ids."""

    def register(function: Scenario) -> Scenario:
        SCENARIOS[function.__name__] = (prefixes, function)
        return function

    return register


def chain(replay: Replay, name: str, count: int, urls: dict[int, str] | None = None, **first: object) -> None:
    """Replay ``name-1`` to ``name-count`` on one connection for as long as it lives."""
    line: Line | None = None
    for number in range(1, count + 1):
        how = first if number == 1 else {}
        answer = replay.ask(f"{name}-{number}", (urls or {}).get(number, ""), line=line, keep=True, **how)
        line = answer.line
    assert line is not None
    line.close()


def cut_upload(replay: Replay, path: str, ident: str = "", size: int = 5000) -> None:
    """Upload to a pool and go away in the middle."""
    url = replay.redirect(path, "PUT")
    if ident:
        replay.ask(ident, cut=size)
    else:
        replay.send("PUT", url, body=DATA, cut=size)
    settle(replay, path)


def settle(replay: Replay, path: str) -> None:
    """Wait until the server has noticed that a client went away."""
    url = replay.door + replay.expand(path)
    for _ in range(100):
        head = replay.send("HEAD", url)
        if head.status == 404 or head.get("content-length"):
            return
        time.sleep(0.02)


def until(replay: Replay, url: str, word: bytes) -> None:
    """Ask until an answer has a word in it."""
    for _ in range(500):
        answer = replay.send("GET", url)
        if word in answer.body or answer.status != 200:
            return
        time.sleep(0.02)
    raise AssertionError(f"{url} never showed {word!r}")


# ------------------------------------------------------------------------------------------------ the door
@scenario("basics-")
def door_basics(replay: Replay) -> None:
    replay.put("~/basics/file.bin")
    replay.put("~/basics/empty.bin", b"")
    replay.to("basics-head-want-repr")
    line = replay.ask("basics-keep-1", keep=True).line
    replay.to("basics-keep-4", line=line, keep=True)
    replay.to()


@scenario("login-")
def login(replay: Replay) -> None:
    replay.put("~/login/file.bin")
    replay.to("login-none-put")
    replay.ask("login-bad-token", auth="Bearer nonsense")
    replay.ask("login-bad-basic", auth=NOBODY)
    replay.ask("login-suppress")
    replay.ask("login-negotiate", auth="Negotiate abc")


NOBODY = "Basic " + base64.b64encode(b"nobody:wrong").decode()


@scenario("up-")
def uploads(replay: Replay) -> None:
    replay.to("up-proxied-md5-good")
    replay.ask("up-proxied-md5-bad", body=SPOILED)
    replay.to("up-mtime-head")
    replay.ask("up-cut-proxied", cut=5000)
    settle(replay, "~/up/cutproxied")
    replay.to()


@scenario("upr-")
def uploads_redirected(replay: Replay) -> None:
    replay.to("upr-pool-second")
    wishes = {"want": "adler32", "wantmd5": "md5"}
    for name, ident in (
        ("want", "upr-pool-want"), ("wantmd5", "upr-pool-want-md5"), ("wantpool", "upr-pool-want-pool-only"),
        ("type", "upr-pool-type-retry"), ("chunked", "upr-pool-chunked"), ("expect", "upr-pool-expect"),
        ("md5good", "upr-pool-md5-good"),
    ):  # fmt: skip
        wish = {"Want-Digest": wishes[name]} if name in wishes else None
        replay.redirect(f"~/upr/{name}", "PUT", headers=wish)
        replay.to(ident)
    replay.redirect("~/upr/md5bad", "PUT")
    replay.ask("upr-pool-md5-bad", body=SPOILED)
    replay.to("upr-md5-bad-get")
    replay.redirect("~/upr/longer", "PUT")
    replay.ask("upr-pool-other-length", body=DATA + b"more")
    cut_upload(replay, "~/upr/cut", "upr-pool-cut")
    replay.to("upr-cut-delete")
    replay.redirect("~/upr/cut0", "PUT")
    replay.ask("upr-pool-cut0", cut=0)
    replay.ask("upr-cut0-head")
    replay.put("~/upr/over", DATA[:500])
    replay.to("upr-deep-pool")
    replay.redirect("~/upr/wronguse", "PUT")
    replay.to("upr-expect-other")
    replay.ask("upr-expect-impatient", waits=False)
    replay.ask("upr-expect-zero")
    replay.redirect("~/upr/shorter", "PUT")
    replay.to()


@scenario("broken-")
def broken_uploads(replay: Replay) -> None:
    cut_upload(replay, "~/broken/cut", "broken-cut")
    replay.to("broken-cut-mended-get")
    cut_upload(replay, "~/broken/target")
    replay.put("~/broken/good")
    replay.to("broken-move-over-get")
    cut_upload(replay, "~/broken/moving")
    replay.to("broken-moved-delete")
    never = replay.redirect("~/broken/never", "PUT")
    replay.to("broken-never-delete")
    replay.ask("broken-never-pool-put", never)
    replay.ask("broken-never-after")
    replay.redirect("~/broken/md5", "PUT")
    replay.ask("broken-md5-pool", body=SPOILED)
    replay.to("broken-md5-get")
    replay.redirect("~/broken/shorter", "PUT")
    replay.to("broken-shorter-get")
    old = b"the old content"
    replay.put("~/broken/old-cut", old)
    cut_upload(replay, "~/broken/old-cut")
    replay.to("broken-old-cut-get")
    replay.put("~/broken/old-cut-proxied", old)
    replay.put("~/broken/old-cut-proxied", cut=5000)
    settle(replay, "~/broken/old-cut-proxied")
    replay.to("broken-old-cut-proxied-get")
    replay.put("~/broken/old-md5-proxied", old)
    replay.ask("broken-old-md5-proxied-put", body=SPOILED)
    replay.to("broken-old-md5-proxied-get")
    replay.put("~/broken/old-md5-pool", old)
    replay.redirect("~/broken/old-md5-pool", "PUT")
    replay.ask("broken-old-md5-pool-put", body=SPOILED)
    replay.to()


@scenario("sum-")
def checksums(replay: Replay) -> None:
    while replay.left:
        ident = replay.left[0]
        name = ident.removeprefix("sum-").partition("-")[2].removesuffix("-pool")
        body = SPOILED if name in ("md5-bad", "digest-md5-bad") else None
        if ident == f"sum-pool-{name}":
            replay.redirect(f"~/sum/pool-{name}", "PUT", body=body or DATA)
        is_upload = ident.endswith("-pool") or not ident.endswith(("-head", "-rest"))
        replay.ask(ident, body=body if is_upload else None)


@scenario("conn-")
def connections(replay: Replay) -> None:
    replay.put("~/conn/file")
    replay.put("~/conn/other")
    for name, count in (
        ("302", 2), ("201", 2), ("307", 2), ("412-expect", 2), ("412-body", 2), ("405-body", 2),
        ("400-body", 2), ("404", 4), ("501", 2), ("500-verb", 2), ("401", 2), ("copy-400", 2),
    ):  # fmt: skip
        chain(replay, f"conn-{name}", count)
    for name, path, count in (("501-201-307", "w1", 3), ("501-expect", "w2", 2), ("400", "w3", 2)):
        replay.redirect(f"~/conn/{path}", "PUT")
        first = {"body": SPOILED} if name == "400" else {}
        chain(replay, f"conn-pool-{name}", count, **first)
    replay.redirect("~/conn/file")
    chain(replay, "conn-pool-errors", 4)
    pools: dict[str, str] = {}
    while True:  # until one pool was given twice
        second = replay.redirect("~/conn/file")
        first_url = pools.setdefault(urlsplit(second).netloc, second)
        if first_url != second:
            break
    chain(replay, "conn-pool-two-urls", 3, {1: first_url, 2: second, 3: first_url})


@scenario("mover-")
def mover_urls(replay: Replay) -> None:
    replay.put("~/mover/file")
    for name in ("full-kills", "close-kills", "drop", "put-kills"):
        url = replay.redirect("~/mover/file")
        line = replay.ask(f"mover-{name}-1", keep=True).line
        replay.ask(f"mover-{name}-2")
        time.sleep(0.1)  # the pool has to notice that the second client went away
        replay.ask(f"mover-{name}-3", url, line=line)
    replay.redirect("~/mover/file")
    chain(replay, "mover-same-conn", 3)
    replay.redirect("~/mover/file")
    replay.ask("mover-head-1")
    time.sleep(0.1)
    replay.ask("mover-head-2")
    for method in ("HEAD", "GET"):
        name = f"mover-write-{method.lower()}"
        replay.redirect(f"~/mover/write-{method}", "PUT")
        line = replay.ask(f"{name}-1", keep=True).line
        replay.ask(f"{name}-2")
        assert line is not None
        line.close()
        time.sleep(0.1)
        replay.ask(f"{name}-3")


@scenario("while-")
def meanwhile(replay: Replay) -> None:
    for name, change in (("deleted", "delete"), ("overwritten", "put"), ("moved", "move")):
        replay.put("~/while/file")
        url, unused = replay.redirect("~/while/file"), replay.redirect("~/while/file")
        line = replay.ask(f"while-{name}-1", url, keep=True).line
        replay.ask(f"while-{name}-{change}", body=b"new" if change == "put" else None)
        replay.ask(f"while-{name}-2", url, line=line)
        replay.ask(f"while-{name}-unused-url", unused)
    first = replay.redirect("~/while/race", "PUT", body=b"AAAA")
    second = replay.redirect("~/while/race", "PUT", body=b"BBBBBB")
    replay.ask("while-two-puts-first-url", first, b"AAAA")
    replay.ask("while-two-puts-second-url", second, b"BBBBBB")
    replay.ask("while-two-puts-head")
    first = replay.redirect("~/while/race2", "PUT", body=b"AAAA")
    replay.ask("while-put-and-proxied", body=b"BBBBBB")
    replay.ask("while-put-and-proxied-pool", first, b"AAAA")
    replay.ask("while-put-and-proxied-head")
    for name, last in (("parent/file", "while-parent-pool"), ("moving", "while-upload-moved-head")):
        replay.redirect(f"~/while/{name}", "PUT")
        replay.to(last)


@scenario("down-")
def downloads(replay: Replay) -> None:
    replay.put("~/down/file.bin")
    replay.put("~/down/zero", b"")
    replay.ask("down-redirect")
    line = replay.ask("down-pool-full", keep=True).line
    replay.ask("down-pool-full-again-same-conn", line=line)
    replay.ask("down-pool-full-again-new-conn")
    replay.redirect("~/down/file.bin")
    line = replay.ask("down-range-1", keep=True).line
    replay.to("down-pool-head", line=line, keep=True)
    second = replay.ask("down-second-conn", keep=True).line
    assert line is not None
    assert second is not None
    line.close()
    time.sleep(0.1)
    replay.ask("down-second-conn-alive", line=second, keep=True)
    second.close()
    time.sleep(0.1)
    replay.ask("down-all-closed")
    replay.redirect("~/down/file.bin")
    replay.ask("down-range-close")
    time.sleep(0.1)
    replay.ask("down-after-range-close")
    wish = {"Want-Digest": "adler32"}
    for ident, headers in (
        ("down-digest-both", wish),
        ("down-digest-pool-only", None),
        ("down-digest-range", wish),
    ):
        replay.redirect("~/down/file.bin", headers=headers)
        replay.ask(ident)
    replay.to("down-zero-pool")
    replay.redirect("~/down/zero")
    replay.ask("down-zero-range")
    url = replay.redirect("~/down/file.bin")
    base, _, query = url.partition("?")
    reference = query.partition("&")[2]
    other = f"{base}?dcache-http-uuid=00000000-0000-4000-8000-000000000000"
    replay.ask("down-no-uuid", base, auth="")
    replay.ask("down-other-uuid", other)
    replay.ask("down-other-uuid-ref", f"{other}&{reference}")
    replay.ask("down-other-path", url.replace("file.bin", "other.bin"))
    replay.url = url
    replay.to("down-after-put-on-read-url")
    replay.redirect("~/down/file.bin?action=show")
    replay.ask("down-show")
    url = replay.redirect("~/down/file.bin")
    replay.ask("down-long-line", url + "&pad=" + "a" * 4200)
    replay.to()


# ------------------------------------------------------------------------------------------- the namespace
@scenario("ns-")
def namespace(replay: Replay) -> None:
    replay.put("~/ns/file.bin")
    replay.put("~/ns/other.bin", DATA[:10])
    replay.put("~/ns/sub/inner.bin")
    replay.to("ns-propfind-empty-body")
    for name in ("allprop", "propname"):
        body = f'<D:propfind xmlns:D="DAV:"><D:{name}/></D:propfind>'
        replay.ask(f"ns-propfind-{name}", body=body.encode())
    replay.ask("ns-propfind-unknown", body=propfind("z:zed", "D:getcontentlength"))
    replay.ask("ns-propfind-malformed", body=b"<not xml")
    replay.ask("ns-propfind-brief")
    replay.to("ns-name-11-pool")
    replay.ask("ns-names-list", body=propfind("D:getcontentlength"))
    replay.to("ns-odd-dotdot")
    replay.ask("ns-odd-list", body=propfind("D:getcontentlength"))
    update = (
        '<D:propertyupdate xmlns:D="DAV:" xmlns:x="http://www.dcache.org/2020/xattr">'
        "<D:{0}><D:prop><x:colour>red</x:colour></D:prop></D:{0}></D:propertyupdate>"
    )
    replay.ask("ns-proppatch-set", body=update.format("set").encode())
    replay.ask("ns-proppatch-read", body=propfind("x:colour"))
    replay.ask("ns-proppatch-remove", body=update.format("remove").encode())
    replay.to("ns-move-self-head")
    replay.put("~/ns/pathonly.bin")
    replay.to("ns-move-file-onto-dir-T")
    replay.put("~/ns/full/x/y.bin")
    replay.put("~/ns/small.bin", DATA[:3])
    replay.to("ns-move-file-onto-full-dir-head")
    replay.put("~/ns/own/x.bin")
    replay.to("ns-after-list")
    replay.put("~/ns/c.bin")
    replay.to("ns-delete-file")
    replay.put("~/ns/tree/a/b/c.bin")
    replay.to()


@scenario("list-")
def long_listing(replay: Replay) -> None:
    replay.send("MKCOL", replay.door + replay.expand("~"))
    for number in range(120):
        path = f"~/list/d{number:03}" if number else "~/list"
        replay.send("MKCOL", replay.door + replay.expand(path))
    replay.to("list-html")
    replay.put("~/list/file.bin")
    replay.to()


@scenario("limit-")
def limits(replay: Replay) -> None:
    replay.put("~/limits/file")
    for method in ("HEAD", "GET"):
        me = replay.next_headers()
        line = replay.connect(replay.door)
        rows = [f"Host: {urlsplit(replay.door).netloc}", f"Authorization: {replay.own}"]
        rows += [f"{name}: {value}" for name, value in me.items()]
        requests = (("GET", "/.well-known/wlcg-tape-rest-api"), (method, replay.expand("~/limits/file")))
        text = "".join("\r\n".join([f"{verb} {path} HTTP/1.1", *rows, "", ""]) for verb, path in requests)
        line.sock.sendall(text.encode())  # at once: a new client's second request finds an empty bucket
        answers = [line.answer(verb, 20.0, Answer()) for verb, _ in requests]
        replay.note(answers[1])
        time.sleep(0.01)
        replay.ask(f"limit-second-{method.lower()}-later", line=line)
    replay.to("limit-401-good")
    time.sleep(11 * LIMITS_SCALE)
    replay.to()


@scenario("anon-")
def anonymous(replay: Replay) -> None:
    replay.put("~/anon/file.bin")
    replay.to("anon-private")
    replay.ask("anon-token", auth="Bearer nonsense")
    replay.ask("anon-token-query")
    replay.ask("anon-bad-basic", auth=NOBODY)
    replay.ask("anon-mint", body=b"{}")
    replay.put("~/anon/own.bin")
    replay.to()


@scenario("proxy-")
def proxied(replay: Replay) -> None:
    replay.put("~/proxy/file.bin")
    replay.put("~/proxy/zero", b"")
    replay.to("proxy-put-chunked")
    replay.ask("proxy-put-md5-bad", body=SPOILED)
    replay.to("proxy-put-inm")
    replay.ask("proxy-put-cut", cut=5000)
    settle(replay, "~/proxy/cut")
    replay.to()
