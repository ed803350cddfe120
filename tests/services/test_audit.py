"""Events: their form, their bounds, what happens when they cannot be written."""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_backups.services import audit_file
from tornado_backups.services.audit import AUDIT_LOGGER, MAX_DETAILS, MAX_VALUE_CHARACTERS, AuditTrail, send_journal_to
from tornado_backups.services.audit_file import verify_audit_file
from tornado_backups.services.redaction import RedactingFilter, redact

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJsb2dpbiI6ImFsaWNlIn0.c2lnbmF0dXJlc2lnbmF0dXJl"
PHC = "$argon2id$v=19$m=65536,t=1,p=4$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo"


class Clock:
    def now(self) -> datetime:
        return datetime(2026, 3, 1, 12, 0, 0, 5000, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == AUDIT_LOGGER]


@pytest.fixture(autouse=True)
def _journal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_an_event_is_one_json_line_with_who_from_where_what_and_result(caplog: pytest.LogCaptureFixture) -> None:
    AuditTrail(Clock()).record(
        "upload", "ok", user="alice", session_id="ab12", address="192.0.2.1", collection="iwa", version=3, size=7
    )
    (line,) = lines(caplog)
    assert json.loads(line) == {
        "time": "2026-03-01T12:00:00.005Z",
        "event": "upload",
        "result": "ok",
        "user": "alice",
        "session": "ab12",
        "address": "192.0.2.1",
        "collection": "iwa",
        "details": {"version": 3, "size": 7},
    }


def test_the_file_gets_the_same_line_chained(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    trail = AuditTrail(Clock(), tmp_path / "audit.log")
    trail.record("login", "ok", user="alice")
    trail.record("logout", "ok", user="alice")
    written = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    for journal, line in zip(lines(caplog), written, strict=True):
        assert json.loads(journal) == {name: line[name] for name in json.loads(journal)}
    assert verify_audit_file(tmp_path / "audit.log").ok


def test_the_trail_is_not_thinned_out_by_the_log_level(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger().setLevel(logging.ERROR)  # the level alone, as --log-level sets it; caplog restores it
    AuditTrail(Clock()).record("login", "ok")
    assert len(lines(caplog)) == 1


def test_the_trail_can_have_a_stream_of_its_own_with_nothing_but_json(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger(AUDIT_LOGGER)
    before = list(logger.handlers), logger.propagate
    stream = io.StringIO()
    try:
        send_journal_to(io.StringIO())
        send_journal_to(stream)
        AuditTrail(Clock()).record("login", "ok", user="alice")
    finally:
        logger.handlers[:], logger.propagate = before
    assert json.loads(stream.getvalue())["user"] == "alice"
    assert stream.getvalue().count("\n") == 1
    assert "alice" not in caplog.text


@settings(max_examples=80, deadline=None)
@given(text=st.text(max_size=60) | st.sampled_from(["a\nb", "\x00", "\u2028", '"},{"', "\ud800", "\x1b[31m"]))
def test_no_value_can_begin_a_line_of_its_own(text: str) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger(AUDIT_LOGGER)
    logger.addHandler(handler)
    try:
        AuditTrail(Clock()).record(
            "refusal", text, user=text, session_id=text, address=text, collection=text, path=text
        )
    finally:
        logger.removeHandler(handler)
    (line,) = [record.getMessage() for record in records]
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["event"] == "refusal"


def test_values_and_details_are_bounded(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    details = {f"detail{number}" + "x" * 500: "e" * 10**5 for number in range(100)}
    AuditTrail(Clock(), tmp_path / "audit.log").record("refusal", "bad-request", user="u" * 10**6, **details)
    read = json.loads(lines(caplog)[0])
    assert len(read["user"]) == MAX_VALUE_CHARACTERS + 1
    assert len(read["details"]) == MAX_DETAILS
    assert verify_audit_file(tmp_path / "audit.log").ok


def test_the_largest_possible_line_is_bounded_and_the_chain_goes_on_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    long = "\U0001f9ab" * 600
    for _ in range(3):
        AuditTrail(Clock(), path).record(
            long,
            long,
            user=long,
            session_id=long,
            address=long,
            collection=long,
            **{f"{n}{long}": long for n in range(20)},
        )
    read = path.read_bytes().splitlines()
    assert json.loads(read[0])["details"] == {"omitted": True}, "and not an assertion with 100 KiB of text"
    assert max(map(len, read)) < audit_file.MAX_LINE_BYTES
    path.write_bytes(path.read_bytes()[:-100])
    AuditTrail(Clock(), path).record("login", "ok")
    verdict = verify_audit_file(path)
    assert (verdict.ok, verdict.line) == (True, 4)


def test_a_secret_that_slips_into_a_value_is_masked(caplog: pytest.LogCaptureFixture) -> None:
    AuditTrail(Clock()).record(
        "refusal", "not-authenticated", path=f"/x?code=hunter2&token={TOKEN}", header=f"Bearer {TOKEN}"
    )
    assert "hunter2" not in caplog.text
    assert "c2lnbmF0dXJl" not in caplog.text


def test_a_file_that_cannot_be_written_is_named_once_and_the_gap_is_recorded_when_it_can_be_again(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    folder = tmp_path / "not yet"
    trail = AuditTrail(Clock(), folder / "audit.log")
    for _ in range(3):
        trail.record("login", "ok", user="alice")
    assert len(lines(caplog)) == 3, "the journal has them"
    assert caplog.text.count("cannot be written") == 1
    folder.mkdir()
    trail.record("login", "ok", user="alice")
    trail.record("login", "ok", user="alice")
    first, second = [json.loads(line) for line in (folder / "audit.log").read_text().splitlines()]
    assert first["lost"] == 3
    assert "lost" not in second
    assert caplog.text.count("3 events are missing") == 1
    assert verify_audit_file(folder / "audit.log").ok


# -- redaction -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"Authorization: Bearer {TOKEN}", "Authorization: Bearer ***"),
        ("authorization: Basic dXNlcjpwdw==", "authorization: Basic ***"),
        ("{'Authorization': 'Bearer abc.def'}", "{'Authorization': 'Bearer ***'}"),
        (f"GET /x?token={TOKEN}&y=1", "GET /x?token=***&y=1"),
        ("GET /ready?code=hunter2 200", "GET /ready?code=*** 200"),
        ('{"password": "hun\\"ter2", "x": 1}', '{"password": "***", "x": 1}'),
        ("{'code': 'hunter2'}", "{'code': '***'}"),
        ("postgresql://me:hunter2@db:5432/x", "postgresql://me:***@db:5432/x"),
        (f"got {TOKEN} from", "got *** from"),
        (f"got {TOKEN[:40]} from", "got *** from"),
        (f"hash {PHC} is", "hash *** is"),
        ("hash JGFyZ29uMmlkJHY9MTkkbT02NTUzNix0PTEscD00JGMy is", "hash *** is"),
    ],
)
def test_what_looks_like_a_secret_is_masked_and_the_rest_stays(text: str, kept: str) -> None:
    assert redact(text) == kept
    assert redact(kept) == kept


@pytest.mark.parametrize(
    "text",
    [
        "200 POST /api/stable/repository/collection/iwa-ait/version (192.0.2.1) 12.3ms",
        "session 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 was revoked",
        "http://127.0.0.1:8080/health at 12:30 by me@example.org",
        "exit code: 3, the token is invalid or expired",
    ],
)
def test_ordinary_lines_are_left_alone(text: str) -> None:
    assert redact(text) == text


def test_the_filter_masks_message_arguments_and_traceback() -> None:
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "got %s", (TOKEN,), None)
    try:
        raise ValueError(f"Bearer {TOKEN}")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    assert RedactingFilter().filter(record)
    assert RedactingFilter().filter(record)
    text = logging.Formatter("%(message)s").format(record)
    assert "got ***" in text
    assert "ValueError: Bearer ***" in text
    assert TOKEN not in text


def test_a_record_whose_arguments_do_not_fit_is_left_to_logging() -> None:
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "%d", ("no number",), None)
    assert RedactingFilter().filter(record)
    assert record.args == ("no number",)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=300))
def test_redacting_ends_and_redacting_again_changes_nothing_more(text: str) -> None:
    assert redact(redact(text)) == redact(text)
