"""The right to one file for somebody else: a URL, and what has to be shown there."""

from __future__ import annotations

from dataclasses import dataclass

from ..redaction import Secret
from .credential import Credential

__all__ = ("Grant",)


@dataclass(frozen=True)
class Grant:
    """What another server needs to read, or to write, one file.

    Parameters
    ----------
    place : `str` or `~..redaction.Secret`
        An ``https`` or ``http`` URL; one that is signed is a capability, and a secret.
    credential : `Credential` or `None`
        What is to be shown there; `None` where the URL says it all.
    """

    place: str | Secret
    credential: Credential | None = None

    @property
    def url(self) -> str:
        """The URL in the clear, for the request that hands it over."""
        return self.place if isinstance(self.place, str) else self.place.reveal()

    @property
    def is_encrypted(self) -> bool:
        """Whether the file is reached over TLS."""
        return self.url.startswith("https:")
