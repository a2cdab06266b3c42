"""What the system's own Python runs, which alone can import gfal2: requests come as lines, answers go so.

It is given to that Python as a file and stands by itself: no other module of this package is there.
"""

from __future__ import annotations

import json
import stat
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gfal2

__all__ = ("main",)

_NOT_FOUND = 2


def _count_files(context: Any, url: str) -> int:
    count = 0
    directory = context.opendir(url)
    while True:
        entry, status = directory.readpp()
        if entry is None:
            return count
        if entry.d_name in (".", ".."):
            continue
        below = f"{url.rstrip('/')}/{entry.d_name}"
        count += _count_files(context, below) if stat.S_ISDIR(status.st_mode) else 1


def _do(context: Any, request: dict[str, Any]) -> int:
    place, other = request["place"], request["other"]
    match request["do"]:
        case "copy":
            parameters = context.transfer_parameters()
            parameters.overwrite = parameters.create_parent = True
            context.filecopy(parameters, place, other)
        case "exists":
            try:
                context.stat(place)
            except gfal2.GError as error:
                if error.code != _NOT_FOUND:
                    raise
                return 0
        case "walk":
            return _count_files(context, place)
        case "remove":
            context.unlink(place)
        case "rename":
            context.rename(place, other)
    return 1


def main() -> None:
    """Answer each line until there is none."""
    settings = json.loads(sys.stdin.readline())
    context = gfal2.creat_context()
    lines = [f"{name}: {value}" for name, value in settings["headers"].items()]
    context.set_opt_string_list("HTTP PLUGIN", "HEADERS", lines)
    lock = threading.Lock()

    def answer(request: dict[str, Any]) -> None:
        said: dict[str, Any] = {"number": request["number"]}
        try:
            said["result"] = _do(context, request)
        except Exception as error:  # the one who asked is told, whatever it is
            said["error"] = str(error)
        with lock:
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()

    with ThreadPoolExecutor(settings["threads"]) as executor:
        for line in sys.stdin:
            executor.submit(answer, json.loads(line))


if __name__ == "__main__":
    main()
