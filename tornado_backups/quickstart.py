"""Make a folder from which a server can be started at once, and say what to type next.

Owns: the files that ``quickstart`` writes: a configuration tree, an ``admin`` with a random password, one collection.
Does not own: serving (``app``); everything else in the folder (database, objects, JWT secret) the server makes itself.
Run again it keeps every file that exists. Explained in docs/tutorial-first-backup.md.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from tornado_backups.auth.passwords import encode_password
from tornado_backups.domain.errors import StartupError

PASSWORD_FILE = "admin-password"  # noqa: S105 - a file's name
CONFIG_FOLDER = "config"

HASH_MANIFEST = """\
apiVersion: v1
kind: Secret
metadata:
  name: quickstart
type: Opaque
data:
  # made by `tornado-backups encode-password`
  admin: {password}
"""

ADMIN = """\
apiVersion: backups.riotkit.org/v1alpha1
kind: BackupUser
metadata:
  name: admin
spec:
  email: admin@localhost
  about: Made by `tornado-backups quickstart`
  passwordFromRef:
    name: quickstart
    entry: admin
  roles:
    - systemAdmin
"""

EXAMPLE = """\
apiVersion: backups.riotkit.org/v1alpha1
kind: BackupCollection
metadata:
  name: example
spec:
  description: Made by `tornado-backups quickstart`
  filenameTemplate: example-${version}.tar.gpg
  maxBackupsCount: 5
  maxOneVersionSize: 1G
  maxCollectionSize: 10G
  strategyName: fifo
  accessControl:
    - userName: admin
      roles:
        - collectionManager
"""

GUIDE = """
A quickstart server, with everything it keeps in {folder}
User: admin    Password: {password}    (kept in {folder}/{password_file})

Your first backup, from another terminal (needs curl and gpg):

  # 1. log in
  TOKEN=$(curl -s {url}/api/stable/auth/login \\
    -d '{{"username": "admin", "password": "'"$(cat {folder}/{password_file})"'"}}' | \\
    sed 's/.*"token": "\\([^"]*\\)".*/\\1/')

  # 2. encrypt a folder with a passphrase of your own, and send it
  tar c FOLDER | gpg --symmetric | \\
    curl -sST - -H "Authorization: Bearer $TOKEN" {url}{collection}/version

  # 3. see what is stored
  curl -s -H "Authorization: Bearer $TOKEN" {url}{collection}/version

  # 4. restore the newest version
  curl -sSf -H "Authorization: Bearer $TOKEN" {url}{collection}/version/latest | gpg --decrypt | tar x

Stop with Ctrl-C; the same command starts it again with everything it has.
"""
COLLECTION_PATH = "/api/stable/repository/collection/example"


def make_folder(folder: Path, namespace: str) -> bool:
    """Write what is missing in ``folder``; return whether the admin's password is new. Raises ``StartupError``."""
    tree = folder / CONFIG_FOLDER / namespace
    kinds = tree / "backups.riotkit.org" / "v1alpha1"
    password_file = folder / PASSWORD_FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_new = not password_file.exists()
        if is_new:
            # Password first, hash next: killed in between, the next run writes the hash of the password kept here.
            _write(password_file, secrets.token_urlsafe(18) + "\n", replace=False)
        secret_file = tree / "v1" / "secrets" / "quickstart.yaml"
        if not secret_file.exists():
            password = password_file.read_text(encoding="utf-8").strip()
            _write(secret_file, HASH_MANIFEST.format(password=encode_password(password)))
        _write(kinds / "backupusers" / "admin.yaml", ADMIN, replace=False)
        _write(kinds / "backupcollections" / "example.yaml", EXAMPLE, replace=False)
    except OSError as error:
        raise StartupError(f"the folder {folder} cannot be prepared: {error.strerror}: {error.filename}") from None
    return is_new


def _write(path: Path, text: str, replace: bool = True) -> None:
    if path.exists() and not replace:
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def guide(folder: Path, is_new: bool, url: str) -> str:
    """Return what a newcomer types next; the password is shown only when it is new."""
    password = (folder / PASSWORD_FILE).read_text(encoding="utf-8").strip() if is_new else "as before"
    return GUIDE.format(
        folder=folder.resolve(), password=password, password_file=PASSWORD_FILE, url=url, collection=COLLECTION_PATH
    )
