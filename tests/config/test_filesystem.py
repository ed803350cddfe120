"""The folder of YAML files: changes count at once, unchanged files are not read again, nothing odd is a crash."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.config.manifest_texts import HASH, SECRET, object_text
from tornado_backups.config import files
from tornado_backups.config.filesystem import FilesystemSource
from tornado_backups.domain.errors import ConfigurationFault, StartupError
from tornado_backups.domain.model import Role

COLLECTION = "filenameTemplate: a-${version}\nmaxBackupsCount: 3\n"


class Tree:
    """A configuration tree in a temporary folder, a source over it, and the faults that the source reported."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = root / "ns"
        self.users = self.base / "backups.riotkit.org/v1alpha1/backupusers"
        self.collections = self.base / "backups.riotkit.org/v1alpha1/backupcollections"
        self.secrets = self.base / "v1/secrets"
        for folder in (self.users, self.collections, self.secrets):
            folder.mkdir(parents=True)
        self.reported: list[str] = []
        self.source = FilesystemSource(root, "ns", lambda fault: self.reported.append(str(fault)))

    def user(self, name: str, spec: str) -> Path:
        return self.write(self.users / f"{name}.yaml", object_text("BackupUser", name, spec))

    def collection(self, name: str, spec: str = COLLECTION) -> Path:
        return self.write(self.collections / f"{name}.yaml", object_text("BackupCollection", name, spec))

    def secret(self, text: str = SECRET) -> Path:
        return self.write(self.secrets / "passwords.yaml", text)

    def write(self, path: Path, text: str) -> Path:
        """Write as an editor or ConfigMap does, and as if some time ago: then the stamp is good for keeping."""
        path.write_text(text)
        return path


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file counts as written long ago, so that what was read of it is kept from the first time on."""
    monkeypatch.setattr(files, "_SETTLED_NS", -1)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths opened so far."""
    paths: list[str] = []
    real = os.open

    def counting(path: Any, *arguments: Any, **options: Any) -> int:
        paths.append(os.path.basename(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(files.os, "open", counting)
    return paths


def test_users_and_collections_are_found_and_their_secrets_resolved(tree: Tree) -> None:
    tree.secret()
    tree.user("admin", "passwordFromRef: {name: passwords, entry: admin}\nroles: [systemAdmin]")
    tree.collection("website")
    assert run(tree.source.user("admin")).password_hash == HASH
    assert run(tree.source.collection("website")).max_backups_count == 3
    assert run(tree.source.user("nobody")) is None
    assert run(tree.source.collection("admin")) is None
    assert tree.reported == []


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../admin", "..%2fadmin", "%2e%2e", "a/b", "a\\b", "a\0", "\0", "x" * 254, "x" * 300, "-a"),
        *("a-", ".a", "a b", "name$key$x", "ł", "a\n", "admin.yaml/", "~", "*", "\ud800"),
    ],
)
def test_impossible_names_are_not_found_and_never_reach_a_path(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tree.root / "admin.yaml").write_text(object_text("BackupUser", "admin", "{}"))

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the file system was asked")

    for function in ("stat", "open", "lstat", "scandir", "listdir"):
        monkeypatch.setattr(os, function, refuse)
    coroutines = (tree.source.user(name), tree.source.collection(name))
    results = [_step(coroutine) for coroutine in coroutines]
    monkeypatch.undo()
    assert results == [None, None]


def _step(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing but its turn, without an event loop (which needs the file system)."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as end:
        return end.value


@pytest.mark.parametrize("name", ["x" * 253, "A", "a.b_c-D", "0"])
def test_possible_names_that_are_not_there_are_not_found_either(tree: Tree, name: str) -> None:
    assert run(tree.source.user(name)) is None


def test_a_change_counts_at_the_next_request_however_small_and_fast_it_is(tree: Tree) -> None:
    path = tree.collection("c")
    for count in (4, 5, 6, 7, 8, 9) * 20:
        # The same size, the same inode, and often the same tick of the clock that stamps files.
        path.write_text(object_text("BackupCollection", "c", COLLECTION.replace("3", str(count))))
        assert run(tree.source.collection("c")).max_backups_count == count


def test_replacing_a_file_with_an_older_one_of_the_same_size_counts(tree: Tree, settled: None) -> None:
    path = tree.collection("c")
    assert run(tree.source.collection("c")).max_backups_count == 3
    other = path.with_suffix(".new")
    other.write_text(path.read_text().replace("3", "4"))
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.rename(path)
    assert run(tree.source.collection("c")).max_backups_count == 4


def test_unchanged_files_are_not_opened_again(tree: Tree, settled: None, opened: list[str]) -> None:
    tree.secret()
    tree.user("admin", "passwordFromRef: {name: passwords, entry: admin}")
    for _ in range(5):
        run(tree.source.user("admin"))
    assert opened == ["admin.yaml", "passwords.yaml"]


def test_a_changed_secret_counts_for_every_user_that_refers_to_it(tree: Tree, settled: None) -> None:
    path = tree.secret()
    for name in ("a", "b"):
        tree.user(name, "passwordFromRef: {name: passwords, entry: admin}")
        assert run(tree.source.user(name)).password_hash == HASH
    path.write_text(SECRET.replace("admin: ", "old: "))
    for name in ("a", "b"):
        with pytest.raises(ConfigurationFault, match="which the Secret 'passwords' lacks"):
            run(tree.source.user(name))


def test_a_missing_secret_counts_as_soon_as_it_is_there_and_when_it_is_gone(tree: Tree, settled: None) -> None:
    tree.user("a", "passwordFromRef: {name: passwords, entry: admin}")
    with pytest.raises(ConfigurationFault, match="does not exist"):
        run(tree.source.user("a"))
    path = tree.secret()
    assert run(tree.source.user("a")).password_hash == HASH
    path.unlink()
    with pytest.raises(ConfigurationFault, match="does not exist"):
        run(tree.source.user("a"))


def test_a_kubernetes_mount_that_is_swapped_as_a_whole_counts(tree: Tree, settled: None) -> None:
    for number in (1, 2):
        folder = tree.collections / f"..data_{number}"
        folder.mkdir()
        text = object_text("BackupCollection", "c", COLLECTION.replace("3", str(number)))
        (folder / "c.yaml").write_text(text)
    (tree.collections / "..data").symlink_to("..data_1")
    (tree.collections / "c.yaml").symlink_to("..data/c.yaml")
    assert run(tree.source.collection("c")).max_backups_count == 1
    (tree.collections / "..data_tmp").symlink_to("..data_2")
    (tree.collections / "..data_tmp").rename(tree.collections / "..data")
    assert run(tree.source.collection("c")).max_backups_count == 2
    assert run(tree.source.collection_names()) == ["c"]
    assert run(tree.source.faults()) == []


def test_a_file_that_breaks_takes_down_only_itself_and_never_serves_its_last_good_reading(tree: Tree) -> None:
    path = tree.user("a", "roles: [systemAdmin]")
    tree.user("b", "roles: [systemAdmin]")
    assert run(tree.source.user("a")).roles == {Role.SYSTEM_ADMIN}
    path.write_text("roles: [\n")
    for _ in range(3):
        with pytest.raises(ConfigurationFault, match=rf"^{path}:2: "):
            run(tree.source.user("a"))
    assert run(tree.source.user("b")).roles == {Role.SYSTEM_ADMIN}
    path.unlink()
    assert run(tree.source.user("a")) is None


def test_a_fault_is_reported_once_per_change(tree: Tree) -> None:
    path = tree.user("a", "rols: []")
    for _ in range(3):
        with pytest.raises(ConfigurationFault):
            run(tree.source.user("a"))
    assert len(tree.reported) == 1
    path.write_text(path.read_text() + "\n")
    with pytest.raises(ConfigurationFault):
        run(tree.source.user("a"))
    assert len(tree.reported) == 2
    tree.source.reload()
    with pytest.raises(ConfigurationFault):
        run(tree.source.user("a"))
    assert len(tree.reported) == 3


def test_a_void_entry_is_reported_once_and_the_rest_serves(tree: Tree) -> None:
    path = tree.user("a", "roles: [systemAdmin, owner]")
    for _ in range(3):
        assert run(tree.source.user("a")).roles == {Role.SYSTEM_ADMIN}
    assert tree.reported == [f"{path}:6: spec.roles: 'owner' is no role, so it grants nothing; " + _roles()]


def _roles() -> str:
    return "use " + ", ".join(sorted(Role))


def test_without_anyone_to_report_to_faults_are_logged(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    path = tree.user("a", "roles: [owner]")
    with caplog.at_level(logging.ERROR):
        run(FilesystemSource(tree.root, "ns").user("a"))
    assert f"{path}:6: " in caplog.text


def _dangling(path: Path) -> None:
    path.symlink_to("nothing.yaml")


def _cyclic(path: Path) -> None:
    path.symlink_to(path.with_suffix(".other"))
    path.with_suffix(".other").symlink_to(path)


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket is limited to about a hundred characters
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * 1024 * 1024)


ODD_THINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (Path.mkdir, "this is a folder"),
    "a pipe": (os.mkfifo, "this is a pipe, socket or device"),
    "a socket": (_socket, "this is a pipe, socket or device"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "this is a pipe, socket or device"),
    "a link to nothing": (_dangling, "this is a link to nothing"),
    "a circle of links": (_cyclic, "this link leads in a circle"),
    "100 MB": (_huge, "larger than 1 MiB"),
    "an endless file": (lambda path: path.symlink_to("/proc/self/pagemap"), ""),
}


@pytest.mark.parametrize(("make", "words"), ODD_THINGS.values(), ids=ODD_THINGS.keys())
def test_odd_things_in_place_of_a_file_are_faults_with_file_and_line_in_no_time(
    tree: Tree, make: Callable[[Path], object], words: str
) -> None:
    path = tree.users / "odd.yaml"
    make(path)
    started = time.perf_counter()
    with pytest.raises(ConfigurationFault) as caught:
        run(tree.source.user("odd"))
    assert time.perf_counter() - started < 10
    assert str(caught.value).startswith(f"{path}:1: ")
    assert words in caught.value.what
    assert str(caught.value) in [str(fault) for fault in run(tree.source.faults())]


def test_a_file_that_may_not_be_read_is_asked_for_again_each_time_but_reported_once(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tree.user("a", "{}")
    real = os.open

    def denied(*arguments: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "open", denied)
    for _ in range(2):
        with pytest.raises(ConfigurationFault, match=rf"^{path}:1: the file must not be read by this server"):
            run(tree.source.user("a"))
    monkeypatch.setattr(files.os, "open", real)
    assert run(tree.source.user("a")).name == "a"
    assert len(tree.reported) == 1


def test_a_file_that_changes_while_it_is_read_is_read_again(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tree.collection("c")
    real, changes = os.read, iter("45")

    def racing(descriptor: int, length: int) -> bytes:
        data = real(descriptor, length)
        if data and (count := next(changes, None)):
            path.write_text(object_text("BackupCollection", "c", COLLECTION.replace("3", count) + "maxAge: 1h\n"))
        return data

    monkeypatch.setattr(files.os, "read", racing)
    assert run(tree.source.collection("c")).max_backups_count == 5


def test_a_file_that_never_holds_still_is_a_fault(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tree.collection("c")
    real = os.read

    def racing(descriptor: int, length: int) -> bytes:
        with path.open("a") as file:
            file.write("\n")
        return real(descriptor, length)

    monkeypatch.setattr(files.os, "read", racing)
    with pytest.raises(ConfigurationFault, match="changes while it is read"):
        run(tree.source.collection("c"))


def test_collection_names_are_those_of_files_broken_ones_too(tree: Tree) -> None:
    for name in ("b", "a"):
        tree.collection(name)
    (tree.collections / "broken.yaml").write_text("[")
    (tree.collections / "dangling.yaml").symlink_to("nothing")
    for other in (".hidden.yaml", "x.yml", "x.yaml~", "..data", "-.yaml", ".yaml"):
        (tree.collections / other).write_text("")
    assert run(tree.source.collection_names()) == ["a", "b", "broken", "dangling"]


def test_the_list_of_collections_is_kept_until_the_folder_changes(
    tree: Tree, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.collection("a")
    run(tree.source.collection_names()).append("changed by its reader")
    listed: list[str] = []
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or real(path))
    assert run(tree.source.collection_names()) == ["a"]
    assert listed == []
    tree.collection("b")
    assert run(tree.source.collection_names()) == ["a", "b"]
    (tree.collections / "a.yaml").unlink()
    assert run(tree.source.collection_names()) == ["b"]


def test_a_tree_without_collections_has_none(tree: Tree) -> None:
    tree.collections.rmdir()
    assert run(tree.source.collection_names()) == []
    assert run(tree.source.faults()) == []


def test_check_config_finds_every_fault_with_file_and_line(tree: Tree) -> None:
    secret = tree.secret(SECRET + "  list: []\n")
    broken = tree.user("a", "rols: []\npasswordFromRef: {name: passwords, entry: none}")
    void = tree.user("b", "passwordFromRef: {name: passwords, entry: broken}\nroles: [owner]")
    tree.user("c", "passwordFromRef: {name: passwords, entry: admin}")
    misnamed = tree.write(tree.collections / "c.yml", "")
    impossible = tree.write(tree.collections / "a b.yaml", "")
    tree.write(tree.collections / ".swp.yaml", "[")
    tree.write(tree.collections / "notes.txt", "[")
    second = tree.write(tree.collections / "d.yaml", object_text("BackupCollection", "d", COLLECTION) + "---\na: 1\n")
    found = [(fault.source, fault.line) for fault in run(tree.source.faults())]
    assert sorted(found) == sorted(
        [
            (str(broken), 6),
            (str(broken), 7),
            (str(secret), 9),
            (str(void), 7),
            (str(secret), 10),
            (str(misnamed), 1),
            (str(impossible), 1),
            (str(second), 9),
        ]
    )
    assert tree.reported == []


def test_a_folder_that_is_a_file_is_a_fault(tree: Tree) -> None:
    tree.users.rmdir()
    tree.users.write_text("")
    with pytest.raises(ConfigurationFault, match="Not a directory"):
        run(tree.source.user("admin"))
    assert [fault.source for fault in run(tree.source.faults())] == [str(tree.users)]


def test_opening_says_in_one_line_which_folder_is_missing_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StartupError) as caught:
        run(FilesystemSource(tmp_path / "none", "ns").open())
    assert caught.value.sentence == (
        f"the configuration folder {tmp_path}/none/ns does not exist: create it, or correct --config-local-path or "
        "--namespace; 'tornado-backups quickstart' makes one"
    )
    (tmp_path / "ns").write_text("")
    with pytest.raises(StartupError, match="is no folder"):
        run(FilesystemSource(tmp_path, "ns").open())
    with pytest.raises(StartupError, match=r"--namespace '\.\./x'"):
        run(FilesystemSource(tmp_path, "../x").open())


def test_a_folder_that_disappears_fails_the_readiness_check_and_heals(tree: Tree) -> None:
    run(tree.source.open())
    run(tree.source.ping())
    tree.base.rename(tree.root / "away")
    with pytest.raises(ConfigurationFault, match="does not exist"):
        run(tree.source.ping())
    (tree.root / "away").rename(tree.base)
    run(tree.source.ping())
    run(tree.source.close())


def test_what_is_kept_costs_one_stat_per_file(tree: Tree, settled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.secret()
    tree.collection("c", COLLECTION + "healthSecretRef: {name: passwords, entry: health}")
    run(tree.source.collection("c"))
    asked: list[str] = []
    real = os.stat
    monkeypatch.setattr(files.os, "stat", lambda path: asked.append(os.path.basename(path)) or real(path))
    _step(tree.source.collection("c"))
    monkeypatch.undo()
    assert asked == ["c.yaml", "passwords.yaml"]


def test_names_that_are_not_there_leave_nothing_in_memory(tree: Tree) -> None:
    for number in range(100):
        assert run(tree.source.user(f"nobody{number}")) is None
    shelf = tree.source._users
    assert (shelf._kept, shelf._reported) == ({}, {})
