"""Programs that are compared: run to their end, within the time that is left."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from ...redaction import redact_text

__all__ = ("ProgramFailedError", "run_program")


class ProgramFailedError(Exception):
    """A program did not do its work; the text says what it said."""


def run_program(
    command: Sequence[str], *, deadline_seconds: float = 0.0, environment: Mapping[str, str] | None = None
) -> str:
    """Run a program, and return what it wrote to its standard output.

    Parameters
    ----------
    command : `~collections.abc.Sequence` [`str`]
        Program and arguments; no secrets.
    deadline_seconds : `float`, optional
        It is killed then; 0: it may take as long as it wants.
    environment : `~collections.abc.Mapping`, optional
        All its variables; ours if there are none.

    Returns
    -------
    output : `str`
        Its output.

    Raises
    ------
    ProgramFailedError
        If it ended with an error or did not end; with the last line of its standard error, redacted.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=environment,
            timeout=deadline_seconds or None,
        )
    except subprocess.TimeoutExpired:
        raise ProgramFailedError(f"{command[0]} was not done after {deadline_seconds:g} s") from None
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ProgramFailedError(
            f"{command[0]} ended with status {done.returncode}: {redact_text(words[-1])}"
        )
    return done.stdout
