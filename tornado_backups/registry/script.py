"""Transactions as data: a script says what to ask the database, a driver asks it.

Owns: the words between the two. A script is a generator that yields :class:`Statement` and is sent its
:class:`Result`; what it returns is the transaction's answer, and a domain error that it raises undoes everything.
Does not own: any SQL (``transactions_*``), any connection (``sqlite_driver``, ``postgres_driver``), the dialects.

Because a script does no I/O it is written once for both databases, and SQLite runs a whole one in a single hop to
its thread. Why so: docs/adr/0002-embedded-database-without-an-orm.md.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

Value = str | int | None
"""What may be bound to a placeholder; times are integers (microseconds since 1970 UTC), truth is 0 or 1."""


def storable(text: str) -> bool:
    """Return whether both databases can hold ``text``: no NUL (PostgreSQL), no lone surrogate (UTF-8)."""
    if "\x00" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def cleaned(text: str) -> str:
    """Return free text with what cannot be stored replaced by U+FFFD."""
    if storable(text):
        return text
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement with ``?`` placeholders and the tokens of ``dialect``; refuses what cannot be stored."""

    sql: str
    values: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        for value in self.values:
            if isinstance(value, str) and not storable(value):
                raise ValueError("a text with a NUL character or a lone surrogate cannot be stored in the registry")


@dataclass(frozen=True, slots=True)
class Result:
    """The rows of a query, and the number of rows that a change touched."""

    rows: list[tuple[Any, ...]]
    changed: int


Script = Generator[Statement, Result, T]


@dataclass(frozen=True, slots=True)
class Transaction(Generic[T]):
    """A script that can be started any number of times; one that ``reads_only`` takes no write lock.

    One that is not ``durable`` may be undone by a power cut.
    """

    name: str
    start: Callable[[], Script[T]]
    reads_only: bool
    durable: bool = True


class Driver(Protocol):
    """Runs transactions on one database."""

    async def open(self) -> None:
        """Connect and migrate; raises ``StartupError``; may be called again after a failure."""

    async def close(self) -> None:
        """Let go of everything; may be called again."""

    async def run(self, transaction: Transaction[T]) -> T:
        """Run it all or not at all; raises what the script raises, ``DatabaseUnavailable`` or ``StorageFull``."""


def reads(function: Callable[P, Script[T]]) -> Callable[P, Transaction[T]]:
    """Make a script into a transaction that changes nothing."""
    return _transaction(function, reads_only=True)


def writes(function: Callable[P, Script[T]]) -> Callable[P, Transaction[T]]:
    """Make a script into a transaction that may change something."""
    return _transaction(function, reads_only=False)


def writes_lightly(function: Callable[P, Script[T]]) -> Callable[P, Transaction[T]]:
    """Make a script into a transaction that a power cut may undo.

    For changes that only matter as long as this process lives (leases), or that are simply made again (clean-up).
    """
    return _transaction(function, reads_only=False, durable=False)


def _transaction(
    function: Callable[P, Script[T]], *, reads_only: bool, durable: bool = True
) -> Callable[P, Transaction[T]]:
    @functools.wraps(function)
    def build(*args: P.args, **kwargs: P.kwargs) -> Transaction[T]:
        return Transaction(function.__name__, lambda: function(*args, **kwargs), reads_only, durable)

    return build
