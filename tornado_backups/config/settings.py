"""The settings of one run: from switches, environment and files to one frozen value.

Owns: precedence (switch, environment variable, ``_FILE`` variable, default), the checks that need several options,
and messages that name the place a wrong value came from. Does not own: the options themselves (``settings_table``),
help and docs (``settings_docs``). Explained in docs/configuration.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from tornado_backups.config.settings_docs import help_text
from tornado_backups.config.settings_table import OPTIONS, Option
from tornado_backups.domain.errors import UsageError
from tornado_backups.domain.model import Network

__all__ = ["Loaded", "Settings", "database_url", "help_text", "load", "load_settings"]

DATABASE_FILE = "registry.sqlite3"
MAX_VALUE_FILE_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One attribute per switch; durations are seconds, paths absolute, empty texts and None mean "not given".

    ``unix_trusted`` is the ``unix:`` of ``--trusted-proxies``. The ``repr`` shows no secret.
    """

    listen: str
    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    trusted_proxies: tuple[Network, ...]
    unix_trusted: bool
    provider: str
    config_local_path: Path
    namespace: str
    data_dir: Path
    db_url: str = field(repr=False)
    db_hostname: str
    db_port: int
    db_user: str
    db_password: str = field(repr=False)
    db_name: str
    db_wait: float
    storage_url: str = field(repr=False)
    use_google_cloud: bool
    storage_health_timeout: float
    storage_io_timeout: float
    scrub_interval: float
    http_upload_timeout: float
    http_download_timeout: float
    idle_timeout: float
    chunked_commit_grace: float
    max_concurrent_uploads: int
    lease_time: float
    append_only: bool
    jwt_secret_key: str = field(repr=False)
    jwt_lifetime: float
    health_check_key: str = field(repr=False)
    rate_default_limit: int
    rate_auth_limit: int
    rate_collection_health_limit: int
    rate_server_health_limit: int
    audit_log: Path | None
    alert_webhook: str = field(repr=False)
    alert_webhook_secret: str = field(repr=False)
    allow_private_callbacks: bool
    log_level: str
    log_format: str
    maintenance_interval: float
    shutdown_timeout: float


class Loaded(NamedTuple):
    """Settings; where each came from (``default``, the switch, the variable, the file); words that are no switches."""

    settings: Settings
    sources: dict[str, str]
    rest: list[str]


class _Given(NamedTuple):
    """An option's text, and the switch, variable or file that it came from."""

    text: str
    source: str


def load_settings(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Return the settings; raises ``UsageError``, one line, for a wrong switch or value and for a stray word."""
    loaded = load(argv, environ)
    if loaded.rest:
        raise UsageError(f"{loaded.rest[0]!r} is neither a switch nor the value of one; see --help")
    return loaded.settings


def load(argv: Sequence[str], environ: Mapping[str, str]) -> Loaded:
    """Return settings, sources and the words left over; raises ``UsageError`` in one line that names the culprit.

    A switch wins over its variable; a variable that is set to nothing counts as not set. A variable and its ``_FILE``
    variant exclude each other.
    """
    switches, rest = split_switches(argv)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for option in OPTIONS:
        given = switches.get(option.name) or _from_environment(option, environ)
        sources[option.name] = given.source if given else "default"
        values[option.name] = _parsed(option, given or _default(option, environ))
    values["trusted_proxies"], values["unix_trusted"] = values["trusted_proxies"]
    _check_together(values, sources)
    values["storage_url"] = _storage_url(values, sources)
    return Loaded(Settings(**values), sources, rest)


def split_switches(argv: Sequence[str]) -> tuple[dict[str, _Given], list[str]]:
    """Return the text given to each option by ``--x=v``, ``--x v``, ``-x v``, ``-xv`` or ``-x=v``, and other words.

    The last of several wins, ``--`` ends the switches. Raises ``UsageError``.
    """
    by_switch = {name: option for option in OPTIONS for name in (option.switch, option.short) if name}
    found: dict[str, _Given] = {}
    rest: list[str] = []
    words = list(reversed(argv))
    while words:
        word = words.pop()
        if word == "--":
            return found, rest + words[::-1]
        if not word.startswith("-") or word == "-":
            rest.append(word)
            continue
        switch, value = _split(word)
        option = by_switch.get(switch)
        if option is None:
            raise UsageError(_unknown(switch, by_switch))
        if value is None and option.is_flag:
            value = "true"
        elif value is None and words and not words[-1].startswith("--"):
            value = words.pop()
        if value is None:
            raise UsageError(f"{switch} needs a value: {option.allowed}")
        found[option.name] = _Given(value, switch)
    return found, rest


def database_url(settings: Settings) -> str:
    """Return the database's URL, made from ``--db-url``, from the parts, or of the SQLite file in the data folder.

    What follows ``sqlite://`` is the path as it is; everything in a PostgreSQL URL is percent-encoded.
    """
    if settings.db_url:
        return _with_password(settings.db_url, settings.db_password)
    if not (settings.db_user or settings.db_name or settings.db_hostname):
        return f"sqlite://{settings.data_dir / DATABASE_FILE}"
    password = f":{_quoted(settings.db_password)}" if settings.db_password else ""
    user = f"{_quoted(settings.db_user)}{password}@" if settings.db_user or password else ""
    host, name = settings.db_hostname or "localhost", _quoted(settings.db_name)
    if host.startswith("/"):
        return f"postgresql://{user}/{name}?host={_quoted(host)}&port={settings.db_port}"
    return f"postgresql://{user}{f'[{host}]' if ':' in host else _quoted(host)}:{settings.db_port}/{name}"


def _with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    if not password or parts.scheme == "sqlite" or parts.password is not None:
        return url
    user, at, hosts = parts.netloc.rpartition("@")
    scheme, _, behind = url.partition("://")
    return f"{scheme}://{user if at else ''}:{_quoted(password)}@{hosts}{behind[len(parts.netloc) :]}"


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _split(word: str) -> tuple[str, str | None]:
    if word.startswith("--"):
        switch, equals, value = word.partition("=")
        return switch, value if equals else None
    return word[:2], word[2:].removeprefix("=") if len(word) > 2 else None


def _unknown(switch: str, known: Mapping[str, Option]) -> str:
    from difflib import get_close_matches  # a server that starts has no use for it

    close = get_close_matches(switch, known, n=1)
    return f"the switch {switch!r} is not known; " + (f"did you mean {close[0]}?" if close else "see --help")


def _from_environment(option: Option, environ: Mapping[str, str]) -> _Given | None:
    text, file = environ.get(option.env), environ.get(f"{option.env}_FILE")
    if text == "" and option.name == "jwt_secret_key":
        raise UsageError(f"{option.env} is empty; allowed is {option.allowed}, or leave it out to have one generated")
    if text and file:
        raise UsageError(f"{option.env} and {option.env}_FILE are both set; keep one of them")
    if file:
        return _Given(_file_text(option, file), f"{option.env}_FILE={file}")
    return _Given(text, option.env) if text else None


def _file_text(option: Option, path: str) -> str:
    where = f"{option.env}_FILE: the file {path}"
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_VALUE_FILE_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise UsageError(f"{where} cannot be read ({error.strerror}); name a file that holds the value") from None
    except (UnicodeDecodeError, ValueError):
        raise UsageError(f"{where} is not UTF-8 text; name a file that holds the value") from None
    if len(data) > MAX_VALUE_FILE_BYTES:
        raise UsageError(f"{where} is larger than 64 KiB; name a file that holds the value and nothing else")
    text = text.removesuffix("\n")
    if not text:
        raise UsageError(f"{where} is empty; allowed is {option.allowed}")
    return text


def _default(option: Option, environ: Mapping[str, str]) -> _Given | None:
    if option.default is None:
        return None
    text = option.default if isinstance(option.default, str) else option.default(environ)
    return _Given(text, f"the default of {option.switch}")


def _parsed(option: Option, given: _Given | None) -> object:
    if given is None:
        return option.absent
    try:
        return option.parse(given.text)
    except ValueError as error:
        shown = "" if option.secret else f" {given.text[:80]!r}"
        detail = "" if option.secret or not str(error) else f" ({error})"
        raise UsageError(
            f"{given.source}: the value{shown} is not allowed{detail}; allowed is {option.allowed}"
        ) from None


def _check_together(values: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    def refuse(name: str, sentence: str) -> None:
        raise UsageError(f"{sources[name]} {sentence}")

    if values["tls_cert"] and not values["tls_key"]:
        refuse("tls_cert", "needs --tls-key (BR_TLS_KEY), the private key that belongs to it")
    if values["tls_key"] and not values["tls_cert"]:
        refuse("tls_key", "needs --tls-cert (BR_TLS_CERT), the certificate that belongs to it")
    if values["tls_client_ca"] and not values["tls_cert"]:
        refuse("tls_client_ca", "needs --tls-cert (BR_TLS_CERT): only over HTTPS do clients show certificates")
    for part in ("db_hostname", "db_user", "db_name"):
        if values["db_url"] and values[part]:
            refuse("db_url", f"and {sources[part]} both name a database; keep one of them")


def _storage_url(values: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    url = str(values["storage_url"])
    if not values["use_google_cloud"]:
        if url and "://" not in url:
            raise UsageError(
                f"{sources['storage_url']}: the value has no scheme; write file:///path, s3://bucket?… or gs://bucket"
            )
        return url
    if not url or not ("://" not in url or url.startswith("gs://")):
        raise UsageError(f"{sources['use_google_cloud']} needs the name of a bucket in --storage-url")
    return url if "://" in url else f"gs://{url}"
