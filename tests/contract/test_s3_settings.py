"""What an S3 store is made from: URLs, part sizes, the small botocore data, TLS, and memory that is given back."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import botocore
import pytest
from botocore.loaders import Loader

from tests.contract.store_places import S3Place, enter, get, pattern, put
from tests.servers.certificates import Authority
from tests.servers.s3 import rclone
from tornado_backups.storage import s3_data
from tornado_backups.storage.s3 import S3Store
from tornado_backups.storage.s3_limits import (
    GIB,
    LARGEST_OBJECT_BYTES,
    LARGEST_PART_BYTES,
    MIB,
    MOST_PARTS,
    SMALLEST_PART_BYTES,
    PartSizes,
    SpareMemory,
    choose_part_sizes,
)
from tornado_backups.storage.s3_url import OPTIONS, S3Location, parse_s3_url

pytest_plugins = ["tests.contract.store_fixtures"]

PROJECT = Path(__file__).parents[2]
gen_test = pytest.mark.gen_test(timeout=60)


# -- URLs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("s3://backups", S3Location("backups")),
        ("s3://backups?region=eu-central-1&prefix=a/b/", S3Location("backups", "a/b/", None, "eu-central-1")),
        (
            "s3://b-1?endpoint=localhost:9000&disableSSL=true&s3ForcePathStyle=true&region=us-east-1",
            S3Location("b-1", "", "http://localhost:9000", "us-east-1", True),
        ),
        ("s3://bk?endpoint=s3.example.org", S3Location("bk", "", "https://s3.example.org")),
        ("s3://bk?endpoint=http://[::1]:9000/", S3Location("bk", "", "http://[::1]:9000")),
        ("s3://bk?endpoint=h&use_path_style=1&disable_https=t&awssdk=v2", S3Location("bk", "", "http://h", None, True)),
        ("s3://bk?s3ForcePathStyle=false&profile=nas", S3Location("bk", path_style=False, profile="nas")),
        ("s3://bk?partSizeMiB=64", S3Location("bk", part_bytes=64 * MIB)),
        ("gs://bucket", S3Location("bucket", "", "https://storage.googleapis.com", "auto", True)),
        ("gs://bucket?prefix=x%2Fy+z/", S3Location("bucket", "x/y z/", "https://storage.googleapis.com", "auto", True)),
    ],
)
def test_a_url_says_where_the_objects_are(url: str, location: S3Location) -> None:
    assert parse_s3_url(url) == location
    assert isinstance(S3Store.from_url(url, 60), S3Store)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("s3://", "bucket"),
        ("s3://b?x", "bucket"),
        ("file:///x", "s3://"),
        ("s3://backups/folder", "prefix=folder/"),
        ("s3://backups?endpont=x", "endpoint, disableSSL, s3ForcePathStyle, region, prefix"),
        ("s3://backups?region=a&region=b", "twice"),
        ("s3://backups?disableSSL=yes&endpoint=x", "true or false"),
        ("s3://backups?disableSSL=true", "endpoint"),
        ("s3://backups?endpoint=https://x&disableSSL=true", "contradict"),
        ("s3://backups?endpoint=ftp://x", "host:port"),
        ("s3://backups?endpoint=host/path", "no path"),
        ("s3://backups?partSizeMiB=4", "from 5 to 5120"),
        ("s3://backups?partSizeMiB=99999999999999999999", "from 5 to 5120"),
        ("s3://backups?partSizeMiB=5M", "from 5 to 5120"),
    ],
)
def test_a_wrong_url_is_refused_with_what_is_allowed(url: str, hint: str) -> None:
    with pytest.raises(ValueError) as caught:
        S3Store.from_url(url, 60)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://AKIA:hush@backups", "s3://hush@backups", "s3://backups?endpoint=u:hush@host"])
def test_a_url_with_a_password_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_s3_url(url)
    assert "hush" not in str(caught.value)


def test_every_option_is_documented() -> None:
    page = (PROJECT / "docs" / "storage.md").read_text()
    for option in OPTIONS:
        assert f"`{option}`" in page


# -- part sizes ------------------------------------------------------------------------------------------------------


def test_the_largest_object_fits_in_ten_thousand_parts() -> None:
    for expected in (None, LARGEST_OBJECT_BYTES):
        sizes = choose_part_sizes(expected)
        parts = [sizes.of(number) for number in range(1, MOST_PARTS + 1)]
        assert sum(parts) >= LARGEST_OBJECT_BYTES
        assert max(parts) <= LARGEST_PART_BYTES
        assert parts == sorted(parts)


@pytest.mark.parametrize(("expected", "until"), [(None, 23 * GIB), (48 * GIB, 48 * GIB), (1, 23 * GIB)])
def test_an_ordinary_upload_has_parts_of_five_mib(expected: int | None, until: int) -> None:
    sizes = choose_part_sizes(expected)
    last = -(-until // SMALLEST_PART_BYTES)
    assert {sizes.of(number) for number in range(1, last + 1)} == {SMALLEST_PART_BYTES}


@pytest.mark.parametrize("expected", [24 * GIB, 49 * GIB, 1000 * GIB, LARGEST_OBJECT_BYTES])
def test_an_announced_length_gets_parts_of_one_size(expected: int) -> None:
    sizes = choose_part_sizes(expected)
    assert sizes.of(1) == sizes.of(MOST_PARTS)
    assert sizes.of(1) * MOST_PARTS >= expected
    assert sizes.of(1) % MIB == 0


def test_a_fixed_part_size_holds_for_every_part() -> None:
    sizes = choose_part_sizes(None, 64 * MIB)
    assert sizes.of(1) == sizes.of(MOST_PARTS) == 64 * MIB
    for number in (0, MOST_PARTS + 1):
        with pytest.raises(ValueError):
            sizes.of(number)


@gen_test
@pytest.mark.parametrize("spare_mib", [0, 5, 20, 100])
async def test_growing_parts_with_and_without_spare_memory_come_back_bit_for_bit(
    rclone_place: S3Place, monkeypatch: pytest.MonkeyPatch, spare_mib: int
) -> None:
    monkeypatch.setattr(PartSizes, "of", lambda self, number: (5 + number // 2) * MIB)
    spare = SpareMemory(spare_mib * MIB)
    store = rclone_place.store()
    store._spare = spare
    await store.open()
    data = pattern(41 * MIB + 5)
    await put(store, "c/id/x", data)
    assert await get(store, "c/id/x", 0, len(data)) == data
    assert spare.take(spare_mib * MIB), "all spare memory was given back"
    await store.delete("c/id/x")
    await store.close()


@gen_test
async def test_an_upload_holds_at_most_two_parts_and_gives_them_back(rclone_place: S3Place) -> None:
    store = rclone_place.store()
    await store.open()
    sinks = [await store.begin(f"c/{number}/x") for number in range(4)]
    for sink in sinks:
        for _ in range(24):
            await sink.write(bytes(MIB))
    held = [sum(len(buffer) for buffer in sink._buffers._all) for sink in sinks]
    assert max(held) <= 10 * MIB
    assert sum(held) <= (4 * 5 + 10) * MIB, "one part each, and two to spare for all"
    for sink in sinks:
        await sink.abort()
    assert store._spare.take(10 * MIB)
    assert rclone_place.left() == []
    await store.close()


# -- botocore's data -------------------------------------------------------------------------------------------------


def installed(name: str) -> str:
    path = Path(botocore.__file__).parent / "data" / name
    text = s3_data._read_text(str(path))
    assert text is not None
    return text


def test_the_small_model_is_the_whole_one_with_less_in_it() -> None:
    name = "s3/2006-03-01/service-2"
    small, whole = s3_data.trim_service(installed(name)), json.loads(installed(name))
    assert small.keys() == whole.keys() - {"documentation"}
    assert small["metadata"] == whole["metadata"]
    assert set(small["operations"]) == set(s3_data.OPERATIONS)
    for part in ("operations", "shapes"):
        for name, value in small[part].items():
            assert value == without_documentation(whole[part][name])
    missing = set(s3_data._referenced([small["operations"], small["shapes"]])) - set(small["shapes"])
    assert missing == set()


def without_documentation(node: object) -> object:
    if isinstance(node, list):
        return [without_documentation(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: "" if key == "documentation" and isinstance(value, str) else without_documentation(value)
        for key, value in node.items()
    }


def test_the_small_endpoints_are_those_of_s3_in_the_standard_partition() -> None:
    small, whole = s3_data.trim_endpoints(installed("endpoints")), json.loads(installed("endpoints"))
    expected = next(partition for partition in whole["partitions"] if partition["partition"] == "aws")
    expected["services"] = {"s3": expected["services"]["s3"]}
    assert small == {"partitions": [expected], "version": whole["version"]}


def test_sharing_equal_parts_changes_nothing_but_memory() -> None:
    text = installed("s3/2006-03-01/endpoint-rule-set-1")
    assert without_keys(s3_data.share_equal_parts(text)) == without_keys(json.loads(text))


def without_keys(node: object) -> object:
    if isinstance(node, list):
        return [without_keys(item) for item in node]
    if isinstance(node, dict):
        return {key: without_keys(value) for key, value in node.items() if key != "documentation"}
    return node


@pytest.mark.parametrize("region", ["cn-north-1", "us-gov-west-1", "us-iso-east-1"])
def test_other_partitions_of_aws_get_the_whole_data(region: str) -> None:
    assert s3_data.small_loader(None, region) is None
    assert s3_data.small_loader("https://example.org", region) is not None


def test_data_that_looks_unfamiliar_is_loaded_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = tmp_path / "s3" / "2030-01-01"
    service.mkdir(parents=True)
    (service / "service-2.json").write_text('{"version": "3.0", "operations": {}, "other": 1}')
    (tmp_path / "endpoints.json").write_text('{"version": 4}')
    monkeypatch.setattr(Loader, "BUILTIN_DATA_PATH", str(tmp_path))
    monkeypatch.setattr(Loader, "CUSTOMER_DATA_PATH", str(tmp_path / "none"))
    caplog.set_level(logging.WARNING)
    loader = s3_data.small_loader("https://example.org", "auto")
    assert loader is not None
    assert loader.load_service_model("s3", "service-2")["other"] == 1
    assert loader.load_data("endpoints") == {"version": 4}
    assert caplog.text.count("loading it whole") == 2


def test_nothing_of_aws_is_imported_before_a_store_is_opened() -> None:
    script = (
        "import sys; from tornado_backups.storage.s3 import S3Store; S3Store.from_url('s3://backups', 60);"
        "print([name for name in ('botocore', 'aiobotocore', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- TLS -------------------------------------------------------------------------------------------------------------


@gen_test
async def test_over_tls_payloads_go_unsigned_and_come_back_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "tls")
    with rclone(tmp_path / "data", authority.server_chain, authority.server_chain) as server:
        enter(server, monkeypatch)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.ca_file))
        store = S3Store.from_url(server.url(prefix=quote("tls/")), 60)
        await store.open()
        data = pattern(6 * MIB)
        await put(store, "c/id/x", data)
        assert await get(store, "c/id/x", 0, len(data)) == data
        await store.probe()
        assert store._opened is not None
        assert store._opened._config().s3["payload_signing_enabled"] is False
        await store.close()


@gen_test
@pytest.mark.parametrize("signed", [True, False])
async def test_over_plain_http_payloads_are_signed_unless_told_otherwise(moto_place: S3Place, signed: bool) -> None:
    server = moto_place.server
    store = S3Store.from_url(server.url(prefix=moto_place.prefix, **({} if signed else {"signPayload": "false"})), 60)
    await store.open()
    data = pattern(6 * MIB)
    await put(store, "c/id/x", data)
    assert await get(store, "c/id/x", 0, len(data)) == data
    assert store._opened is not None
    assert store._opened._config().s3["payload_signing_enabled"] is signed
    await store.close()


@gen_test
async def test_region_and_credentials_come_from_the_usual_places(
    moto_place: S3Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = moto_place.server
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text(
        f"[nas]\naws_access_key_id = {server.access_key}\naws_secret_access_key = {server.secret_key}\n"
    )
    (tmp_path / "config").write_text("[profile nas]\nregion = eu-west-3\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.fspath(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", os.fspath(tmp_path / "config"))
    url = f"s3://{server.bucket}?endpoint={server.host}:{server.port}&disableSSL=true&profile=nas&prefix=p/"
    store = S3Store.from_url(url, 60)
    await store.open()
    await store.probe()
    assert store._opened is not None
    assert store._opened._client.meta.region_name == "eu-west-3"
    await store.close()
