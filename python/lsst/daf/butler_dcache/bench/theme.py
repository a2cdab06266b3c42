"""Colours of a report: one for each client, the same in every plot and table, on light and on dark paper."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

__all__ = (
    "DOOR",
    "GRID",
    "INK",
    "MARKERS",
    "MUTED",
    "PAPER",
    "PHASES",
    "POOL",
    "client_colours",
    "style_sheet",
    "themed",
)

# Name of the CSS variable: colour on light paper, colour on dark paper. Each stands out by at least 4.5:1.
_PALETTE = {
    "paper": ("#ffffff", "#14191f"),
    "ink": ("#17212b", "#e4eaf0"),
    "muted": ("#56626e", "#9aa7b4"),
    "grid": ("#dbe1e7", "#313b46"),
    "blue": ("#0a58ca", "#6cb2ff"),
    "teal": ("#0b7285", "#4cc9dc"),
    "indigo": ("#5f3dc4", "#b197fc"),
    "sky": ("#1971a6", "#8fd0ff"),
    "orange": ("#b84a00", "#ffa45c"),
    "red": ("#c1121f", "#ff8787"),
    "pink": ("#a61e6d", "#f494c8"),
    "green": ("#267332", "#74d680"),
    "olive": ("#6b6a00", "#cfcb4a"),
    "brown": ("#7d4b32", "#d9a78b"),
    "purple": ("#8a2fb0", "#da9ff2"),
    "slate": ("#4d5966", "#b3bfcb"),
    "coal": ("#33312e", "#d9d4cc"),
    "sand": ("#8a5a00", "#e8b84a"),
    "door": ("#1d4e89", "#5b9bd5"),
    "pool": ("#7fb2e5", "#2c5d8f"),
    "phase-queue": ("#5b5565", "#8f8799"),
    "phase-turn": ("#b0a8b9", "#6f6779"),
    "phase-name": ("#8e7cc3", "#a593da"),
    "phase-tcp": ("#3d85a8", "#58a6cb"),
    "phase-tls": ("#2a9d8f", "#3fbfae"),
    "phase-door": ("#1d4e8a", "#5b9bd6"),
    "phase-mover": ("#d1495b", "#e5697a"),
    "phase-first_byte": ("#edae49", "#f2bf6c"),
    "phase-transfer": ("#9fb8a0", "#6f9071"),
    "phase-commit": ("#6a4c93", "#9a7cc4"),
    "phase-publish": ("#a05c34", "#c9825a"),
    "phase-rest": ("#c3cad1", "#4a5561"),
}
INK, MUTED, GRID, PAPER = (_PALETTE[name][0] for name in ("ink", "muted", "grid", "paper"))
DOOR, POOL = _PALETTE["door"][0], _PALETTE["pool"][0]

PHASES = {
    name.removeprefix("phase-"): colours[0] for name, colours in _PALETTE.items() if name.startswith("phase-")
}
"""Colour of each phase of a request; ``rest`` is the client itself."""

# This package is blue, lsst.resources without it red, whatever the level.
_CLIENTS = {
    "ours": "blue",
    "path": "teal",
    "butler-ours": "indigo",
    "crowd-ours": "blue",
    "plane": "sky",
    "upstream": "red",
    "crowd-upstream": "red",
    "butler-upstream": "pink",
    "upstream-http": "brown",
    "curl": "orange",
    "curl-move": "sand",
    "webdavclient3": "green",
    "webdav4": "olive",
    "fsspec-http": "purple",
    "dcachefs": "sand",
    "rclone": "slate",
    "davix": "pink",
    "gfal2": "coal",
    "xrdcp": "indigo",
    "nothing": "muted",
    "boto3": "orange",
    "awscrt": "sand",
    "s3fs": "purple",
    "obstore": "green",
}
_OTHERS = ("green", "olive", "purple", "slate", "brown", "sand", "pink", "orange")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "h")
"""A second way to tell clients apart; the number of a client in the document says which."""


def client_colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each client: always the same for those that are known.

    Parameters
    ----------
    names : `~collections.abc.Sequence` [`str`]
        All clients of a document.

    Returns
    -------
    colours : `dict` [`str`, `str`]
        As on light paper.
    """
    return {
        name: _PALETTE[_CLIENTS.get(name) or _OTHERS[zlib.crc32(name.encode()) % len(_OTHERS)]][0]
        for name in names
    }


def themed(svg: str) -> str:
    """Let a drawing follow the paper: its colours become variables of the page.

    Parameters
    ----------
    svg : `str`
        In the colours of light paper; one colour alone will do.

    Returns
    -------
    svg : `str`
        In those of the page.
    """
    names = {light: name for name, (light, _) in _PALETTE.items()}
    return re.sub(
        r"#[0-9a-f]{6}\b",
        lambda found: f"var(--{names[found.group()]})" if found.group() in names else found.group(),
        svg,
    )


def style_sheet() -> str:
    """Return the variables of the page: light, dark where the reader wants it, light on paper."""
    light = ";".join(f"--{name}:{colours[0]}" for name, colours in _PALETTE.items())
    dark = ";".join(f"--{name}:{colours[1]}" for name, colours in _PALETTE.items())
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
    )
