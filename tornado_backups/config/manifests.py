"""From YAML nodes to users, collections and secrets: the one door for every configuration source.

Owns: gathering what ``manifests_user``, ``manifests_collection`` and ``manifests_secret`` offer. Does not own: where
documents come from: ``filesystem`` parses files with ``yaml_nodes.parse``, an API's objects go through
``yaml_nodes.from_plain``. Explained in docs/yaml.md.
"""

from __future__ import annotations

from tornado_backups.config.fields import Reading, is_name
from tornado_backups.config.manifest_head import COLLECTION, SECRET, USER, Kind
from tornado_backups.config.manifests_collection import read_collection
from tornado_backups.config.manifests_secret import Secret, SecretLookup, read_secret, secret_names
from tornado_backups.config.manifests_user import read_user

__all__ = [
    "COLLECTION",
    "SECRET",
    "USER",
    "Kind",
    "Reading",
    "Secret",
    "SecretLookup",
    "is_name",
    "read_collection",
    "read_secret",
    "read_user",
    "secret_names",
]
