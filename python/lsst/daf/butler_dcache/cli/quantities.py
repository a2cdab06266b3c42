"""Sizes and times, as people type them and as they are printed."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import click

__all__ = ("duration", "human", "moment", "seconds", "shown_time", "size_range", "time_of_change")

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_ISO = re.compile(r"P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?", re.IGNORECASE)
_BYTES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4, "P": 1024**5}


def seconds(text: str) -> float:
    """Return the seconds of a text such as ``90m``, ``7d`` or, as ISO 8601 has it, ``PT12H``.

    Without a unit it is seconds.
    """
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text):
        return float(found[1]) * _SECONDS[found[2] or "s"]
    if (found := _ISO.fullmatch(text)) and any(found.groups()):
        return sum(
            int(number or 0) * _SECONDS[unit] for number, unit in zip(found.groups(), "wdhms", strict=True)
        )
    raise ValueError(f"{text!r} is not a duration such as 90m, 7d or PT12H")


def moment(text: str) -> datetime:
    """Return a moment given in ISO 8601, in UTC if it says nothing else, or by how long it is ago."""
    try:
        return datetime.now(UTC) - timedelta(seconds=seconds(text))
    except ValueError:
        pass
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither a duration such as 90m or 7d nor a date such as 2026-11-24"
        ) from None
    return given if given.tzinfo is not None else given.replace(tzinfo=UTC)


def size(text: str) -> int:
    """Return the bytes of a text such as ``10``, ``64k`` or ``1.5GiB``, in powers of 1024."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)(?:I?B)?", text.upper())
    if found is None:
        raise ValueError(f"{text!r} is not a size such as 10, 64k or 1.5G")
    return int(float(found[1]) * _BYTES[found[2]])


def size_test(text: str) -> Callable[[int], bool]:
    """Return what ``+N`` (more than), ``-N`` (less than) or ``N`` (exactly) says of a size."""
    limit = size(text.lstrip("+-") if text[:1] in "+-" else text)
    if text.startswith("+"):
        return lambda value: value > limit
    if text.startswith("-"):
        return lambda value: value < limit
    return lambda value: value == limit


class _Parsed(click.ParamType):  # type: ignore[type-arg]
    """An option whose value one of the functions above understands."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except (ValueError, OverflowError) as error:
            self.fail(str(error), param, ctx)


duration = _Parsed("duration", seconds)
time_of_change = _Parsed("duration or date", moment)
size_range = _Parsed("size", size_test)


def human(count: float) -> str:
    """Return a number of bytes as people read it: ``11``, ``2.3K``, ``17M``."""
    unit = ""
    for unit in _BYTES:
        if count < 1024 or unit == "P":
            break
        count /= 1024
    if not unit:
        return f"{count:.0f}"
    return f"{count:.1f}{unit}" if count < 9.95 else f"{count:.0f}{unit}"


def shown_time(value: datetime | None) -> str | None:
    """Return a time in ISO 8601, in UTC and to the second."""
    return (
        None if value is None else value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    )
