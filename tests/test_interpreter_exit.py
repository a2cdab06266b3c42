"""A program that ends with files open ends: it neither hangs nor publishes what was not closed."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from lsst.daf.butler_dcache.store.registry import store_for

PROGRAM = """
import sys, threading
import fsspec
from lsst.daf.butler_dcache.store.registry import store_for

url = sys.argv[1]
store = store_for(url)
reader = store.open_reader(url + "file")
reader.read_tail(10)
stream = store.open_reader(url + "file").stream()
next(stream)
writer = store.open_writer(url + "streamed")
writer.write(bytes(3_000_000))
fs = fsspec.filesystem(url.partition(":")[0])
kept = [fs.open(url + "file", "rb"), fs.open(url + "other", "wb")]
kept[0].read(5)
kept[1].write(bytes(2_000_000))
{way}
"""

WAYS = {
    "end": "print('over', flush=True)",
    "exit": "print('over', flush=True); sys.exit(0)",
    "thread": """
def read():
    for _ in range(3):
        store.read(url + "file")
threading.Thread(target=read).start()
print('over', flush=True)
""",
}


@pytest.mark.parametrize("way", WAYS)
def test_open_files_do_not_keep_the_interpreter(embedded: Any, base_url: str, way: str) -> None:
    store = store_for(base_url)
    store.write(base_url + "file", bytes(3_000_000))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{way}", WAYS[way]), base_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **embedded.environment},
    )
    assert done.stdout == "over\n", done.stderr
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    names = {entry.url.rpartition("/")[2] for entry in store.list_directory(base_url)}
    assert {name for name in names if not name.startswith(".dcb-")} == {"file"}
