"""What the real gpg writes: all of it is accepted, and nothing that gpg would find incomplete is."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.domain.openpgp_samples import judge, verdict

Gpg = Callable[..., bytes]

NOISE = os.urandom(300_000)
MODES = {
    "to a recipient": ["--encrypt", "--recipient", "backup@example.org"],
    "to a hidden recipient": ["--encrypt", "--hidden-recipient", "backup@example.org"],
    "to two recipients and a passphrase": [
        "--encrypt", "--symmetric", "--recipient", "backup@example.org", "--recipient", "second@example.org",
    ],
    "with a passphrase": ["--symmetric"],
    "signed and encrypted": ["--sign", "--encrypt", "--recipient", "backup@example.org"],
    "not compressed": ["--encrypt", "--compress-algo", "none", "--recipient", "backup@example.org"],
    "without integrity protection": ["--encrypt", "--rfc2440", "--recipient", "backup@example.org"],
    "with a comment": ["--symmetric", "--comment", "nightly: db", "--emit-version"],
}  # fmt: skip
PLAIN = {
    "a signature": ["--sign"],
    "a detached signature": ["--detach-sign"],
    "a cleartext signature": ["--clear-sign"],
    "a stored message": ["--store"],
    "a key": ["--export"],
    "a secret key": ["--export-secret-keys"],
}


@pytest.fixture(scope="module")
def gpg() -> Iterator[Gpg]:
    """Run gpg in a home of its own (a short path: the agent's socket name has to fit), and end its agent."""
    home = Path(tempfile.mkdtemp(prefix="gpg", dir="/tmp"))
    environment = {**os.environ, "GNUPGHOME": str(home), "LC_ALL": "C"}
    base = ["gpg", "--batch", "--quiet", "--no-tty", "--trust-model", "always", "--pinentry-mode", "loopback"]

    def run(*arguments: str, text: bytes = b"", passphrase: str = "not a secret") -> bytes:
        command = [*base, "--s2k-count", "1024", "--passphrase", passphrase, *arguments]
        done = subprocess.run(command, input=text, capture_output=True, env=environment, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    try:
        for name in ("backup@example.org", "second@example.org"):
            run("--quick-gen-key", name, "future-default", "default", "never", passphrase="")
        yield run
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=True, timeout=60)
        shutil.rmtree(home)


@pytest.fixture(scope="module")
def samples(gpg: Gpg) -> tuple[bytes, bytes]:
    """One binary and one armoured message."""
    arguments = MODES["to a recipient"]
    return gpg(*arguments, text=NOISE), gpg("--armor", *arguments, text=NOISE)


@pytest.mark.parametrize("plaintext", [b"", NOISE], ids=["empty", "noise"])
@pytest.mark.parametrize("mode", MODES)
def test_what_gpg_encrypts_is_accepted_at_any_buffer_size(gpg: Gpg, mode: str, plaintext: bytes) -> None:
    for form in ([], ["--armor"]):
        body = gpg(*form, *MODES[mode], text=plaintext)
        for size in (61, 4096, 65_536, len(body)):
            judge(body, *range(size, len(body), size))


@pytest.mark.parametrize("mode", MODES)
def test_the_end_of_what_gpg_encrypts_cannot_go_missing(gpg: Gpg, mode: str) -> None:
    body = gpg(*MODES[mode], text=NOISE)
    for missing in (1, 2, 100, 5000, len(body) // 2, len(body) - 1):
        assert verdict(body[:-missing]) == "truncated"
    assert verdict(body + b"\n") == "not-encrypted"
    armour = gpg("--armor", *MODES[mode], text=NOISE)
    for missing in (2, 30, 5000, len(armour) // 2, len(armour) - 1):
        assert verdict(armour[:-missing]) == "truncated"
    assert verdict(armour + armour) == "not-encrypted"


@pytest.mark.parametrize("mode", PLAIN)
def test_what_gpg_writes_without_encrypting_is_refused(gpg: Gpg, mode: str) -> None:
    for form in ([], ["--armor"]):
        assert verdict(gpg(*form, *PLAIN[mode], text=NOISE)) == "not-encrypted"


def test_a_message_with_a_known_length_is_accepted(gpg: Gpg, tmp_path: Path) -> None:
    source = tmp_path / "backup.tar"
    source.write_bytes(NOISE)
    out = tmp_path / "backup.gpg"
    gpg("--compress-algo", "none", "--set-filesize", str(len(NOISE)), "--output", str(out), "--symmetric", str(source))
    judge(out.read_bytes())


def test_what_gpg_decrypts_after_rearmouring_is_what_was_accepted(gpg: Gpg) -> None:
    body = gpg(*MODES["to a recipient"], text=NOISE)
    armour = gpg("--enarmor", text=body).replace(b"PGP ARMORED FILE", b"PGP MESSAGE")
    judge(armour)
    assert gpg("--decrypt", text=armour) == NOISE


def test_any_change_to_the_framing_that_is_accepted_is_whole_for_gpg_too(gpg: Gpg) -> None:
    body = gpg(*MODES["to a recipient"], text=b"x" * 600)
    accepted = 0
    for at in (0, 1, 2, 3, *range(len(body) - 40, len(body))):
        for change in (body[:at], body[:at] + body[at + 1 :], body[:at] + bytes([body[at] ^ 0x41]) + body[at + 1 :]):
            if verdict(change) == "accepted":
                accepted += 1
                assert b"encrypted data packet" in gpg("--list-only", "--list-packets", text=change)
    assert accepted > 10


@settings(max_examples=40, deadline=None)
@given(st.booleans(), st.data())
def test_a_gpg_file_is_accepted_at_random_cuts(
    samples: tuple[bytes, bytes], armoured: bool, data: st.DataObject
) -> None:
    body = samples[armoured]
    judge(body, *data.draw(st.lists(st.integers(0, len(body) - 1), max_size=60)))
