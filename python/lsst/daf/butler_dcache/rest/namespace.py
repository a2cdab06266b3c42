"""Names, as the REST frontend of dCache treats them (protocol page, sections 7.2 to 7.4).

Two of its operations are better than the door's: ``mv`` replaces a file in one step, never a directory, and
is without effect when source and target are one; DELETE is not recursive.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import ResourceExistsError, ResourceIsDirectoryError
from ..transport.control import Answer
from ..transport.deadline import Deadline
from .api import Api, document_of, namespace_path

__all__ = ("Namespace",)


class Namespace:
    """The ``/api/v1/namespace`` resource of a frontend.

    Parameters
    ----------
    api : `Api`
        The frontend's ``/api/v1``.
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    def move(self, source: str, target: str, *, operation: str, deadline: Deadline) -> None:
        """Rename a file and replace what has the target's name, in one step.

        Parameters
        ----------
        source, target : `str`
            URLs of the door.
        operation : `str`
            For messages.
        deadline : `Deadline`
            When to give up.

        Raises
        ------
        ResourceIsDirectoryError
            Raised if a directory has the target's name.
        ResourceNotFoundError
            Raised if there is no source, or no directory for the target.
        """
        wish = {"action": "mv", "destination": unquote(urlsplit(target).path)}
        try:
            self._ask("POST", source, target, operation, deadline, wish, accept=(200, 201))
        except ResourceExistsError as error:
            # Files are replaced: what is in the way is a directory.
            raise ResourceIsDirectoryError(
                "a directory has this name",
                operation=operation,
                url=target,
                status=error.status,
                reason=error.reason,
            ) from error

    def remove(self, url: str, *, operation: str, deadline: Deadline) -> None:
        """Remove a file or an empty directory.

        Parameters
        ----------
        url : `str`
            URL of the door.
        operation : `str`
            For messages.
        deadline : `Deadline`
            When to give up.

        Raises
        ------
        ResourceNotFoundError
            Raised if there is none.
        DirectoryNotEmptyError
            Raised if it is a directory that holds something.
        """
        self._ask("DELETE", url, url, operation, deadline, accept=(200, 204))

    def identifier(self, url: str, *, deadline: Deadline) -> str:
        """Return the identifier of an entry, which stays with it through renames.

        Parameters
        ----------
        url : `str`
            URL of the door.
        deadline : `Deadline`
            When to give up.

        Returns
        -------
        identifier : `str`
            Its PNFSID, empty if the frontend does not say.
        """
        answer = self._ask("GET", url, url, "look", deadline)
        return str(document_of(answer, dict, operation="look", url=url).get("pnfsId", ""))

    def locations(self, url: str, *, deadline: Deadline) -> list[str]:
        """Return the names of the pools that hold a file, in service or not; none if it is on tape only.

        Parameters
        ----------
        url : `str`
            URL of the door.
        deadline : `Deadline`
            When to give up.
        """
        answer = self._ask("GET", url, url, "look", deadline, query={"locations": "true"})
        found = document_of(answer, dict, operation="look", url=url).get("locations")
        return [str(name) for name in found] if isinstance(found, list) else []

    def _ask(
        self,
        method: str,
        url: str,
        about: str,
        operation: str,
        deadline: Deadline,
        wish: Any = None,
        query: Mapping[str, str] | None = None,
        accept: Container[int] = (200,),
    ) -> Answer:
        return self._api.ask(
            method,
            namespace_path(url),
            operation=operation,
            url=about,
            deadline=deadline,
            wish=wish,
            query=query,
            accept=accept,
            elsewhere=method != "GET",  # the door renames and removes as well
        )
