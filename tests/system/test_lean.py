"""What is left out of other people's packages is there for whoever wants it, and the packages work without it."""

from __future__ import annotations

import subprocess
import sys

import pytest

LEFT_OUT = [
    *("curses", "logging.handlers", "multiprocessing", "tornado.template", "tornado.locale"),
    *("gzip", "mimetypes", "html", "html.entities"),
]


def run(program: str) -> str:
    """Run a program in an interpreter of its own and return what it prints."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_tornado_comes_without_what_a_server_never_uses() -> None:
    program = f"import sys; from tornado_backups.lean import import_tornado; import_tornado(); import tornado.web;\
        print([name for name in {LEFT_OUT} if name in sys.modules])"
    assert run(program) == "[]"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("logging.handlers", "SocketHandler"),
        ("multiprocessing", "cpu_count"),
        ("tornado.template", "Loader"),
        ("gzip", "GzipFile"),
        ("html", "unescape"),
    ],
)
def test_what_was_left_out_is_whole_for_whoever_imports_it_afterwards(module: str, name: str) -> None:
    program = f"from tornado_backups.lean import import_tornado; import_tornado(); import importlib;\
        print(importlib.import_module({module!r}).{name}.__module__.split('.')[0])"
    assert run(program) == module.split(".")[0]


def test_a_tornado_that_needs_what_is_left_out_is_imported_whole() -> None:
    program = "import sys; from tornado_backups import lean; lean._Nothing = None; del lean._Hollow.__getattr__\n\
lean.import_tornado(); import tornado.web; print('tornado.template' in sys.modules)"
    assert run(program) == "True"


def test_the_s3_client_comes_without_its_documentation_and_a_second_http_client() -> None:
    program = "import sys; from tornado_backups.lean import import_aiobotocore; import_aiobotocore()\n\
import tornado_backups.storage.s3_client; print([name for name in\
        ('httpx', 'brotli', 'botocore.docs.service', 'frozenlist._frozenlist', 'importlib.metadata')\
        if name in sys.modules])"
    assert run(program) == "[]"


def test_a_module_that_was_imported_before_is_never_made_hollow() -> None:
    program = "import logging.handlers; from tornado_backups.lean import hollow, without\n\
with hollow('logging.handlers'), without('json'):\n\
    from logging.handlers import SocketHandler\n\
import json; print(SocketHandler.__module__, json.dumps(1))"
    assert run(program) == "logging.handlers 1"


def test_a_tls_context_made_without_authorities_lets_nobody_in_and_later_ones_are_whole() -> None:
    program = "import ssl; from tornado_backups.lean import without_authorities\n\
with without_authorities():\n\
    context = ssl.create_default_context()\n\
print(context.verify_mode.name, context.check_hostname, context.get_ca_certs(),\
    ssl.SSLContext.load_default_certs.__name__)"
    assert run(program) == "CERT_REQUIRED True [] load_default_certs"


def test_what_was_imported_incomplete_is_whole_for_whoever_imports_it_afterwards() -> None:
    program = "from tornado_backups.lean import import_tornado; import_tornado(); import html\n\
print(html.unescape('&auml;&lt;'))"
    assert run(program) == "ä<"
