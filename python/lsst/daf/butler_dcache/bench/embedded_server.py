"""The embedded dCache in a process of its own: ``python -m ... tls|plain LATENCY FOLDER VERSION``.

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
from .work import Access

__all__ = ("serve",)


def serve(tls: bool, latency: float, folder: Path, version: str) -> None:
    """Run until the standard input ends.

    Parameters
    ----------
    tls : `bool`
        Whether everything is encrypted.
    latency : `float`
        Factor on the times that a real dCache takes.
    folder : `~pathlib.Path`
        Where the files lie.
    version : `str`
        Which dCache it is.
    """
    with EmbeddedDcache(tls=tls, latency=latency, root=folder / "dcache", version=version) as dcache:
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
    home = namespace.find("/data")
    assert home is not None
    for entry in list(namespace.children(home)):
        if entry.name.startswith(prefix):
            if entry.is_directory:
                for child in list(namespace.children(entry)):
                    namespace.remove(child)
            namespace.remove(entry)


if __name__ == "__main__":
    serve(sys.argv[1] == "tls", float(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
