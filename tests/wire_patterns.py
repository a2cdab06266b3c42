"""Recorded answers as patterns: a name in angle brackets stands for whatever changes from run to run."""

from __future__ import annotations

import hashlib
import json
import re
import xml.etree.ElementTree as ET
from urllib.parse import quote, urlsplit

from wire_client import Answer


class Patterns:
    """What the names in a recording stand for in this run.

    Parameters
    ----------
    door, frontend : `str`
        Where the servers are.
    base : `str`
        The directory that is ``~`` in the recording.
    tape : `str`
        The directory on tape.
    own : `str`
        The client's credential.
    tokens : `list` [`str`]
        Tokens that were given out so far; it may grow.
    """

    def __init__(self, door: str, frontend: str, base: str, tape: str, own: str, tokens: list[str]) -> None:
        self.door, self.frontend, self.base, self.tape = door, frontend, base, tape
        self.own, self.tokens = own, tokens

    def _pattern(self, text: str) -> str:
        """Turn a recorded text into a regular expression."""
        netloc, frontend = (re.escape(urlsplit(url).netloc) for url in (self.door, self.frontend))
        own = re.escape(self.own.split(" ")[1])
        token = "|".join([own, *(re.escape(token) for token in self.tokens)])
        names = {
            "door": rf"(?:https?://)?{netloc}|{re.escape(quote(self.door, safe=''))}",
            "frontend": rf"(?:https?://)?{frontend}",
            "host": r"[\w.\[\]:-]+",
            "pool": r"(?:(?:localhost|127\.0\.0\.1):2\d{4}|pool\d+)",
            "tape": re.escape(self.tape),
            "nearline": re.escape(self.tape),
            "token": token,
            "uuid": r"[0-9a-fA-F-]{36}",
            "boundary": r"[0-9a-f-]{36}",
            "pnfsid": r"[0-9A-F]{36}",
            "id": r"[A-Za-z0-9+/]{8}",
            "channel": r"[\w-]{20,24}",
            "subscription": r"[\w+-]{20,}",
            "date": r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT",
            "instant": r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:?\d\d)",
            "etag": r'"?[^"]*_-?\d+"?',
            "epoch": r"1\d{9}(?:\d{3})?",
            "n": r"[\d.:]+",
            "description": r'[^"]*',
            "version": r"\d[\w.()-]*",
            "length": r"\d+",
            "java": r"(?:null|Cannot invoke .*)",
        }
        pattern = ""
        for piece in re.split(r"(<\w+>|<\d+ x .>|~)", text):
            if piece == "~":
                pattern += f"(?:{re.escape(self.base)}|~)"
            elif repeated := re.fullmatch(r"<(\d+) x (.)>", piece):
                pattern += f"(?:{re.escape(repeated[2])}){{{repeated[1]}}}"
            elif piece[:1] == "<" and piece[1:-1] in names:
                pattern += f"(?:{names[piece[1:-1]]})"
            else:
                pattern += re.escape(piece)
        return pattern

    def matches(self, recorded: object, found: object) -> bool:
        """Tell whether a value is what was recorded, but for what changes from run to run."""
        if isinstance(recorded, str):
            return isinstance(found, str) and bool(re.fullmatch(self._pattern(recorded), found, re.DOTALL))
        if isinstance(recorded, dict):
            return (
                isinstance(found, dict)
                and recorded.keys() == found.keys()
                and all(
                    value == f"<{key}>" or self.matches(value, found[key]) for key, value in recorded.items()
                )
            )
        if isinstance(recorded, list):  # in any order
            if not isinstance(found, list) or len(found) != len(recorded):
                return False
            rest = list(found)
            for value in recorded:
                fit = next((item for item in rest if self.matches(value, item)), None)
                if fit is None:
                    return False
                rest.remove(fit)
            return True
        return recorded == found and type(recorded) is type(found)

    def form(self, recorded: object, answer: Answer) -> object:
        """Bring a body into the form in which the recording has it."""
        body, kind = answer.body, answer.get("content-type").partition(";")[0]
        if not body:
            return ""
        if "xml" in kind:
            return _xml_form(body)
        if "perf-marker" in kind:
            return self._markers(recorded, body.decode())
        if "html" in kind and recorded == "html":
            return "html"
        if isinstance(recorded, dict) and recorded.keys() == {"length", "sha256"}:
            return {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()[:16]}
        try:
            return json.loads(body) if "json" in kind else body.decode()
        except ValueError:
            return f"{len(body)} bytes: {body[:60]!r}"

    def _markers(self, recorded: object, text: str) -> list[str]:
        """Progress blocks and the verdict; blocks that match the same recorded one count once."""
        rows: list[str] = []
        for block in re.split(r"(?<=\nEnd\n)", text):
            block = block.strip("\n")
            known = (
                [row for row in recorded if self.matches(row, block)] if isinstance(recorded, list) else []
            )
            if block and not (known and rows and self.matches(known[0], rows[-1])):
                rows.append(block)
        return rows


def _xml_form(body: bytes) -> object:
    """A multistatus as rows of properties; of other documents the name of the root."""
    try:
        root = ET.fromstring(body)
    except ET.ParseError:
        return "unparsable xml"
    dav = "{DAV:}"
    if root.tag != f"{dav}multistatus":
        return f"xml {root.tag}"
    rows = []
    for response in root.iter(f"{dav}response"):
        properties: dict[str, dict[str, str]] = {}
        for status in response.iter(f"{dav}propstat"):
            code = (status.findtext(f"{dav}status") or "? ?").split()[1]
            for item in status.iterfind(f"{dav}prop/*"):
                name = item.tag.removeprefix(dav)
                value = "/".join(sorted(child.tag.removeprefix(dav) for child in item)) or item.text or ""
                if name.endswith("Checksums"):
                    value = ",".join(sorted(value.split(",")))
                if name in ("creationdate", "getcreated"):
                    value = "2000-01-01T00:00:00Z"  # always some instant, whose form is not compared
                properties.setdefault(code, {})[name] = value
        rows.append({"href": response.findtext(f"{dav}href") or "", "props": properties})
    return {"responses": len(rows)} if len(rows) > 60 else rows
