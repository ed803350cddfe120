"""What every test may rely on: pytest-tornado on any Python, a fresh event loop per test."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Iterator

import packaging.version
import pytest
from tornado.ioloop import IOLoop

try:
    import pkg_resources  # noqa: F401
except ImportError:  # gone from current setuptools, and all that pytest-tornado wants of it is parse_version
    stand_in = types.ModuleType("pkg_resources")
    stand_in.parse_version = packaging.version.parse  # type: ignore[attr-defined]
    sys.modules["pkg_resources"] = stand_in

pytest_plugins = ["pytest_tornado.plugin"]


@pytest.fixture
def io_loop() -> Iterator[IOLoop]:
    """A fresh asyncio loop, closed afterwards (pytest-tornado's own fixture warns on current Pythons)."""
    asyncio_loop = asyncio.new_event_loop()
    asyncio.set_event_loop(asyncio_loop)
    loop = IOLoop(asyncio_loop=asyncio_loop, make_current=False)
    yield loop
    asyncio.set_event_loop(None)
    loop.close(all_fds=False)
