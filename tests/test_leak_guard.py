"""The plugin that looks for secrets can fail a test."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ("pytester",)

CONFTEST = """
import sys
sys.path.insert(0, {folder!r})
from leak_guard import LeakGuard

def pytest_configure(config):
    guard = LeakGuard()
    guard.begin()
    config.pluginmanager.register(guard, "leak-guard")
    config.add_cleanup(guard.end)
"""

SUITE = """
import logging
import click
import pytest
from click.testing import CliRunner
from lsst.daf.butler_dcache.errors import CredentialError
from lsst.daf.butler_dcache.redaction import Secret

WORD = "secret-word-0123456789"

@pytest.fixture(autouse=True)
def secret():
    return Secret(WORD)

def test_good(secret):
    logging.getLogger("urllib3").debug("%s", secret)
    print(secret, "secret-word-of-another")
    with pytest.raises(CredentialError):
        raise CredentialError("no", hint=str(secret))

def test_log():
    logging.getLogger("fsspec.local").debug("sent %s", f"x={WORD}")

def test_print():
    print(f"x{WORD}x")

def test_message():
    with pytest.raises(CredentialError):
        raise CredentialError(f"refused: {WORD}")

def test_notes():
    with pytest.raises(ValueError):
        error = ValueError("no")
        error.add_note(WORD)
        raise error

def test_cause():
    with pytest.raises(ValueError):
        raise ValueError("no") from KeyError(WORD)

def test_variable():
    namespace = {}
    exec(compile("def fail(word):\\n    raise ValueError('no')", "/elsewhere/module.py", "exec"), namespace)
    with pytest.raises(ValueError):
        namespace["fail"]({"Authorization": f"Bearer {WORD}".encode()})

def test_command():
    CliRunner().invoke(click.Command("x", callback=lambda: click.echo(WORD)), [])
"""


@pytest.mark.parametrize("options", [[], ["-n", "1"]], ids=["here", "in a worker"])
def test_it_fails_what_leaks(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    # Some plugins take seconds to be imported, in each process.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(CONFTEST.format(folder=str(Path(__file__).parent)))
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("-p", "xdist", "-p", "no:cacheprovider", "-rf", *options)
    result.assert_outcomes(passed=1, failed=7)
    result.stdout.fnmatch_lines(["*shows a secret that ends with ...6789*"])
