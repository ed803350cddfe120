"""Every spelling of a stored hash that configuration trees use is read as the same hash."""

from __future__ import annotations

import base64

import argon2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_backups.auth import passwords
from tornado_backups.domain import phc
from tornado_backups.domain.phc import MAX_MEMORY_KIB, normalise_digest, normalise_hash

# The password "admin" as the existing Go server writes it: padded salt and hash, then base64 once more.
GO_HASH = (
    "JGFyZ29uMmlkJHY9MTkkbT02NTUzNix0PTEscD00JEVGanhKaFAvcHlzeEVjMkt1WGlLb2c9PSREVmZOckt0dExIZXFwRlMzVGpueE44WHly"
    "WENmRkJrZFpTek5saHVvcXYwPQ=="
)
PADDED = "$argon2id$v=19$m=65536,t=1,p=4$EFjxJhP/pysxEc2KuXiKog==$DVfNrKttLHeqpFS3TjnxN8XyrXCfFBkdZSzNlhuoqv0="
BARE = "$argon2id$v=19$m=65536,t=1,p=4$EFjxJhP/pysxEc2KuXiKog$DVfNrKttLHeqpFS3TjnxN8XyrXCfFBkdZSzNlhuoqv0"
CODE = "8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918"  # sha256("admin")


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


SPELLINGS = {
    "phc, padded": PADDED,
    "phc, not padded": BARE,
    "base64 of the padded, padded": GO_HASH,
    "base64 of the padded, not padded": GO_HASH.rstrip("="),
    "base64 of the bare, padded": b64(BARE),
    "base64 of the bare, not padded": b64(BARE).rstrip("="),
    "with a final newline": b64(BARE) + "\n",
    "with a final newline inside": b64(PADDED + "\n"),
    "wrapped lines": GO_HASH[:76] + "\n" + GO_HASH[76:],
    "one more layer of base64": b64(GO_HASH),
}


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_every_spelling_of_a_password_hash_becomes_the_same_phc_text(text: str) -> None:
    assert normalise_hash(text) == BARE


def test_a_hash_as_the_go_server_writes_it_verifies_with_its_password() -> None:
    assert argon2.PasswordHasher().verify(normalise_hash(GO_HASH), "admin")


def test_whatever_configuration_accepts_is_within_what_a_login_computes() -> None:
    assert phc.MAX_MEMORY_KIB <= passwords.MAX_MEMORY_KIB
    assert phc.MAX_MEMORY_PASSES_KIB <= passwords.MAX_MEMORY_PASSES_KIB
    assert phc.MAX_LANES <= passwords.MAX_LANES
    assert all(passwords._PHC.fullmatch(normalise_hash(text)) for text in SPELLINGS.values())


@pytest.mark.parametrize("kind", [argon2.Type.I, argon2.Type.D, argon2.Type.ID])
def test_hashes_of_every_argon2_type_still_verify(kind: argon2.Type) -> None:
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=2, type=kind)
    assert hasher.verify(normalise_hash(b64(hasher.hash("secret"))), "secret")


def test_bits_behind_the_last_byte_do_not_disturb_verification() -> None:
    # Go decodes these leniently; the Argon2 library refuses them unless they are written canonically.
    assert normalise_hash(BARE[:-1] + "1") == BARE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hashed",
        "admin",
        "$2y$10$abcdefghijklmnopqrstuv",
        b64("admin"),
        BARE.replace("v=19", "v=18"),
        BARE.replace("m=65536", f"m={MAX_MEMORY_KIB + 1}"),
        BARE.replace("m=65536,t=1", f"m={MAX_MEMORY_KIB},t=5"),
        BARE.replace("m=65536", "m=31"),
        BARE.replace("t=1", "t=0"),
        BARE.replace("t=1", "t=999999"),
        BARE.replace("p=4", "p=0"),
        BARE + "$more",
        BARE.replace("EFjxJhP/pysxEc2KuXiKog", "znW"),
        BARE.replace("m=65536", "m=\N{ARABIC-INDIC DIGIT SIX}5536"),
        BARE * 100,
        b64(b64(b64(b64(BARE)))),
    ],
)
def test_what_is_no_usable_argon2_hash_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        normalise_hash(text)
    assert text == "" or text not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_no_text_at_all_raises_anything_but_value_error(text: str) -> None:
    for normalise in (normalise_hash, normalise_digest):
        try:
            normalise(text)
        except ValueError:
            continue


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        CODE.upper(),
        CODE + "\n",
        b64(CODE),
        b64(CODE).rstrip("="),
        b64(CODE + "\n"),
        b64(b64(CODE)),
        base64.b64encode(bytes.fromhex(CODE)).decode(),
    ],
)
def test_every_spelling_of_a_health_code_digest_becomes_lower_case_hex(text: str) -> None:
    assert normalise_digest(text) == CODE


@pytest.mark.parametrize("text", ["", "admin", CODE[:-1], CODE + "0", CODE + "  -", b64("admin"), "=" * 44])
def test_what_is_no_sha256_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        normalise_digest(text)
