"""ISO-8601 durations as Java reads them: the form of a macaroon's validity and of a pin's lifetime."""

import re

__all__ = ["format_duration", "parse_duration"]

_DURATION = re.compile(
    r"(?P<sign>[-+]?)P(?:(?P<days>[-+]?\d+)D)?"
    r"(?P<time>T(?:(?P<hours>[-+]?\d+)H)?(?:(?P<minutes>[-+]?\d+)M)?(?:(?P<seconds>[-+]?\d+(?:[.,]\d{0,9})?)S)?)?",
    re.IGNORECASE,
)


def parse_duration(text: str) -> float:
    """Read a duration such as ``PT10M`` or ``P2D``.

    Parameters
    ----------
    text : `str`
        Days, hours, minutes and seconds; years, months and weeks are no
        durations to Java.

    Returns
    -------
    seconds : `float`
        The length; negative when the text says so.

    Raises
    ------
    ValueError
        If the text is no such duration.
    """
    match = _DURATION.fullmatch(text)
    parts = match.groupdict() if match else {}
    units = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
    given = {unit: parts[unit] for unit in units if parts.get(unit)}
    if not given or (parts["time"] or "").upper() == "T":
        raise ValueError("Text cannot be parsed to a Duration")
    seconds = sum(float(value.replace(",", ".")) * units[unit] for unit, value in given.items())
    return -seconds if parts["sign"] == "-" else seconds


def format_duration(seconds: float) -> str:
    """Write whole seconds as ``Duration.toString`` does, hours first.

    Parameters
    ----------
    seconds : `float`
        The length.

    Returns
    -------
    text : `str`
        For a week ``PT168H``.
    """
    hours, rest = divmod(int(seconds), 3600)
    minutes, left = divmod(rest, 60)
    text = "".join(f"{value}{unit}" for value, unit in ((hours, "H"), (minutes, "M"), (left, "S")) if value)
    return "PT" + (text or "0S")
