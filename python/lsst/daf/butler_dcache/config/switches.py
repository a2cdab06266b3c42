"""Switches that are read from the environment when the package is imported, before any endpoint is known."""

from __future__ import annotations

import os

__all__ = ("DEFAULT_PROFILE", "registration_wanted", "s3_profiles_wanted")

_REGISTER = "DAF_BUTLER_DCACHE_REGISTER"
_S3 = "DAF_BUTLER_DCACHE_S3"
_NO = ("no", "false", "off", "0", "none")
_ALL = ("", "all", "yes", "true", "on", "1")

DEFAULT_PROFILE = "default"
"""How the list of profiles names the URLs that have none."""


def registration_wanted() -> bool:
    """Return whether importing the package claims the schemes of `lsst.resources`.

    Returns
    -------
    wanted : `bool`
        `False` if ``DAF_BUTLER_DCACHE_REGISTER`` is ``no``, ``false``, ``off``, ``none`` or ``0``.
    """
    return os.environ.get(_REGISTER, "").strip().lower() not in _NO


def s3_profiles_wanted() -> frozenset[str] | None:
    """Return for which profiles a registration claims ``s3://``.

    Returns
    -------
    profiles : `frozenset` [`str`] or `None`
        The names that ``DAF_BUTLER_DCACHE_S3`` lists, separated by commas, among them ``default`` for URLs
        without a profile; none for ``none``, and `None` if all are claimed, which is the default.
    """
    text = os.environ.get(_S3, "").strip()
    if text.lower() in _ALL:
        return None
    if text.lower() in _NO:
        return frozenset()
    return frozenset(name for part in text.split(",") if (name := part.strip()))
