"""Storage URLs of the kinds ``s3://`` and ``gs://``: what they may say and what it means.

Owns: the query options (the names that Go's ``gocloud.dev/blob/s3blob`` uses, so that existing URLs work unchanged).
Does not own: credentials, which come from the usual AWS places and never from a URL. Explained in docs/storage.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

GOOGLE_ENDPOINT = "https://storage.googleapis.com"
MIB = 1024 * 1024

OPTIONS = {
    "endpoint": "host:port of an S3-compatible store, or its URL",
    "disableSSL": "true: http instead of https",
    "s3ForcePathStyle": "true: bucket in the path, false: bucket in the host name",
    "region": "the region that requests are signed for",
    "prefix": "put before every key as it stands, so end it with a slash",
    "profile": "the section of the AWS configuration files to use",
    "signPayload": "false: no signed payload over plain http either; it never is over https",
    "partSizeMiB": "one size for all parts of an upload, 5 to 5120",
}
"""Every query option with its meaning; ``disable_https``, ``use_path_style`` and ``awssdk`` are taken as Go does."""

_ALIASES = {"disable_https": "disableSSL", "use_path_style": "s3ForcePathStyle"}
_IGNORED = ("awssdk",)
_TRUE = ("1", "t", "T", "true", "True", "TRUE")
_FALSE = ("0", "f", "F", "false", "False", "FALSE")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class S3Location:
    """Where the objects are. None stands for what AWS or the AWS configuration says; 0 part bytes for the schedule."""

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    path_style: bool | None = None
    profile: str | None = None
    part_bytes: int = 0
    sign_payload: bool = True

    def __str__(self) -> str:
        return f"bucket {self.bucket!r} at {self.endpoint_url or 'AWS'}"


def parse_s3_url(url: str) -> S3Location:
    """Return what the URL says; raises ``ValueError`` with one sentence that never repeats a password."""
    parts = urlsplit(url)
    if parts.scheme not in ("s3", "gs"):
        raise ValueError("a storage URL of this kind begins with s3:// or gs://")
    if "@" in parts.netloc:
        raise ValueError(
            "a storage URL holds no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use ~/.aws"
        )
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError(f"{parts.netloc!r} is no bucket name: write {parts.scheme}://bucket?option=value")
    if parts.path not in ("", "/") or parts.fragment:
        raise ValueError(f"a storage URL ends with the bucket: write {parts.scheme}://{parts.netloc}?prefix=folder/")
    options = _options(parts.query)
    google = parts.scheme == "gs"
    return S3Location(
        bucket=parts.netloc,
        prefix=options.get("prefix", ""),
        endpoint_url=_endpoint(options) or (GOOGLE_ENDPOINT if google else None),
        region=options.get("region") or ("auto" if google else None),
        path_style=_boolean(options, "s3ForcePathStyle", True if google else None),
        profile=options.get("profile"),
        part_bytes=_part_bytes(options),
        sign_payload=_boolean(options, "signPayload", True) is not False,
    )


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        name = _ALIASES.get(name, name)
        if name in _IGNORED:
            continue
        if name not in OPTIONS:
            raise ValueError(f"unknown option {name!r} in the storage URL; allowed are {', '.join(OPTIONS)}")
        if name in options:
            raise ValueError(f"option {name!r} stands twice in the storage URL; write it once")
        options[name] = value
    return options


def _boolean(options: Mapping[str, str], name: str, default: bool | None) -> bool | None:
    value = options.get(name)
    if value is None:
        return default
    if value not in _TRUE + _FALSE:
        raise ValueError(f"option {name!r} of the storage URL is true or false, not {value!r}")
    return value in _TRUE


def _endpoint(options: Mapping[str, str]) -> str | None:
    plain = _boolean(options, "disableSSL", None)
    given = options.get("endpoint", "")
    if not given:
        if plain:
            raise ValueError("option 'disableSSL' of the storage URL needs an 'endpoint'; AWS itself is reached by TLS")
        return None
    scheme, separator, rest = given.rpartition("://")
    host = rest.rstrip("/")
    if not _HOST.fullmatch(host) or (separator and scheme not in ("http", "https")):
        raise ValueError("option 'endpoint' of the storage URL is host, host:port, or http(s)://host:port with no path")
    if separator and plain is not None and plain != (scheme == "http"):
        raise ValueError("options 'endpoint' and 'disableSSL' of the storage URL contradict each other; drop one")
    return f"{scheme or ('http' if plain else 'https')}://{host}"


def _part_bytes(options: Mapping[str, str]) -> int:
    value = options.get("partSizeMiB")
    if value is None:
        return 0
    if not value.isascii() or not value.isdigit() or not 5 <= int(value[:9]) <= 5120:
        raise ValueError(f"option 'partSizeMiB' of the storage URL is a number from 5 to 5120, not {value!r}")
    return int(value) * MIB
