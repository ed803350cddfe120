"""The chained audit file: what verifies, what is found, what a crash leaves."""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tornado_backups.services import audit_file
from tornado_backups.services.audit_file import FIRST_PREV, AuditFile, Verdict, verify_audit_file


def event(number: int, text: str = "ok") -> dict[str, object]:
    return {"time": "2026-03-01T12:00:00.000Z", "event": "login", "details": {"n": number, "text": text}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def filled(path: Path, count: int = 6) -> list[bytes]:
    for number in range(count):
        AuditFile(path).append(event(number))
    return path.read_bytes().splitlines(keepends=True)


def test_lines_are_json_numbered_and_chained_and_the_file_is_private(path: Path) -> None:
    lines = filled(path)
    previous = FIRST_PREV
    for number, line in enumerate(lines, start=1):
        read = json.loads(line)
        assert (read["seq"], read["prev"]) == (number, previous)
        body, _, _ = line.partition(b',"hash":"')
        assert read["hash"] == hashlib.sha256(body).hexdigest()
        previous = read["hash"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_unharmed_file_verifies_and_its_last_hash_is_told(path: Path) -> None:
    last = json.loads(filled(path)[-1])["hash"]
    assert verify_audit_file(path) == Verdict(True, 6, f"6 lines; the last hash is {last}")


def test_an_empty_file_verifies(path: Path) -> None:
    path.touch()
    assert verify_audit_file(path) == Verdict(True, 0, "0 lines")


def test_a_missing_file_is_an_error_and_no_verdict(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        verify_audit_file(path)


@pytest.mark.parametrize("number", [1, 3, 6])
def test_an_altered_line_is_named(path: Path, number: int) -> None:
    lines = filled(path)
    lines[number - 1] = lines[number - 1].replace(b'"login"', b'"logon"')
    path.write_bytes(b"".join(lines))
    assert verify_audit_file(path) == Verdict(False, number, f"line {number}: altered, its hash does not fit its text")


def test_a_line_altered_together_with_its_own_hash_is_noticed_at_the_next(path: Path) -> None:
    lines = filled(path)
    body = lines[2].partition(b',"hash":"')[0].replace(b'"login"', b'"logon"')
    lines[2] = body + b',"hash":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    path.write_bytes(b"".join(lines))
    verdict = verify_audit_file(path)
    assert (verdict.ok, verdict.line) == (False, 4)
    assert "one of the two was replaced" in verdict.what


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_removed_line_is_noticed_where_it_is_missing(path: Path, number: int) -> None:
    lines = filled(path)
    del lines[number - 1]
    path.write_bytes(b"".join(lines))
    verdict = verify_audit_file(path)
    assert (verdict.ok, verdict.line) == (False, number)
    assert "removed" in verdict.what


def test_two_lines_that_changed_places_are_noticed(path: Path) -> None:
    lines = filled(path)
    lines[2], lines[3] = lines[3], lines[2]
    path.write_bytes(b"".join(lines))
    assert (verify_audit_file(path).ok, verify_audit_file(path).line) == (False, 3)


def test_a_repeated_line_is_noticed(path: Path) -> None:
    lines = filled(path)
    path.write_bytes(b"".join([*lines[:3], lines[2], *lines[3:]]))
    verdict = verify_audit_file(path)
    assert (verdict.ok, verdict.line) == (False, 4)
    assert "out of order or repeated" in verdict.what


@pytest.mark.parametrize(
    "foreign", [b"\n", b"hello\n", b"{}\n", b'{"hash":"' + b"0" * 64 + b'"}\n', b"\xff" * 200_000 + b"\n"]
)
def test_a_line_that_is_none_of_ours_is_named(path: Path, foreign: bytes) -> None:
    lines = filled(path)
    path.write_bytes(b"".join([*lines[:3], foreign, *lines[3:]]))
    assert (verify_audit_file(path).ok, verify_audit_file(path).line) == (False, 4)


def test_a_foreign_line_at_the_end_is_named(path: Path) -> None:
    path.write_bytes(b"".join(filled(path)) + b"hello\n")
    assert (verify_audit_file(path).ok, verify_audit_file(path).line) == (False, 7)


def test_writing_goes_on_after_a_foreign_line_which_stays_named(path: Path) -> None:
    path.write_bytes(b"".join(filled(path)) + b"hello\n")
    AuditFile(path).append(event(7))
    assert (verify_audit_file(path).ok, verify_audit_file(path).line) == (False, 7)


def test_a_cut_off_tail_cannot_be_seen_as_the_page_on_it_says(path: Path) -> None:
    path.write_bytes(b"".join(filled(path)[:4]))
    assert verify_audit_file(path).ok


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_after_a_crash_at_any_byte_the_chain_goes_on_and_verifies(path: Path, data: st.DataObject) -> None:
    path.unlink(missing_ok=True)
    whole = b"".join(filled(path, 3))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)), label="cut at")])
    assert verify_audit_file(path).ok
    for number in range(3):
        AuditFile(path).append(event(10 + number))
    assert verify_audit_file(path).ok, path.read_text()
    assert path.read_bytes().endswith(b"\n")


def test_what_a_crash_left_cannot_be_changed_afterwards(path: Path) -> None:
    lines = filled(path)
    path.write_bytes(b"".join(lines)[:-40])
    AuditFile(path).append(event(9))
    assert verify_audit_file(path).ok
    path.write_bytes(path.read_bytes().replace(b'"n":5', b'"n":4'))
    verdict = verify_audit_file(path)
    assert (verdict.ok, verdict.line) == (False, 6)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_found_in_its_line_or_the_next(path: Path, data: st.DataObject) -> None:
    path.unlink(missing_ok=True)
    whole = bytearray(b"".join(filled(path, 4)))
    position = data.draw(st.integers(0, len(whole) - 2), label="position")  # without the last line's end, see below
    whole[position] ^= data.draw(st.integers(1, 255), label="change")
    path.write_bytes(whole)
    verdict = verify_audit_file(path)
    assert not verdict.ok or not bytes(whole).endswith(b"}\n")
    assert verdict.line in {bytes(whole[:position]).count(b"\n") + offset for offset in (1, 2)}


def write_many(path: Path, writer: int) -> None:
    trail = AuditFile(path)
    for number in range(50):
        trail.append(event(number, f"writer {writer}"))


def test_processes_that_write_at_once_make_one_chain(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(path, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
        assert writer.exitcode == 0
    verdict = verify_audit_file(path)
    assert (verdict.ok, verdict.line) == (True, 200), verdict.what


def test_a_file_that_was_renamed_away_is_followed_by_a_new_chain(path: Path) -> None:
    trail = AuditFile(path)
    trail.append(event(1))
    path.rename(path.with_suffix(".1"))
    trail.append(event(2))
    assert verify_audit_file(path).ok
    assert verify_audit_file(path.with_suffix(".1")).ok


def test_a_writer_that_was_stopped_with_the_lock_does_not_stop_others_for_long(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_file, "LOCK_ATTEMPTS", 3)
    filled(path, 1)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            AuditFile(path).append(event(2))
    AuditFile(path).append(event(3))
    assert verify_audit_file(path) == Verdict(True, 2, verify_audit_file(path).what)


def test_a_write_that_stops_short_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = filled(path, 2)
    real = os.write

    def short(descriptor: int, data: bytes) -> int:
        return real(descriptor, data[:20])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", short)
        with pytest.raises(OSError, match="only 20 of"):
            AuditFile(path).append(event(3))
    assert path.read_bytes() == b"".join(lines)
    AuditFile(path).append(event(4))
    assert verify_audit_file(path).line == 3


def test_lines_written_during_a_check_are_left_for_the_next_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path, 3)
    real = audit_file._verify

    def meanwhile(lines: object) -> Verdict:
        AuditFile(path).append(event(4))
        return real(lines)  # type: ignore[arg-type]

    monkeypatch.setattr(audit_file, "_verify", meanwhile)
    assert verify_audit_file(path).line == 3
