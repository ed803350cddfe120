"""BackupUser: from its fields to a :class:`~tornado_backups.domain.model.User`.

Owns: the fields below ``spec``, and which faults break the user and which only void an entry. Does not own: what a
role allows (``domain/permissions``). Explained in docs/yaml.md, "BackupUser".

A wrong role, access key or granted object grants nothing and leaves the rest in force. Everything that *restricts*
(addresses, ``deactivated``) must be readable, or the user is out of order: nobody gets in by a spelling mistake.
"""

from __future__ import annotations

from collections.abc import Iterable

from tornado_backups.config.fields import MAX_NAME, Faults, Reading, Section, did_you_mean, is_name
from tornado_backups.config.manifest_head import USER, open_manifest
from tornado_backups.config.manifests_secret import SecretLookup, resolve
from tornado_backups.config.yaml_nodes import Fields, shown
from tornado_backups.domain.addresses import parse_networks
from tornado_backups.domain.errors import ConfigurationFault
from tornado_backups.domain.model import COLLECTION_ROLES, AccessKey, Grant, Network, Role, User
from tornado_backups.domain.phc import normalise_hash

USER_FIELDS = (
    "email",
    "deactivated",
    "organization",
    "about",
    "password",
    "passwordFromRef",
    "restrictByIP",
    "roles",
    "accessKeys",
)
ACCESS_KEY_FIELDS = ("name", "password", "passwordFromRef", "restrictByIP", "objects")
OBJECT_FIELDS = ("name", "type", "roles")

EARLIER_USER_FIELDS = ("collectionAccessKeys",)
"""How the Go server's first releases called ``accessKeys``."""
EARLIER_ACCESS_KEY_FIELDS = ("collections", "roles")
"""What those had in place of ``objects``: the same roles on each of the collections."""

ROLE_SPELLINGS: dict[str, Role] = {role.value: role for role in Role} | {"usersManager": Role.USER_MANAGER}

_WANTED = "put in what 'tornado-backups encode-password' prints"


def read_user(document: Fields, source: str, name: str, secrets: SecretLookup) -> Reading[User]:
    """Read the BackupUser ``name``, its Secrets looked up with ``secrets``; never raises."""
    faults = Faults()
    spec = _spec(open_manifest(document, source, USER, name, faults))
    if spec is None:
        return Reading(None, tuple(faults.breaking))
    spec.only(USER_FIELDS + EARLIER_USER_FIELDS)
    password = _password(spec, secrets)
    if isinstance(password, ConfigurationFault):
        faults.breaking.append(password)
        password = ""
    user = User(
        name=name,
        email=spec.text("email"),
        organization=spec.text("organization"),
        about=spec.text("about"),
        deactivated=spec.boolean("deactivated"),
        password_hash=password,
        restrict_by_ip=_networks(spec),
        roles=_user_roles(spec),
        access_keys=tuple(_access_keys(spec, secrets)),
    )
    return Reading(None if faults.breaking else user, tuple(faults.breaking), tuple(faults.voiding))


def collection_roles(entry: Section, field: str = "roles") -> frozenset[Role] | None:
    """Return the roles of an entry that acts on collections; None, the entry voided, when one of them cannot."""
    roles = set()
    for text, line in entry.texts(field):
        role = ROLE_SPELLINGS.get(text)
        if role not in COLLECTION_ROLES:
            entry.void_at(line, *_role_refused(text, COLLECTION_ROLES, entry.path))
            return None
        roles.add(role)
    return frozenset(roles)


def _spec(manifest: Section) -> Section | None:
    manifest.required("spec")
    return manifest.section("spec")


def _role_refused(text: str, allowed: Iterable[Role], where: str) -> tuple[str, str]:
    names = sorted(role.value for role in allowed)
    if text in ROLE_SPELLINGS:
        what, advice = "acts on the whole system, not on a collection", f"use {', '.join(names)}"
    else:
        what, advice = "is no role", did_you_mean(text, names, "use")
    return f"{where}: {shown(text)} {what}, so it grants nothing", advice


def _user_roles(spec: Section) -> frozenset[Role]:
    roles = set()
    for text, line in spec.texts("roles"):
        if text in ROLE_SPELLINGS:
            roles.add(ROLE_SPELLINGS[text])
        else:
            spec.void_at(line, *_role_refused(text, Role, "spec.roles"))
    return frozenset(roles)


def _password(section: Section, secrets: SecretLookup) -> str | ConfigurationFault:
    """Return the PHC text of the section's password, empty when it has none; a reference counts before ``password``."""
    reference = section.section("passwordFromRef")
    if reference is not None and (reference.text("name") or reference.text("entry")):
        return resolve(reference, secrets, normalise_hash, _WANTED)
    text = section.text("password")
    if not text:
        return ""
    try:
        return normalise_hash(text)
    except ValueError as error:
        what = f"{section.path}.password {error}"
        return ConfigurationFault(section.source, section.line_of("password"), what, _WANTED)


def _networks(section: Section) -> tuple[Network, ...]:
    texts = section.texts("restrictByIP")
    networks: list[Network] = []
    for index, (text, line) in enumerate(texts):
        try:
            networks += parse_networks([text])
        except ValueError as error:
            what, _, instead = str(error).partition("; ")
            path = f"{section.path}.restrictByIP[{index}]"
            section.faults.breaking.append(ConfigurationFault(section.source, line, f"{path}: {what}", instead))
    return tuple(networks)


def _access_keys(spec: Section, secrets: SecretLookup) -> list[AccessKey]:
    keys: list[AccessKey] = []
    for section in spec.sections("accessKeys") + spec.sections("collectionAccessKeys"):
        section.only(ACCESS_KEY_FIELDS + EARLIER_ACCESS_KEY_FIELDS)
        name = section.text("name")
        restrict_by_ip = _networks(section)
        grants = tuple(_grants(section))
        if not name or "$" in name or len(name) > MAX_NAME or not name.isprintable():
            section.void("name", f"is {shown(name)}", "write a name of printable characters without '$'")
        elif any(key.name == name for key in keys):
            section.void("name", f"is {shown(name)} like an earlier key's, so this key is not used", "rename one")
        else:
            keys.append(AccessKey(name, _key_password(section, secrets), restrict_by_ip, grants))
    return keys


def _key_password(section: Section, secrets: SecretLookup) -> str:
    """Return the key's hash; empty, which lets nobody in, when it cannot be had: a fault of this key alone."""
    password = _password(section, secrets)
    if isinstance(password, ConfigurationFault):
        section.faults.voiding.append(password)
        return ""
    if not password:
        section.void("password", "is missing, so nobody can log in with this key", "add passwordFromRef or password")
    return password


def _grants(key: Section) -> list[Grant]:
    grants = []
    for entry in key.sections("objects"):
        entry.only(OBJECT_FIELDS)
        name, kind, roles = entry.text("name"), entry.text("type", "collection"), collection_roles(entry)
        if kind != "collection":
            entry.void("type", f"is {shown(kind)}, so it grants nothing", "write type: collection")
        elif not is_name(name):
            entry.void("name", f"is {shown(name)}, so it grants nothing", "write the name of a collection")
        elif roles:
            grants.append(Grant(name, roles))
    return grants + _earlier_grants(key)


def _earlier_grants(key: Section) -> list[Grant]:
    if not key.has("collections"):
        if key.has("roles"):
            key.broken("roles", "needs the collections it is good for", "write objects: [{name, type, roles}]")
        return []
    roles = collection_roles(key)
    names = [name for name, _ in key.texts("collections") if is_name(name)]
    return [Grant(name, roles) for name in names] if roles else []
