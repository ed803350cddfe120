"""The check that an upload is one whole OpenPGP encrypted message, made while it streams past.

Owns: the choice between binary and armoured, and the answer for an empty body.
Does not own: the two forms themselves (``openpgp_packets``, ``openpgp_armour``), and no key: nothing is decrypted.
Explained in docs/openpgp.md; decided in docs/adr/0003-openpgp-check-without-decryption.md.
"""

from __future__ import annotations

from tornado_backups.domain.errors import EmptyUpload, NotEncrypted
from tornado_backups.domain.openpgp_armour import ArmourCheck
from tornado_backups.domain.openpgp_packets import PacketWalk


class MessageCheck:
    """Judge one body, fed in order and in pieces of any size; the verdict does not depend on how it was cut.

    Holds a few hundred bytes whatever the body's size. After an error an instance is of no further use.
    """

    def __init__(self) -> None:
        self._form: ArmourCheck | PacketWalk | None = None

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes; raises ``NotEncrypted`` at the first that no encrypted message has there (RFC 9580)."""
        if not data:
            return
        if self._form is None:
            self._form = _form_for(data[0])
        self._form.feed(data)

    def finish(self) -> None:
        """Take the end of the body.

        Raises ``EmptyUpload`` when there was no byte, ``Truncated`` when the message is not whole, ``NotEncrypted``
        when only the end shows that it never was one.
        """
        if self._form is None:
            raise EmptyUpload("the body is empty; send an OpenPGP encrypted message")
        self._form.finish()


def _form_for(octet: int) -> ArmourCheck | PacketWalk:
    if octet == ord("-"):
        return ArmourCheck()
    if octet & 0x80:
        return PacketWalk()
    raise NotEncrypted(
        f"the body begins with byte 0x{octet:02x}, where an OpenPGP encrypted message begins with a packet "
        "(0x80 to 0xff) or with -----BEGIN PGP MESSAGE-----; encrypt the backup, for example with gpg --encrypt"
    )
