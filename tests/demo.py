"""One whole encrypted round trip with real gpg and real curl, unattended: `make demo`.

Starts a quickstart server in a temporary folder, and as a stranger would: encrypts a folder (armoured and binary),
uploads it (raw, as a form, through a pipe), lists, rotates, is refused over quota, restores, compares bit for bit.
Exits 0 when all of it happened, 1 with one line when something did not.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = {"gpg": "gnupg", "curl": "curl", "tar": "tar"}
SMALL = """\
apiVersion: backups.riotkit.org/v1alpha1
kind: BackupCollection
metadata:
  name: small
spec:
  description: A small collection, to see quota and rotation at work
  filenameTemplate: small-${version}.gpg
  maxBackupsCount: 2
  maxOneVersionSize: 100K
  maxCollectionSize: 250K
"""


class Demo:
    """The demo's folder, server and session."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.data = folder / "server"
        self.url = f"http://127.0.0.1:{port}/api/stable"
        self.home = folder / "gnupg"
        self.home.mkdir(mode=0o700)
        self.key = folder / "passphrase"
        self.key.write_text("correct horse battery staple")
        self.token = ""

    def gpg(self, *arguments: str | Path) -> list[str]:
        """Return a gpg command that asks nobody anything."""
        fixed = ["gpg", "--homedir", self.home, "--batch", "--yes", "--quiet", "--pinentry-mode", "loopback"]
        return [str(word) for word in (*fixed, "--passphrase-file", self.key, *arguments)]

    def curl(self, path: str, *arguments: str | Path) -> list[str]:
        """Return a curl command with our token."""
        words = ["curl", "-sS", "-H", f"Authorization: Bearer {self.token}", *arguments, self.url + path]
        return [str(word) for word in words]

    def call(self, path: str, *arguments: str | Path) -> dict:
        """Run curl and return the JSON of its answer."""
        done = subprocess.run(self.curl(path, *arguments), check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def shell(self, text: str) -> dict:
        """Run a pipeline and return the JSON of its last command's answer."""
        done = subprocess.run(["bash", "-o", "pipefail", "-c", text], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)


def say(text: str) -> None:
    """Tell what happens."""
    print(f"  {text}", flush=True)


def expect(holds: bool, what: str) -> None:
    """Go on when it holds, else end the demo."""
    if not holds:
        sys.exit(f"demo: this did not happen: {what}")
    say(what)


@contextmanager
def server(folder: Path) -> Iterator[Demo]:
    """Run a quickstart server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    demo = Demo(folder, port)
    command = [sys.executable, "-m", "tornado_backups", "quickstart", "--dir", str(demo.data)]
    options = [f"--listen=127.0.0.1:{port}", "--rate-default-limit=0", "--log-level=warning"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    try:
        wait_until_ready(process, port)
        yield demo
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(process: subprocess.Popen, port: int) -> None:
    """Wait until the port answers."""
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            sys.exit(f"demo: the server ended with status {process.returncode}")
        time.sleep(0.1)
    sys.exit("demo: the server did not answer within 20 s")


def make_folder(folder: Path) -> Path:
    """Make something worth keeping."""
    source = folder / "photos"
    (source / "2026").mkdir(parents=True)
    (source / "2026" / "sea.raw").write_bytes(os.urandom(300_000))
    (source / "notes.txt").write_text("remember the milk\n" * 1000)
    (source / "empty").touch()
    return source


def log_in(demo: Demo) -> None:
    """Log in as the quickstart's admin."""
    password = (demo.data / "admin-password").read_text().strip()
    answer = demo.call("/auth/login", "-d", json.dumps({"username": "admin", "password": password}))
    demo.token = answer["data"]["token"]
    expect(len(demo.token) > 50, "logged in as admin")


def upload_every_way(demo: Demo, source: Path) -> None:
    """Upload armoured and binary, raw, as a form, and through a pipe."""
    armoured, binary = demo.folder / "photos.asc", demo.folder / "photos.gpg"
    archive = demo.folder / "photos.tar"
    subprocess.run(["tar", "-C", source.parent, "-cf", archive, source.name], check=True)
    subprocess.run(demo.gpg("--symmetric", "--armor", "-o", armoured, archive), check=True)
    subprocess.run(demo.gpg("--symmetric", "-o", binary, archive), check=True)
    path = "/repository/collection/example/version"
    raw = demo.call(path, "--data-binary", f"@{armoured}")
    expect(raw["data"]["version"]["versionNumber"] == 1, "uploaded an armoured file, raw: version 1")
    form = demo.call(path, "-F", f"file=@{binary}")
    expect(form["data"]["version"]["versionNumber"] == 2, "uploaded a binary file, as a form: version 2")
    encrypt = " ".join(demo.gpg("--symmetric", "-o", "-"))
    send = " ".join(f"'{word}'" for word in demo.curl(path, "-T", "-"))
    piped = demo.shell(f"tar -C '{source.parent}' -c '{source.name}' | {encrypt} | {send}")
    expect(piped["data"]["version"]["versionNumber"] == 3, "uploaded through `tar | gpg | curl -T -`: version 3")
    listed = demo.call(path)["data"]["versions"]
    expect([each["versionNumber"] for each in listed] == [1, 2, 3], "listed versions 1, 2, 3")


def rotate_and_overflow(demo: Demo) -> None:
    """Add a collection while the server runs, rotate it, and send too much."""
    tree = demo.data / "config" / "backup-repository" / "backups.riotkit.org" / "v1alpha1" / "backupcollections"
    (tree / "small.yaml").write_text(SMALL)
    path = "/repository/collection/small/version"
    plain = demo.folder / "note"
    for number in range(1, 4):
        plain.write_bytes(os.urandom(50_000))
        note = demo.folder / "note.gpg"
        subprocess.run(demo.gpg("--symmetric", "-o", note, plain), check=True)
        answer = demo.call(path, "--data-binary", f"@{note}")
        expect(answer["status"], f"uploaded version {number} to a collection added while the server runs")
    numbers = [each["versionNumber"] for each in demo.call(path)["data"]["versions"]]
    expect(numbers == [2, 3], "version 1 left by rotation: maxBackupsCount is 2")
    plain.write_bytes(os.urandom(400_000))
    subprocess.run(demo.gpg("--symmetric", "-o", demo.folder / "large.gpg", plain), check=True)
    refused = demo.call(path, "--data-binary", f"@{demo.folder / 'large.gpg'}")
    expect(refused["reason"] == "quota-exceeded", f"refused over quota: {refused['error']}")
    secret = demo.call(path, "--data-binary", f"@{plain}", "-H", "Expect:")
    expect(secret["reason"] in ("not-encrypted", "quota-exceeded"), f"refused unencrypted: {secret['error']}")


def restore(demo: Demo, source: Path) -> None:
    """Download every version, decrypt, unpack, compare."""
    for which in ("1", "v2", "latest"):
        target = demo.folder / f"restored-{which}"
        target.mkdir()
        path = f"/repository/collection/example/version/{which}"
        get = " ".join(f"'{word}'" for word in demo.curl(path, "-f"))
        decrypt = " ".join(demo.gpg("--decrypt"))
        subprocess.run(["bash", "-o", "pipefail", "-c", f"{get} | {decrypt} | tar -C '{target}' -x"], check=True)
        expect(same(source, target / source.name), f"restored version {which}: the same, bit for bit")


def same(left: Path, right: Path) -> bool:
    """Tell whether two folders hold the same files with the same bytes."""
    names = sorted(path.relative_to(left) for path in left.rglob("*"))
    if names != sorted(path.relative_to(right) for path in right.rglob("*")):
        return False
    files = [name for name in names if (left / name).is_file()]
    return all(filecmp.cmp(left / name, right / name, shallow=False) for name in files)


def main() -> int:
    """Run the demo."""
    missing = [f"{name} (package {package})" for name, package in PACKAGES.items() if not shutil.which(name)]
    if missing:
        sys.exit(f"demo: please install {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="tb-demo-") as name, server(Path(name)) as demo:
        print("One encrypted round trip:")
        source = make_folder(demo.folder)
        log_in(demo)
        upload_every_way(demo, source)
        rotate_and_overflow(demo)
        restore(demo, source)
        subprocess.run(["gpgconf", "--homedir", str(demo.home), "--kill", "all"], check=False)
    print("Done: everything that went in encrypted came out the same.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
