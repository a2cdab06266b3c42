"""Claiming ``dav://``, ``davs://`` and ``s3://`` of `lsst.resources`, and giving them back.

`lsst.resources` has no registry of schemes: its factory imports ``DavResourcePath`` from the module
``lsst.resources.dav``, and ``S3ResourcePath`` from ``lsst.resources.s3``, each time that it makes an object.
Whoever sets that name owns the scheme. Importing either module takes a quarter of a second in a bare process,
and the one reads the site's configuration, the other needs boto3: so while nobody needs anything else of it,
a stand-in has its place (see the decisions "claiming the scheme" and "claiming s3").
"""

from __future__ import annotations

import copyreg
import importlib
import importlib.util
import sys
import threading
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

from .config.switches import registration_wanted, s3_profiles_wanted

__all__ = ("register", "register_by_default", "registered", "s3_class_of_upstream", "unregister")

_PACKAGE = "lsst.resources"
_OWN = "lsst.daf.butler_dcache."
_NEEDED_FOR_S3 = ("boto3", "awscrt")

_lock = threading.RLock()


class _Claim:
    """The name by which the factory of `lsst.resources` finds a class, and who has it.

    Parameters
    ----------
    name : `str`
        Last component of upstream's module.
    class_name : `str`
        Name in that module.
    """

    def __init__(self, name: str, class_name: str) -> None:
        self.name = name
        self.module = f"{_PACKAGE}.{name}"
        self.class_name = class_name
        self.incumbent: type | None = None
        """Class that was replaced in upstream's module, once that is loaded."""

    def take(self, ours: type) -> None:
        """Make the factory find our class."""
        module = sys.modules.get(self.module)
        if isinstance(module, _StandIn):
            setattr(module, self.class_name, ours)
        elif self.module in sys.modules:
            # Another thread may be importing it.
            self._replace(importlib.import_module(self.module), ours)
        else:
            stand_in = _StandIn(self)
            setattr(stand_in, self.class_name, ours)
            setattr(sys.modules[_PACKAGE], self.name, stand_in)
            sys.modules[self.module] = stand_in

    def give_back(self) -> None:
        """Make the factory find upstream's class."""
        module = sys.modules.get(self.module)
        if isinstance(module, _StandIn):
            del sys.modules[self.module]
            package = sys.modules[_PACKAGE]
            if getattr(package, self.name, None) is module:
                delattr(package, self.name)
            # Who kept the stand-in finds upstream's class behind it.
            delattr(module, self.class_name)
        elif module is not None and self.incumbent is not None:
            setattr(module, self.class_name, self.incumbent)
            copyreg.dispatch_table.pop(self.incumbent, None)
            self.incumbent = None

    def is_taken(self) -> bool:
        """Whether the factory finds our class."""
        found = getattr(sys.modules.get(self.module), self.class_name, None)
        return found is not None and found.__module__.startswith(_OWN)

    def load_upstream(self) -> ModuleType:
        """Load upstream's module beside the stand-in, and put it in its place with our class in it."""
        module = sys.modules.get(self.module)
        if not isinstance(module, _StandIn):
            return importlib.import_module(self.module)
        ours = getattr(module, self.class_name)
        package = sys.modules[_PACKAGE]
        spec = PathFinder.find_spec(self.module, package.__path__)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"No module named {self.module!r}", name=self.module)
        real = importlib.util.module_from_spec(spec)
        # Other threads go on making our objects meanwhile: the stand-in is still in its place.
        spec.loader.exec_module(real)
        self._replace(real, ours)
        sys.modules[self.module] = real
        setattr(package, self.name, real)
        return real

    def _replace(self, module: ModuleType, ours: type) -> None:
        current: type = getattr(module, self.class_name)
        if current is not ours:
            if not current.__module__.startswith(_OWN):
                self.incumbent = current
                # Its objects live on, and pickle would look for their class under the name that is ours now.
                copyreg.pickle(current, _made_by_the_factory)
            setattr(module, self.class_name, ours)


class _StandIn(ModuleType):
    """Has the one name that the factory asks for, and becomes the real module when asked for another."""

    def __init__(self, claim: _Claim) -> None:
        super().__init__(claim.module, "Stand-in of lsst.daf.butler_dcache; loads the real module on demand.")
        self._claim = claim

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # Questions of the import system must not trigger an import.
            raise AttributeError(name)
        with _lock:
            return getattr(self._claim.load_upstream(), name)


_dav = _Claim("dav", "DavResourcePath")
_s3 = _Claim("s3", "S3ResourcePath")


def register() -> None:
    """Make this package the owner of ``dav://``, ``davs://`` and ``s3://`` in this process.

    Raises
    ------
    ImportError
        If `lsst.resources` is not installed.

    Notes
    -----
    ``s3://`` is claimed for the profiles that ``DAF_BUTLER_DCACHE_S3`` names, all by default, and not where
    boto3 and awscrt are not installed. Objects that exist keep their class. May be called any number of
    times, from any thread, and again when the variable has changed.
    """
    # None of them can be imported where the stack is not installed, and this module is imported everywhere.
    importlib.import_module(_PACKAGE)
    dav = importlib.import_module("lsst.daf.butler_dcache.resource_path").DcacheResourcePath
    profiles = s3_profiles_wanted()
    wants_s3 = profiles != frozenset() and all(map(_is_installed, _NEEDED_FOR_S3))
    with _lock:
        _dav.take(dav)
        if wants_s3:
            ours = importlib.import_module("lsst.daf.butler_dcache.s3_resource_path")
            _s3.take(ours.DcacheS3ResourcePath if profiles is None else ours.chooser(profiles))
        elif _s3.is_taken():
            _s3.give_back()


def unregister() -> None:
    """Give the schemes back to `lsst.resources`; objects that exist keep their class."""
    with _lock:
        _dav.give_back()
        _s3.give_back()


def registered(scheme: str = "davs") -> bool:
    """Return whether this package owns a scheme in this process.

    Parameters
    ----------
    scheme : `str`, optional
        ``dav``, ``davs``, which go together, or ``s3``.

    Returns
    -------
    registered : `bool`
        `True` if the next `lsst.resources.ResourcePath` of that scheme is ours; of ``s3``, that of a profile
        that is claimed.
    """
    return (_s3 if scheme == "s3" else _dav).is_taken()


def s3_class_of_upstream() -> type:
    """Return the class that `lsst.resources` has for ``s3://``, which is loaded if it must be.

    Returns
    -------
    upstream : `type`
        The class for a profile that is not claimed.
    """
    with _lock:
        module = _s3.load_upstream()
        upstream: type = _s3.incumbent or getattr(module, _s3.class_name)
        return upstream


def register_by_default() -> None:
    """Register if `lsst.resources` is installed, unless ``DAF_BUTLER_DCACHE_REGISTER`` says ``no``.

    Notes
    -----
    This is what importing the package does.
    """
    if registration_wanted() and _is_installed(_PACKAGE):
        register()


def _made_by_the_factory(uri: Any) -> tuple[Any, ...]:
    """Reduce an object of upstream's to what the factory needs to make it, wherever that is."""
    factory = sys.modules[_PACKAGE].ResourcePath
    return factory, (uri.geturl(), None, True, uri.dirLike, uri.isTemporary)


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
