"""The one table of options, from which switches, environment, help and docs/configuration.md are made.

Owns: each option's names, default, form, meaning and what is allowed. Does not own: how texts become values
(``settings_values``), reading the command line and environment (``settings``). Explained in docs/configuration.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tornado_backups.config import settings_values as values


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``default`` is text like a person would type it, or finds it in the environment; None: no value.

    ``metavar`` is empty for switches that need no value. ``default_text`` is what help and docs say, where that
    differs. ``secret`` values appear in no message. ``absent`` is the value when none is given.
    """

    group: str
    switch: str
    env: str
    default: str | Callable[[Mapping[str, str]], str] | None
    parse: Callable[[str], object]
    metavar: str
    meaning: str
    allowed: str
    short: str = ""
    default_text: str = ""
    secret: bool = False
    absent: object = ""

    @property
    def name(self) -> str:
        """The attribute of ``Settings``."""
        return self.switch.removeprefix("--").replace("-", "_")

    @property
    def is_flag(self) -> bool:
        """Tell whether the bare switch means true."""
        return not self.metavar

    @property
    def shown_default(self) -> str:
        """What help and docs say about the default."""
        if self.default_text:
            return self.default_text
        return self.default if isinstance(self.default, str) else "none"


def _data_dir(environ: Mapping[str, str]) -> str:
    """Return systemd's folder for state, the first where it names several (systemd.exec(5), StateDirectory=)."""
    return environ.get("STATE_DIRECTORY", "").partition(":")[0] or "~/.local/share/tornado-backups"


def _provider(environ: Mapping[str, str]) -> str:
    return "kubernetes" if environ.get("KUBERNETES_SERVICE_HOST") else "filesystem"


LISTENING, CONFIGURATION, DATABASE = "Listening", "Configuration tree", "Database"
STORAGE, TRANSFERS, ACCESS = "Storage", "Transfers", "Access"
MONITORING, RUNNING = "Monitoring", "Running"

_DURATION = "a duration such as 90s, 30m or 1h30m"
_MORE_THAN_ZERO = f"{_DURATION}, more than 0"
_YES_NO = "true or false (also 1, 0, yes, no)"

OPTIONS: tuple[Option, ...] = (
    Option(
        LISTENING, "--listen", "BR_LISTEN", "127.0.0.1:8080", values.listen, "ADDRESS",
        "where to listen; `:8080` is every interface, port 0 any free port; a socket handed over by systemd wins",
        "host:port, :port, [IPv6]:port or unix:/path",
    ),
    Option(
        LISTENING, "--tls-cert", "BR_TLS_CERT", None, values.path, "FILE",
        "serve HTTPS with this certificate chain (PEM), read again on SIGHUP",
        "a path; --tls-key belongs to it", absent=None,
    ),
    Option(
        LISTENING, "--tls-key", "BR_TLS_KEY", None, values.path, "FILE",
        "the certificate's private key (PEM)", "a path; --tls-cert belongs to it", absent=None,
    ),
    Option(
        LISTENING, "--tls-client-ca", "BR_TLS_CLIENT_CA", None, values.path, "FILE",
        "let only clients in that have a certificate from this authority (PEM)",
        "a path; --tls-cert belongs to it", absent=None,
    ),
    Option(
        LISTENING, "--trusted-proxies", "BR_TRUSTED_PROXIES", None, values.trusted_proxies, "LIST",
        "whose `X-Forwarded-For` is believed; `unix:` stands for whoever connects to our unix socket",
        "addresses, networks and unix: with commas between them", absent=((), False),
    ),
    Option(
        CONFIGURATION, "--provider", "BR_CONFIG_PROVIDER", _provider, values.one_of("filesystem", "kubernetes"),
        "NAME", "where users and collections come from", "filesystem or kubernetes", short="-p",
        default_text="kubernetes inside a pod, else filesystem",
    ),
    Option(
        CONFIGURATION, "--config-local-path", "BR_CONFIG_LOCAL_PATH", "~/.backup-repository", values.path, "DIR",
        "root of the YAML tree (filesystem provider)", "a path",
    ),
    Option(
        CONFIGURATION, "--namespace", "BR_NAMESPACE", "backup-repository", values.name, "NAME",
        "Kubernetes namespace, and first folder of the YAML tree", "letters, digits, '-', '.' and '_'", short="-n",
    ),
    Option(
        CONFIGURATION, "--data-dir", "BR_DATA_DIR", _data_dir, values.path, "DIR",
        "where the embedded database, the local objects and a generated JWT secret live", "a path",
        default_text="$STATE_DIRECTORY, else ~/.local/share/tornado-backups",
    ),
    Option(
        DATABASE, "--db-url", "BR_DB_URL", None, values.database_url, "URL",
        "the database; without it PostgreSQL as the options below say, else SQLite in the data folder",
        "sqlite:///absolute/path or postgresql://user:password@host:port/name (libpq's parameters behind ?)",
        default_text="SQLite in the data folder", secret=True,
    ),
    Option(
        DATABASE, "--db-hostname", "BR_DB_HOSTNAME", None, values.text, "HOST",
        "PostgreSQL's host or socket folder; hostname, user or name select PostgreSQL", "a host name or address",
        default_text="localhost, with a user or name",
    ),
    Option(DATABASE, "--db-port", "BR_DB_PORT", "5432", values.whole(1, 65535), "PORT", "its port", "1 to 65535"),
    Option(
        DATABASE, "--db-user", "BR_DB_USERNAME", None, values.text, "NAME", "its user", "a user name",
    ),
    Option(
        DATABASE, "--db-password", "BR_DB_PASSWORD", None, values.text, "PASSWORD",
        "the user's password; goes into a --db-url that has none, too", "a text; better through BR_DB_PASSWORD_FILE",
        secret=True,
    ),
    Option(DATABASE, "--db-name", "BR_DB_NAME", None, values.text, "NAME", "its database", "a database name"),
    Option(
        DATABASE, "--db-wait", "BR_DB_WAIT", "0s", values.seconds(0), "DURATION",
        "how long to wait at start for a database that is not up yet", _DURATION,
    ),
    Option(
        STORAGE, "--storage-url", "BR_STORAGE_DRIVER_URL", None, values.storage_url, "URL",
        "where objects are stored; docs/storage.md has the query options of s3",
        "file:///absolute/path, s3://bucket?endpoint=host:port&region=… or gs://bucket",
        default_text="files in the data folder", secret=True,
    ),
    Option(
        STORAGE, "--use-google-cloud", "BR_USE_GOOGLE_CLOUD", "false", values.boolean, "",
        "the storage URL is the bare name of a bucket at Google, as the Go server takes it", _YES_NO,
    ),
    Option(
        STORAGE, "--storage-health-timeout", "BR_STORAGE_HEALTH_TIMEOUT", "5s", values.seconds(0.001), "DURATION",
        "how long the readiness probe waits for the storage", _MORE_THAN_ZERO,
    ),
    Option(
        STORAGE, "--storage-io-timeout", "BR_STORAGE_IO_TIMEOUT", "2h", values.seconds(0.001), "DURATION",
        "longest time for one file's transfer to the storage", _MORE_THAN_ZERO,
    ),
    Option(
        STORAGE, "--scrub-interval", "BR_SCRUB_INTERVAL", "30d", values.seconds(0), "DURATION",
        "every stored object is read back and checked about this often; 0 never", _DURATION,
    ),
    Option(
        TRANSFERS, "--http-upload-timeout", "BR_HTTP_UPLOAD_TIMEOUT", "180m", values.seconds(0.001), "DURATION",
        "longest time for a whole upload", _MORE_THAN_ZERO,
    ),
    Option(
        TRANSFERS, "--http-download-timeout", "BR_HTTP_DOWNLOAD_TIMEOUT", "180m", values.seconds(0.001), "DURATION",
        "longest time for a whole download", _MORE_THAN_ZERO,
    ),
    Option(
        TRANSFERS, "--idle-timeout", "BR_IDLE_TIMEOUT", "60s", values.seconds(0.001), "DURATION",
        "a connection that moves no byte for this long is dropped; headers and JSON bodies must be complete within it",
        _MORE_THAN_ZERO,
    ),
    Option(
        TRANSFERS, "--chunked-commit-grace", "BR_CHUNKED_COMMIT_GRACE", "2s", values.seconds(0), "DURATION",
        "an upload without length and digest is kept only if its client is still there after this long; 0 is off",
        _DURATION,
    ),
    Option(
        TRANSFERS, "--max-concurrent-uploads", "BR_MAX_CONCURRENT_UPLOADS", "8", values.whole(1), "NUMBER",
        "further uploads are answered 503 with `Retry-After`", "a whole number, 1 or more",
    ),
    Option(
        TRANSFERS, "--lease-time", "BR_LEASE_TIME", "30s", values.seconds(0.1), "DURATION",
        "how long a collection stays locked for an upload whose server stopped renewing its lease",
        f"{_DURATION}, 100ms or more",
    ),
    Option(
        TRANSFERS, "--append-only", "BR_APPEND_ONLY", "false", values.boolean, "",
        "no version can be deleted through the API, by anyone; only rotation removes", _YES_NO,
    ),
    Option(
        ACCESS, "--jwt-secret-key", "BR_JWT_SECRET_KEY", None, values.text, "KEY",
        "the key that signs tokens (HS256); use 32 bytes or more", "a text that is not empty", short="-s",
        default_text="generated once into the data folder", secret=True,
    ),
    Option(
        ACCESS, "--jwt-lifetime", "BR_JWT_LIFETIME", "8760h", values.seconds(1), "DURATION",
        "how long a new session lives", f"{_DURATION}, 1s or more",
    ),
    Option(
        ACCESS, "--health-check-key", "BR_HEALTH_CHECK_KEY", None, values.text, "CODE",
        "code for `/ready` and `/metrics`", "a text", short="-k", default_text="none (open)", secret=True,
    ),
    Option(
        ACCESS, "--rate-default-limit", "BR_RATE_DEFAULT_LIMIT", "5", values.whole(0), "NUMBER",
        "requests per second and client address; 0 is no limit", "a whole number, 0 or more",
    ),
    Option(
        ACCESS, "--rate-auth-limit", "BR_RATE_AUTH_LIMIT", "10", values.whole(0), "NUMBER",
        "logins and refreshes per minute and client address; 0 is no limit", "a whole number, 0 or more",
    ),
    Option(
        ACCESS, "--rate-collection-health-limit", "BR_RATE_COLLECTION_HEALTH_LIMIT", "10", values.whole(0), "NUMBER",
        "requests for collections' health per minute and client address; 0 is no limit", "a whole number, 0 or more",
    ),
    Option(
        ACCESS, "--rate-server-health-limit", "BR_RATE_SERVER_HEALTH_LIMIT", "160", values.whole(0), "NUMBER",
        "requests for the server's health per minute and client address; 0 is no limit", "a whole number, 0 or more",
    ),
    Option(
        MONITORING, "--audit-log", "BR_AUDIT_LOG", None, values.path, "FILE",
        "also write the audit trail to this file, each line chained to the one before by its hash", "a path",
        absent=None,
    ),
    Option(
        MONITORING, "--alert-webhook", "BR_ALERT_WEBHOOK", None, values.http_url, "URL",
        "where a collection's change of health is posted as JSON", "an http or https URL", secret=True,
    ),
    Option(
        MONITORING, "--alert-webhook-secret", "BR_ALERT_WEBHOOK_SECRET", None, values.text, "KEY",
        "signs the posted body: `X-Signature-256: sha256=HMAC(body)`", "a text", secret=True,
    ),
    Option(
        MONITORING, "--allow-private-callbacks", "BR_ALLOW_PRIVATE_CALLBACKS", "false", values.boolean, "",
        "webhooks and pings may go to loopback, link-local and private addresses", _YES_NO,
    ),
    Option(
        MONITORING, "--log-level", "BR_LOG_LEVEL", "info",
        values.one_of("debug", "info", "warning", "error", warn="warning", trace="debug", fatal="error", panic="error"),
        "LEVEL", "what is logged (the Go server's other levels are understood)", "debug, info, warning or error",
    ),
    Option(
        MONITORING, "--log-format", "BR_LOG_FORMAT", "text", values.one_of("text", "json"), "FORMAT",
        "form of the log lines", "text or json",
    ),
    Option(
        RUNNING, "--maintenance-interval", "BR_MAINTENANCE_INTERVAL", "60s", values.seconds(0.1), "DURATION",
        "how often rotation leftovers, reconciliation and health are attended to", f"{_DURATION}, 100ms or more",
    ),
    Option(
        RUNNING, "--shutdown-timeout", "BR_SHUTDOWN_TIMEOUT", "5m", values.seconds(0), "DURATION",
        "on SIGTERM running transfers may finish for this long", _DURATION,
    ),
)  # fmt: skip
"""Every option of ``serve``, in the order of help and docs."""
