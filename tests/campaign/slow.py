"""Clients that keep the server waiting: slow heads, slow bodies, slow readers, and more of them than there is room for.

The server drops each within its timeouts, answers others meanwhile, does not spin, and is afterwards what it was.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.campaign import wire
from tests.campaign.report import Report
from tests.campaign.subject import CLOSED_SECONDS, IDLE_SECONDS, UPLOAD, Subject
from tests.serving import message

CLIENTS = 200
OTHERS_SECONDS = 3.0
"""How long another client may wait for its answer while all this goes on (an idle machine needs milliseconds)."""

UPLOAD_SECONDS = 3.0
DESCRIPTORS = 256
BIG = 24 * 1024 * 1024


def run(report: Report, minutes: float) -> None:
    """Try every kind of slowness once; with ``minutes`` again and again for that long."""
    deadline = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="campaign") as folder:
        options = {"http_upload_timeout": f"{UPLOAD_SECONDS:g}s", "http_download_timeout": "30s"}
        with Subject(Path(folder), report, **options) as subject:
            subject.tree.collection("big", maxBackupsCount=1)
            assert subject.program.upload("big", subject.token, message(BIG)).status == 200
            while True:
                drip(subject, "head", b"GET /health HTTP/1.1\r\nX: " + b"x" * 1000)
                login = b"POST /api/stable/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
                drip(subject, "JSON body", login + b"x" * 1000, sent=len(login))
                upload = subject.upload_head("Content-Length: 1000", path=UPLOAD.replace("files", "big"))
                drip(subject, "upload", upload + message(2000), UPLOAD_SECONDS, len(upload) + 20, clients=1)
                silence(subject)
                readers(subject)
                if time.monotonic() > deadline:
                    break
    with (
        tempfile.TemporaryDirectory(prefix="campaign") as folder,
        Subject(Path(folder), report, idle_timeout="1m") as subject,
    ):
        flood(subject)


@contextlib.contextmanager
def _crowd(subject: Subject, clients: int, data: bytes) -> Iterator[list[socket.socket]]:
    """Connect many clients that have sent the same bytes."""
    with contextlib.ExitStack() as stack:
        crowd = []
        for _ in range(clients):
            sock = stack.enter_context(wire.connect(subject.port, OTHERS_SECONDS))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # turned away already, which is an answer
                sock.sendall(data)
            crowd.append(sock)
        yield crowd


def drip(
    subject: Subject,
    what: str,
    data: bytes,
    allowed_seconds: float = IDLE_SECONDS,
    sent: int = 30,
    clients: int = CLIENTS,
) -> None:
    """One byte every now and then: a byte is not progress where the whole must come in time."""
    report = subject.report
    begun = time.monotonic()
    worst = 0.0
    with _crowd(subject, clients, data[:sent]) as crowd:
        waiting = set(crowd)
        for octet in data[sent:]:
            if not waiting or time.monotonic() - begun > allowed_seconds + CLOSED_SECONDS:
                break
            waiting = {sock for sock in waiting if _send_if_open(sock, bytes([octet]))}
            worst = max(worst, subject.serves())
            time.sleep(0.1)
        report.check(not waiting, f"{len(waiting)} of {clients} clients with a slow {what} are still connected")
    seconds = time.monotonic() - begun
    report.check(seconds >= allowed_seconds * 0.9, f"a slow {what} was dropped after {seconds:.1f} s already")
    report.count(f"slow {what}", f"dropped, in {seconds:.1f} s at most", clients)
    _others(subject, f"a slow {what}", worst)


def _send_if_open(sock: socket.socket, octet: bytes) -> bool:
    """Send, and tell whether the server still listens (an answer alone is not its end)."""
    try:
        sock.sendall(octet)
        sock.setblocking(False)
        return sock.recv(4096) != b""
    except BlockingIOError:
        return True
    except (ConnectionResetError, BrokenPipeError):
        return False
    finally:
        sock.setblocking(True)


def silence(subject: Subject) -> None:
    """Connect and say nothing, or stop in the middle."""
    upload = subject.upload_head("Content-Length: 100000")
    stops = {
        "nothing": b"",
        "half a head": upload[:40],
        "half a JSON body": b"POST /api/stable/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{",
        "half an upload": upload + message(99_000)[:5000],
        "an answered request": b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    }
    for what, data in stops.items():
        begun = time.monotonic()
        with _crowd(subject, 40, data) as crowd:
            worst = subject.serves()
            for sock in crowd:
                reply = wire.read(sock, begun + CLOSED_SECONDS + IDLE_SECONDS)
                subject.report.check(reply.ended != "open", f"a client that sent {what} is still connected")
                subject.report.check(all(s < 500 or s == 503 for s in reply.statuses), f"{what}: {reply.statuses}")
                subject.report.count(f"silence after {what}", " ".join(map(str, reply.statuses)) or reply.ended)
        _others(subject, f"silence after {what}", worst)


def readers(subject: Subject) -> None:
    """Ask for 24 MiB and never read them: dropped when the kernel has taken nothing more for the idle timeout."""
    get = subject.upload_head(method="GET", path=UPLOAD.replace("files", "big") + "/latest")
    with _crowd(subject, 20, get) as crowd:
        worst = subject.serves()  # accepted behind all of them
        deadline = time.monotonic() + CLOSED_SECONDS
        while time.monotonic() < deadline and subject.descriptors() > subject.descriptors_before:
            worst = max(worst, subject.serves())
            time.sleep(0.1)
        left = subject.descriptors() - subject.descriptors_before
        subject.report.check(left <= 0, f"{left} downloads to clients that do not read are still running")
        subject.report.check(all(not _whole(sock) for sock in crowd), "a download that was dropped looks whole")
    subject.report.count("clients that do not read", "dropped", 20)
    _others(subject, "clients that do not read", worst)
    subject.settle("slow clients", memory_kib=48 * 1024)


def _whole(sock: socket.socket) -> bool:
    received = 0
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(1 << 20):
            received += len(piece)
    return received >= BIG


def flood(subject: Subject) -> None:
    """Open twice as many connections as the process may have descriptors, and keep them open."""
    report, process = subject.report, subject.program.process
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, before[1]))
    upload = subject.upload_head(f"Content-Length: {len(subject.body)}", "Connection: close") + subject.body
    try:
        with _crowd(subject, 2 * DESCRIPTORS, b"GET /") as crowd:
            used, begun = subject.processor_seconds(), time.monotonic()
            worst = max(subject.serves() for _ in range(5))
            reply = wire.exchange(subject.port, [upload], CLOSED_SECONDS)
            report.check(
                reply.statuses == [200], f"an upload during a flood is answered {reply.statuses} {reply.bodies}"
            )
            while time.monotonic() - begun < 1.0:  # the crowd comes back as fast as it is turned away
                for sock in crowd[:20]:
                    _send_if_open(sock, b"x")
            share = (subject.processor_seconds() - used) / (time.monotonic() - begun)
            report.check(share < 0.8, f"during a flood the server uses {share:.0%} of a processor: it spins")
            most = subject.descriptors()
            report.check(most <= DESCRIPTORS, f"{most} descriptors are open, {DESCRIPTORS} are allowed")
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
    report.count("connections beyond the limit of open files", "others served", 2 * DESCRIPTORS)
    report.note(f"during the flood: {share:.0%} of a processor, {most} of {DESCRIPTORS} descriptors")
    _others(subject, "a flood of connections", worst)
    report.check(len(subject.program.lines) < 2000, f"a flood writes {len(subject.program.lines)} lines into the log")
    subject.settle("a flood of connections", memory_kib=48 * 1024)


def _others(subject: Subject, during: str, seconds: float) -> None:
    subject.report.check(seconds < OTHERS_SECONDS, f"during {during} another client waited {seconds:.1f} s")
    subject.report.note(f"during {during}: others waited {1000 * seconds:.0f} ms at most")
