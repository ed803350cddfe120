"""The world of the permission table: one server, and every kind of session that may knock at it.

Owns: users, keys, collections, and how each kind of session comes about. The table itself is in
``test_permission_table``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.serving import PASSWORD, PASSWORD_HASH, REPOSITORY, Answer, RunningServer, Tree, message
from tornado_backups.auth.tokens import TokenSigner, session_id
from tornado_backups.domain.model import Session

KEY = "the key of the permission table, known to its forgers"
HEALTH_CODE = "the-code-of-the-permission-table"
HOME = "192.0.2.7"
ELSEWHERE = "198.51.100.7"
HS256 = {"alg": "HS256", "typ": "JWT"}
AT_HOME = {"X-Forwarded-For": HOME}
LISTED = {"Lma": "collectionManager", "Lup": "backupUploader", "Ldo": "backupDownloader", "Lan": "uploadsAnytime"}
PROFILES = {
    "adm": "systemAdmin",
    "usr": "userManager",
    "man": "collectionManager",
    "upl": "backupUploader",
    "dow": "backupDownloader",
    "any": "uploadsAnytime",
}


def on_files(*roles: str) -> dict[str, Any]:
    """Return a grant on the collection ``files``, as access keys and scopes write it."""
    return {"name": "files", "type": "collection", "roles": list(roles)}


@dataclass(slots=True)
class World:
    """The server, what was stored in it so far, the administrator's token, and the headers of sessions that ended."""

    server: RunningServer
    stored: dict[str, int] = field(default_factory=dict)
    admin: str = ""
    ended: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def login(self, name: str, headers: Mapping[str, str] | None = None, **narrowing: Any) -> str:
        """Log in and return the token."""
        body = {"username": name, "password": PASSWORD, **narrowing}
        answer = self.server.request("POST", "/api/stable/auth/login", body, headers=headers)
        assert answer.status == 200, (name, answer.body)
        return str(answer.data["token"])

    def store(self, collection: str = "files") -> int:
        """Store a version as the administrator, and return its number."""
        answer = self.server.request("POST", f"{REPOSITORY}/{collection}/version", message(), self.admin)
        self.count(collection, answer)
        return int(answer.data["version"]["versionNumber"])

    def count(self, collection: str, answer: Answer) -> None:
        """Remember that an upload was accepted."""
        if answer.status == 200:
            self.stored[collection] = self.stored.get(collection, 0) + 1

    def add_row(self, token: str, user: str, seconds_left: float) -> None:
        """Record a session for a token, as a login would."""
        now = self.server.clock.now()
        row = Session(session_id(token), user, "", "", "127.0.0.1", now, now, now + timedelta(seconds=seconds_left))
        self.server.run(lambda: self.server.server.registry.add_session(row))


def admin_keys(*more: str) -> list[dict[str, Any]]:
    """Return the administrator's access keys; each of ``more`` manages ``files``."""
    grants: dict[str, list[dict[str, Any]]] = {
        "up": [on_files("backupUploader")],
        "boss": [on_files("collectionManager")],
        "empty": [on_files()],
        "unknown": [on_files("emperor"), on_files("systemAdmin")],
        "bare": [],
        "bound": [on_files("collectionManager")],
    } | {name: [on_files("collectionManager")] for name in more}
    keys = [{"name": name, "password": PASSWORD_HASH, "objects": objects} for name, objects in grants.items()]
    return [key | ({"restrictByIP": ["192.0.2.0/24"]} if key["name"] == "bound" else {}) for key in keys]


def build_tree(root: Path) -> Tree:
    """Write users and collections."""
    tree = Tree(root)
    for column, role in PROFILES.items():
        tree.user(column, roles=[role], accessKeys=admin_keys("lost", "old") if column == "adm" else [])
    for name in (*LISTED, "tenant", "nobody", "bystander"):
        tree.user(name)
    tree.user("bound", roles=["systemAdmin"], restrictByIP=["192.0.2.0/24", "2001:db8::/32"])
    tree.user("fired", roles=["systemAdmin"])
    tree.user("gone", roles=["systemAdmin"])
    listed = [{"userName": name, "roles": [role]} for name, role in LISTED.items()]
    closed = [{"from": "0 0 29 2 *", "duration": "1m"}]
    tree.secret("health", files=hashlib.sha256(HEALTH_CODE.encode()).hexdigest())
    tree.collection("files", accessControl=listed, maxBackupsCount=10)
    tree.collection("closed", accessControl=listed, maxBackupsCount=10, windows=closed)
    tree.collection("guarded", healthSecretRef={"name": "health", "entry": "files"})
    tree.collection("theirs", accessControl=[{"userName": "tenant", "roles": ["collectionManager"]}])
    tree.collection("broken", maxBackupsCount=0)
    return tree


def bearer(token: str, **more: str) -> dict[str, str]:
    """Return the headers of a request with a token."""
    return {"Authorization": f"Bearer {token}", **more}


# -- forgeries -------------------------------------------------------------------------------------------------------


def b64(data: bytes) -> str:
    """Return URL-safe base64 without padding, as tokens are written."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(header: Mapping[str, Any], claims: Mapping[str, Any], key: bytes) -> str:
    """Return a token signed with HMAC-SHA256 whatever its header says."""
    signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{signed}.{b64(hmac.digest(key, signed.encode(), 'sha256'))}"


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a token, unverified."""
    text = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


class Forger:
    """Makes tokens that look like the administrator's; each has a row of its own, so that the signature decides."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._claims = claims_of(world.admin)
        self._rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._public_pem = self._rsa.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def _known(self, token: str) -> Mapping[str, str]:
        self._world.add_row(token, str(claims_of(token)["login"]), 3600)
        return bearer(token)

    def rightly_signed(self) -> Mapping[str, str]:
        """Sign with the right key: what shows that the others fail for their own reason."""
        return self._known(sign(HS256, self._claims | {"jti": secrets.token_hex()}, KEY.encode()))

    def another_key(self) -> Mapping[str, str]:
        """Sign with a key that is nearly the right one."""
        return self._known(sign(HS256, self._claims, KEY.encode()[:-1] + b"S"))

    def algorithm_none(self, spelling: str) -> Mapping[str, str]:
        """Sign not at all."""
        header, claims = b64(json.dumps({"alg": spelling}).encode()), b64(json.dumps(self._claims).encode())
        return self._known(f"{header}.{claims}.")

    def public_key_as_secret(self, algorithm: str) -> Mapping[str, str]:
        """Sign by HMAC with a public key as its secret, and say ``algorithm``."""
        return self._known(sign({"alg": algorithm}, self._claims, self._public_pem))

    def real_rs256(self) -> Mapping[str, str]:
        """Sign by RSA with a key pair of the forger, its public half in the header."""
        numbers = self._rsa.public_key().public_numbers()
        jwk = {"kty": "RSA", "e": "AQAB", "n": b64(numbers.n.to_bytes(256, "big"))}
        header = b64(json.dumps({"alg": "RS256", "jwk": jwk}).encode())
        signed = f"{header}.{b64(json.dumps(self._claims).encode())}"
        signature = self._rsa.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return self._known(f"{signed}.{b64(signature)}")

    def tampered(self, **changes: Any) -> Mapping[str, str]:
        """Change claims of a real token of the tenant, and keep its signature."""
        header, _, signature = self._world.login("tenant").split(".")
        claims = b64(json.dumps(self._claims | {"login": "tenant"} | changes).encode())
        return self._known(f"{header}.{claims}.{signature}")

    def without_a_row(self) -> Mapping[str, str]:
        """Sign with the right key what was never issued."""
        return bearer(sign(HS256, self._claims | {"jti": "never issued"}, KEY.encode()))

    def row_of_another(self) -> Mapping[str, str]:
        """Sign rightly, but let the row belong to somebody else."""
        token = sign(HS256, self._claims | {"jti": "not its row"}, KEY.encode())
        self._world.add_row(token, "tenant", 3600)
        return bearer(token)

    def expired(self, by_token: float, by_row: float) -> Mapping[str, str]:
        """Sign rightly what ends in so many seconds by the token and by its row."""
        now = self._world.server.clock.now()
        token = TokenSigner(KEY).issue("adm", "", (), now, now + timedelta(seconds=by_token))
        self._world.add_row(token, "adm", by_row)
        return bearer(token)


# -- the kinds -------------------------------------------------------------------------------------------------------


def build_world(server: RunningServer) -> World:
    """Open the sessions that have to end, end them, and store a first version in every collection that is read."""
    world = World(server)
    world.admin = world.login("adm")
    sessions = {name: world.login(name) for name in ("fired", "gone", "adm$lost", "adm$old")}
    sessions |= {"revoked": world.login("adm"), "spent": world.login("adm", singleUse=True)}
    server.request("DELETE", "/api/stable/auth/logout", token=sessions["revoked"])
    world.count("files", server.upload("files", sessions["spent"]))
    tree = server.tree
    tree.user("fired", roles=["systemAdmin"], deactivated=True)
    tree.path("backupusers", "gone").unlink()
    tree.user("adm", roles=["systemAdmin"], accessKeys=admin_keys("new"))
    world.ended = {name: bearer(token) for name, token in sessions.items()}
    for collection in ("files", "closed", "theirs"):
        world.store(collection)
    return world


Opening = Callable[[World], Mapping[str, str]]

NO_SESSION: dict[str, Opening] = {
    "anonymous": lambda world: {},
    "no scheme": lambda world: {"Authorization": world.admin},
    "another scheme": lambda world: {"Authorization": f"Basic {world.admin}"},
    "a scheme alone": lambda world: {"Authorization": "Bearer"},
    "an empty token": lambda world: {"Authorization": "Bearer  "},
    "two tokens": lambda world: {"Authorization": f"Bearer {world.admin} {world.admin}"},
    "a token in a cookie": lambda world: {"Cookie": f"jwt={world.admin}; token={world.admin}"},
    "garbage": lambda world: bearer("\xff\xfe.\x80.gar bage"),
    "a very long token": lambda world: bearer("a" * 20_000),
    "a session id for a token": lambda world: bearer(session_id(world.admin)),
    "a token without its last letters": lambda world: bearer(world.admin[:-4]),
    "expired": lambda world: Forger(world).expired(-1, 3600),
    "expired by its row": lambda world: Forger(world).expired(3600, -1),
    "revoked": lambda world: world.ended["revoked"],
    "single use, spent": lambda world: world.ended["spent"],
    "forged with another key": lambda world: Forger(world).another_key(),
    "alg none": lambda world: Forger(world).algorithm_none("none"),
    "alg NONE": lambda world: Forger(world).algorithm_none("NONE"),
    "alg empty": lambda world: Forger(world).algorithm_none(""),
    "RS256 with the public key as secret": lambda world: Forger(world).public_key_as_secret("RS256"),
    "HS256 with the public key as secret": lambda world: Forger(world).public_key_as_secret("HS256"),
    "RS256 with the forger's own key": lambda world: Forger(world).real_rs256(),
    "tampered login": lambda world: Forger(world).tampered(login="adm"),
    "tampered expiry": lambda world: Forger(world).tampered(exp=4102444800),
    "tampered scope": lambda world: Forger(world).tampered(operationsScope=""),
    "never issued": lambda world: Forger(world).without_a_row(),
    "the row of another user": lambda world: Forger(world).row_of_another(),
    "deactivated user": lambda world: world.ended["fired"],
    "deleted user": lambda world: world.ended["gone"],
    "deleted access key": lambda world: world.ended["adm$lost"],
    "renamed access key": lambda world: world.ended["adm$old"],
}
"""Every kind of request that must count as not authenticated."""


def _bound(**headers: str) -> Opening:
    return lambda world: bearer(world.login("bound", AT_HOME), **{"X-Forwarded-For": headers["via"]})


FAR: dict[str, Opening] = {
    "user bound elsewhere": lambda world: bearer(world.login("bound", AT_HOME)),
    "user bound elsewhere, by a proxy": _bound(via=ELSEWHERE),
    "user bound elsewhere, pretending": _bound(via=f"{HOME}, {ELSEWHERE}"),
    "user bound elsewhere, address unreadable": _bound(via="not an address"),
    "access key bound elsewhere": lambda world: bearer(world.login("adm$bound", AT_HOME)),
    "session bound elsewhere": lambda world: bearer(world.login("adm", restrictByIP=[HOME])),
}
"""Every kind of good session that is used from an address it must not be used from."""

BY_HAND = "a token signed by hand"
BY_SCOPE = {"operationsScope": {"elements": [on_files("backupDownloader")]}}


@dataclass(frozen=True, slots=True)
class Admitted:
    """A session that is let in: the column it stands in, and how it logs in; a fresh one for every request or not."""

    column: str
    name: str
    narrowing: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    always_fresh: bool = False

    @property
    def user(self) -> str:
        """The user's name, without that of the access key."""
        return "adm" if self.name == BY_HAND else self.name.partition("$")[0]

    def open(self, world: World) -> Mapping[str, str]:
        """Log in and return the headers of its requests."""
        if self.name == BY_HAND:
            return Forger(world).rightly_signed()
        return bearer(world.login(self.name, self.headers, **self.narrowing), **self.headers)


ADMITTED: dict[str, Admitted] = {
    **{f"profile {role}": Admitted(column, column) for column, role in PROFILES.items()},
    **{f"listed {role}": Admitted(column, column) for column, role in LISTED.items()},
    "no roles": Admitted("nil", "nobody"),
    "another tenant": Admitted("oth", "tenant"),
    "access key": Admitted("key", "adm$up"),
    "access key of a manager": Admitted("boss", "adm$boss"),
    "access key of a manager, bound and at home": Admitted("boss", "adm$bound", {}, AT_HOME),
    "access key with empty roles": Admitted("non", "adm$empty"),
    "access key with unknown and system roles": Admitted("non", "adm$unknown"),
    "access key without objects": Admitted("non", "adm$bare"),
    "narrowed by scope": Admitted("sco", "adm", BY_SCOPE),
    "access key and scope": Admitted("k+s", "adm$boss", BY_SCOPE),
    "access key and a scope that do not meet": Admitted("non", "adm$up", BY_SCOPE),
    "scope on what the profile does not have": Admitted("non", "upl", BY_SCOPE),
    "bound user at home": Admitted("adm", "bound", {}, AT_HOME),
    "bound user at home, IPv6": Admitted("adm", "bound", {}, {"X-Forwarded-For": "[2001:db8::7]:4711"}),
    "bound user at home, IPv4-mapped": Admitted("adm", "bound", {}, {"X-Forwarded-For": "::ffff:192.0.2.9"}),
    "bound session at home": Admitted("adm", "adm", {"restrictByIP": ["192.0.2.0/24"]}, AT_HOME),
    "short-lived token": Admitted("adm", "adm", {"lifetime": "1h"}),
    "signed by hand with the right key": Admitted("adm", BY_HAND),
    "single-use token": Admitted("one", "adm", {"singleUse": True}, {}, True),
}
