"""JSON web tokens: what they say of themselves. Whether it is true is for the server to judge.

A token (RFC 7519) is three parts of base64 for URLs, joined by dots: a header, the claims, a signature. The
header is a JSON object, so that its text begins with ``eyJ``; a token that begins so and is not whole is
damaged, and no server is to be asked about it, since each refusal counts towards the block of the host
(protocol page, section 1.2).
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..errors import DcacheError, hides_locals

__all__ = ("ANY_AUDIENCE", "DamagedTokenError", "JsonWebToken", "looks_like_json_web_token")

ANY_AUDIENCE = "https://wlcg.cern.ch/jwt/v1/any"
"""Audience of a token that is meant for every server (WLCG Common JWT Profile)."""

_MAX_LENGTH = 64 * 1024


class DamagedTokenError(DcacheError, ValueError):
    """A token is cut off or garbled."""


@dataclass(frozen=True)
class JsonWebToken:
    """The claims of a token that matter to whoever holds it.

    Parameters
    ----------
    issuer, subject : `str` or `None`
        Who made it, for whom.
    audience : `tuple` [`str`, ...]
        Servers that it is meant for; empty if it does not say.
    scopes : `tuple` [`str`, ...]
        What it allows.
    groups : `tuple` [`str`, ...]
        Groups of the holder (``wlcg.groups``).
    expires, not_before : `datetime.datetime` or `None`
        When its life ends and begins, with time zone.
    """

    issuer: str | None
    subject: str | None
    audience: tuple[str, ...]
    scopes: tuple[str, ...]
    groups: tuple[str, ...]
    expires: datetime | None
    not_before: datetime | None

    @classmethod
    @hides_locals
    def parse(cls, token: str) -> JsonWebToken:
        """Read the claims of a token.

        Parameters
        ----------
        token : `str`
            Three parts in base64 for URLs.

        Returns
        -------
        claims : `JsonWebToken`
            What it says; nothing of that is verified.

        Raises
        ------
        DamagedTokenError
            If it is none, or not whole.
        """
        if len(token) > _MAX_LENGTH:
            raise DamagedTokenError(f"the JSON web token is longer than {_MAX_LENGTH} characters")
        parts = token.split(".")
        if len(parts) != 3:
            raise DamagedTokenError(f"the JSON web token has {len(parts)} of its 3 parts")
        if "alg" not in _object(parts[0], "header"):
            raise DamagedTokenError("the header of the JSON web token names no algorithm")
        claims = _object(parts[1], "claims")
        audience = claims.get("aud")
        scope, groups = claims.get("scope"), claims.get("wlcg.groups")
        return cls(
            issuer=_text(claims.get("iss")),
            subject=_text(claims.get("sub")),
            audience=tuple(
                str(item) for item in (audience if isinstance(audience, list) else [audience]) if item
            ),
            scopes=tuple(scope.split() if isinstance(scope, str) else ()),
            groups=tuple(str(item) for item in groups) if isinstance(groups, list) else (),
            expires=_moment(claims, "exp"),
            not_before=_moment(claims, "nbf"),
        )

    def is_meant_for(self, audience: tuple[str, ...]) -> bool:
        """Tell whether one of some servers is meant; one that names nobody is for all.

        Parameters
        ----------
        audience : `tuple` [`str`, ...]
            Names that the server goes by.

        Returns
        -------
        meant : `bool`
            Whether it is.
        """
        return not self.audience or not {ANY_AUDIENCE, *audience}.isdisjoint(self.audience)


def looks_like_json_web_token(token: str) -> bool:
    """Tell whether a token begins as every JSON web token does, be it whole or not.

    Parameters
    ----------
    token : `str`
        Any token.

    Returns
    -------
    looks : `bool`
        `False` for an encrypted one of five parts as well: nobody but its server can read it.
    """
    return token.startswith("eyJ") and token.count(".", 0, _MAX_LENGTH) != 4


def _object(part: str, name: str) -> dict[str, Any]:
    try:
        raw = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        value = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        raise DamagedTokenError(f"the {name} of the JSON web token cannot be read") from None
    if not isinstance(value, dict):
        raise DamagedTokenError(f"the {name} of the JSON web token is no JSON object")
    return value


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _moment(claims: dict[str, Any], name: str) -> datetime | None:
    value = claims.get(name)
    if value is None:
        return None
    # RFC 7519, section 2: a number of seconds. A server that reads it otherwise refuses the token.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DamagedTokenError(f"the claim {name} of the JSON web token is no time")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise DamagedTokenError(f"the claim {name} of the JSON web token is out of range") from None
