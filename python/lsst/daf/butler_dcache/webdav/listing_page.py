"""What a door's page of a directory shows, asked as a second opinion on a listing that looks empty.

A listing of dCache that fails looks like that of an empty directory (protocol page, section 4.1), and such a
directory would be removed with all that is in it. The page comes by another way through the door. Sites may
have pages of their own, so that nothing is expected of it but that names are links to what is below.
"""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urljoin

from .addresses import as_directory, decoded_path, to_http

__all__ = ("shows_names",)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name == "href" and value]


def shows_names(page: bytes, url: str) -> bool:
    """Tell whether the page of a directory links to anything in it.

    Parameters
    ----------
    page : `bytes`
        HTML.
    url : `str`
        URL of the directory.
    """
    links = _Links()
    links.feed(page.decode("utf-8", "replace"))
    links.close()
    base = to_http(as_directory(url))
    above = decoded_path(url).rstrip("/") + "/"
    for link in links.found:
        try:
            path = decoded_path(urljoin(base, link))
        except ValueError:
            continue
        if path.startswith(above):
            return True
    return False
