"""Imports of other people's packages without the parts of them that this server never uses.

Owns: which parts are left out, and that each is there again for whoever imports it afterwards.
Does not own: our own imports; what is rarely needed is imported where it is needed. The figures are in
docs/performance.md. Nothing depends on this having run: without it the same program is a few MiB larger.
"""

from __future__ import annotations

import contextlib
import ssl
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Let importing any of the modules ``names`` fail within the block, as if they were not installed.

    For packages that provide for that. A module that is imported already is there again after the block.
    """
    with _put(dict.fromkeys(names)):
        yield


@contextlib.contextmanager
def hollow(*names: str) -> Iterator[None]:
    """Let the modules ``names`` be found without contents within the block: all that they hold are empty classes.

    For modules that another one imports and uses in functions that nobody here calls.
    """
    with _put({name: _Hollow(name) for name in names if name not in sys.modules}):
        yield


@contextlib.contextmanager
def incomplete(module: str, without_contents: str) -> Iterator[None]:
    """Let ``module`` be imported without what it takes from another within the block; afterwards it is there whole."""
    known = module in sys.modules
    with hollow(without_contents):
        yield
    if not known:
        sys.modules.pop(module, None)


@contextlib.contextmanager
def without_authorities() -> Iterator[None]:
    """Let TLS contexts that are made within the block trust nobody, instead of everybody the system trusts.

    For contexts that a module makes when it is imported. Who uses one of them all the same is refused, never let in.
    """
    load = ssl.SSLContext.load_default_certs
    ssl.SSLContext.load_default_certs = _load_none  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ssl.SSLContext.load_default_certs = load  # type: ignore[method-assign]


def _load_none(_: ssl.SSLContext, __: ssl.Purpose = ssl.Purpose.SERVER_AUTH) -> None:
    """Load no certificates."""


class _Nothing:
    """What a hollow module's classes are: they can be made, with any arguments, and hold nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        """Forget the arguments."""


class _Hollow(ModuleType):
    """A module in which every name is there and nothing is behind it."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing


@contextlib.contextmanager
def _put(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    before = {name: sys.modules[name] for name in modules if name in sys.modules}
    sys.modules.update(modules)  # type: ignore[arg-type]  # None is what makes an import fail
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def import_aiobotocore() -> None:
    """Import the S3 client without the second HTTP client that it offers and the texts of its documentation.

    Also without the compiled ``frozenlist``, for a few dozen callbacks, which would load the C++ library, without
    compressors that no storage is asked for, without the means to ask which packages are installed, and without the
    certificates of aiohttp's own default, which no S3 client uses. A version that needs one of them is imported whole
    where it is used.
    """
    with (
        contextlib.suppress(Exception),  # whatever it is, importing it whole does not have it or shows it
        without("httpx2", "httpx", "brotli", "brotlicffi", "frozenlist._frozenlist"),
        hollow("botocore.docs.docstring", "botocore.docs.service", "importlib.metadata"),
        without_authorities(),
    ):
        import aiobotocore.session  # noqa: F401
        import aiohttp  # noqa: F401

        return
    for name in [name for name in sys.modules if name.split(".")[0] in ("aiobotocore", "botocore", "aiohttp")]:
        del sys.modules[name]


def import_tornado() -> None:
    """Import Tornado's server without what it brings for others.

    That is: curses and the handlers with which it would colour and rotate its log, templates and their languages, what
    serves static files and packs them, the names of all letters in HTML, and the library that would tell it the number
    of processors. A Tornado that needs one of them is imported whole.
    """
    with contextlib.suppress(Exception):  # whatever it is, a whole Tornado does not have it or shows it
        with (
            without("curses"),
            hollow("logging.handlers", "multiprocessing", "tornado.template", "tornado.locale", "gzip", "mimetypes"),
            incomplete("html", without_contents="html.entities"),
        ):
            import tornado.httpserver
            import tornado.web
        return
    for name in [name for name in sys.modules if name.split(".")[0] == "tornado"]:
        del sys.modules[name]
    import tornado.httpserver
    import tornado.web  # noqa: F401
