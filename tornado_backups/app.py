"""The only place that wires it all: adapters behind ports, services over ports, handlers over services.

Owns: what is passed to what, the periodic callback, start and stop. Does not own: which adapter a setting chooses
(``adapters``), or any rule. Explained in docs/architecture.md.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback

from tornado_backups import heap, systemd
from tornado_backups.adapters import (
    SystemClock,
    build_registry,
    build_source,
    build_store,
    open_registry,
    prepare_data_dir,
)
from tornado_backups.auth.passwords import PasswordVerifier
from tornado_backups.auth.ratelimit import RateLimiter
from tornado_backups.auth.tokens import TokenSigner, load_or_create_secret
from tornado_backups.config.settings import Settings
from tornado_backups.domain.errors import BackupError, ShuttingDown, StartupError
from tornado_backups.outbound.http import HttpCallbackClient
from tornado_backups.ports import Clock
from tornado_backups.services.alerts import Alerts
from tornado_backups.services.audit import AuditTrail as Audit
from tornado_backups.services.catalogue import Catalogue
from tornado_backups.services.download import Downloads
from tornado_backups.services.health import Health
from tornado_backups.services.maintenance import Maintenance
from tornado_backups.services.metrics import Metrics
from tornado_backups.services.pings import Pings
from tornado_backups.services.removal import Rotation
from tornado_backups.services.sessions import Sessions
from tornado_backups.services.upload import Uploads
from tornado_backups.services.upload_request import UploadLimits
from tornado_backups.web.connections import BoundedServer
from tornado_backups.web.context import Context, WebSettings
from tornado_backups.web.listening import open_sockets, tls_context
from tornado_backups.web.routes import WebApplication

log = logging.getLogger(__name__)

BUFFER_BYTES = 512 * 1024
"""How much is read from a socket at once: the unit in which a file moves through this process."""

ABORT_SECONDS = 15.0

HEAP_SECONDS = 20.0
"""How often memory that transfers and logins left free is given back to the system."""


class Server:
    """One serving process."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self._verifier = PasswordVerifier()
        self._stopping = asyncio.Event()
        self.audit = Audit(self.clock, settings.audit_log)
        self.metrics = Metrics()
        self.source = build_source(settings, self.audit)
        self.store = build_store(settings)
        self.registry = build_registry(settings, self.clock, exclusive=True)
        self._tls = tls_context(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        self._http: HTTPServer | None = None
        self._sockets: list[socket.socket] = []
        self._callbacks: list[PeriodicCallback] = []

    async def start(self) -> None:
        """Prove that configuration, storage and database can be used, then listen; raises ``StartupError``."""
        settings = self.settings
        prepare_data_dir(settings)
        from_systemd = inherited_sockets()
        self._sockets = from_systemd or open_sockets(settings.listen)
        await self.source.open()
        await self.store.open()
        await open_registry(self.registry, settings.db_wait, self.clock)
        self._wire()
        self._handed_over = bool(from_systemd)
        self._http = BoundedServer(
            WebApplication(self.context),
            in_transfer=lambda: {transfer.wire.stream for transfer in self.context.transfers},
            chunk_size=BUFFER_BYTES,
            idle_connection_timeout=settings.idle_timeout,
            max_header_size=32 * 1024,
            max_body_size=2**62,
            max_buffer_size=2 * BUFFER_BYTES,
            ssl_options=self._tls,
        )
        self._http.add_sockets(self._sockets)
        self.listening_on = [address_text(sock) for sock in self._sockets]
        self._start_callbacks()

    def _wire(self) -> None:
        settings, registry, store, clock = self.settings, self.registry, self.store, self.clock
        catalogue = Catalogue(self.source)
        limits = UploadLimits(settings.max_concurrent_uploads, settings.lease_time)
        uploads = Uploads(registry, store, catalogue, clock, limits)
        health = Health(registry, store, self.source, clock, settings.storage_health_timeout)
        signer = TokenSigner(load_or_create_secret(settings.data_dir, settings.jwt_secret_key))
        sessions = Sessions(registry, self.source, signer, self._verifier, clock, self.audit, settings.jwt_lifetime)
        self.callbacks = HttpCallbackClient(settings.allow_private_callbacks)
        self.alerts = Alerts(registry, self.callbacks, clock, settings.alert_webhook, settings.alert_webhook_secret)
        self.pings = Pings(self.callbacks)
        self.removals = Rotation(registry, store, self.audit)
        uploads.listeners += [self.removals, self.pings]
        self.maintenance = Maintenance(
            registry,
            store,
            health,
            sessions,
            self.alerts,
            self.metrics,
            clock,
            settings.maintenance_interval,
            settings.scrub_interval,
            settings.lease_time,
        )
        self.context = Context(
            settings=web_settings(settings),
            clock=clock,
            registry=registry,
            store=store,
            source=self.source,
            sessions=sessions,
            catalogue=catalogue,
            uploads=uploads,
            downloads=Downloads(registry, store, catalogue, clock),
            health=health,
            metrics=self.metrics,
            audit=self.audit,
            limiters=build_limiters(settings, clock),
            describe_api=describe_api,
        )

    @property
    def url(self) -> str:
        """Where a person on this machine reaches the server."""
        any_address, any_v6 = "0.0.0.0", "[::]"  # noqa: S104 - what is shown, not what is bound
        address = self.listening_on[0].replace(any_address, "127.0.0.1").replace(any_v6, "[::1]")
        return address if address.startswith("unix:") else f"{'https' if self._tls else 'http'}://{address}"

    def _start_callbacks(self) -> None:
        # Tornado awaits a coroutine before it schedules the next call, so that two passes never overlap.
        self._callbacks = [
            PeriodicCallback(self.maintenance.run_pass, self.settings.maintenance_interval * 1000),
            PeriodicCallback(heap.give_back, HEAP_SECONDS * 1000),
        ]
        watchdog = systemd.watchdog_interval()
        if watchdog is not None:
            self._callbacks.append(PeriodicCallback(lambda: systemd.notify(systemd.WATCHDOG), watchdog * 1000))
        for callback in self._callbacks:
            callback.start()
        self._first_pass = asyncio.create_task(self.maintenance.run_pass())
        self._first_pass.add_done_callback(lambda _: heap.give_back())

    async def serve(self) -> None:
        """Serve what :meth:`start` opened until SIGTERM or SIGINT, then drain and stop; a second signal: at once.

        Says that it is ready only when signals are heeded: whoever reads that may send one at once.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        systemd.notify(systemd.READY)
        log.info("listening on %s", ", ".join(self.listening_on))
        await self._stopping.wait()
        await self.stop()

    def _on_stop_signal(self) -> None:
        if self._stopping.is_set():
            log.warning("stopping at once; what was running is undone at the next start")
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        else:
            log.info("SIGTERM: running transfers may finish, nothing new is started")
        self._stopping.set()

    def reload(self) -> None:
        """Read configuration and certificates again (SIGHUP); a broken certificate keeps the one in use."""
        systemd.notify(systemd.reloading())
        self.source.reload()
        settings = self.settings
        if self._http is not None:
            try:
                # A new context and not the old one filled again: an authority that is no longer in the file must go.
                self._tls = tls_context(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
                self._http.ssl_options = self._tls
            except BackupError as error:
                log.error("kept the certificate in use: %s", error.sentence)
        log.info("configuration and certificates were read again")
        systemd.notify(systemd.READY)

    async def stop(self) -> None:
        """Drain, abort what does not end in time, close everything. Repeatable."""
        systemd.notify(systemd.STOPPING)
        self.context.draining = True
        if self._http is not None and self._handed_over:
            self._http.stop()
        await self._wait_for_transfers(self.settings.shutdown_timeout)
        for transfer in list(self.context.transfers):
            transfer.cut(ShuttingDown("the server was shut down before the transfer ended"))
        await self._wait_for_transfers(ABORT_SECONDS)
        for callback in self._callbacks:
            callback.stop()
        await self.maintenance.stop()
        for service in (self.removals, self.pings, self.alerts, self.callbacks):
            await service.close()
        if self._http is not None:
            self._http.stop()
            await self._http.close_all_connections()
        await self.close()
        log.info("stopped")

    async def close(self) -> None:
        """Close the adapters and what listens; may be called after a failed start."""
        for sock in self._sockets:
            sock.close()
        await self.registry.close()
        await self.store.close()
        await self.source.close()
        self._verifier.close()

    async def _wait_for_transfers(self, seconds: float) -> None:
        deadline = self.clock.monotonic() + seconds
        while self.context.transfers and self.clock.monotonic() < deadline:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(0.05)


def inherited_sockets() -> list[socket.socket]:
    """Return the sockets that systemd handed over; raises ``StartupError`` for descriptors that are none."""
    try:
        return systemd.listen_sockets()
    except OSError as error:
        raise StartupError(f"cannot use the sockets handed over by systemd: {error}") from None


def web_settings(settings: Settings) -> WebSettings:
    """Pick what handlers look at."""
    return WebSettings(
        idle_timeout=settings.idle_timeout,
        http_upload_timeout=settings.http_upload_timeout,
        http_download_timeout=settings.http_download_timeout,
        chunked_commit_grace=settings.chunked_commit_grace,
        append_only=settings.append_only,
        health_check_key=settings.health_check_key,
        trusted_proxies=settings.trusted_proxies,
        unix_trusted=settings.unix_trusted,
    )


def build_limiters(settings: Settings, clock: Clock) -> dict[str, RateLimiter]:
    """Return the four rate limits by the names that handlers use."""
    return {
        "default": RateLimiter(settings.rate_default_limit, 1, clock, "default"),
        "auth": RateLimiter(settings.rate_auth_limit, 60, clock, "auth"),
        "collection-health": RateLimiter(settings.rate_collection_health_limit, 60, clock, "collection-health"),
        "server-health": RateLimiter(settings.rate_server_health_limit, 60, clock, "server-health"),
    }


def describe_api() -> dict[str, Any]:
    """Return the API as OpenAPI 3.1; its text is read only when somebody asks."""
    from tornado_backups.web.openapi import describe

    return describe()


def address_text(sock: object) -> str:
    """Return a socket's address as a person would type it."""
    name = sock.getsockname()  # type: ignore[attr-defined]
    if isinstance(name, tuple):
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{host}:{name[1]}"
    return f"unix:{name}"
