"""One mapping of a configuration file, taken key by key."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ConfigurationError, CredentialConfigurationError
from .settings import Origin, origin_of

__all__ = ("Entry",)


class Entry:
    """Keys and values of a mapping; what is left over when all known keys are taken is unknown.

    Parameters
    ----------
    path : `str`
        The file, for messages.
    where : `str`
        Which entry of it, likewise.
    item : `~collections.abc.Mapping`
        The keys and values.
    """

    def __init__(self, path: str, where: str, item: Mapping[Any, Any]) -> None:
        self.path = path
        self.where = where
        self.prefix = ""
        self.values: dict[str, Any] = {str(key): value for key, value in item.items()}
        self.found: dict[str, Any] = {}
        """What is to become of it: names and values of settings."""

    def below(self, key: str, values: Any) -> Entry:
        """Return the mapping that is the value of a key.

        Parameters
        ----------
        key : `str`
            The key, for messages.
        values : `object`
            Its value.

        Returns
        -------
        entry : `Entry`
            The mapping.

        Raises
        ------
        ConfigurationError
            If the value is something else.
        """
        if not isinstance(values, Mapping):
            raise self.error(key, "must be a mapping of keys to values")
        entry = Entry(self.path, self.where, values)
        entry.prefix = f"{self.prefix}{key}: "
        return entry

    def end(self) -> None:
        """Raise `ConfigurationError` if a key is left over."""
        for key in sorted(self.values):
            raise self.error(key, "is unknown")

    def error(self, key: str, text: str) -> ConfigurationError:
        """Return an error that names file, entry and key.

        Parameters
        ----------
        key : `str`
            The key.
        text : `str`
            What is wrong with it.

        Returns
        -------
        error : `~..errors.ConfigurationError`
            To be raised.
        """
        return ConfigurationError(f"{self.where}: key {self.prefix}{key} {text}")

    def credential_error(self, key: str, text: str) -> CredentialConfigurationError:
        """Return the same as an error of a credential.

        Parameters
        ----------
        key : `str`
            The key.
        text : `str`
            What is wrong with it.

        Returns
        -------
        error : `~..errors.CredentialConfigurationError`
            To be raised.
        """
        return CredentialConfigurationError(
            self.error(key, text).message, hint="nothing was sent; correct the configuration"
        )

    def put(self, name: str, value: Any) -> None:
        """Set a setting, unless the value is `None`.

        Parameters
        ----------
        name : `str`
            Name of the setting.
        value : `object`
            Its value.
        """
        if value is not None:
            self.found[name] = value

    def text(self, key: str) -> str | None:
        """Take a text and expand its environment variables.

        Parameters
        ----------
        key : `str`
            The key.

        Returns
        -------
        text : `str` or `None`
            `None` if the key is not there.

        Raises
        ------
        ConfigurationError
            If it is no text, or empty.
        """
        value = self.values.pop(key, None)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.error(key, "must be a text")
        value = os.path.expandvars(value)
        if not value:
            raise self.error(key, "is empty")
        return value

    def file(self, key: str) -> str | None:
        """Take the path of a file, which may begin with ``~``.

        Parameters
        ----------
        key : `str`
            The key.

        Returns
        -------
        path : `str` or `None`
            `None` if the key is not there.

        Raises
        ------
        ConfigurationError
            If it is no text, or empty.
        """
        value = self.text(key)
        return value and os.path.expanduser(value)

    def origin(self, key: str, url: str) -> Origin:
        """Return scheme, host and port of a URL that stands under a key.

        Parameters
        ----------
        key : `str`
            The key, for messages.
        url : `str`
            The URL.

        Returns
        -------
        origin : `tuple` [`str`, `str`, `int`]
            As `~.settings.origin_of`.

        Raises
        ------
        ConfigurationError
            If it is no URL of a door.
        """
        try:
            return origin_of(url)
        except ConfigurationError as exc:
            raise self.error(key, f"is not usable: {exc.message}") from exc

    def number(
        self, key: str, name: str, kind: Callable[[Any], float], *, factor: int = 1, smallest: float = 0
    ) -> None:
        """Take a number.

        Parameters
        ----------
        key : `str`
            The key.
        name : `str`
            Name of the setting.
        kind : `~collections.abc.Callable`
            `int` or `float`.
        factor : `int`, optional
            Unit of the key in units of the setting.
        smallest : `float`, optional
            Least value.

        Raises
        ------
        ConfigurationError
            If it is no number, or too small.
        """
        value = self.values.pop(key, None)
        if value is None:
            return
        try:
            number = kind(value)
        except (TypeError, ValueError):
            raise self.error(key, "must be a number") from None
        if not smallest <= number < float("inf"):
            raise self.error(key, f"must be at least {smallest:g}")
        self.found[name] = number * factor

    def flag(self, key: str, name: str) -> None:
        """Take a truth value.

        Parameters
        ----------
        key : `str`
            The key.
        name : `str`
            Name of the setting.

        Raises
        ------
        ConfigurationError
            If it is something else.
        """
        value = self.values.pop(key, None)
        if value is None:
            return
        if not isinstance(value, bool):
            raise self.error(key, "must be true or false")
        self.found[name] = value

    def choice(self, key: str, choices: tuple[str, ...], name: str = "") -> None:
        """Take one of some words.

        Parameters
        ----------
        key : `str`
            The key.
        choices : `tuple` [`str`, ...]
            The words.
        name : `str`, optional
            Name of the setting, if it is not that of the key.

        Raises
        ------
        ConfigurationError
            If it is another word.
        """
        value = self.text(key)
        if value is not None and value not in choices:
            raise self.error(key, f"must be one of {', '.join(choices)}")
        self.put(name or key, value)
