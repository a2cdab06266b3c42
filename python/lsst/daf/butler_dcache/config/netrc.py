"""Accounts in a ``netrc`` file, as curl reads it.

Words are divided by white space, and may be quoted with backslashes for escapes. ``machine`` begins the entry
of a host, ``macdef`` a text up to an empty line; a line that begins with ``#`` is a comment. The entry
``default``, which is for every host, is not used: a password goes to the host that it was written down for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ("account_in",)

_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_ESCAPE = re.compile(r"\\(.)")
_VALUES = ("login", "password", "account")


def account_in(text: str, host: str) -> tuple[str, str] | None:
    """Return the account of a host.

    Parameters
    ----------
    text : `str`
        Contents of the file.
    host : `str`
        Name of the host, in lower case.

    Returns
    -------
    account : `tuple` [`str`, `str`] or `None`
        Name and password of the first entry for this host that has both, `None` if there is none.
    """
    words = _words(text)
    entry: dict[str, str] | None = None
    for word in words:
        if word in ("machine", "default"):
            if entry is not None and {"login", "password"} <= entry.keys():
                break
            named = next(words, "") if word == "machine" else ""
            entry = {} if named.lower() == host else None
        elif word in _VALUES:
            value = next(words, None)
            if entry is not None and value is not None:
                entry.setdefault(word, value)
    if entry is None or not {"login", "password"} <= entry.keys():
        return None
    return entry["login"], entry["password"]


def _words(text: str) -> Iterator[str]:
    lines = iter(text.splitlines())
    for line in lines:
        if line.lstrip().startswith("#"):
            continue
        for found in _WORD.finditer(line):
            if found[2] == "macdef":
                while next(lines, "").strip():
                    pass
                break
            yield found[2] if found[1] is None else _ESCAPE.sub(r"\1", found[1])
