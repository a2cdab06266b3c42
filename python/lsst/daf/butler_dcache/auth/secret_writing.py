"""Writing secrets to files that nobody else may read, in one step."""

from __future__ import annotations

import contextlib
import os
import secrets

__all__ = ("write_secret",)


def write_secret(path: str, text: str) -> None:
    """Write a text into a file of mode 0600; whoever reads it meanwhile finds the old text or the new one.

    Parameters
    ----------
    path : `str`
        The file; it is replaced if it exists.
    text : `str`
        Its contents.

    Raises
    ------
    OSError
        If it cannot be written; then nothing is left behind.
    """
    temporary = f"{path}.{secrets.token_hex(8)}"
    # Never readable by others, not even for a moment, and never somebody's link.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
