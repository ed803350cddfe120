"""The commands that a person types.

Owns: command words, their own switches, exit statuses (0 done, 1 cannot, 2 wrong switch or value).
Does not own: the options of ``serve`` (``config/settings``), nor what the commands do (``services``).
"""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tornado_backups import __version__
from tornado_backups.config.settings import Settings, help_text, load_settings
from tornado_backups.domain.errors import BackupError, OperatorError, UsageError

PROGRAM = "tornado-backups"
GO_PROGRAM = "backup-repository"


@dataclass(frozen=True, slots=True)
class Command:
    """A command word: how it is called, what it does, whether it takes the options of ``serve``."""

    usage: str
    meaning: str
    run: Callable[[list[str]], int]
    takes_settings: bool = True


def serve(arguments: list[str]) -> int:
    """Run the server until it is told to stop."""
    return _serve(_settings(arguments))


def _serve(settings: Settings, announce: Callable[[str], None] | None = None) -> int:
    from tornado_backups.lean import import_tornado

    import_tornado()
    from tornado_backups.app import Server
    from tornado_backups.logs import set_up_logging

    set_up_logging(settings.log_level, settings.log_format)

    async def run() -> None:
        server = Server(settings)
        try:
            await server.start()
            if announce is not None:
                announce(server.url)
            await server.serve()
        finally:
            await server.close()

    asyncio.run(run())
    return 0


def quickstart(arguments: list[str]) -> int:
    """Prepare a folder and serve from it."""
    from tornado_backups import quickstart as preparation

    folder_text, arguments = take_value(arguments, "--dir")
    folder = Path(folder_text or "tornado-backups-data").expanduser().absolute()
    environment = {
        **os.environ,
        "BR_DATA_DIR": str(folder),
        "BR_CONFIG_LOCAL_PATH": str(folder / preparation.CONFIG_FOLDER),
        "BR_CONFIG_PROVIDER": "filesystem",
    }
    settings = _settings(arguments, environment)
    is_new = preparation.make_folder(folder, settings.namespace)

    def announce(url: str) -> None:
        print(preparation.guide(folder, is_new, url), flush=True)

    return _serve(settings, announce)


def encode_password(arguments: list[str]) -> int:
    """Print the hash of a password."""
    from tornado_backups.auth.passwords import encode_password as encode

    if len(arguments) > 1:
        raise UsageError("encode-password takes one password at most; without one it asks for it")
    print(encode(arguments[0] if arguments else _ask_password()))
    return 0


def _ask_password() -> str:
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise UsageError("the password is empty; give one as argument, at the prompt, or as one line through a pipe")
    return password


def hash_jwt(arguments: list[str]) -> int:
    """Print the session id of a token."""
    from tornado_backups.auth.tokens import session_id

    if len(arguments) != 1 or not arguments[0]:
        raise UsageError("hash-jwt takes exactly one argument, the token")
    print(session_id(arguments[0]))
    return 0


def check_config(arguments: list[str]) -> int:
    """Print every fault of the configuration."""
    from tornado_backups.adapters import build_source

    async def find() -> list[str]:
        source = build_source(_settings(arguments))
        await source.open()
        try:
            return [str(fault) for fault in await source.faults()]
        finally:
            await source.close()

    faults = asyncio.run(find())
    for fault in faults:
        print(fault)
    print(f"{len(faults)} faults found" if faults else "the configuration is clean", file=sys.stderr)
    return 1 if faults else 0


def audit_verify(arguments: list[str]) -> int:
    """Check the chain of an audit file."""
    from tornado_backups.services.audit_file import verify_audit_file

    if len(arguments) != 1:
        raise UsageError("audit-verify takes exactly one argument, the audit file")
    try:
        verdict = verify_audit_file(Path(arguments[0]))
    except OSError as error:
        raise OperatorError(f"the audit file {arguments[0]} cannot be read: {error.strerror}") from None
    print(verdict.what if verdict.ok else f"{arguments[0]}:{verdict.line}: {verdict.what}")
    return 0 if verdict.ok else 1


def verify(arguments: list[str]) -> int:
    """Read stored objects back and compare them with the registry."""
    from tornado_backups.commands import run_verify

    collection, arguments = take_value(arguments, "--collection")
    return asyncio.run(run_verify(_settings(arguments), collection))


def recover(arguments: list[str]) -> int:
    """Register objects that the registry does not know."""
    from tornado_backups.commands import run_recover

    collection, arguments = take_value(arguments, "--collection")
    dry_run, arguments = take_flag(arguments, "--dry-run")
    return asyncio.run(run_recover(_settings(arguments), collection, dry_run))


def import_go(arguments: list[str]) -> int:
    """Take over the database of a Go server."""
    from tornado_backups.commands import run_import

    url, arguments = take_value(arguments, "--from-db-url")
    dry_run, arguments = take_flag(arguments, "--dry-run")
    if not url:
        raise UsageError(
            "import needs --from-db-url postgresql://user:password@host:port/name, the Go server's database"
        )
    return asyncio.run(run_import(_settings(arguments), url, dry_run))


COMMANDS = {
    "serve": Command("serve [options]", "run the server", serve),
    "quickstart": Command(
        "quickstart [--dir DIR] [options]",
        "make DIR (default ./tornado-backups-data) with an admin and an example collection, then serve from it",
        quickstart,
    ),
    "encode-password": Command(
        "encode-password [PASSWORD]", "print the hash to put into a Secret", encode_password, takes_settings=False
    ),
    "hash-jwt": Command("hash-jwt TOKEN", "print the session id of a token", hash_jwt, takes_settings=False),
    "check-config": Command(
        "check-config [options]", "read every user, collection and secret; print faults", check_config
    ),
    "audit-verify": Command(
        "audit-verify FILE", "check the chain of an audit file", audit_verify, takes_settings=False
    ),
    "verify": Command("verify [--collection NAME] [options]", "read stored objects back and compare", verify),
    "import": Command(
        "import --from-db-url URL [--dry-run] [options]", "take over versions and sessions of a Go server", import_go
    ),
    "recover": Command(
        "recover [--dry-run] [--collection NAME] [options]",
        "register stored objects that the registry does not know, after a lost or rolled-back database",
        recover,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tornado-backups``; return its exit status."""
    return _guarded(lambda: _dispatch(list(sys.argv[1:] if argv is None else argv)))


def go_main(argv: Sequence[str] | None = None) -> int:
    """Run ``backup-repository``, the Go server's own command line; return its exit status."""
    return _guarded(lambda: _dispatch_go(list(sys.argv[1:] if argv is None else argv)))


def _dispatch(arguments: list[str]) -> int:
    word = arguments[0] if arguments else "--help"
    if word in ("--version", "-V"):
        print(f"{PROGRAM} {__version__}")
        return 0
    if word in ("--help", "-h", "help"):
        print(overview())
        return 0
    command = COMMANDS.get(word)
    if command is None:
        raise UsageError(f"unknown command {word!r}; allowed are {', '.join(COMMANDS)}, --version, --help")
    return _run(word, command, arguments[1:])


def _run(word: str, command: Command, arguments: list[str]) -> int:
    if "--version" in arguments:
        print(f"{PROGRAM} {__version__}")
        return 0
    if "--help" in arguments or "-h" in arguments:
        print(f"Usage: {PROGRAM} {command.usage}\n\n{command.meaning}")
        if command.takes_settings:
            print("\n" + help_text(word))
        return 0
    return command.run(arguments)


def _dispatch_go(arguments: list[str]) -> int:
    password, rest = take_value(arguments, "--encode-password")
    if password is not None:
        return encode_password([password])
    token, rest = take_value(rest, "--hash-jwt")
    if token is not None:
        return hash_jwt([token])
    if rest and rest[0] in COMMANDS:
        return _dispatch(rest)
    return _run("serve", COMMANDS["serve"], rest)


def overview() -> str:
    """Return what the program is and which commands it has."""
    lines = [f"Usage: {PROGRAM} COMMAND", "", "A storage server for end-to-end encrypted backups.", ""]
    for command in COMMANDS.values():
        lines += [f"  {command.usage}", f"      {command.meaning}"]
    return "\n".join([*lines, "", f"`{PROGRAM} COMMAND --help` shows the options of a command."])


def take_value(arguments: list[str], switch: str) -> tuple[str | None, list[str]]:
    """Take ``switch VALUE`` or ``switch=VALUE`` out of the arguments; None when it is not there."""
    rest: list[str] = []
    value = None
    words = iter(arguments)
    for word in words:
        if word == switch:
            value = next(words, None)
            if value is None:
                raise UsageError(f"{switch} needs a value")
        elif word.startswith(switch + "="):
            value = word.removeprefix(switch + "=")
        else:
            rest.append(word)
    return value, rest


def take_flag(arguments: list[str], switch: str) -> tuple[bool, list[str]]:
    """Take a switch without value out of the arguments."""
    return switch in arguments, [word for word in arguments if word != switch]


def _settings(arguments: list[str], environment: dict[str, str] | None = None) -> Settings:
    return load_settings(arguments, dict(os.environ) if environment is None else environment)


def _guarded(work: Callable[[], int]) -> int:
    try:
        return work()
    except OperatorError as error:
        print(error.sentence, file=sys.stderr)
        return error.exit_status
    except BackupError as error:
        print(error.sentence, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
