"""What monitoring asks: alive, ready, a collection's health, metrics.

Owns: who may ask (codes), and the JSON and text of the answers.
Does not own: the checks (``services/health``, ``domain/health``).
"""

from __future__ import annotations

import hashlib
import hmac

from tornado_backups.domain.errors import ConfigurationFault, NotAuthorized, ShuttingDown
from tornado_backups.domain.model import HEALTH_CODE_UNREADABLE, CheckResult
from tornado_backups.services.metrics import process_series
from tornado_backups.services.present import check_json
from tornado_backups.web.base import ApiHandler


def hash_code(code: str) -> str:
    """Return a code's SHA-256 in hex, which is how secrets hold it and how codes are compared."""
    return hashlib.sha256(code.encode()).hexdigest()


class CodeHandler(ApiHandler):
    """A public route that may be guarded by a code, in ``?code=`` or in ``Authorization``."""

    public = True

    def given_code(self) -> str:
        """Return the code of this request, empty when there is none."""
        code = self.get_query_argument("code", "")
        if code:
            return code
        value = self.request.headers.get("Authorization", "").strip()
        scheme, _, rest = value.partition(" ")
        return rest.strip() if scheme.lower() == "bearer" else value

    def require_server_code(self) -> None:
        """Raise ``NotAuthorized`` unless the server's health code is given (or none is configured)."""
        wanted = self.context.settings.health_check_key
        if wanted:
            self.require_code(hash_code(wanted))

    def require_code(self, wanted_hash: str) -> None:
        """Raise ``NotAuthorized`` unless the code with this SHA-256 is given; takes as long for any wrong one."""
        if not hmac.compare_digest(hash_code(self.given_code()), wanted_hash):
            raise NotAuthorized("the health code is missing or wrong")

    def answer_checks(self, checks: tuple[CheckResult, ...], error: str) -> None:
        """Answer 200 when all hold, else 500 ``unhealthy`` with the same body."""
        data = {"health": [check_json(check) for check in checks]}
        if all(check.ok for check in checks):
            self.answer(data)
        else:
            self.answer(data, status=500, error=error, reason="unhealthy")


class AliveHandler(ApiHandler):
    """``/health``: the process answers; touches no dependency."""

    public = True
    limit = "server-health"

    async def on_get(self) -> None:
        """Say so."""
        self.answer({"msg": "The server is up and running."})

    on_head = on_get


class ReadyHandler(CodeHandler):
    """``/ready``: database, storage and configuration can be used."""

    limit = "server-health"

    async def on_get(self) -> None:
        """Probe all three; without a configured code the messages, which may name hosts, are left out."""
        self.require_server_code()
        if self.context.draining:
            raise ShuttingDown("the server is shutting down")
        checks = await self.context.health.ready()
        if not self.context.settings.health_check_key:
            checks = tuple(CheckResult(check.name, check.ok, "") for check in checks)
        self.answer_checks(checks, "one of checks failed")

    on_head = on_get


class CollectionHealthHandler(CodeHandler):
    """``…/collection/{collection}/health``: whether backups come as they should."""

    limit = "collection-health"

    async def on_get(self) -> None:
        """Evaluate every check that the collection configures."""
        collection = await self.context.catalogue.public(self.path_kwargs["collection"])
        if collection.health_code_hash == HEALTH_CODE_UNREADABLE:
            raise ConfigurationFault(
                f"BackupCollection {collection.name}",
                0,
                "its healthSecretRef cannot be used",
                "check-config names the file, the line and what would be right",
            )
        if collection.health_code_hash:
            self.require_code(collection.health_code_hash)
        checks = (await self.context.health.overview([collection]))[collection.name].checks
        self.answer_checks(checks, "the collection is not healthy")

    on_head = on_get


class MetricsHandler(CodeHandler):
    """``/metrics``: Prometheus text format 0.0.4."""

    limit = "server-health"

    async def on_get(self) -> None:
        """Write this process's figures and those of every collection."""
        self.require_server_code()
        series = await self.context.health.series()
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(self.context.metrics.text({**series, **process_series()}))
