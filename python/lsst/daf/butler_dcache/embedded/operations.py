"""One namespace operation in a user's name: look the entry up, ask for the right, do it.

Paths are as the user sees them. The order is dCache's: a missing entry is reported before a missing right, so
a macaroon for another directory gets 404 for what is not there and 403 for what is.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .access import Access, Login, PermissionDeniedError
from .caveats import Activity, is_below
from .entry import Entry
from .namespace import EntryExistsError, EntryMissingError, Namespace, split_path

__all__ = ["Operator", "parent_path"]


def parent_path(path: str) -> str:
    """Return the directory that holds a path.

    Parameters
    ----------
    path : `str`
        Any path.

    Returns
    -------
    path : `str`
        Its parent, normalised.
    """
    return "/" + "/".join(split_path(path)[:-1])


@dataclass(frozen=True)
class Operator:
    """A user at work in the namespace.

    Parameters
    ----------
    access : `Access`
        Knows the rights.
    login : `Login`
        Whose name it is done in.
    """

    access: Access
    login: Login

    @property
    def namespace(self) -> Namespace:
        """Where the work is done."""
        return self.access.namespace

    def real(self, path: str) -> str:
        """Translate a path as the user sees it.

        Parameters
        ----------
        path : `str`
            Below the user's root.

        Returns
        -------
        path : `str`
            In the namespace.
        """
        return self.access.real_path(self.login, path)

    def complete(self, path: str) -> str:
        """Tell what the bulk service and archiveinfo take a path for.

        Parameters
        ----------
        path : `str`
            Normal path as the user sees it.

        Returns
        -------
        path : `str`
            The same, but one that begins with the user's root passes for one in the namespace (dCache
            ``BulkRequestTarget.computeFsPath``).
        """
        return self.access.shown_path(self.login, path) if is_below(path, self.login.root) else path

    def find(self, path: str, activity: Activity = Activity.READ_METADATA) -> Entry:
        """Look up an entry that the user may know of.

        Parameters
        ----------
        path : `str`
            Where it is.
        activity : `Activity`, optional
            What is going to be done with it.

        Returns
        -------
        entry : `Entry`
            What is there.

        Raises
        ------
        EntryMissingError
            If nothing is there; without text.
        PermissionDeniedError
            If restrictions, owners or modes forbid it.
        """
        real = self.real(path)
        self.access.require_passage(self.login, real)
        entry = self.namespace.find(real)
        if entry is None:
            raise EntryMissingError
        self.access.require(self.login, activity, path)
        return entry

    def listing(self, path: str) -> tuple[Entry, list[Entry]]:
        """List a directory.

        Parameters
        ----------
        path : `str`
            Where it is.

        Returns
        -------
        directory, children : `Entry`, `list` [`Entry`]
            Itself and what is in it.

        Raises
        ------
        EntryMissingError, PermissionDeniedError
            As `find`.
        """
        directory = self.find(path)
        self.access.require(self.login, Activity.LIST, path)
        self.access.require_mode(self.login, directory, 4)
        if not directory.is_listable:
            raise PermissionDeniedError(path)
        return directory, self.namespace.children(directory)

    def make_directory(self, path: str) -> Entry:
        """Make one directory.

        Parameters
        ----------
        path : `str`
            Where.

        Returns
        -------
        directory : `Entry`
            The new one.

        Raises
        ------
        EntryExistsError, EntryMissingError, NotADirectoryEntryError
            As `Namespace.mkdir`.
        PermissionDeniedError
            If it is forbidden.
        """
        real = self.real(path)
        self.access.require_passage(self.login, real)
        self.access.require(self.login, Activity.MANAGE, parent_path(path))
        self.access.require_mode(self.login, self.namespace.parent_of(real), 3)
        return self.namespace.mkdir(real, self.login.uid, self.login.gids[0])

    def remove(self, path: str) -> None:
        """Remove a file or an empty directory.

        Parameters
        ----------
        path : `str`
            Where it is.

        Raises
        ------
        EntryMissingError, PermissionDeniedError
            As `find`.
        NamespaceError
            If it is a directory that is not empty.
        """
        entry = self.find(path, Activity.DELETE)
        self.access.require_mode(self.login, entry.parent, 3)
        self.namespace.remove(entry)

    def rename(self, path: str, target: str, pause: Callable[[], object] = lambda: None) -> None:
        """Rename in one step, replacing a file if the user may delete it.

        Parameters
        ----------
        path : `str`
            What is renamed.
        target : `str`
            The new path.
        pause : `~collections.abc.Callable`, optional
            Called between look and act, which are two calls to a real server's database: of racing users
            without the right to delete two may succeed (protocol page, "What surprised us", 9).

        Raises
        ------
        EntryMissingError, EntryExistsError, NotADirectoryEntryError, NamespaceError
            As `Namespace.rename`; the first without text if the source is
            missing.
        PermissionDeniedError
            If it is forbidden.
        """
        entry = self.find(path)
        real = self.real(target)
        for directory in (parent_path(path), parent_path(target)):
            self.access.require(self.login, Activity.MANAGE, directory)
        self.access.require_passage(self.login, real)
        self.access.require_mode(self.login, entry.parent, 3)
        self.access.require_mode(self.login, self.namespace.parent_of(real), 3)
        if not self.access.allows(self.login, Activity.DELETE, target):
            taken = self.namespace.find(real)
            if taken is not None and taken is not entry:
                raise EntryExistsError("File exists")
        pause()
        self.namespace.rename(entry, real, overwrite=True)
