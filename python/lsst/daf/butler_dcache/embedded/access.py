"""Who asks, and what that one may do.

A login is a `Login`: identity, root, home and the restrictions of a macaroon. A refused login is a 401 whose
reason phrase tells why. Afterwards a missing right is 401 for nobody and 403 for everybody else (protocol
page, sections 1.4 and 1.5).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from dataclasses import dataclass
from typing import Literal

from .caveats import Activity, MacaroonContext, is_below, normal_path
from .entry import Entry
from .exchange import Exchange
from .macaroons import LoginCache, MacaroonMint, MacaroonRefusedError
from .namespace import Namespace

__all__ = [
    "NOBODY",
    "Access",
    "Account",
    "AnonymousPolicy",
    "Login",
    "LoginRefusedError",
    "PermissionDeniedError",
]

AnonymousPolicy = Literal["none", "readonly", "full"]

Login = MacaroonContext
"""Identity and restrictions of whoever asks."""

_READING = frozenset({Activity.LIST, Activity.DOWNLOAD, Activity.READ_METADATA})

NOBODY = Login(-1, (-1,), "nobody")
"""The login of whoever shows no credential."""


class LoginRefusedError(Exception):
    """A login that is refused; the text is the reason phrase of the 401."""


class PermissionDeniedError(Exception):
    """The login is good, the right is missing."""


@dataclass(frozen=True)
class Account:
    """A user with a password.

    Parameters
    ----------
    name, password : `str`
        What Basic authentication asks for.
    uid, gid : `int`
        Identity in the namespace.
    """

    name: str
    password: str
    uid: int
    gid: int

    @property
    def login(self) -> Login:
        """The login of this user, without restrictions."""
        return Login(self.uid, (self.gid,), self.name)


class Access:
    """Logins and rights of one dCache, shared by its doors and frontend.

    Parameters
    ----------
    namespace : `Namespace`
        Holds owners and modes.
    mint : `MacaroonMint`
        Verifies macaroons.
    anonymous : ``"none"``, ``"readonly"`` or ``"full"``
        What whoever shows no credential may do (``webdav.authz.anonymous-operations``).
    """

    def __init__(self, namespace: Namespace, mint: MacaroonMint, anonymous: AnonymousPolicy = "none") -> None:
        self.namespace = namespace
        self.mint = mint
        self.anonymous = anonymous
        self.accounts: dict[str, Account] = {}
        for number, name in enumerate(("alice", "bob")):
            self.accounts[name] = Account(name, secrets.token_urlsafe(18), 1000 + number, 1000 + number)
        self._logins = LoginCache(mint)

    # ---- who
    def login(self, exchange: Exchange, *, anonymous: AnonymousPolicy | None = None) -> Login:
        """Return who asks.

        Parameters
        ----------
        exchange : `Exchange`
            The request; ``Authorization`` and ``authz`` are looked at.
        anonymous : ``"none"``, ``"readonly"`` or ``"full"``, optional
            Policy of this server, if it differs.

        Raises
        ------
        LoginRefusedError
            Raised with dCache's reason phrase.
        """
        scheme, _, credential = exchange.headers.get("authorization").partition(" ")
        bearers = {credential.strip()} if scheme.lower() == "bearer" else set()
        if bearers and not exchange.secure:
            raise LoginRefusedError("not allowed to send bearer token unencrypted")
        query = exchange.parameter("authz")
        if query is not None:
            if not exchange.secure:
                raise LoginRefusedError("not allowed to send pre-authorized URL unencrypted")
            bearers.add(query)
        if len(bearers) > 1:
            raise LoginRefusedError("login failed")
        if bearers:
            try:
                return self._logins.login(bearers.pop(), exchange.connection.peer)
            except MacaroonRefusedError as exc:
                raise LoginRefusedError(str(exc)) from exc
        if scheme.lower() == "basic":
            return self._basic(credential)
        if scheme or (anonymous or self.anonymous) == "none":
            raise LoginRefusedError("login failed")
        return NOBODY

    def _basic(self, credential: str) -> Login:
        try:
            name, _, password = base64.b64decode(credential, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as exc:
            raise LoginRefusedError("login failed") from exc
        account = self.accounts.get(name.partition("#")[0])  # user#role1,role2 asks for roles
        if account is None or not hmac.compare_digest(account.password.encode(), password.encode()):
            raise LoginRefusedError("login failed")
        return account.login

    # ---- what
    @staticmethod
    def real_path(login: Login, path: str) -> str:
        """Return the namespace path of a path as the user sees it."""
        return normal_path(login.root + normal_path(path))

    @staticmethod
    def shown_path(login: Login, path: str) -> str:
        """Return how the user sees a namespace path."""
        return path if login.root == "/" else path[len(login.root) :] or "/"

    def allows(self, login: Login, activity: Activity, path: str) -> bool:
        """Whether restrictions permit an activity on a path as the user sees it, whatever the owner and mode
        say.

        Ancestors of the path of a macaroon stay visible, and so do all their entries, since a listing asks
        for the right on the directory alone (protocol page, section 6.5).
        """
        if login is NOBODY and self.anonymous != "full" and activity not in _READING:
            return False
        if login.activities is not None and activity not in login.activities:
            return False
        if login.path is None:
            return True
        place = normal_path(path)
        if is_below(place, login.path):
            return True
        return activity in (Activity.LIST, Activity.READ_METADATA) and is_below(login.path, place)

    def require(self, login: Login, activity: Activity, path: str) -> None:
        """Raise `PermissionDeniedError` unless restrictions permit an activity on a path of the user."""
        if not self.allows(login, activity, path):
            raise PermissionDeniedError(f"{activity} on {path}")

    def require_mode(self, login: Login, entry: Entry | None, right: int) -> None:
        """Raise `PermissionDeniedError` unless owner and mode grant a right (4 read, 2 write, 1 enter)."""
        if entry is not None and not entry.permits(login.uid, login.gids, right):
            raise PermissionDeniedError(entry.path)

    def require_passage(self, login: Login, path: str) -> None:
        """Raise `PermissionDeniedError` unless every directory above a namespace path may be entered."""
        entry = self.namespace.find(path)
        at = entry.parent if entry is not None else self.namespace.parent_of(path)
        while at is not None:
            if at.is_directory:
                self.require_mode(login, at, 1)
            at = at.parent
