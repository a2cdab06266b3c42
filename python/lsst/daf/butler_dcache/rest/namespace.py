"""Names, as the REST frontend of dCache treats them (protocol page, sections 7.2 to 7.4).

Two of its operations are better than the door's: ``mv`` replaces a file in one step, never a directory, and
is without effect when source and target are one; DELETE is not recursive.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote, urlsplit

from ..config.settings import EndpointSettings
from ..errors import ResourceExistsError, ResourceIsDirectoryError
from ..transport.control import Answer, ControlPlane
from ..transport.deadline import Deadline
from ..transport.failures import failure

__all__ = ("Namespace",)


class Namespace:
    """The ``/api/v1/namespace`` resource of a frontend.

    Parameters
    ----------
    settings : `EndpointSettings`
        Settings of an endpoint with a ``frontend_url``.
    control : `ControlPlane`
        Sends the requests.
    """

    def __init__(self, settings: EndpointSettings, control: ControlPlane) -> None:
        assert settings.frontend_url is not None
        self._base = settings.frontend_url.rstrip("/") + "/api/v1/namespace"
        self._control = control

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
        answer = self._request("POST", source, deadline, wish)
        if answer.status in (200, 201):
            return
        error = failure(answer, operation=operation, url=target, body=answer.body, attempts=answer.attempts)
        if isinstance(error, ResourceExistsError):
            # Files are replaced: what is in the way is a directory.
            raise ResourceIsDirectoryError(
                "a directory has this name",
                operation=operation,
                url=target,
                status=error.status,
                reason=error.reason,
            )
        raise error

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
        answer = self._request("DELETE", url, deadline, None)
        if answer.status not in (200, 204):
            raise failure(answer, operation=operation, url=url, body=answer.body, attempts=answer.attempts)

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
        answer = self._request("GET", url, deadline, None)
        if answer.status != 200:
            raise failure(answer, operation="look", url=url, body=answer.body, attempts=answer.attempts)
        try:
            return str(json.loads(answer.body).get("pnfsId", ""))
        except (ValueError, AttributeError):
            return ""

    def _request(self, method: str, url: str, deadline: Deadline, wish: Any) -> Answer:
        headers = {"Accept": "application/json"}
        if wish is not None:
            headers["Content-Type"] = "application/json"
        return self._control.request(
            method,
            self._base + urlsplit(url).path,
            headers=headers,
            body=None if wish is None else json.dumps(wish).encode(),
            deadline=deadline,
        )
