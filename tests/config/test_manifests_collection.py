"""BackupCollection: every field, its bounds, what breaks a collection, and what only voids an entry of one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.config.manifest_texts import CODE_HASH, collection
from tornado_backups.domain.model import (
    HEALTH_CODE_UNREADABLE,
    AccessEntry,
    BackupWindow,
    Collection,
    Fifo,
    FifoPlusOlder,
    Gfs,
    NoRotation,
    Role,
)

GO_EXAMPLE = """\
description: The web site's files
filenameTemplate: website-${version}.tar.gz
maxBackupsCount: 5
maxOneVersionSize: 1M
maxCollectionSize: 10M
windows:
    - from: "*/30 * * * *"
      duration: 30m
strategyName: fifo
strategySpec:
    keepLastOlderNotMoreThan: 5d
    maxOlderCopies: 2
healthSecretRef:
    name: passwords
    entry: health
accessControl:
    - userName: admin
      roles:
          - collectionManager
"""

LEAST = "filenameTemplate: a-${version}\nmaxBackupsCount: 1\n"  # lines 6 and 7


def test_a_collection_as_the_go_server_has_it_is_read_unchanged() -> None:
    reading = collection(GO_EXAMPLE)
    assert reading.faults() == []
    assert reading.value() == Collection(
        name="website",
        description="The web site's files",
        filename_template="website-${version}.tar.gz",
        max_backups_count=5,
        max_one_version_bytes=1024**2,
        max_collection_bytes=10 * 1024**2,
        windows=(BackupWindow("*/30 * * * *", timedelta(minutes=30)),),
        rotation=Fifo(),
        health_code_hash=CODE_HASH,
        access_control=(AccessEntry("admin", frozenset({Role.COLLECTION_MANAGER})),),
    )


def test_two_fields_are_enough_and_everything_else_is_off() -> None:
    assert collection(LEAST).value() == Collection("website", "a-${version}", 1)


def test_the_fields_that_the_go_server_did_not_have_are_read() -> None:
    value = collection(
        LEAST
        + """\
maxOneVersionSize: 0
maxCollectionSize: 1073741824
protectFor: 2w
minSizeRatio: 0.5
maxAge: 26h
pingUrl: https://hc-ping.com/1234
window: [{from: "0 3 * * MON-FRI", duration: 1h30m, timezone: Europe/Warsaw}]
"""
    ).value()
    assert value.max_collection_bytes == 1024**3
    assert (value.protect_for, value.max_age) == (timedelta(days=14), timedelta(hours=26))
    assert value.min_size_ratio == 0.5
    assert value.ping_url == "https://hc-ping.com/1234"
    assert value.windows == (BackupWindow("0 3 * * MON-FRI", timedelta(minutes=90), "Europe/Warsaw"),)


@pytest.mark.parametrize("number", ["5", "'5'", '"5"'])
def test_numbers_may_stand_in_quotes(number: str) -> None:
    assert collection(f"filenameTemplate: ${{version}}\nmaxBackupsCount: {number}").value().max_backups_count == 5


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        ("strategyName: fifo", Fifo()),
        ("strategyName: ''", Fifo()),
        ("strategyName: none\nstrategySpec: {}", NoRotation()),
        (
            "strategyName: fifo-plus-older\nstrategySpec: {keepLastOlderNotMoreThan: 5d, maxOlderCopies: 2}",
            FifoPlusOlder(2, timedelta(days=5)),
        ),
        ("strategyName: gfs\nstrategySpec: {keepDaily: 7}", Gfs(keep_daily=7)),
        (
            "strategyName: gfs\nstrategySpec: {keepLast: 1, keepHourly: 2, keepDaily: 3, keepWeekly: 4, "
            "keepMonthly: 5, keepYearly: 6, timezone: Europe/Warsaw, maxOlderCopies: 2}",
            Gfs(1, 2, 3, 4, 5, 6, "Europe/Warsaw"),
        ),
    ],
)
def test_each_strategy_is_read_with_the_keys_of_every_strategy_tolerated(spec: str, rule: object) -> None:
    assert collection(LEAST + spec).value().rotation == rule


@pytest.mark.parametrize("number", [1, 10**18])
def test_the_first_version_in_the_template_is_replaced(number: int) -> None:
    value = collection("filenameTemplate: a-${version}-${version}.gpg\nmaxBackupsCount: 1").value()
    assert value.filename(number) == f"a-{number}-${{version}}.gpg"


@pytest.mark.parametrize(
    ("spec", "line", "words"),
    [
        ("maxBackupsCount: 1", 6, "spec.filenameTemplate is missing"),
        ("filenameTemplate: a-${version}", 6, "spec.maxBackupsCount is missing"),
        (LEAST + "maxBackupCount: 5", 8, 'did you mean "maxBackupsCount"?'),
        ("maxBackupsCount: 1\nfilenameTemplate: a.gpg", 7, "does not hold ${version}"),
        ("maxBackupsCount: 1\nfilenameTemplate: a/${version}", 7, "path separator"),
        ("maxBackupsCount: 1\nfilenameTemplate: ..\\${version}", 7, "path separator"),
        ('maxBackupsCount: 1\nfilenameTemplate: "a\\n${version}"', 7, "control characters"),
        ('maxBackupsCount: 1\nfilenameTemplate: "\\0${version}"', 7, "control characters"),
        ("maxBackupsCount: 1\nfilenameTemplate: ' ${version}'", 7, "blanks at its ends"),
        ("maxBackupsCount: 1\nfilenameTemplate: ${version}" + "ł" * 100, 7, "longer than 200 bytes"),
        ("filenameTemplate: ${version}\nmaxBackupsCount: 0", 7, "1 or more"),
        ("filenameTemplate: ${version}\nmaxBackupsCount: 1.5", 7, "1 or more"),
        ("filenameTemplate: ${version}\nmaxBackupsCount: 010", 7, "1 or more"),
        ("filenameTemplate: ${version}\nmaxBackupsCount: " + "9" * 5000, 7, "longer than"),
        ("filenameTemplate: ${version}\nmaxBackupsCount: " + "9" * 50, 7, "1 or more"),
        (LEAST + "maxOneVersionSize: 1X", 8, "'1X' is not a size"),
        (LEAST + "maxCollectionSize: -1", 8, "is not a size"),
        (LEAST + "windows: daily", 8, "is no list"),
        (LEAST + "windows: [{from: '0 3 * * *', duration: 1h}]\nwindow: []", 9, "keep one of the two"),
        (LEAST + "windows:\n- from: 0 3 * * *", 9, "duration is missing"),
        (LEAST + "windows:\n- duration: 1h", 9, "from is missing"),
        (LEAST + "windows:\n- from: 00 30 * * *\n  duration: 1h", 9, 'did you mean "30 0 * * *"?'),
        (LEAST + "windows:\n- duration: 1h\n  from: '@daily'", 10, "five fields"),
        (LEAST + "windows:\n- from: 0 0 31 2 *\n  duration: 1h", 9, "windows[0].from"),
        (LEAST + "windows:\n- from: 0 0 * * 1#2\n  duration: 1h", 9, "windows[0].from"),
        (LEAST + "windows:\n- from: 0 0 L * *\n  duration: 1h", 9, "windows[0].from"),
        (LEAST + "windows:\n- from: 0 0 0 * * *\n  duration: 1h", 9, "windows[0].from"),
        (LEAST + "windows:\n- from: 0 0 * * *\n  duration: 0s", 10, "windows[0].duration"),
        (LEAST + "windows:\n- from: 0 0 * * *\n  duration: soon", 10, "'soon' is not a duration"),
        (LEAST + "windows:\n- from: 0 0 * * *\n  duration: 1h\n  timezone: Mars/Base", 11, "windows[0].timezone"),
        (LEAST + "windows:\n- from: 0 0 * * *\n  duration: 1h\n  tz: UTC", 11, "use one of from, duration, timezone"),
        (LEAST + "windows: [" + "{from: 0 0 * * *, duration: 1h}," * 101 + "]", 8, "more than 100"),
        (LEAST + "strategyName: lifo", 8, 'did you mean "fifo"?'),
        (LEAST + "strategyName: weekly-something", 8, "use one of fifo, fifo-plus-older, gfs, none"),
        (LEAST + "strategySpec: {keepFoo: 1}", 8, "keepFoo"),
        (
            LEAST + "strategyName: fifo-plus-older\nstrategySpec:\n  maxOlderCopies: 2",
            10,
            "keepLastOlderNotMoreThan is missing",
        ),
        (LEAST + "strategyName: fifo-plus-older", 8, "maxOlderCopies is missing"),
        (LEAST + "strategyName: gfs\nstrategySpec: {keepDaily: 0}", 9, "are all 0"),
        (LEAST + "strategyName: gfs\nstrategySpec: {keepDaily: 1, timezone: ../../etc/passwd}", 9, "IANA name"),
        (LEAST + "strategyName: gfs\nstrategySpec: {keepDaily: 1, timezone: America}", 9, "IANA name"),
        (LEAST + "protectFor: soon", 8, "'soon' is not a duration"),
        (LEAST + "maxAge: -1h", 8, "negative"),
        (LEAST + "minSizeRatio: 1.5", 8, "a number from 0 to 1"),
        (LEAST + "minSizeRatio: .nan", 8, "a number from 0 to 1"),
        (LEAST + "minSizeRatio: 50%", 8, "a number from 0 to 1"),
        (LEAST + "pingUrl: ftp://example.org/x", 8, "http:// or https://"),
        (LEAST + "pingUrl: http://", 8, "http:// or https://"),
        (LEAST + "pingUrl: http://a:99999/", 8, "http:// or https://"),
        (LEAST + "pingUrl: http://[x/", 8, "http:// or https://"),
        (LEAST + "pingUrl: http://a b/", 8, "http:// or https://"),
        (LEAST + "healthSecretRef: passwords", 8, "is no mapping"),
        (LEAST + "accessControl:\n- userName: a\n  role: [backupUploader]", 10, 'did you mean "roles"?'),
        (LEAST + "accessControl:\n- userName: a\n  roles: backupUploader", 10, "is no list"),
    ],
)
def test_faults_that_leave_a_collection_unusable_have_their_line_and_what_would_be_right(
    spec: str, line: int, words: str
) -> None:
    reading = collection(spec)
    assert reading.result is None
    found = [(fault.line, str(fault)) for fault in reading.breaking]
    assert any(fault_line == line and words in text for fault_line, text in found), found
    assert all(text.startswith(f"c.yaml:{fault_line}: ") for fault_line, text in found)


def test_the_ping_url_is_a_key_and_not_repeated() -> None:
    assert "1234" not in str(collection(LEAST + "pingUrl: hc-ping.com/1234").faults()[0])


def test_wrong_entries_of_the_access_list_void_only_themselves() -> None:
    reading = collection(
        LEAST
        + """\
accessControl:
- {name: a, type: user, roles: [backupUploader, backupDownloader]}
- {userName: b, roles: [systemAdmin]}
- {userName: c, roles: [backupUploader, usersManager]}
- {userName: d, roles: [owner, backupUploader]}
- {userName: e, type: group, roles: [backupUploader]}
- {name: f, userName: g, roles: [backupUploader]}
- {name: h, userName: h, roles: [uploadsAnytime]}
- {roles: [backupUploader]}
- {name: ../i, roles: [backupUploader]}
- {name: j, roles: []}
"""
    )
    assert reading.value().access_control == (
        AccessEntry("a", frozenset({Role.BACKUP_UPLOADER, Role.BACKUP_DOWNLOADER})),
        AccessEntry("h", frozenset({Role.UPLOADS_ANYTIME})),
    )
    assert [fault.line for fault in reading.voiding] == [10, 11, 12, 13, 14, 16, 17]


@pytest.mark.parametrize(
    "reference", ["{name: nothing, entry: x}", "{name: passwords, entry: x}", "{name: passwords, entry: broken}", "{}"]
)
def test_a_health_code_that_cannot_be_read_shuts_the_page_and_lets_backups_go_on(reference: str) -> None:
    reading = collection(LEAST + f"healthSecretRef: {reference}")
    assert reading.value().health_code_hash == HEALTH_CODE_UNREADABLE
    assert len(reading.voiding) == 1
