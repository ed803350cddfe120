"""The small part of botocore's data that this server needs, cut out of the installed files while they are read.

Owns: a botocore loader that answers for one service only, with only the operations named here and only the S3 lines of
``endpoints.json``. Parsing the whole of both files costs some 12 MiB of resident memory, which is why (docs/adr/0005).
Does not own: the data. Nothing is copied or cached on disk, so an upgraded botocore is followed at once; whenever a
file does not look as expected, it is loaded whole, as botocore itself would.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
from typing import Any

from botocore.loaders import JSONFileLoader, Loader

OPERATIONS = (
    "AbortMultipartUpload",
    "CompleteMultipartUpload",
    "CreateMultipartUpload",
    "DeleteObject",
    "GetObject",
    "HeadBucket",
    "HeadObject",
    "ListMultipartUploads",
    "ListObjectsV2",
    "PutObject",
    "UploadPart",
)
"""What ``storage/s3*`` calls, and ``HeadBucket``, with which botocore finds out the region of a bucket."""

# botocore patches these shapes by name (service-2.sdk-extras.json, handlers.handle_expires_header).
_PATCHED_SHAPES = ("Expires",)

_OPERATION = re.compile(r'"(\w+)"\s*:\s*(?=\{\s*"name"\s*:)')
_SHAPE = re.compile(r'"(\w+)"\s*:\s*(?=\{\s*"type"\s*:)')
_TOP_LEVEL = re.compile(r'"(metadata|clientContextParams)"\s*:\s*(?=\{)')
_SERVICES = re.compile(r'"services"\s*:\s*\{')
_S3 = re.compile(r'"s3"\s*:\s*(?=\{)')
_STANDARD_REGION = re.compile(r"(?!cn-)[a-z]{2}-[a-z]+-\d+")

_log = logging.getLogger(__name__)


def small_loader(endpoint_url: str | None, region: str) -> Loader | None:
    """Return a loader to register as ``data_loader``, or None where only botocore's whole data will do.

    That is AWS itself in one of its other partitions (China, GovCloud), whose endpoints the small data leaves out.
    """
    if endpoint_url is None and not _STANDARD_REGION.fullmatch(region):
        return None
    return _S3OnlyLoader(file_loader=_TrimmingFileLoader())


class _S3OnlyLoader(Loader):  # type: ignore[misc]
    """Knows one service, so that starting does not look into the folders of four hundred others."""

    def list_available_services(self, type_name: str) -> list[str]:
        return ["s3"]


class _TrimmingFileLoader(JSONFileLoader):  # type: ignore[misc]
    """Reads botocore's files, without most of what is in them."""

    def load_file(self, file_path: str) -> Any:
        """Return what botocore would read from the file, without what this program never asks for."""
        trim = _TRIMMERS.get(os.path.basename(file_path))
        if trim is None:
            return super().load_file(file_path)
        try:
            text = _read_text(file_path)
            return None if text is None else trim(text)
        except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            _log.warning("botocore's %s looks unfamiliar (%r): loading it whole", os.path.basename(file_path), error)
            return super().load_file(file_path)


def _read_text(path: str) -> str | None:
    # Latin-1 keeps one byte a character whatever the documentation strings hold; those are thrown away anyway.
    for suffix, opener in ((".json", open), (".json.gz", gzip.open)):
        if os.path.isfile(path + suffix):
            with opener(path + suffix, "rb") as file:
                return str(file.read(), "latin-1")
    return None


def trim_endpoints(text: str) -> dict[str, Any]:
    """Return ``endpoints.json`` with the ``aws`` partition and in it the service ``s3`` only."""
    services = _SERVICES.search(text)
    s3 = services and _S3.search(text, services.end())
    if not services or not s3:
        raise ValueError("no services or no s3 in endpoints.json")
    _, end = json.JSONDecoder().raw_decode(text, s3.end())
    data: dict[str, Any] = json.loads(text[: services.end()] + text[s3.start() : end] + '}}],"version":3}')
    if [partition["partition"] for partition in data["partitions"]] != ["aws"]:
        raise ValueError("the first partition of endpoints.json is not aws")
    return data


def trim_service(text: str) -> dict[str, Any]:
    """Return the S3 model with :data:`OPERATIONS`, the shapes they reach, and no documentation."""
    decoder = json.JSONDecoder(object_pairs_hook=_without_documentation)
    operations_at = {match[1]: match.end() for match in _OPERATION.finditer(text)}
    shapes_at = {match[1]: match.end() for match in _SHAPE.finditer(text)}
    tops_at = {match[1]: match.end() for match in _TOP_LEVEL.finditer(text)}
    operations = {name: decoder.raw_decode(text, operations_at[name])[0] for name in OPERATIONS}
    shapes: dict[str, Any] = {}
    wanted = [*_PATCHED_SHAPES, *_referenced(operations)]
    while wanted:
        name = wanted.pop()
        if name not in shapes:
            shapes[name] = decoder.raw_decode(text, shapes_at[name])[0]
            wanted.extend(_referenced(shapes[name]))
    if shapes["PutObjectRequest"]["type"] != "structure":
        raise ValueError("PutObjectRequest is no structure")
    return {
        "version": "2.0",
        "metadata": decoder.raw_decode(text, tops_at["metadata"])[0],
        "clientContextParams": decoder.raw_decode(text, tops_at["clientContextParams"])[0],
        "operations": operations,
        "shapes": shapes,
    }


def share_equal_parts(text: str) -> Any:
    """Return the parsed ``text`` with equal objects, lists and strings being one in memory: never change them."""
    seen: dict[Any, Any] = {}

    def shared(value: Any) -> Any:
        if isinstance(value, list):
            items = [shared(item) for item in value]
            return seen.setdefault(("list", *(id(item) for item in items)), items)
        return seen.setdefault(value, value) if isinstance(value, str) else value

    def hook(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        node = {key: shared(value) for key, value in pairs if key != "documentation"}
        return seen.setdefault(("object", *((key, id(value)) for key, value in node.items())), node)  # type: ignore[no-any-return]

    return json.loads(text, object_pairs_hook=hook)


_TRIMMERS = {"endpoints": trim_endpoints, "service-2": trim_service, "endpoint-rule-set-1": share_equal_parts}


def _without_documentation(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: "" if key == "documentation" and isinstance(value, str) else value for key, value in pairs}


def _referenced(node: Any) -> list[str]:
    if isinstance(node, list):
        return [name for item in node for name in _referenced(item)]
    if not isinstance(node, dict):
        return []
    own = [node["shape"]] if isinstance(node.get("shape"), str) else []
    return own + [name for item in node.values() for name in _referenced(item)]
