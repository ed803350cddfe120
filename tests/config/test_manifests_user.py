"""BackupUser: every field, what breaks a user, and what only voids an entry of one."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from tests.config.manifest_texts import ENCODED, HASH, lookup, object_text, user
from tornado_backups.config.manifests import read_user
from tornado_backups.config.yaml_nodes import from_plain, parse
from tornado_backups.domain.errors import ConfigurationFault
from tornado_backups.domain.model import AccessKey, Grant, Role, User

WHOLE = """\
email: admin@example.org
deactivated: false
organization: "Example"
about: Looks after it all
password: "hashed"
passwordFromRef:  # counts before password
  name: passwords
  entry: admin
restrictByIP:
  - 1.2.3.4
  - 2001:db8::/32
roles:
  - collectionManager
  - usersManager
  - systemAdmin
accessKeys:
  - name: uploader
    passwordFromRef: {name: passwords, entry: admin}
    restrictByIP: [10.0.0.0/8]
    objects:
      - name: website
        type: collection
        roles: [backupUploader, uploadsAnytime]
"""


def test_every_field_of_a_user_is_read() -> None:
    reading = user(WHOLE)
    assert reading.faults() == []
    assert reading.value() == User(
        name="admin",
        email="admin@example.org",
        organization="Example",
        about="Looks after it all",
        deactivated=False,
        password_hash=HASH,
        restrict_by_ip=(ip_network("1.2.3.4"), ip_network("2001:db8::/32")),
        roles=frozenset({Role.COLLECTION_MANAGER, Role.USER_MANAGER, Role.SYSTEM_ADMIN}),
        access_keys=(
            AccessKey(
                "uploader",
                HASH,
                (ip_network("10.0.0.0/8"),),
                (Grant("website", frozenset({Role.BACKUP_UPLOADER, Role.UPLOADS_ANYTIME})),),
            ),
        ),
    )


def test_a_user_needs_nothing_but_a_spec_and_then_may_do_nothing() -> None:
    assert user("{}").value() == User(name="admin")
    assert user("roles:\npassword: ''\naccessKeys: null").value() == User(name="admin")


def test_a_password_may_stand_in_the_user_itself() -> None:
    assert user(f"password: {ENCODED}").value().password_hash == HASH
    assert user(f"password: {HASH}\npasswordFromRef: {{name: '', entry: ''}}").value().password_hash == HASH


@pytest.mark.parametrize("spelling", ["true", "True", "yes", "on", "'true'"])
def test_deactivated_is_understood_in_every_spelling_of_yaml(spelling: str) -> None:
    assert user(f"deactivated: {spelling}").value().deactivated is True


def test_access_keys_of_the_go_servers_first_releases_are_read() -> None:
    spec = f"collectionAccessKeys: [{{name: up, collections: [a, b], roles: [backupUploader], password: '{HASH}'}}]"
    role = frozenset({Role.BACKUP_UPLOADER})
    assert user(spec).value().access_keys == (AccessKey("up", HASH, (), (Grant("a", role), Grant("b", role))),)


@pytest.mark.parametrize(
    ("spec", "line", "words"),
    [
        ("rolls: []", 6, 'did you mean "roles"?'),
        ("email: a\nxyz: 1", 7, "use one of email, deactivated"),
        ("deactivated: maybe", 6, "write true or false"),
        ("deactivated: [true]", 6, "write true or false"),
        ("password: secret-text", 6, "is not an Argon2 hash; put in what 'tornado-backups encode-password' prints"),
        ("passwordFromRef: {name: nothing, entry: a}", 6, "does not exist"),
        ("passwordFromRef: {name: ../secrets/passwords, entry: a}", 6, "write a Secret's name"),
        ("passwordFromRef: {name: passwords, entry: admn}", 6, 'did you mean "admin"?'),
        ("passwordFromRef: {name: passwords}", 6, "is missing"),
        ("passwordFromRef: {name: passwords, entry: admin, key: x}", 6, "use one of name, entry"),
        ("passwordFromRef: admin", 6, "is no mapping"),
        ("restrictByIP: 1.2.3.4", 6, "is no list"),
        ("restrictByIP:\n  - 1.2.3.4\n  - 1.2.3.400", 8, "restrictByIP[1]"),
        ("restrictByIP:\n  - 1.2.3.4/24", 7, "1.2.3.0/24"),
        ("restrictByIP: ['']", 6, "is no text"),
        ("restrictByIP: [null]", 6, "is no text"),
        ("roles: systemAdmin", 6, "is no list"),
        ("roles:\n- [systemAdmin]", 7, "is no text"),
        ("accessKeys: {name: a}", 6, "is no list"),
        ("accessKeys:\n- up", 7, "is no mapping"),
        ("accessKeys:\n- name: up\n  object: []", 8, 'did you mean "objects"?'),
        ("accessKeys:\n- name: up\n  restrictByIP: [x]", 8, "x"),
        ("accessKeys:\n- name: up\n  roles: [backupUploader]", 8, "needs the collections"),
        ("accessKeys:\n- name: up\n  objects:\n  - {name: a, rules: []}", 9, 'did you mean "roles"?'),
        ("email: {a: b}", 6, "write a text"),
        ("about: " + "x" * 5000, 6, "longer than 4096"),
        ('about: "\\0"', 6, "control characters"),
    ],
)
def test_faults_that_leave_a_user_unusable_have_their_line_and_what_would_be_right(
    spec: str, line: int, words: str
) -> None:
    reading = user(spec)
    assert reading.result is None
    with pytest.raises(ConfigurationFault) as caught:
        reading.value()
    assert str(caught.value).startswith(f"u.yaml:{line}: ")
    assert words in str(caught.value)


def test_a_wrong_hash_is_reported_where_the_secret_has_it_and_not_repeated() -> None:
    (fault,) = user("passwordFromRef: {name: passwords, entry: broken}").faults()
    assert str(fault).startswith("passwords.yaml:9: the entry 'broken' is not an Argon2 hash; ")
    assert "hunter2" not in str(fault)
    (fault,) = user("password: hunter2").faults()
    assert "hunter2" not in str(fault)


KEYS = f"""\
roles: [backupUploader, systemadmin, owner]
accessKeys:
- name: good
  password: {HASH}
  objects:
  - {{name: a, roles: [backupUploader]}}
  - {{name: b, roles: [systemAdmin]}}
  - {{name: c, roles: [backupUploader, owner]}}
  - {{name: d, type: user, roles: [backupUploader]}}
  - {{name: ../e, roles: [backupUploader]}}
  - {{name: f, roles: []}}
- name: broken
  passwordFromRef: {{name: passwords, entry: broken}}
- name: open
- name: a$b
- name: good
"""


def test_wrong_roles_objects_and_keys_void_only_themselves() -> None:
    reading = user(KEYS)
    value = reading.value()
    assert reading.breaking == ()
    assert value.roles == {Role.BACKUP_UPLOADER}
    assert value.access_keys == (
        AccessKey("good", HASH, (), (Grant("a", frozenset({Role.BACKUP_UPLOADER})),)),
        AccessKey("broken", ""),
        AccessKey("open", ""),
    )
    assert [(fault.source, fault.line) for fault in reading.faults()] == [
        ("passwords.yaml", 9),
        *(("u.yaml", line) for line in (6, 6, 12, 13, 14, 15, 19, 20, 21)),
    ]
    assert 'did you mean "systemAdmin"?' in str(reading.faults()[1])


def test_all_faults_of_a_user_are_found_in_one_reading() -> None:
    assert [fault.line for fault in user("rolls: []\ndeactivated: x\nrestrictByIP: [y]\n").faults()] == [6, 7, 8]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("kind: BackupUser", "kind: BackupCollection", 3, "write kind: BackupUser"),
        ("kind: BackupUser\n", "", 2, "kind is missing"),
        ("v1alpha1", "v1", 2, "write apiVersion: backups.riotkit.org/v1alpha1"),
        ("name: admin", "name: root", 4, "write name: admin, or rename the file"),
        ("{name: admin}", "admin", 4, "is no mapping"),
        ("spec:\n", "spec:\n# ", 2, "spec is missing"),
        ("spec:\n  email: a", "spec: a", 5, "is no mapping"),
    ],
)
def test_a_wrong_head_breaks_the_object(old: str, new: str, line: int, words: str) -> None:
    text = object_text("BackupUser", "admin", "email: a\n").replace(old, new)
    reading = read_user(parse(text.encode(), "u.yaml"), "u.yaml", "admin", lookup)
    assert words in str(reading.faults()[0])
    assert reading.faults()[0].line == line
    assert reading.result is None


def test_the_name_may_be_missing_and_other_fields_outside_spec_are_nobodys_business() -> None:
    text = object_text("BackupUser", "admin", "email: a\n").replace("name: admin", "labels: {a: b}, uid: x")
    text += "status: {observed: [1, 2]}\n"
    assert read_user(parse(text.encode(), "u.yaml"), "u.yaml", "admin", lookup).value().email == "a"


def test_objects_of_an_api_are_read_without_head_and_lines() -> None:
    document = from_plain(
        {"metadata": {"name": "admin"}, "spec": {"roles": ["backupUploader", "x"]}}, "BackupUser/admin"
    )
    reading = read_user(document, "BackupUser/admin", "admin", lookup)
    assert reading.value().roles == {Role.BACKUP_UPLOADER}
    assert str(reading.faults()[0]).startswith("BackupUser/admin: spec.roles: 'x' is no role")
