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


def part_of(path: Path) -> str:
    """The first of these parts: "" for the package itself."""
    return next(iter(parts_of(path)), "")


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


@functools.cache
def in_functions(path: Path) -> set[ast.AST]:
    """Everything that stands in a function."""
    functions = [
        node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {node for function in functions for node in ast.walk(function)}


@functools.cache
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


PARTS = sorted(set(map(part_of, FILES)))


def imports_of(part: str) -> Iterator[tuple[Path, str, ast.stmt, str]]:
    """What each file of a part imports, and where, in words as well."""
    for path in FILES:
        if part_of(path) == part:
            for name, node in imports(path):
                yield path, name, node, f"{label(path)}:{node.lineno} imports {name}"


# A test for each part and not for each file: there are hundreds, and a failure names the file.


@pytest.mark.parametrize("here", [part for part in PARTS if part])
def test_imports_point_downwards(here: str) -> None:
    """The package itself shows what the layers hold."""
    for _, name, _, where in imports_of(here):
        there = own(name)
        if there is None or there == here:
            continue
        if here == STANDALONE:
            pytest.fail(f"{where}, but shares no code with the client")
        if there == STANDALONE:
            assert here in USES_STANDALONE, where
            continue
        assert here in LEVELS, f"{here} has no level yet"
        assert there in LEVELS, f"{where}, which has no level"
        assert LEVELS[there] <= LEVELS[here], f"{where}, which is above it"
        assert not {here, there} <= WIRE_PROTOCOLS, f"{where}, another wire protocol"


@pytest.mark.parametrize("part", PARTS)
def test_no_import_of_ours_is_hidden_in_a_function(part: str) -> None:
    for path, name, node, where in imports_of(part):
        assert own(name) is None or node not in in_functions(path), where


@pytest.mark.parametrize("part", [part for part in PARTS if part not in NEEDS_STACK])
def test_bare_modules_do_without_the_stack(part: str) -> None:
    for path, name, node, where in imports_of(part):
        stranger = name.split(".")[0] == "lsst" and own(name) is None
        assert not stranger or node in for_the_type_checker(path), where


def test_every_part_has_a_level() -> None:
    found = {parts_of(path)[0] for path in FILES if parts_of(path)}
    assert found <= {*LEVELS, STANDALONE}
