"""What commands say: results on the standard output as they come, each error as a line on standard error."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import urlsplit

import click

from ..errors import CredentialError, DcacheError
from ..model import FileInfo
from ..redaction import redact_text
from .quantities import shown_time

__all__ = (
    "Failures",
    "Rows",
    "facts",
    "human_option",
    "json_option",
    "one_line",
    "one_line_errors",
    "printable",
)

EXPECTED = (DcacheError, OSError, ValueError)
"""Errors of files, servers and arguments. Any other is a mistake in the program, whose place must be seen."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON: an array, one item a line.")
human_option = click.option("-h", "--human-readable", "human", is_flag=True, help="Sizes as 2.3K or 17M.")


def one_line(error: BaseException) -> str:
    """Return an error of a file, a server or an argument as one line without secrets."""
    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, DcacheError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return " ".join(redact_text(text).split()) or type(error).__name__


def printable(text: str) -> str:
    """Return a name on one line and without what a terminal would obey."""
    return "".join(
        c if c.isprintable() or "\udc80" <= c <= "\udcff" else c.encode("unicode_escape").decode()
        for c in text
    )


class Rows:
    """The results of a command, printed as they come.

    Parameters
    ----------
    as_json : `bool`
        Whether as a JSON array, with one item on a line so that it can be read while it grows.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._stream = sys.stdout.buffer
        self._count = 0

    def __enter__(self) -> Rows:
        if self.as_json:
            self.write("[")
        return self

    def __exit__(self, *_: object) -> None:
        # Also after an error or Ctrl-C: what was printed until then is to be readable.
        if self.as_json:
            self.write("\n]\n" if self._count else "]\n")
        self._stream.flush()

    def add(self, item: dict[str, Any], text: str) -> None:
        """Print a result, in one of its forms."""
        if self.as_json:
            self.write((",\n " if self._count else "\n ") + json.dumps(item))
        else:
            self.write(text + "\n")
        self._count += 1

    def write(self, text: str) -> None:
        """Print a text as it is; names of files need not be in any encoding."""
        self._stream.write(text.encode("utf-8", errors="surrogateescape"))


class Failures:
    """What went wrong with single names; the others go on, and the exit status tells.

    Parameters
    ----------
    *ignored : `type`
        Errors that are none.
    """

    def __init__(self, *ignored: type[BaseException]) -> None:
        self._ignored = ignored
        self._refused: set[str] = set()
        self.count = 0

    def add(self, error: BaseException) -> None:
        """Print an error.

        Raises
        ------
        CredentialError
            The second of a server: it holds for all its names, and the third 401 would block this host.
        """
        if isinstance(error, self._ignored):
            return
        if isinstance(error, CredentialError):
            server = urlsplit(error.url).netloc
            if server in self._refused:
                raise error
            self._refused.add(server)
        self.say(one_line(error))

    def say(self, text: str) -> None:
        """Print what went wrong, on a line of its own."""
        click.echo(f"Error: {text}", err=True)
        self.count += 1

    def __enter__(self) -> Failures:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        """Take an expected error for that of the name at hand."""
        if error is None or not isinstance(error, EXPECTED) or isinstance(error, BrokenPipeError):
            return False
        self.add(error)
        return True

    def end(self) -> None:
        """Exit with status 1 if there was any."""
        if self.count:
            sys.exit(1)


def one_line_errors(function: Callable[..., None]) -> Callable[..., None]:
    """Make errors of files and servers one line and exit status 1.

    Parameters
    ----------
    function : `~collections.abc.Callable`
        Body of a command.

    Returns
    -------
    decorated : `~collections.abc.Callable`
        The same without a traceback.
    """

    @functools.wraps(function)
    def decorated(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except BrokenPipeError:
            _hang_up()
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        except EXPECTED as exc:
            raise click.ClickException(one_line(exc)) from exc

    return decorated


def _hang_up() -> NoReturn:
    """End quietly: whoever read the output, `head` perhaps, has enough."""
    # Nothing may be flushed into it at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def facts(name: str, info: FileInfo) -> dict[str, Any]:
    """Return what is known of a file or directory, for JSON; what is not known is left out.

    Parameters
    ----------
    name : `str`
        Under which it is found again.
    info : `~lsst.daf.butler_dcache.model.FileInfo`
        What is known.
    """
    plain: dict[str, Any] = {
        "name": name,
        "type": info.kind.value,
        "size": 0 if info.is_directory else info.size,
        "modified": shown_time(info.modified),
    }
    if info.checksums:
        plain["checksums"] = dict(info.checksums)
    if info.etag:
        plain["etag"] = info.etag
    if info.locality is not None:
        plain["locality"] = info.locality.value
    return plain
