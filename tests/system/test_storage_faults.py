"""The storage misbehaves while the whole server runs: what the client hears, what is left, and that it heals."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
from datetime import timedelta
from pathlib import Path

import pytest

from tests.program import Program
from tests.servers.proxy import Fault, s3_error
from tests.serving import REPOSITORY, RunningServer, Tree, message
from tests.system.shared import Shared, wait_until

pytest_plugins = [
    "tests.contract.registry_fixtures",
    "tests.contract.store_fixtures",
    "tests.system.shared_fixtures",
]

SMALL = message(1000, b"small")
LARGE = message(6_000_000, bytes(range(251)))
WRITES = b"PUT /"

PASSING = {
    "hang": Fault("hang", when=WRITES, times=1),
    "reset": Fault("reset", when=WRITES, times=1),
    "cut in the middle of a part": Fault("cut", when=WRITES, after_bytes=100_000, times=1),
    "lost answer": Fault("swallow", when=WRITES, times=1),
    "500": Fault("answer", when=WRITES, reply=s3_error(500, "InternalError"), times=2),
    "503": Fault("answer", when=WRITES, reply=s3_error(503, "SlowDown"), times=2),
    "slow": Fault("slow", when=WRITES, bytes_per_second=8 * 1024 * 1024),
}
LASTING = {
    "hang": Fault("hang", when=WRITES),
    "reset": Fault("reset", when=WRITES),
    "cut": Fault("cut", when=WRITES, after_bytes=300),
    "lost answers": Fault("swallow", when=WRITES),
    "500": Fault("answer", when=WRITES, reply=s3_error(500, "InternalError")),
}


def download(server: RunningServer, token: str, number: int = 1) -> bytes:
    answer = server.request("GET", f"{REPOSITORY}/files/version/{number}", token=token)
    assert answer.status == 200
    return answer.body


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_fault_of_the_storage_that_passes_is_not_seen_by_the_client(shared: Shared, fault: Fault) -> None:
    server = shared.start_behind_proxies()
    token = server.login("admin")
    shared.to_storage.fault = fault
    assert server.upload("files", token, LARGE).status == 200
    assert fault.met > 0
    assert download(server, token) == LARGE
    assert len(shared.objects()) == 1


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("fault", LASTING.values(), ids=LASTING)
def test_a_fault_of_the_storage_that_lasts_is_a_503_that_leaves_nothing_and_heals(
    shared: Shared, fault: Fault, body: bytes
) -> None:
    server = shared.start_behind_proxies()
    token = server.login("admin")
    assert server.upload("files", token).status == 200
    shared.to_storage.fault = fault
    refused = server.upload("files", token, body)
    assert (refused.status, refused.json["reason"]) == (503, "storage-unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    shared.to_storage.fault = None
    shared.to_storage.drop_connections()
    server.maintain()
    assert server.numbers("files", token) == [1]
    assert len(shared.objects()) == 1
    assert server.upload("files", token, body).status == 200
    assert download(server, token, 2) == body


def test_readiness_tells_that_the_storage_hangs_and_that_it_is_back(shared: Shared) -> None:
    server = shared.start_behind_proxies(storage_health_timeout="1s")
    assert server.request("GET", "/ready").status == 200
    shared.to_storage.fault = Fault("hang")
    answer = server.request("GET", "/ready")
    assert answer.status == 500
    assert [check["status"] for check in answer.data["health"]] == [True, False, True]
    assert server.request("GET", "/health").status == 200
    shared.to_storage.fault = None
    shared.to_storage.drop_connections()
    wait_until(lambda: server.request("GET", "/ready").status == 200)


def test_a_download_that_the_storage_cuts_never_looks_whole(shared: Shared) -> None:
    server = shared.start_behind_proxies()
    token = server.login("admin")
    assert server.upload("files", token, LARGE).status == 200
    shared.to_storage.fault = Fault("cut", when=b"GET /", direction="down", after_bytes=1_000_000)
    with server.raw() as sock:
        head = f"GET {REPOSITORY}/files/version/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        sock.sendall(head.encode())
        received = b"".join(iter(lambda: sock.recv(65536), b""))
    assert f"Content-Length: {len(LARGE)}".encode() in received
    assert len(received) < len(LARGE)


def test_a_file_that_outgrows_the_disk_is_a_507_and_leaves_nothing(tmp_path: Path, tree: Tree) -> None:
    tree.user("admin", roles=["systemAdmin"])
    tree.collection("files")
    program = Program(tmp_path, tree).wait_until_ready()
    try:
        token = program.login("admin")
        assert program.upload("files", token, SMALL).status == 200
        limits = resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
        refused = program.upload("files", token, LARGE)
        assert (refused.status, refused.json["reason"]) == (507, "storage-full")
        assert len(program.objects()) == 1
        resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, limits)
        assert program.upload("files", token, LARGE).status == 200
        assert program.numbers("files", token) == [1, 2]
    finally:
        program.kill()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["broken", "full"])
@pytest.mark.parametrize("nth", range(1, 5))
def test_whichever_fsync_fails_the_upload_is_refused_and_leaves_nothing(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, nth: int, number: int
) -> None:
    token = server.login("admin")
    plain, calls = os.fsync, 0

    def failing(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(number, os.strerror(number))
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    refused = server.upload("files", token, SMALL)
    assert calls >= nth  # the file, its folder, the collection's, the root
    assert refused.status == (507 if number == errno.ENOSPC else 503)
    assert server.objects() == []
    assert server.numbers("files", token) == []
    assert server.upload("files", token, SMALL).status == 200


def test_an_object_damaged_on_disk_is_found_by_the_scrub_and_shown_by_health(
    server: RunningServer,
) -> None:
    token = server.login("admin")
    assert server.upload("files", token, SMALL).status == 200
    path = server.data_dir / "objects" / server.objects()[0]
    path.write_bytes(SMALL[:-1] + b"?")
    server.clock.forward(timedelta(days=31))
    server.maintain()
    answer = server.request("GET", f"{REPOSITORY}/files/health")
    checks = {check["name"]: check["status"] for check in answer.data["health"]}
    assert (answer.status, checks["IntegrityValidator"]) == (500, False)
    assert hashlib.sha256(path.read_bytes()).hexdigest() != hashlib.sha256(SMALL).hexdigest()
