"""Where the Kubernetes API server is, and with which credentials to talk to it.

Owns: the pod's own account and kubeconfig files, read again for every request because both rotate on disk.
Does not own: the requests (``kubernetes_api``). docs/kubernetes.md explains both ways.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import yaml

from tornado_backups.domain.errors import StartupError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts a pod's account: ``token``, ``ca.crt`` and ``namespace``."""

MAX_CREDENTIAL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One API server as one request sees it; ``path`` is what stands before ``/api``, ``token`` may be empty."""

    host: str
    port: int
    path: str
    server_name: str
    token: str = field(repr=False)
    tls: ssl.SSLContext | None


class Access(Protocol):
    """Tells where the API server is, as of now."""

    def endpoint(self) -> Endpoint:
        """Return address and credentials; raises ``StartupError`` (one line, no secret) when they cannot be read."""


def find_access(environment: Mapping[str, str] = os.environ) -> Access:
    """Return the pod's account inside a cluster, else the kubeconfig that ``kubectl`` would take.

    ``KUBECONFIG`` may list several files: the first that exists is taken, they are not merged. Raises
    ``StartupError`` when there is neither an account nor a file.
    """
    named = environment.get("KUBECONFIG", "")
    if not named and environment.get("KUBERNETES_SERVICE_HOST"):
        return PodAccount(environment)
    candidates = [Path(part) for part in named.split(os.pathsep) if part] or [Path.home() / ".kube" / "config"]
    for path in candidates:
        if path.is_file():
            return Kubeconfig(path)
    places = ", ".join(str(path) for path in candidates)
    raise StartupError(f"kubernetes: not inside a pod and no kubeconfig at {places}; set KUBECONFIG to a file")


class PodAccount:
    """The account that Kubernetes gives to every pod; its token file is replaced about every hour."""

    def __init__(self, environment: Mapping[str, str] = os.environ, folder: Path = SERVICE_ACCOUNT) -> None:
        self._host = environment.get("KUBERNETES_SERVICE_HOST", "")
        self._port = environment.get("KUBERNETES_SERVICE_PORT", "") or "443"
        self._folder = folder
        self._tls = _TlsCache()

    def endpoint(self) -> Endpoint:
        """Read token and authority as they are on disk now."""
        if not self._port.isascii() or not self._port.isdigit():
            raise StartupError(f"kubernetes: KUBERNETES_SERVICE_PORT is {self._port!r}; a port number is needed")
        token = _text(self._folder / "token")
        tls = self._tls.context(_Tls(authority=_bytes(self._folder / "ca.crt")))
        return Endpoint(self._host, int(self._port), "", self._host, token, tls)


class Kubeconfig:
    """One kubeconfig file's current context, with a token, a token file or a client certificate.

    Programs that print credentials (``exec``, ``auth-provider``), passwords, proxies and switched-off certificate
    checks are refused by name rather than ignored.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tls = _TlsCache()

    def endpoint(self) -> Endpoint:
        """Read the file, and the files it names, as they are on disk now."""
        document = self._document()
        context = self._named(document, "contexts", "context", str(document.get("current-context", "")))
        cluster = self._named(document, "clusters", "cluster", str(context.get("cluster", "")))
        user = self._named(document, "users", "user", str(context.get("user", "")))
        self._refuse(cluster, ("insecure-skip-tls-verify", "proxy-url"), "certificate-authority or a direct address")
        self._refuse(user, ("exec", "auth-provider", "username", "as"), "token, tokenFile or client-certificate")
        address = urlsplit(str(cluster.get("server", "")))
        if address.scheme not in ("https", "http") or not address.hostname:
            raise self._error(f"the cluster's server is {cluster.get('server')!r}", "https://host:port is needed")
        token = str(user.get("token", "")) or (_text(self._file(user, "tokenFile")) if user.get("tokenFile") else "")
        tls = None
        if address.scheme == "https":
            tls = self._tls.context(
                _Tls(
                    authority=self._material(cluster, "certificate-authority"),
                    certificate=self._material(user, "client-certificate"),
                    key=self._material(user, "client-key"),
                )
            )
        elif token:
            raise self._error("the token would travel in clear text", "an https server is needed")
        port = address.port or (443 if address.scheme == "https" else 80)
        server_name = str(cluster.get("tls-server-name", "")) or address.hostname
        return Endpoint(address.hostname, port, address.path.rstrip("/"), server_name, token, tls)

    def _document(self) -> dict[str, Any]:
        try:
            document = yaml.safe_load(_bytes(self._path))
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f", line {mark.line + 1}" if mark else ""
            raise self._error(f"no YAML{line}", "a kubeconfig is needed") from None
        if not isinstance(document, dict):
            raise self._error("no mapping", "a kubeconfig is needed")
        return document

    def _named(self, document: dict[str, Any], kind: str, field_name: str, name: str) -> dict[str, Any]:
        entries = document.get(kind)
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(field_name), dict):
                return dict(entry[field_name])
        raise self._error(f"no entry {name!r} under {kind}", "current-context must lead to a cluster and a user")

    def _refuse(self, entry: dict[str, Any], keys: tuple[str, ...], instead: str) -> None:
        for key in keys:
            if entry.get(key):
                raise self._error(f"{key} is not supported", f"use {instead}")

    def _file(self, entry: dict[str, Any], key: str) -> Path:
        return self._path.parent / str(entry[key])

    def _material(self, entry: dict[str, Any], key: str) -> bytes:
        if data := entry.get(f"{key}-data"):
            try:
                return base64.b64decode(str(data), validate=True)
            except binascii.Error:
                raise self._error(f"{key}-data is no base64", "base64 of a PEM file is needed") from None
        return _bytes(self._file(entry, key)) if entry.get(key) else b""

    def _error(self, what: str, instead: str) -> StartupError:
        return StartupError(f"kubernetes: {self._path}: {what}; {instead}")


@dataclass(frozen=True, slots=True)
class _Tls:
    """What a connection is made safe with, in PEM; empty where there is none."""

    authority: bytes = b""
    certificate: bytes = b""
    key: bytes = field(default=b"", repr=False)


class _TlsCache:
    """Building a context costs milliseconds and the files seldom change: keep the last one."""

    def __init__(self) -> None:
        self._of: _Tls | None = None
        self._context: ssl.SSLContext | None = None

    def context(self, material: _Tls) -> ssl.SSLContext:
        """Return the context for these files; a new one only when they changed."""
        if self._context is None or material != self._of:
            self._context = _make_context(material)
            self._of = material
        return self._context


def _make_context(material: _Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=material.authority.decode() if material.authority else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if material.certificate:
            # OpenSSL reads a certificate chain from a file only; this one is readable by us alone and gone at once.
            with tempfile.NamedTemporaryFile(suffix=".pem") as pem:
                pem.write(material.certificate.rstrip(b"\n") + b"\n" + material.key)
                pem.flush()
                context.load_cert_chain(pem.name)
    except (ssl.SSLError, UnicodeDecodeError):
        raise StartupError("kubernetes: certificate authority or client certificate is no PEM that fits") from None
    return context


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_CREDENTIAL_BYTES)
    except OSError as error:
        raise StartupError(f"kubernetes: cannot read {path}: {error.strerror}") from None


def _text(path: Path) -> str:
    text = _bytes(path).decode("latin-1").strip()
    if not text or not text.isascii() or not text.isprintable():
        raise StartupError(f"kubernetes: {path} holds no token; one line of printable text is needed")
    return text
