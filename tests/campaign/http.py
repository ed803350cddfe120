"""HTTP as no honest client speaks it: malformed, cut, early closed, half-closed, pipelined.

Whatever is sent, the server answers or drops within its timeouts, never answers 500, never answers a request that was
hidden in the body of another, goes on serving others, and is afterwards what it was before.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.campaign import http_cases, wire
from tests.campaign.http_cases import NEXT, Case
from tests.campaign.report import Report
from tests.campaign.subject import CLOSED_SECONDS, UPLOAD, Subject
from tests.serving import message

CLIENTS = 64
BODY = message(60)
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + BODY + b"\r\n--b--\r\n"
)  # fmt: skip


def run(report: Report, minutes: float) -> None:
    """Try everything once; with ``minutes`` at every byte, and again and again for that long."""
    with tempfile.TemporaryDirectory(prefix="campaign") as folder, Subject(Path(folder), report) as subject:
        deadline = time.monotonic() + 60 * minutes
        while True:
            malformed(subject)
            step = 1 if minutes else 13
            splits(subject, step)
            early_ends(subject, step)
            pipelines(subject)
            if time.monotonic() > deadline:
                break


def malformed(subject: Subject) -> None:
    """The table of cases."""
    login = b"POST /api/stable/auth/login HTTP/1.1\r\nHost: x\r\n\r\n"
    for head in (login, subject.upload_head()):
        _try_all(subject, http_cases.framing(head))
    _try_all(subject, http_cases.heads())
    _try_all(subject, http_cases.start_lines())
    _try_all(subject, http_cases.odd_paths(subject.token))
    subject.settle("malformed requests")


def _try_all(subject: Subject, cases: Iterable[Case]) -> None:
    with ThreadPoolExecutor(CLIENTS) as clients:
        for _ in clients.map(lambda case: _try(subject, case), cases):
            pass
    subject.serves()


def _try(subject: Subject, case: Case) -> None:
    report = subject.report
    try:
        reply = wire.exchange(subject.port, [case.data], CLOSED_SECONDS)
    except OSError as error:
        report.finding(f"{case.kind}, {case.name}: {error!r}")
        return
    told = f"{case.kind}, {case.name}: {reply.statuses} {reply.ended} {reply.rest[:80]!r}"
    report.check(reply.ended != "open", f"{told}: not dropped within {CLOSED_SECONDS} s")
    report.check(all(status < 500 or status == 503 for status in reply.statuses), told)
    report.check(
        case.least <= len(reply.statuses) <= case.answers, f"{told}: {case.least} to {case.answers} answers are right"
    )
    report.check(not reply.rest, told)
    report.count(case.kind, " ".join(map(str, reply.statuses)) or reply.ended)


def uploads(subject: Subject) -> dict[str, bytes]:
    """Return whole uploads in every framing."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:1], BODY[1:30], BODY[30:]))
    form = "Content-Type: multipart/form-data; boundary=b"
    return {
        "raw": subject.upload_head(f"Content-Length: {len(BODY)}", "Connection: close") + BODY,
        "chunked": subject.upload_head("Transfer-Encoding: chunked", "Connection: close") + chunks + b"0\r\n\r\n",
        "form": subject.upload_head(f"Content-Length: {len(FORM)}", form, "Connection: close") + FORM,
    }


def splits(subject: Subject, step: int) -> None:
    """An upload in two pieces, cut at every byte, and one byte at a time: always stored."""
    for kind, data in uploads(subject).items():
        for cut in range(1, len(data), step):
            _stored(subject, f"{kind} upload in two pieces", [data[:cut], data[cut:]])
        _stored(subject, f"{kind} upload byte by byte", [data[at : at + 1] for at in range(len(data))])
    subject.settle("split uploads")


def _stored(subject: Subject, kind: str, pieces: list[bytes]) -> None:
    reply = wire.exchange(subject.port, pieces, CLOSED_SECONDS, pause=0.001 if len(pieces) == 2 else 0)
    subject.report.check(
        reply.statuses == [200], f"{kind}, first piece {len(pieces[0])}: {reply.statuses} {reply.bodies}"
    )
    subject.report.count(kind, str(reply.statuses))


def early_ends(subject: Subject, step: int) -> None:
    """Leave at every stage of an upload: by closing, by a reset, by closing one direction and waiting."""
    report = subject.report
    for kind, data in uploads(subject).items():
        with ThreadPoolExecutor(CLIENTS) as clients:
            tries = [(cut, then) for cut in range(0, len(data), step) for then in ("close", "reset", "half")]
            replies = clients.map(
                lambda one, data=data: wire.exchange(subject.port, [data[: one[0]]], CLOSED_SECONDS, one[1]), tries
            )
            for (cut, then), reply in zip(tries, replies, strict=True):
                report.check(reply.ended != "open", f"{kind} upload of {cut} bytes, then {then}: not dropped")
                report.check(200 not in reply.statuses, f"{kind} upload of {cut} bytes, then {then}: {reply.statuses}")
                report.check(all(s < 500 or s == 503 for s in reply.statuses), f"{kind} {cut} {then}: {reply.statuses}")
                report.count(f"{kind} upload ended early by {then}", " ".join(map(str, reply.statuses)) or reply.ended)
    with ThreadPoolExecutor(CLIENTS) as clients:
        get = subject.upload_head("Connection: close", method="GET", path=f"{UPLOAD}/latest")
        for then in ("close", "reset", "half"):
            list(clients.map(lambda _, then=then: wire.exchange(subject.port, [get], CLOSED_SECONDS, then), range(20)))
            report.count(f"download ended early by {then}", times=20)
    subject.serves()
    subject.settle("early ends")


def pipelines(subject: Subject) -> None:
    """Many requests in one packet: answered in order, each once."""
    report = subject.report
    get = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    reply = wire.exchange(subject.port, [get * 200 + NEXT], CLOSED_SECONDS)
    report.check(reply.statuses == [200] * 201, f"201 pipelined requests have {len(reply.statuses)} answers")
    report.count("pipelined requests", "answered", len(reply.statuses))
    upload = subject.upload_head(f"Content-Length: {len(BODY)}") + BODY
    # An upload that has a next request behind it: the server looks for a client that has gone, and must not take the
    # next request for that.
    listing = subject.upload_head("Connection: close", method="GET")
    reply = wire.exchange(subject.port, [upload * 3 + listing], CLOSED_SECONDS)
    report.check(reply.statuses == [200] * 4, f"three pipelined uploads and a list: {reply.statuses} {reply.bodies}")
    report.count("pipelined uploads", str(reply.statuses))
    refused = subject.upload_head("Content-Length: 100000", token="wrong")
    reply = wire.exchange(subject.port, [refused + NEXT * 20], CLOSED_SECONDS)
    report.check(reply.statuses == [401], f"a request hidden in a refused body: {reply.statuses}")
    report.count("requests hidden in a refused body", str(reply.statuses), 20)
    subject.settle("pipelines")
