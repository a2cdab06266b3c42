"""The embedded dCache in a process of its own: ``python -m ... SETTINGS``, as JSON.

It says one line of JSON when it is ready and then answers each line of its standard input with one line;
the end of the input ends it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ..embedded import EmbeddedDcache
from ..embedded.entry import Entry
from ..embedded.transcript import Record
from .target import Counts
from .work import Access

__all__ = ("serve",)

_MAY_BE_UNDER_WAY = 1000
"""How many records at the end of a transcript may still be filled in."""


def serve(**settings: Any) -> None:
    """Run until the standard input ends.

    Parameters
    ----------
    **settings
        Those of `~...embedded.EmbeddedDcache`.
    """
    with EmbeddedDcache(**settings) as dcache:
        tls = bool(settings["tls"])
        access = Access(
            url="http" + dcache.url.removeprefix("dav"),
            environment=dcache.environment,
            ca_file=dcache.ca_file,
            token_file=dcache.environment.get("BEARER_TOKEN_FILE"),
            user=None if tls else dcache.user,
            password_file=None if tls else dcache.password_file,
            frontend_url=dcache.frontend_url,
        )
        _say({"version": f"embedded dCache as {dcache.site.software}", "access": dataclasses.asdict(access)})
        count = _Count(dcache, tls)
        for line in sys.stdin:
            _say(_answer(dcache, json.loads(line), count))


class _Count:
    """What the transcript holds; of the older part of it only sums are kept, for it is long."""

    def __init__(self, dcache: EmbeddedDcache, tls: bool) -> None:
        self._transcript = dcache.site.transcript
        self._tls = tls
        self._summed = 0
        self._sums = Counter({field.name: 0 for field in dataclasses.fields(Counts)})
        self._seen: dict[str, set[int]] = {"door": set(), "pool": set()}

    def __call__(self) -> dict[str, int]:
        records = self._transcript.snapshot(self._summed)
        old = records[:-_MAY_BE_UNDER_WAY]
        self._sums = self._add(self._sums, self._seen, old)
        self._summed += len(old)
        seen = {server: set(numbers) for server, numbers in self._seen.items()}
        return dict(self._add(self._sums, seen, records[len(old) :]))

    def _add(self, sums: Counter[str], seen: dict[str, set[int]], records: list[Record]) -> Counter[str]:
        sums = Counter(sums)
        for record in records:
            server = "pool" if record.server == "pool" else "door"
            sums[f"{server}_requests"] += 1
            sums["sent_bytes"] += record.sent
            sums["refused"] += server == "door" and record.status == 429
            if record.connection not in seen[server]:
                seen[server].add(record.connection)
                sums[f"{server}_connections"] += 1
                sums["resumed"] += record.resumed
                sums[f"{server}_handshakes"] += self._tls and not record.resumed
        return sums


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _answer(dcache: EmbeddedDcache, question: dict[str, Any], count: _Count) -> dict[str, Any]:
    namespace = dcache.site.namespace
    match question["do"]:
        case "place":
            dcache.place(question["name"], Path(question["file"]).read_bytes())
            return {}
        case "size":
            entry = namespace.find(f"/data/{question['name']}")
            return {"size": None if entry is None else entry.size}
        case "clear":
            _clear(dcache, question["prefix"])
            return {}
        case "counts":
            return count()
    raise ValueError(f"nobody knows how to {question['do']}")


def _clear(dcache: EmbeddedDcache, prefix: str) -> None:
    namespace = dcache.site.namespace
    folder, _, beginning = prefix.rpartition("/")
    directory = namespace.find(f"/data/{folder}")
    for entry in [] if directory is None else list(namespace.children(directory)):
        if entry.name.startswith(beginning):
            _remove(dcache, entry)


def _remove(dcache: EmbeddedDcache, entry: Entry) -> None:
    """Remove an entry and, before it, all that lies below; as deep as it may be."""
    namespace = dcache.site.namespace
    waiting, found = [entry], []
    while waiting:
        found.append(waiting.pop())
        if found[-1].is_directory:
            waiting += namespace.children(found[-1])
    for one in reversed(found):
        namespace.remove(one)


if __name__ == "__main__":
    serve(**json.loads(sys.argv[1]))
