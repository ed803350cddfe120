"""Short ways to write manifests and read them, for the tests of their fields."""

from __future__ import annotations

import textwrap

from tornado_backups.config.manifests import Reading, Secret, read_collection, read_secret, read_user
from tornado_backups.config.yaml_nodes import parse
from tornado_backups.domain.model import Collection, User

HASH = "$argon2id$v=19$m=65536,t=1,p=4$EFjxJhP/pysxEc2KuXiKog$DVfNrKttLHeqpFS3TjnxN8XyrXCfFBkdZSzNlhuoqv0"
ENCODED = (
    "JGFyZ29uMmlkJHY9MTkkbT02NTUzNix0PTEscD00JEVGanhKaFAvcHlzeEVjMkt1WGlLb2c9PSREVmZOckt0dExIZXFwRlMzVGpueE44WHly"
    "WENmRkJrZFpTek5saHVvcXYwPQ=="
)
CODE_HASH = "8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918"

SECRET = f"""\
apiVersion: v1
kind: Secret
metadata:
  name: passwords
type: Opaque
data:
  admin: {ENCODED}
  health: {CODE_HASH}
  broken: hunter2
"""


def secret(text: str = SECRET, name: str = "passwords") -> Secret:
    """Read a Secret that is expected to be whole."""
    return read_secret(parse(text.encode(), f"{name}.yaml"), f"{name}.yaml", name).value()


def lookup(name: str) -> Secret | None:
    """Find the one Secret there is."""
    return secret() if name == "passwords" else None


def object_text(kind: str, name: str, spec: str) -> str:
    """Return a manifest whose ``spec`` begins in line 6."""
    head = f"---\napiVersion: backups.riotkit.org/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n"
    return head + textwrap.indent(textwrap.dedent(spec), "  ")


def user(spec: str, name: str = "admin") -> Reading[User]:
    """Read a BackupUser with that spec."""
    return read_user(parse(object_text("BackupUser", name, spec).encode(), "u.yaml"), "u.yaml", name, lookup)


def collection(spec: str, name: str = "website") -> Reading[Collection]:
    """Read a BackupCollection with that spec."""
    text = object_text("BackupCollection", name, spec)
    return read_collection(parse(text.encode(), "c.yaml"), "c.yaml", name, lookup)
