"""Argon2: making hashes, and checking passwords at a bounded cost that is the same for everybody.

Owns: the parameters of new hashes, the cost that a hash in a YAML file may have, one check at a time, whose turn it is.
Does not own: how hashes are written in YAML (``domain/phc``), who may log in (``services/sessions``).
Explained in docs/security.md, "Passwords".
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import secrets
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor

from tornado_backups.domain.addresses import address_group
from tornado_backups.domain.errors import Busy

_log = logging.getLogger(__name__)

TIME_COST = 1
MEMORY_KIB = 64 * 1024
LANES = 4
HASH_BYTES = 32
SALT_BYTES = 16

MAX_MEMORY_KIB = 256 * 1024
MAX_MEMORY_PASSES_KIB = 1024 * 1024
MAX_LANES = 64
"""Bounds on a hash from a YAML file: 256 MiB, and time times memory 1 GiB, about a second of one core."""

MAX_WAITING = 256
MAX_WAITING_PER_CLIENT = 32
RETRY_AFTER_SECONDS = 5

_PHC = re.compile(
    r"\$(argon2(?:id|i|d))\$(?:v=\d+\$)?m=(\d{1,10}),t=(\d{1,10}),p=(\d{1,10})\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+",
    re.ASCII,
)
_VARIANTS = {"argon2id": "ID", "argon2i": "I", "argon2d": "D"}


def hash_password(password: str) -> str:
    """Return a new hash in PHC form: Argon2id, time 1, memory 64 MiB, 4 lanes, 32 bytes, a random salt of 16."""
    from argon2.low_level import Type, hash_secret

    return hash_secret(
        _encode(password), secrets.token_bytes(SALT_BYTES), TIME_COST, MEMORY_KIB, LANES, HASH_BYTES, Type.ID
    ).decode("ascii")


def encode_password(password: str) -> str:
    """Return a new hash as a Secret's entry wants it: the PHC text once more in base64."""
    return base64.b64encode(hash_password(password).encode("ascii")).decode("ascii")


def verify_password(password: str, phc_hash: str | None) -> bool:
    """Return whether the password is that of the hash. Blocks for one Argon2, 64 MiB, whatever the outcome.

    Without a hash, and for one that is malformed or above the bounds, the work of a new hash is done all the same and
    the answer is False. The comparison takes constant time (libargon2).
    """
    variant = _affordable(phc_hash)
    checked = phc_hash if phc_hash is not None and variant else _decoy_hash()
    return verify_secret(checked.encode("ascii"), _encode(password), variant or "ID") and checked is phc_hash


def verify_secret(phc_hash: bytes, password: bytes, variant: str) -> bool:
    """Return whether the password is that of the hash, of Argon2's ``ID``, ``I`` or ``D``; raises nothing."""
    # Imported at the first login: a server that waits for one does without.
    from argon2 import low_level
    from argon2.exceptions import Argon2Error

    try:
        return low_level.verify_secret(phc_hash, password, low_level.Type[variant])
    except Argon2Error:
        return False  # a wrong password, or a hash that libargon2 cannot decode


class PasswordVerifier:
    """Checks passwords in one thread, one at a time, so that logins never take more memory than one Argon2.

    Clients that wait take turns, each in its own order of arrival: one that sends a hundred logins waits for its own,
    the others for at most one of them each. More than ``MAX_WAITING_PER_CLIENT`` of one client or ``MAX_WAITING`` of
    all are refused at once. Use it in one event loop.
    """

    def __init__(self) -> None:
        # One worker is what promises "one at a time": a check whose caller was cancelled still runs to its end in it.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="argon2")
        self._turns = _Turns()

    async def verify(self, password: str, phc_hash: str | None, client: str = "") -> bool:
        """Return whether the password is that of the hash, after the same time when there is none.

        ``client`` is the address the work is done for. Raises ``Busy`` when too many wait already.
        """
        await self._turns.enter(address_group(client))
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, verify_password, password, phc_hash)
        finally:
            self._turns.leave()

    def close(self) -> None:
        """Let go of the thread; a check that runs ends by itself, those that wait are cancelled. Repeatable."""
        self._worker.shutdown(wait=False, cancel_futures=True)


class _Turns:
    """Lets one caller in at a time; when it leaves, the next client in the round is served, not the next caller."""

    def __init__(self) -> None:
        self._taken = False
        self._count = 0
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def enter(self, client: str) -> None:
        """Wait for this client's turn; who entered calls :meth:`leave`. Raises ``Busy`` when too many wait."""
        if not self._taken:
            self._taken = True
            return
        line = self._lines.get(client, ())
        if self._count >= MAX_WAITING or len(line) >= MAX_WAITING_PER_CLIENT:
            raise Busy("too many logins are being checked; try again in a moment", RETRY_AFTER_SECONDS)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(client, deque()).append(turn)
        self._count += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # the turn was handed over in the moment of the cancellation: pass it on
            else:
                self._forget(client, turn)
            raise

    def leave(self) -> None:
        """Hand the turn to the first in line of the client that was served longest ago, or to nobody."""
        while self._lines:
            client, line = self._lines.popitem(last=False)
            turn = line.popleft()
            self._count -= 1
            if line:
                self._lines[client] = line
            if not turn.done():  # else its task is being cancelled and has not noticed yet
                turn.set_result(None)
                return
        self._taken = False

    def _forget(self, client: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(client)
        if line is None or turn not in line:
            return
        line.remove(turn)
        self._count -= 1
        if not line:
            del self._lines[client]


def _affordable(phc_hash: str | None) -> str:
    """Return the name of a hash's variant when it is well-formed and within the bounds, else nothing."""
    if not phc_hash:
        return ""
    match = _PHC.fullmatch(phc_hash)
    if match is None:
        _log.warning("a password hash is no Argon2 hash in PHC form and lets nobody in; check-config names it")
        return ""
    memory_kib, passes, lanes = int(match[2]), int(match[3]), int(match[4])
    if memory_kib > MAX_MEMORY_KIB or memory_kib * passes > MAX_MEMORY_PASSES_KIB or lanes > MAX_LANES:
        _log.warning(
            "a password hash costs more than this server allows (m=%d KiB, t=%d) and lets nobody in", memory_kib, passes
        )
        return ""
    return _VARIANTS[match[1]]


def _decoy_hash() -> str:
    """Return a hash of nothing: it costs what a new hash costs and its bytes are random, so that nothing matches it."""
    salt, digest = (
        base64.b64encode(secrets.token_bytes(size)).decode("ascii").rstrip("=") for size in (SALT_BYTES, HASH_BYTES)
    )
    return f"$argon2id$v=19$m={MEMORY_KIB},t={TIME_COST},p={LANES}${salt}${digest}"


def _encode(password: str) -> bytes:
    """Return the bytes that are hashed; JSON can bring lone surrogates, which are wrong passwords and no crash."""
    return password.encode("utf-8", "surrogatepass")
