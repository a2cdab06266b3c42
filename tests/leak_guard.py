"""A pytest plugin that fails every test in which a secret came to light.

Whatever becomes a `Secret` while the suite runs, every macaroon that the embedded dCache issues and every
password of its accounts is remembered. Then these are searched for the last characters of each, where a
macaroon and a JSON web token have their signature:

- every record of every logger, those of urllib3 and fsspec among them, all set to DEBUG (but that of
  `lsst.resources`, which sends more requests then);
- every error of the package when it is made, and every error that `pytest.raises` has caught, but those of
  programs that a test ran: message, notes, causes, and the variables of all frames that are neither a test's
  nor the embedded server's, but for URLs, since those of XRootD repeat what it was asked by;
- all output of a command that `CliRunner` ran, unless it was asked for the secret;
- captured output and the representation of failures.

Nothing is stored but what was found, so it costs little and works in each process of xdist.
"""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lsst.daf.butler_dcache.embedded import macaroons
from lsst.daf.butler_dcache.embedded.macaroons import MacaroonMint
from lsst.daf.butler_dcache.errors import DcacheError
from lsst.daf.butler_dcache.redaction import Secret

_LOGGERS = ("lsst", "urllib3", "requests", "fsspec", "asyncio")
_TESTS = Path(__file__).parent
_SERVER = Path(macaroons.__file__).parent
_SHORTEST = 10
_LENGTH = 8
_DEPTH = 3
_ITEMS = 50
_WORDS = re.compile(rf"[^\s'\"]{{{_LENGTH},}}")
_SHOWING = ("macaroon", "demo")
"""Commands whose purpose is to hand out a secret."""


class LeakGuard(logging.Handler):
    """Knows the secrets, and what has shown them."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self._secrets: dict[str, set[str]] = {}
        self._patch = pytest.MonkeyPatch()
        self.leaks: list[str] = []

    def register(self, secret: str) -> None:
        """Remember a secret; one that is too short to be told from other words is not."""
        if len(secret) >= _SHORTEST:
            self._secrets.setdefault(secret[-_LENGTH:], set()).add(secret[-2 * _LENGTH :])

    def look_at(self, text: str, place: str) -> None:
        """Note where a secret stands in a text."""
        for word in _WORDS.findall(text):
            for i in range(len(word) - _LENGTH + 1):
                for end in self._secrets.get(word[i : i + _LENGTH], ()):
                    if end in text:
                        self.leaks.append(f"{place} shows a secret that ends with ...{end[-4:]}")

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a record of any logger."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # its author's mistake, which is shown elsewhere
            text = f"{record.msg} {record.args}"
        self.look_at(text, f"the log of {record.name}")
        if record.exc_info and record.exc_info[1] is not None:
            self.look_at_error(record.exc_info[1], f"an error in the log of {record.name}")

    def look_at_error(self, error: BaseException, place: str) -> None:
        """Look at an error, what led to it, and the variables of their frames."""
        todo: list[BaseException | None] = [error]
        seen: set[int] = set()
        while todo:
            item = todo.pop()
            if item is None or id(item) in seen:
                continue
            seen.add(id(item))
            todo += [item.__cause__, item.__context__]
            notes = getattr(item, "__notes__", ())
            self.look_at(f"{item} {item!r} {notes}", place)
            traceback = item.__traceback__
            while traceback is not None:
                code = traceback.tb_frame.f_code
                if (
                    Path(code.co_filename).parent not in (_TESTS, _SERVER)
                    and "_pytest" not in code.co_filename
                ):
                    for name, value in list(traceback.tb_frame.f_locals.items()):
                        where = f"the variable {name} of {code.co_qualname} in the traceback of {place}"
                        for text in _texts(value, _DEPTH):
                            if not text.startswith(("http://", "https://")):
                                self.look_at(text, where)
                traceback = traceback.tb_next

    def begin(self) -> None:
        """Have everything looked at that follows."""
        guard = self
        secret_init, error_init, issue = Secret.__init__, DcacheError.__init__, MacaroonMint.issue
        raises = type(pytest.raises(ZeroDivisionError))
        raises_exit = raises.__exit__
        invoke = CliRunner.invoke

        def remember(secret: Secret, value: str) -> None:
            secret_init(secret, value)
            guard.register(value)

        def issued(mint: MacaroonMint, *args: Any, **kwargs: Any) -> Any:
            token = issue(mint, *args, **kwargs)
            guard.register(token)
            return token

        def made(error: DcacheError, *args: Any, **kwargs: Any) -> None:
            error_init(error, *args, **kwargs)
            guard.look_at(f"{error} {error!r}", f"an error {type(error).__name__}")

        def caught(context: Any, kind: Any, error: BaseException | None, traceback: Any) -> bool:
            if error is not None and not isinstance(error, subprocess.SubprocessError):
                guard.look_at_error(error, f"an error {type(error).__name__}")
            return bool(raises_exit(context, kind, error, traceback))

        def ran(runner: CliRunner, command: Any, args: Any = None, *rest: Any, **kwargs: Any) -> Any:
            result = invoke(runner, command, args, *rest, **kwargs)
            if not (args and not isinstance(args, str) and args[0] in _SHOWING):
                guard.look_at(result.output, f"the output of {args}")
            return result

        self._patch.setattr(Secret, "__init__", remember)
        self._patch.setattr(DcacheError, "__init__", made)
        self._patch.setattr(MacaroonMint, "issue", issued)
        self._patch.setattr(raises, "__exit__", caught)
        self._patch.setattr(CliRunner, "invoke", ran)
        logging.getLogger().addHandler(self)
        for name in _LOGGERS:
            self._patch.setattr(logging.getLogger(name), "level", logging.DEBUG)
        self._patch.setattr(logging.getLogger("lsst.resources"), "level", logging.INFO)

    def end(self) -> None:
        """Undo `begin`."""
        logging.getLogger().removeHandler(self)
        self._patch.undo()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Fail a test that has shown a secret."""
        report = yield
        for title, content in report.sections:
            if title.endswith(report.when or ""):
                self.look_at(content, title)
        if report.failed:
            # What pytest shows of a failed test are the test's own variables, too.
            return report
        leaks, self.leaks = list(dict.fromkeys(self.leaks)), []
        if leaks:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} leaked in {report.when}:\n" + "\n".join(leaks)
        return report


def _texts(value: object, depth: int) -> Iterator[str]:
    """Return what a logger would print of a value, as far as it may be a secret; never what is huge."""
    if isinstance(value, str):
        yield value[:100_000]
    elif isinstance(value, bytes | bytearray):
        yield bytes(value[:100_000]).decode("latin-1")
    elif isinstance(value, dict) and depth:
        for key, item in list(value.items())[:_ITEMS]:
            yield from _texts(key, depth - 1)
            yield from _texts(item, depth - 1)
    elif isinstance(value, list | tuple | set | frozenset) and depth:
        for item in list(value)[:_ITEMS]:
            yield from _texts(item, depth - 1)
    elif "lsst.daf.butler_dcache" in type(value).__module__:
        yield repr(value)
