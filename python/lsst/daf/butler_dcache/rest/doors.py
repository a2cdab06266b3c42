"""The doors of a dCache, as its frontend lists them (protocol page, section 7.8).

A door that is taken from the list gets the credential of the endpoint. So what is taken is narrow: doors like
the one that is configured, which has to be in the list, and no host that this site's own certificates would
not speak for. The connection to each is verified as any other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from ..config.settings import origin_of
from ..transport.deadline import Deadline
from .api import Api, document_of
from .one_site import is_of_one_site

__all__ = ("like_doors", "list_doors")

_log = logging.getLogger(__name__)

_SAME = ("protocol", "root", "tags", "readPaths", "writePaths")


def list_doors(base_url: str, api: Api, deadline: Deadline) -> tuple[str, ...]:
    """Ask the frontend for the doors that can take the place of the configured one.

    Parameters
    ----------
    base_url : `str`
        URL of the door that is configured.
    api : `Api`
        The frontend's ``/api/v1``.
    deadline : `Deadline`
        When to give up.

    Returns
    -------
    urls : `tuple` [ `str`, ... ]
        Base URLs of doors, the configured one included; only that one if the list does not have it.

    Raises
    ------
    DcacheError
        Raised by cause.
    """
    answer = api.ask("GET", "/doors", operation="list doors", url=base_url, deadline=deadline)
    return like_doors(base_url, document_of(answer, list, operation="list doors", url=base_url))


def like_doors(base_url: str, rows: Iterable[Any]) -> tuple[str, ...]:
    """Return the doors of a list that serve the same files in the same way as one of them.

    Parameters
    ----------
    base_url : `str`
        URL of the door that is known.
    rows : `~collections.abc.Iterable`
        The list, as it came.

    Returns
    -------
    urls : `tuple` [ `str`, ... ]
        Base URLs, that one first.
    """
    scheme, host, port = origin_of(base_url)
    known = [row for row in rows if isinstance(row, Mapping) and isinstance(row.get("port"), int)]
    ours = next((row for row in known if row["port"] == port and host in _hosts(row)), None)
    if ours is None or ours.get("protocol") != scheme:
        _log.warning("the frontend does not list the door %s, so no other one is taken from it", base_url)
        return (base_url,)
    found = {base_url: None}
    for row in known:
        names = [name for name in _hosts(row) if is_of_one_site(host, name)]
        if names and all(_plain(row.get(key)) == _plain(ours.get(key)) for key in _SAME):
            name = host if host in names else names[0]
            found[f"{scheme}://{f'[{name}]' if ':' in name else name}:{row['port']}/"] = None
    return tuple(found)


def _hosts(row: Mapping[str, Any]) -> list[str]:
    addresses = row.get("addresses")
    return [str(one).lower() for one in addresses] if isinstance(addresses, list) else []


def _plain(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list) else value
