"""Where the API server is and who we are there: the pod's account and kubeconfig files, both read again each time."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tornado.ioloop import IOLoop

from tests.servers.kubernetes import FakeKubernetes
from tornado_backups.config.kubernetes_access import Kubeconfig, PodAccount, find_access
from tornado_backups.config.kubernetes_api import ApiFailure, KubernetesApi
from tornado_backups.domain.errors import StartupError


@pytest.fixture
def cluster(io_loop: IOLoop, tmp_path: Path) -> Iterator[FakeKubernetes]:
    made = FakeKubernetes(tmp_path / "cluster")
    io_loop.run_sync(made.start)
    yield made
    io_loop.run_sync(made.stop)


def write(path: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "elsewhere", "context": {"cluster": "x", "user": "y"}},
            {"name": "here", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


async def reads(access: Kubeconfig | PodAccount) -> dict[str, Any]:
    return await KubernetesApi("backups", access).page("backupusers", 10)


@pytest.mark.gen_test(timeout=30)
async def test_a_token_and_an_authority_inside_the_file(cluster: FakeKubernetes, tmp_path: Path) -> None:
    authority = base64.b64encode(cluster.authority.ca_file.read_bytes()).decode()
    target = {"server": cluster.url, "certificate-authority-data": authority}
    page = await reads(Kubeconfig(write(tmp_path / "config", target, {"token": "first-token"})))
    assert page["kind"] == "BackupUserList"


@pytest.mark.gen_test(timeout=30)
async def test_files_are_found_beside_the_kubeconfig_and_read_again(cluster: FakeKubernetes, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(cluster.authority.ca_file.read_bytes())
    (tmp_path / "token").write_text("old")
    target = {"server": cluster.url + "/", "certificate-authority": "ca.crt"}
    access = Kubeconfig(write(tmp_path / "config", target, {"tokenFile": "token"}))
    with pytest.raises(ApiFailure, match="401"):
        await reads(access)
    (tmp_path / "token").write_text("first-token\n")
    assert (await reads(access))["items"] == []


@pytest.mark.gen_test(timeout=30)
async def test_a_client_certificate_opens_the_door_and_leaves_no_file(
    cluster: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    pem = cluster.authority.client_chain.read_text()
    key = pem[pem.index("-----BEGIN PRIVATE KEY") :]
    user = {
        "client-certificate-data": base64.b64encode(pem.replace(key, "").encode()).decode(),
        "client-key-data": base64.b64encode(key.encode()).decode(),
    }
    target = {"server": cluster.url, "certificate-authority": str(cluster.authority.ca_file)}
    assert (await reads(Kubeconfig(write(tmp_path / "config", target, user))))["items"] == []
    assert list(scratch.iterdir()) == []


@pytest.mark.gen_test(timeout=30)
async def test_the_server_is_checked_by_the_name_the_file_gives(cluster: FakeKubernetes, tmp_path: Path) -> None:
    target = {"server": cluster.url, "certificate-authority": str(cluster.authority.ca_file)}
    user = {"token": "first-token"}
    good = write(tmp_path / "good", {**target, "tls-server-name": "kubernetes.default.svc"}, user)
    assert (await reads(Kubeconfig(good)))["items"] == []
    bad = write(tmp_path / "bad", {**target, "tls-server-name": "elsewhere.example.org"}, user)
    with pytest.raises(ApiFailure, match=r"certificate|[Hh]ostname"):
        await reads(Kubeconfig(bad))


@pytest.mark.gen_test(timeout=30)
async def test_a_server_of_another_authority_is_not_spoken_to(cluster: FakeKubernetes, tmp_path: Path) -> None:
    stranger = FakeKubernetes(tmp_path / "stranger").authority
    target = {"server": cluster.url, "certificate-authority": str(stranger.ca_file)}
    with pytest.raises(ApiFailure, match="certificate"):
        await reads(Kubeconfig(write(tmp_path / "config", target, {"token": "first-token"})))
    assert cluster.targets == []


def test_a_path_before_the_api_is_kept(tmp_path: Path) -> None:
    endpoint = Kubeconfig(
        write(tmp_path / "config", {"server": "https://rancher.example.org/k8s/clusters/c-1/"}, {"token": "t"})
    ).endpoint()
    assert (endpoint.host, endpoint.port, endpoint.path) == ("rancher.example.org", 443, "/k8s/clusters/c-1")
    assert endpoint.tls is not None
    assert endpoint.tls.verify_mode == ssl.CERT_REQUIRED
    assert endpoint.tls.check_hostname


def test_no_secret_is_in_what_an_endpoint_shows_of_itself(tmp_path: Path) -> None:
    endpoint = Kubeconfig(write(tmp_path / "c", {"server": "https://a"}, {"token": "s3cret"})).endpoint()
    assert endpoint.token == "s3cret"
    assert "s3cret" not in repr(endpoint)


@pytest.mark.parametrize(
    ("cluster_part", "user_part", "sentence"),
    [
        (
            {"insecure-skip-tls-verify": True},
            {},
            "insecure-skip-tls-verify is not supported; use",
        ),
        ({"proxy-url": "http://p"}, {}, "proxy-url is not supported"),
        ({}, {"exec": {"command": "aws"}}, "exec is not supported; use token, tokenFile or client-certificate"),
        ({}, {"auth-provider": {"name": "gcp"}}, "auth-provider is not supported"),
        ({}, {"username": "admin", "password": "s3cret"}, "username is not supported"),
        ({}, {"as": "root"}, "as is not supported"),
        ({"server": "ftp://a"}, {}, "the cluster's server is 'ftp://a'; https://host:port is needed"),
        ({"server": "http://a"}, {"token": "s3cret"}, "the token would travel in clear text"),
        ({"certificate-authority-data": "%%%"}, {}, "certificate-authority-data is no base64"),
        ({"certificate-authority": "missing.crt"}, {}, r"cannot read .*missing\.crt: No such file"),
        ({}, {"tokenFile": "empty"}, "holds no token"),
        ({}, {"client-certificate-data": "cHV0IGEgUEVN"}, "is no PEM that fits"),
    ],
)
def test_what_a_kubeconfig_may_not_say_is_refused_by_name(
    tmp_path: Path, cluster_part: dict[str, Any], user_part: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "empty").write_text("\n")
    path = write(tmp_path / "config", {"server": "https://127.0.0.1:1", **cluster_part}, user_part)
    with pytest.raises(StartupError, match=sentence) as caught:
        Kubeconfig(path).endpoint()
    assert "s3cret" not in caught.value.sentence
    assert "\n" not in caught.value.sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "no YAML, line 1"),
        ("- a\n", "no mapping"),
        ("current-context: there\ncontexts: 5\n", "no entry 'there' under contexts"),
        ("current-context: a\ncontexts: [{name: a, context: {cluster: c}}]\n", "no entry 'c' under clusters"),
    ],
)
def test_a_damaged_kubeconfig_is_refused_in_one_line(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(StartupError, match=sentence):
        Kubeconfig(tmp_path / "config").endpoint()


def test_inside_a_pod_the_account_is_taken_unless_a_kubeconfig_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "config", {"server": "https://a"}, {})
    inside = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert isinstance(find_access(inside), PodAccount)
    named = f"{tmp_path}/none{os.pathsep}{path}"
    assert isinstance(find_access(inside | {"KUBECONFIG": named}), Kubeconfig)


def test_with_neither_pod_nor_kubeconfig_the_line_says_where_was_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StartupError, match=rf"no kubeconfig at {tmp_path}/\.kube/config; set KUBECONFIG"):
        find_access({})
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube" / "config", {"server": "https://a"}, {})
    assert isinstance(find_access({}), Kubeconfig)


def test_a_pod_without_its_account_is_told_which_file_is_missing(tmp_path: Path) -> None:
    account = PodAccount({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path)
    with pytest.raises(StartupError, match=rf"cannot read {tmp_path}/token"):
        account.endpoint()


def test_a_port_that_is_no_number_is_named(tmp_path: Path) -> None:
    account = PodAccount({"KUBERNETES_SERVICE_HOST": "a", "KUBERNETES_SERVICE_PORT": "tcp://10.0.0.1:443"}, tmp_path)
    with pytest.raises(StartupError, match="KUBERNETES_SERVICE_PORT is 'tcp://"):
        account.endpoint()


def test_an_address_of_version_six_works(tmp_path: Path, cluster: FakeKubernetes) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_bytes(cluster.authority.ca_file.read_bytes())
    assert PodAccount({"KUBERNETES_SERVICE_HOST": "fd00::1"}, tmp_path).endpoint().host == "fd00::1"
