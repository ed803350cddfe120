"""docs/errors.md has every reason with its status, and the tree as it is; every error that is raised has a status."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT
from tornado_backups.domain import errors
from tornado_backups.domain.errors import BackupError, OperatorError, RequestError
from tornado_backups.web.errors import (
    GENERAL_SENTENCES,
    KEPT_TO_THE_LOG,
    STATUS,
    body_of,
    headers_of,
    leaves,
    status_of,
)
from tornado_backups.web.openapi import UNHEALTHY

PAGE = (ROOT / "docs/errors.md").read_text()
ROW = re.compile(r"^\| (\d{3}) \| `([a-z-]+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def tree(error: type[BackupError], before: str = "", own: str = "") -> list[str]:
    """Return the lines of the picture below an error."""
    what = f"{STATUS[error]} {error.reason}" if error in STATUS else ""
    if error is errors.UploadCancelled:
        what = "never answered: the client has gone"
    lines = [f"{before}{own}{error.__name__}".ljust(32) + what]
    children = error.__subclasses__()
    below = before + {"├── ": "│   ", "└── ": "    ", "": ""}[own]
    for child in children:
        lines += tree(child, below, "└── " if child is children[-1] else "├── ")
    return [line.rstrip() for line in lines]


def test_every_reason_stands_in_the_table_with_its_status_and_advice() -> None:
    rows = ROW.findall(PAGE)
    assert {(int(status), reason) for status, reason, _, _ in rows} == {
        (status, error.reason) for error, status in STATUS.items()
    } | {(500, UNHEALTHY)}
    assert len(rows) == len({reason for _, reason, _, _ in rows})
    assert [status for status, *_ in rows] == sorted(status for status, *_ in rows)


def test_the_picture_shows_the_tree_as_it_is() -> None:
    (shown,) = re.findall(r"```text\n(RequestError\n.*?)```", PAGE, re.DOTALL)
    assert shown.splitlines() == tree(RequestError)


def test_every_error_that_answers_a_request_has_a_status() -> None:
    assert {error for error in leaves(RequestError) if error not in STATUS} == {errors.UploadCancelled}
    assert all(issubclass(error, RequestError) for error in STATUS)


def test_errors_that_end_a_command_are_named_with_their_exit_status() -> None:
    for error in leaves(OperatorError):
        assert re.search(rf"`{error.__name__}`\s+with(\s+exit\s+status)?\s+{error.exit_status}", PAGE), error
    assert f"`{errors.CallbackFailed.__name__}`" in PAGE


def test_one_reason_never_stands_for_two_statuses() -> None:
    statuses = {reason: {STATUS[e] for e in STATUS if e.reason == reason} for reason in {e.reason for e in STATUS}}
    assert {reason: found for reason, found in statuses.items() if len(found) > 1} == {}


def test_what_is_kept_to_the_log_has_a_general_sentence_that_names_nothing() -> None:
    for error in [leaf for leaf in STATUS if issubclass(leaf, KEPT_TO_THE_LOG)]:
        assert error in GENERAL_SENTENCES
    damaged = errors.ObjectDamaged("read", "box/secret-key", "it has 5 bytes", "look into /srv")
    fault = errors.ConfigurationFault("/etc/secret.yaml", 5, "is wrong", "write it right")
    for error in (damaged, fault):
        assert not re.search("secret|/srv|/etc", str(body_of(error)))


def test_an_error_that_the_table_forgot_is_a_500() -> None:
    forgotten = errors.Unavailable("x", 7)
    assert type(forgotten) not in STATUS
    assert status_of(forgotten) == 500
    assert headers_of(forgotten) == {"Retry-After": "7"}


def test_the_body_has_just_what_the_page_says() -> None:
    assert set(body_of(errors.NotFound("x"))) == {"status", "data", "error", "reason"}
    assert set(body_of(errors.NotAuthenticated("x"))) == {"status", "data", "error", "reason", "code", "message"}
    assert set(body_of(errors.NotEncrypted("x"))) == {"status", "data", "error", "reason", "message"}
