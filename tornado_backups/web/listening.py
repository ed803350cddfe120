"""Where the server listens: TCP, a unix socket, sockets from systemd; and TLS when we end it ourselves.

Owns: turning ``--listen`` and the TLS options into sockets and an SSL context, with one-line errors.
Does not own: serving on them (``app``).
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
from pathlib import Path

from tornado.netutil import bind_sockets, bind_unix_socket

from tornado_backups.domain.errors import StartupError, UsageError


def open_sockets(listen: str) -> list[socket.socket]:
    """Bind ``host:port``, ``:port``, ``[v6]:port`` or ``unix:/path``; raises ``StartupError`` in one line."""
    if listen.startswith("unix:"):
        return [_open_unix(listen.removeprefix("unix:"))]
    host, _, port = listen.rpartition(":")
    try:
        return bind_sockets(int(port), host.strip("[]") or None)
    except OSError as error:
        what = "the port is taken by another program" if error.errno == errno.EADDRINUSE else _said(error)
        raise StartupError(f"cannot listen on {listen}: {what}") from None


def _open_unix(path: str) -> socket.socket:
    try:
        if Path(path).exists() and stat.S_ISSOCK(os.stat(path).st_mode) and _answers(path):
            raise StartupError(f"cannot listen on unix:{path}: another program is listening there")
        return bind_unix_socket(path, mode=0o660)
    except (OSError, ValueError) as error:
        raise StartupError(f"cannot listen on unix:{path}: {_said(error)}") from None


def _answers(path: str) -> bool:
    """Tell whether someone still listens on a unix socket: only then it is not the debris of a killed process."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _said(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def tls_context(cert: Path | None, key: Path | None, client_ca: Path | None) -> ssl.SSLContext | None:
    """Return a context for TLS 1.2 and newer, or None when no certificate is configured; raises ``StartupError``.

    With ``client_ca`` a handshake succeeds only for clients with a certificate of that authority.
    """
    if cert is None:
        return None
    if key is None:
        raise UsageError("--tls-cert needs --tls-key, the private key that belongs to it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # A service has nobody who could type a passphrase: without one given, OpenSSL would ask the terminal and wait.
        context.load_cert_chain(cert, key, password="")
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(str(path) for path in (cert, key, client_ca) if path is not None)
        raise StartupError(f"cannot use the TLS files {names}: {_said(error)}") from None
    return context
