"""Imports point downwards only: the layers of the package, read from its source."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "lsst.daf.butler_dcache"
ROOT = Path(__file__).resolve().parent.parent / "python" / "lsst" / "daf" / "butler_dcache"

# The height of each module or sub-package; what is on one level may import what is below it. Wire protocols
# do not import one another; on the other levels a neighbour may be used.
LEVELS = {
    "errors": 0,
    "redaction": 0,
    "model": 0,
    "config": 1,
    "auth": 1,
    "transport": 2,
    "webdav": 3,
    "rest": 3,
    "s3": 3,
    "store": 4,
    "orphans": 5,
    "tree": 5,
    "transfers": 5,
    "places": 5,
    "single_copy": 5,
    "copies": 5,
    "read_cache": 5,
    "read_ahead": 5,
    "remote_file": 5,
    "new_file": 5,
    "spooled_upload": 5,
    "streamed_upload": 5,
    "filesystem_reading": 5,
    "filesystem": 5,
    "resource_path": 5,
    "s3_resource_path": 5,
    "registration": 5,
    "worker": 5,
    "dataset_files": 5,
    "graph_files": 5,
    "datastore": 6,
    "bench": 6,
    "cli": 6,
    "demo": 6,
}
WIRE_PROTOCOLS = {"webdav", "rest", "s3"}
STANDALONE = "embedded"
USES_STANDALONE = {"bench", "cli", "demo"}
NEEDS_STACK = {
    "resource_path",
    "s3_resource_path",
    "registration",
    "datastore",
    "dataset_files",
    "graph_files",
    "demo",
}

FILES = sorted(ROOT.rglob("*.py"))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def parts_of(path: Path) -> tuple[str, ...]:
    """Module name of a file below the package, in parts: () for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Absolute name of each module, or of each name in a module, that a file imports, and where."""
    package = [*PACKAGE.split("."), *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{origin}.{alias.name}", node


def own(name: str) -> str | None:
    """First part below the package of an imported name: "" for the package itself, `None` for a stranger."""
    if name == PACKAGE:
        return ""
    return name.removeprefix(f"{PACKAGE}.").split(".")[0] if name.startswith(f"{PACKAGE}.") else None


def for_the_type_checker(path: Path) -> set[ast.AST]:
    """Everything that stands under ``if TYPE_CHECKING``."""
    return {
        child
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for statement in node.body
        for child in ast.walk(statement)
    }


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=label)
def test_imports_point_downwards(path: Path) -> None:
    parts = parts_of(path)
    if not parts:
        return  # the package itself shows what the layers hold
    here = parts[0]
    for name, node in imports(path):
        there = own(name)
        if there is None or there == here:
            continue
        where = f"{label(path)}:{node.lineno} imports {name}"
        if here == STANDALONE:
            pytest.fail(f"{where}, but shares no code with the client")
        if there == STANDALONE:
            assert here in USES_STANDALONE, where
            continue
        assert here in LEVELS, f"{here} has no level yet"
        assert there in LEVELS, f"{where}, which has no level"
        assert LEVELS[there] <= LEVELS[here], f"{where}, which is above it"
        assert not {here, there} <= WIRE_PROTOCOLS, f"{where}, another wire protocol"


@pytest.mark.parametrize("path", FILES, ids=label)
def test_no_import_of_ours_is_hidden_in_a_function(path: Path) -> None:
    functions = [
        node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    hidden = {node for function in functions for node in ast.walk(function)}
    for name, node in imports(path):
        assert own(name) is None or node not in hidden, f"{label(path)}:{node.lineno} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=label)
def test_bare_modules_do_without_the_stack(path: Path) -> None:
    parts = parts_of(path)
    if parts and parts[0] in NEEDS_STACK:
        return
    for name, node in imports(path):
        stranger = name.split(".")[0] == "lsst" and own(name) is None
        where = f"{label(path)}:{node.lineno} imports {name}"
        assert not stranger or node in for_the_type_checker(path), where


def test_every_part_has_a_level() -> None:
    found = {parts_of(path)[0] for path in FILES if parts_of(path)}
    assert found <= {*LEVELS, STANDALONE}
