"""The embedded dCache in a process of its own: ``python -m ... SETTINGS``, as JSON.

It says one line of JSON when it is ready and then answers each line of its standard input with one line;
the end of the input ends it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from ..embedded import EmbeddedDcache
from ..embedded.entry import Entry
from .work import Access

__all__ = ("serve",)


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
        )
        _say({"version": f"embedded dCache as {dcache.site.software}", "access": dataclasses.asdict(access)})
        for line in sys.stdin:
            _say(_answer(dcache, json.loads(line)))


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _answer(dcache: EmbeddedDcache, question: dict[str, Any]) -> dict[str, Any]:
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
            records = dcache.transcript()
            door = [record for record in records if record.server != "pool"]
            pool = [record for record in records if record.server == "pool"]
            return {
                "door_requests": len(door),
                "door_connections": len({record.connection for record in door}),
                "pool_requests": len(pool),
                "pool_connections": len({record.connection for record in pool}),
                "sent_bytes": sum(record.sent for record in records),
                "refused": sum(record.status == 429 for record in door),
            }
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
