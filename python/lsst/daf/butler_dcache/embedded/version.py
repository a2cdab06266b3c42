"""Which release of dCache is imitated, and what that changes (protocol page, section 10.2)."""

from __future__ import annotations

import re

__all__ = ["Version"]

_NEWEST = {"10.2": "10.2.25", "11.0": "11.0.15", "11.1": "11.1.10", "11.2": "11.2.4", "12.0": "12.0.1"}


class Version:
    """A release, with the differences that a client can notice.

    Parameters
    ----------
    text : `str`
        Such as ``"11.2.4"``; ``"11.2"`` stands for a late release of that line.
    """

    def __init__(self, text: str) -> None:
        text = _NEWEST.get(text, text)
        if not re.fullmatch(r"\d+\.\d+\.\d+(-SNAPSHOT)?", text):
            raise ValueError(f"not a dCache version: {text!r}")
        self.text = text
        self._numbers = self._parse(text)

    @staticmethod
    def _parse(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in text.split("-")[0].split("."))

    def has(self, first: str, *backports: str) -> bool:
        """Whether a change is in: made in ``first``, and in ``backports`` of older lines."""
        if self._numbers >= self._parse(first):
            return True
        return any(
            self._numbers[:2] == self._parse(tag)[:2] and self._numbers >= self._parse(tag)
            for tag in backports
        )

    @property
    def limits_rates(self) -> bool:
        """Whether doors and frontend have a rate limiter."""
        return self.has("11.2.0")

    @property
    def sends_retry_after(self) -> bool:
        """Whether a 429 names the seconds to wait."""
        return self.has("12.0.0")

    @property
    def knows_rfc9530(self) -> bool:
        """Whether ``Want-Repr-Digest`` is understood (with the slips of the protocol page, section 3.6)."""
        return self.has("12.0.0")

    @property
    def answers_options_itself(self) -> bool:
        """Whether every OPTIONS is answered before authentication."""
        return self.has("12.0.0")

    @property
    def ends_mover_on_range_close(self) -> bool:
        """Whether a range GET with ``Connection: close`` counts as the end of a use."""
        return self.has("11.1.0", "10.2.13", "11.0.2")

    @property
    def forbids_move(self) -> bool:
        """Whether a MOVE without permission is 403 rather than 500."""
        return self.has("11.2.0", "10.2.20", "11.0.9", "11.1.4")

    @property
    def honours_mtime(self) -> bool:
        """Whether ``X-OC-Mtime`` has an effect."""
        return self.has("11.1.0", "9.2.39", "10.2.14", "11.0.3")

    @property
    def knows_exceeded_quota(self) -> bool:
        """Whether an exceeded quota is 507 rather than 500."""
        return self.has("11.1.0", "9.2.40", "10.2.15", "11.0.4")

    @property
    def writes_defaults_in_lists(self) -> bool:
        """Whether lists that REST answers with contain null, 0 and false."""
        return self.has("11.1.0")

    @property
    def completes_third_party_copies(self) -> bool:
        """Whether a third-party copy comes to a verdict: in 12.0.1 there are markers only."""
        return self._numbers != (12, 0, 1)

    @property
    def pool_idle_seconds(self) -> float | None:
        """Idle limit of a pool's connections."""
        return None if self.has("10.0.0") else 300.0

    @property
    def ends_mover_after_full_read(self) -> bool:
        """Whether a full GET ends a use, and a dead pool URL leads back to the door."""
        return self.has("8.2.0")
