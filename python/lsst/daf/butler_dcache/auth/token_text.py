"""Texts that hold a token: as it is, or in a file that another tool wrote.

``rclone`` keeps it in an INI file, a section for each of its remotes; SURF's ``get-macaroon`` writes such
files and dCache's ``ada`` reads them, with sections or without, or takes the first line for the token. curl
reads it from a header, in a file of headers or of options.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

__all__ = ("UnusableTextError", "token_in")

_HEADER = re.compile(
    r"""(?:(?:-H|--header|header)[\s=:]*)?["']?authorization:\s*bearer\s+([^\s"']+)["']?""", re.IGNORECASE
)
_SETTING = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_COMMENT = ("#", ";")


class UnusableTextError(ValueError):
    """A text holds no token, or more than one; what is said of it quotes nothing."""


def token_in(text: str, host: str = "") -> str:
    """Return the token that a text holds.

    Parameters
    ----------
    text : `str`
        Contents of a file.
    host : `str`, optional
        Host that it is for: what a file of ``rclone`` says of others is passed over.

    Returns
    -------
    token : `str`
        The token, not yet judged.

    Raises
    ------
    UnusableTextError
        If there is none, or if there are several.
    """
    lines = [line.strip() for line in text.splitlines()]
    if len(lines) == 1 and lines[0] and " " not in lines[0] and "=" not in lines[0].rstrip("="):
        return lines[0]
    meaningful = [line for line in lines if line and not line.startswith(_COMMENT)]
    headers = {found[1] for line in meaningful if (found := _HEADER.fullmatch(line))}
    if headers:
        return _only(headers, "several lines with a header Authorization")
    if any(line.startswith("[") or _SETTING.fullmatch(line) for line in meaningful):
        return _from_settings(meaningful, host)
    return _only(set(meaningful), "more than one line")


def _from_settings(lines: list[str], host: str) -> str:
    """Read what rclone would, a section after the other."""
    sections: list[dict[str, str]] = [{}]
    for line in lines:
        if line.startswith("["):
            sections.append({})
        elif found := _SETTING.fullmatch(line):
            sections[-1][found[1].lower()] = found[2].strip()
    holders = [section for section in sections if section.get("bearer_token")]
    if not holders:
        if any("bearer_token_command" in section for section in sections):
            raise UnusableTextError("names a bearer_token_command: give it as token_command here")
        raise UnusableTextError("holds no line bearer_token = ...")
    fitting = [section for section in holders if not host or _host(section) in ("", host.lower())]
    if not fitting:
        others = ", ".join(sorted({_host(section) for section in holders}))
        raise UnusableTextError(f"holds a token for {others[:200]} and none for {host}")
    return _only({section["bearer_token"] for section in fitting}, "several lines bearer_token for this host")


def _host(section: dict[str, str]) -> str:
    try:
        return (urlsplit(section.get("url", "")).hostname or "").lower()
    except ValueError:
        return "a malformed URL"


def _only(tokens: set[str], otherwise: str) -> str:
    if len(tokens) != 1:
        raise UnusableTextError(f"holds {otherwise}" if tokens else "holds no token")
    return tokens.pop()
