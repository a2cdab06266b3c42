"""Switches that are read from the environment when the package is imported, before any endpoint is known."""

from __future__ import annotations

import os

__all__ = ("registration_wanted",)

_REGISTER = "DAF_BUTLER_DCACHE_REGISTER"
_NO = ("no", "false", "off", "0")


def registration_wanted() -> bool:
    """Return whether importing the package claims the schemes of `lsst.resources`.

    Returns
    -------
    wanted : `bool`
        `False` if ``DAF_BUTLER_DCACHE_REGISTER`` is ``no``, ``false``, ``off`` or ``0``.
    """
    return os.environ.get(_REGISTER, "").strip().lower() not in _NO
