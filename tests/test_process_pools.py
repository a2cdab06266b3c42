"""Paths and file systems in other processes: spawned, forked, and in the pools of lsst.resources."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import pickle
import subprocess
import sys
from typing import Any

import lsst.daf.butler_dcache  # noqa: F401  (claims the schemes)
import pytest
from lsst.daf.butler_dcache import DcacheFileSystem
from lsst.resources import ResourcePath

FILES = 12

# Python warns of what these tests are about: forking while other threads run (those of the embedded dCache).
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture
def uris(base_url: str) -> list[ResourcePath]:
    """Files of different sizes, written by this process, whose paths have been used."""
    uris = [ResourcePath(base_url).join(f"dir{n % 3}/file{n}") for n in range(FILES)]
    for n, uri in enumerate(uris):
        uri.write(contents(n))
        assert uri.read() == contents(n)
    return uris


def contents(n: int) -> bytes:
    return bytes([n]) * (1000 + 7 * n)


def describe(uri: ResourcePath) -> tuple[str, bytes, int, str]:
    return type(uri).__name__, uri.read(), uri.size(), str(uri.dirname())


def write_and_read(uri: ResourcePath, data: bytes) -> bytes:
    uri.write(data)
    return uri.read()


def list_files(fs: DcacheFileSystem, path: str) -> list[str]:
    return [str(each) for each in fs.find(path)]


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_pool(uris: list[ResourcePath], base_url: str, method: str) -> None:
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        found = list(pool.map(describe, uris))
        written = pool.submit(write_and_read, uris[0], b"from the child").result()
        listed = pool.submit(list_files, DcacheFileSystem(), base_url).result()
    assert found == [
        ("DcacheResourcePath", contents(n), len(contents(n)), str(uri.dirname()))
        for n, uri in enumerate(uris)
    ]
    assert written == uris[0].read() == b"from the child"
    assert listed == sorted(str(uri) for uri in uris)


def test_unpickling_registers(uris: list[ResourcePath]) -> None:
    code = """
import pickle, sys
uri = pickle.loads(bytes.fromhex(sys.argv[1]))
from lsst.resources import ResourcePath
assert type(ResourcePath(str(uri))) is type(uri)
sys.stdout.buffer.write(uri.read())
"""
    result = subprocess.run(
        [sys.executable, "-c", code, pickle.dumps(uris[3]).hex()],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout == contents(3)


def test_forked_children_never_share_a_connection(uris: list[ResourcePath], embedded: Any) -> None:
    """Children and parent read at the same time on connections of their own."""

    def read_all() -> bool:
        return all(uri.read() == contents(n) and uri.size() == len(contents(n)) for n, uri in enumerate(uris))

    before = {record["connection"] for record in embedded.transcript()}
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if read_all() else 1
            finally:
                os._exit(status)
        children.append(child)
    assert read_all()
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    assert {record["connection"] for record in embedded.transcript()} - before


@pytest.mark.parametrize("executor", ["process", "threads"])
def test_bulk_methods_with_executors_of_lsst_resources(uris: list[ResourcePath], executor: str) -> None:
    """Older releases of lsst.resources (30.2026.3800) may hand paths to processes."""
    code = f"""
import pickle, sys
from lsst.resources import ResourcePath
uris = pickle.loads(bytes.fromhex(sys.argv[1]))
if __name__ == "__main__":
    assert all(ResourcePath.mexists(uris).values())
    targets = [uri.updatedExtension(".copy") for uri in uris]
    ResourcePath.mtransfer("copy", zip(uris, targets, strict=True))
    assert [uri.read() for uri in targets] == [bytes([n]) * (1000 + 7 * n) for n in range({FILES})]
    ResourcePath.mremove(targets)
    assert not any(ResourcePath.mexists(targets).values())
"""
    result = subprocess.run(
        [sys.executable, "-c", code, pickle.dumps(uris).hex()],
        env=os.environ | {"LSST_RESOURCES_EXECUTOR": executor},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
