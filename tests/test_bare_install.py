"""The bare distribution, in an environment of its own without any package of the LSST stack."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parent.parent
INSTALL_TIMEOUT_SECONDS = 300
RUN_TIMEOUT_SECONDS = 30

USE_FSSPEC = """
import os, sys
import fsspec

url = os.environ["DCACHE_URL"] + "bare/"
data = bytes(range(256)) * 4096
with fsspec.open(url + "file", "wb") as stream:
    stream.write(data)
with fsspec.open(url + "file", "rb") as stream:
    stream.seek(1000)
    assert stream.read(5) == data[1000:1005]
filesystem = fsspec.filesystem("davs")
assert filesystem.cat_file(url + "file") == data
assert [os.path.basename(name.rstrip("/")) for name in filesystem.ls(url, detail=False)] == ["file"]
filesystem.rm(url, recursive=True)
assert not filesystem.exists(url)
stack = sorted(name for name in sys.modules if name.split(".")[:2] == ["lsst", "resources"])
assert not stack, stack
print("done")
"""


def clean_environment() -> dict[str, str]:
    """Environment without what would let a new interpreter find the packages or the settings of this one."""
    ours = re.compile(r"PYTHON(PATH|HOME)|VIRTUAL_ENV|BEARER_TOKEN.*|LSST_.*|DCACHE_URL")
    return {name: value for name, value in os.environ.items() if not ours.fullmatch(name)}


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Folder of the programs of an environment that the wheel alone was installed into."""
    # Built from a copy, since setuptools leaves its own files in the tree that it builds from.
    source = tmp_path / "source"
    shutil.copytree(
        TREE / "python", source / "python", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
    )
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(TREE / name, source / name)
    programs = tmp_path / "venv" / "bin"
    pip = ["-m", "pip", "--quiet"]
    for command in (
        [sys.executable, *pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(source)],
        [sys.executable, "-m", "venv", str(programs.parent)],
    ):
        subprocess.run(command, check=True, env=clean_environment(), timeout=INSTALL_TIMEOUT_SECONDS)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run(
        [programs / "python", *pip, "install", wheel],
        check=True,
        env=clean_environment(),
        timeout=INSTALL_TIMEOUT_SECONDS,
    )
    return programs


@pytest.fixture
def served(bare: Path) -> Iterator[dict[str, str]]:
    """Environment for a client of ``dcache-butler embedded``, which runs meanwhile and is interrupted."""
    environment = clean_environment()
    process = subprocess.Popen(
        [bare / "dcache-butler", "embedded"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        ready = process.stderr.readline()
        assert "Ctrl-C" in ready, ready + process.stderr.read()
        for line in iter(process.stdout.readline, ""):
            (assignment,) = shlex.split(line.removeprefix("export "))
            name, _, value = assignment.partition("=")
            environment[name] = value
            if {"DCACHE_URL", "LSST_RESOURCES_WEBDAV_CONFIG", "BEARER_TOKEN_FILE"} <= environment.keys():
                break
        yield environment
    finally:
        process.send_signal(2)
        _, errors = process.communicate(timeout=RUN_TIMEOUT_SECONDS)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def run(environment: dict[str, str], *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=RUN_TIMEOUT_SECONDS
    )


def test_bare_distribution(bare: Path, served: dict[str, str]) -> None:
    """One test, since each process that runs a part of it would have to install it all again."""
    done = run(clean_environment(), bare / "python", "-m", "pip", "list", "--format", "freeze")
    names = {line.partition("==")[0].lower() for line in done.stdout.splitlines()}
    assert {name for name in names if name.startswith("lsst")} == {"lsst-daf-butler-dcache"}

    done = run(clean_environment(), bare / "dcache-butler", "--help")
    assert done.returncode == 0, done.stderr
    assert "embedded" in done.stdout

    done = run(clean_environment(), bare / "dcache-butler", "demo")
    assert done.returncode != 0
    assert "lsst-daf-butler-dcache[demo]" in done.stderr
    assert "Traceback" not in done.stderr

    done = run(served, bare / "python", "-c", USE_FSSPEC)
    assert done.stdout.strip() == "done", done.stderr
