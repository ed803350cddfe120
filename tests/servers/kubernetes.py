"""A stand-in for the Kubernetes API server, as far as a controller sees it: HTTPS, tokens, RBAC, lists, watches.

Follows the API conventions ("Efficient detection of changes", "Retrieving large results sets in chunks"): one rising
resourceVersion for everything, continue tokens bound to the first page's version, watches that replay history from a
version or answer 410 when it was compacted, bookmarks, DELETED events that carry the version of the deletion,
``Status`` objects for every refusal. Faults are switched on by attributes.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tests.servers.certificates import Authority

GROUP = "backups.riotkit.org/v1alpha1"
KINDS = {"backupusers": "BackupUser", "backupcollections": "BackupCollection", "secrets": "Secret"}
ALLOWED = {(verb, plural) for verb in ("list", "watch") for plural in ("backupusers", "backupcollections")} | {
    ("get", "secrets")
}


@dataclass
class Event:
    version: int
    plural: str
    type: str
    object: dict[str, Any]


@dataclass
class FakeKubernetes:
    """One namespace of one cluster. ``requests`` holds ``(verb, plural, name)`` of every authenticated request."""

    folder: Path
    namespace: str = "backups"
    tokens: set[str] = field(default_factory=lambda: {"first-token"})
    allowed: set[tuple[str, str]] = field(default_factory=lambda: set(ALLOWED))
    version: int = 1000
    compacted: int = 0
    page_cap: int = 500
    down: bool = False
    hang: bool = False
    fail_with: int = 0
    expire_continue: int = 0
    end_watches_at_once: bool = False
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.history: list[Event] = []
        self.changed = asyncio.Condition()
        self.open_watches: set[WatchableHandler] = set()
        self._waking: set[asyncio.Future[None]] = set()
        self.authority = Authority(self.folder)
        self.port = 0
        self._server: HTTPServer | None = None
        self._snapshots: dict[int, dict[tuple[str, str], dict[str, Any]]] = {}

    # -- what a person does with kubectl ------------------------------------------------------------------------------

    def apply(self, plural: str, name: str, **content: Any) -> None:
        """Create or replace an object; ``content`` is ``spec=…`` or a Secret's ``data=…``."""
        known = (plural, name) in self.objects
        self.version += 1
        self.objects[plural, name] = {
            "apiVersion": "v1" if plural == "secrets" else GROUP,
            "kind": KINDS[plural],
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "resourceVersion": str(self.version),
                "uid": f"uid-{name}",
                "managedFields": [{"manager": "kubectl"}],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            },
            **copy.deepcopy(content),
        }
        self._record(plural, "MODIFIED" if known else "ADDED", self.objects[plural, name])

    def secret(self, name: str, **entries: str) -> None:
        self.apply(
            "secrets", name, data={key: base64.b64encode(text.encode()).decode() for key, text in entries.items()}
        )

    def delete(self, plural: str, name: str) -> None:
        gone = self.objects.pop((plural, name))
        self.version += 1
        gone = copy.deepcopy(gone)
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._record(plural, "DELETED", gone)

    def compact(self) -> None:
        """Forget history, as etcd does after five minutes: older resourceVersions are 410 from now on."""
        self.compacted = self.version
        self.history.clear()
        self._snapshots.clear()

    def bookmark(self) -> None:
        """Tell every open watch how far the world has gone."""
        for handler in self.open_watches:
            handler.bookmarks_due = True
        self._wake()

    def send_raw(self, line: bytes) -> None:
        """Send a line to every open watch as it stands."""
        for handler in self.open_watches:
            handler.raw_due.append(line)
        self._wake()

    def drop_connections(self) -> None:
        """Reset every open watch."""
        for handler in list(self.open_watches):
            handler.request.connection.stream.close()  # type: ignore[union-attr]
        self._wake()

    def _record(self, plural: str, kind: str, entry: dict[str, Any]) -> None:
        self.history.append(Event(self.version, plural, kind, copy.deepcopy(entry)))
        self._wake()

    def _wake(self) -> None:
        async def wake() -> None:
            async with self.changed:
                self.changed.notify_all()

        task = asyncio.ensure_future(wake())
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    # -- life ---------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def start(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.authority.server_chain)
        context.load_verify_locations(self.authority.ca_file)
        context.verify_mode = ssl.CERT_OPTIONAL
        routes = [
            (rf"/apis/{GROUP}/namespaces/([^/]+)/(backupusers|backupcollections)", WatchableHandler, {"cluster": self}),
            (r"/api/v1/namespaces/([^/]+)/(secrets)", WatchableHandler, {"cluster": self}),
            (r"/api/v1/namespaces/([^/]+)/(secrets)/([^/]+)", NamedHandler, {"cluster": self}),
        ]
        self._server = HTTPServer(Application(routes, log_function=lambda handler: None), ssl_options=context)
        sockets = bind_sockets(self.port, "127.0.0.1")
        self.port = sockets[0].getsockname()[1]
        self._server.add_sockets(sockets)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self.drop_connections()
            await self._server.close_all_connections()
            self._server = None
        while self._waking:
            await asyncio.wait(self._waking)


class KubernetesHandler(RequestHandler):
    def initialize(self, cluster: FakeKubernetes) -> None:
        self.cluster = cluster

    def refuse(self, code: int, message: str, reason: str) -> None:
        self.set_status(code)
        self.finish(
            {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "message": message,
                "reason": reason,
                "code": code,
            }
        )

    async def prepare(self) -> None:
        self.cluster.targets.append(self.request.uri or "")
        if self.cluster.down:
            self.request.connection.stream.close()  # type: ignore[union-attr]
            self._finished = True
            return
        while self.cluster.hang and not self.request.connection.stream.closed():  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
        if self.cluster.fail_with:
            self.refuse(self.cluster.fail_with, "etcdserver: leader changed", "InternalError")
            return
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        by_certificate = bool(self.request.get_ssl_certificate())
        if not by_certificate and (scheme != "Bearer" or token not in self.cluster.tokens):
            self.refuse(401, "Unauthorized", "Unauthorized")

    def permitted(self, verb: str, plural: str, namespace: str, name: str = "") -> bool:
        self.cluster.requests.append((verb, plural, name))
        if (verb, plural) in self.cluster.allowed and namespace == self.cluster.namespace:
            return True
        account = f"system:serviceaccount:{self.cluster.namespace}:tornado-backups"
        message = (
            f'{plural} is forbidden: User "{account}" cannot {verb} resource "{plural}" in the namespace "{namespace}"'
        )
        self.refuse(403, message, "Forbidden")
        return False


class NamedHandler(KubernetesHandler):
    def get(self, namespace: str, plural: str, name: str) -> None:
        name = unquote(name)
        if self.permitted("get", plural, namespace, name):
            if entry := self.cluster.objects.get((plural, name)):
                self.finish(entry)
            else:
                self.refuse(404, f'{plural} "{name}" not found', "NotFound")


class WatchableHandler(KubernetesHandler):
    bookmarks_due = False

    def initialize(self, cluster: FakeKubernetes) -> None:
        super().initialize(cluster)
        self.raw_due: list[bytes] = []

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self.cluster._wake()

    async def get(self, namespace: str, plural: str) -> None:
        if self.get_argument("watch", "") in ("1", "true"):
            if self.permitted("watch", plural, namespace):
                await self._watch(plural)
        elif self.permitted("list", plural, namespace):
            self._list(plural)

    def _list(self, plural: str) -> None:
        cluster = self.cluster
        limit = min(int(self.get_argument("limit", "0")) or 500, cluster.page_cap)
        after, version = "", cluster.version
        if token := self.get_argument("continue", ""):
            place = json.loads(base64.urlsafe_b64decode(token))
            after, version = place["start"], place["rv"]
            if cluster.expire_continue or version not in cluster._snapshots:
                cluster.expire_continue = max(0, cluster.expire_continue - 1)
                return self.refuse(410, "The provided continue parameter is too old", "Expired")
        else:
            cluster._snapshots[version] = copy.deepcopy(cluster.objects)
        snapshot = cluster._snapshots[version]
        names = sorted(name for of, name in snapshot if of == plural and name > after)
        metadata: dict[str, Any] = {"resourceVersion": str(version)}
        if len(names) > limit:
            place = {"v": "meta.k8s.io/v1", "rv": version, "start": names[limit - 1]}
            metadata["continue"] = base64.urlsafe_b64encode(json.dumps(place).encode()).decode()
            metadata["remainingItemCount"] = len(names) - limit
        items = [snapshot[plural, name] for name in names[:limit]]
        self.finish({"apiVersion": GROUP, "kind": KINDS[plural] + "List", "metadata": metadata, "items": items})
        return None

    async def _watch(self, plural: str) -> None:
        cluster = self.cluster
        since = int(self.get_argument("resourceVersion"))
        self.set_header("Content-Type", "application/json")
        if since < cluster.compacted:
            # As the real one: 200, and the refusal as the only event.
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            return self.finish(json.dumps({"type": "ERROR", "object": gone}) + "\n")  # type: ignore[return-value]
        deadline = asyncio.get_running_loop().time() + float(self.get_argument("timeoutSeconds", "1800"))
        cluster.open_watches.add(self)
        try:
            await self.flush()
            while asyncio.get_running_loop().time() < deadline and not cluster.end_watches_at_once:
                since = await self._send_news(plural, since)
                async with cluster.changed:
                    if not self._news(plural, since):
                        await asyncio.wait_for(cluster.changed.wait(), deadline - asyncio.get_running_loop().time())
        except (StreamClosedError, TimeoutError):
            pass  # the client has gone, or the watch's time is over: both end it
        finally:
            cluster.open_watches.discard(self)
        return None

    def _news(self, plural: str, since: int) -> bool:
        fresh = any(event.plural == plural and event.version > since for event in self.cluster.history)
        return fresh or self.bookmarks_due or bool(self.raw_due) or self.request.connection.stream.closed()  # type: ignore[union-attr]

    async def _send_news(self, plural: str, since: int) -> int:
        for event in [one for one in self.cluster.history if one.plural == plural and one.version > since]:
            self.write(json.dumps({"type": event.type, "object": event.object}) + "\n")
            since = event.version
        if self.bookmarks_due and self.get_argument("allowWatchBookmarks", "") == "true":
            self.bookmarks_due = False
            since = self.cluster.version
            mark = {"kind": KINDS[plural], "apiVersion": GROUP, "metadata": {"resourceVersion": str(since)}}
            self.write(json.dumps({"type": "BOOKMARK", "object": mark}) + "\n")
        while self.raw_due:
            self.write(self.raw_due.pop(0))
        await self.flush()
        return since
