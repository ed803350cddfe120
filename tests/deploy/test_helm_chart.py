"""The chart, rendered by Helm's own engine and checked offline against Kubernetes' schemas."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "tornado-backups"
NO_OFFLINE_SCHEMA = {"Route", "SealedSecret"}
NETWORKED = {
    "database": {"type": "postgresql", "hostname": "db.example.org", "name": "backups", "user": "backups"},
    "storage": {"url": "s3://backups?endpoint=s3.example.org"},
    "persistence": {"enabled": False},
    "secret": {"kind": "existing", "name": "server", "keys": ["jwt-secret-key", "db-password", "aws-credentials"]},
}
FULL = {
    **NETWORKED,
    "secret": {"kind": "Secret", "data": {"jwt-secret-key": "k" * 40, "db-password": "s3cret"}},
    "replicaCount": 3,
    "trustedProxies": ["10.0.0.0/8"],
    "settings": {"BR_RATE_DEFAULT_LIMIT": 20},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "hosts": ["backups.example.org"],
        "tls": [{"secretName": "tls", "hosts": ["backups.example.org"]}],
    },
    "route": {"enabled": True, "host": "backups.apps.example.org"},
    "autoscaling": {"enabled": True},
    "networkPolicy": {
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}],
        "extraEgress": [{"ports": [{"port": 9000, "protocol": "TCP"}]}],
    },
    "rbac": {"secretNames": ["user-passwords"]},
    "imagePullSecrets": [{"name": "pull"}],
    "image": {"digest": "sha256:" + "a" * 64},
    "priorityClassName": "backups",
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "ops"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "backups", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "extraEnv": [{"name": "TZ", "value": "Europe/Warsaw"}],
    "serviceAccount": {"annotations": {"a": "b"}},
}
SEALED = {
    "openshift": True,
    "secret": {"kind": "SealedSecret", "encryptedData": {"jwt-secret-key": "AgBy", "health-check-key": "AgCz"}},
    "route": {"enabled": True},
    "persistence": {"existingClaim": "old-data"},
}
REFUSED = {
    "two servers on one volume": ({"replicaCount": 2}, "several servers need database.type=postgresql and storage.url"),
    "autoscaling on SQLite": ({"autoscaling": {"enabled": True}}, "several servers need database.type=postgresql"),
    "PostgreSQL alone is not enough": (
        {"replicaCount": 2, "database": NETWORKED["database"]},
        "several servers need database.type=postgresql and storage.url",
    ),
    "no common key": (
        {**NETWORKED, "replicaCount": 2, "secret": {"kind": "none"}},
        "several servers need the same JWT key",
    ),
    "no volume": ({"persistence": {"enabled": False}}, "backups would vanish with the pod"),
    "no volume and no key": ({**NETWORKED, "secret": {"kind": "none"}}, "every restart would end all sessions"),
    "no database host": ({"database": {"type": "postgresql"}}, "needs database.hostname, or an entry db-url"),
    "a secret without entries": ({"secret": {"kind": "Secret"}}, "needs entries below secret.data"),
    "a sealed secret without entries": ({"secret": {"kind": "SealedSecret"}}, "make them with kubeseal"),
    "an ingress without hosts": ({"ingress": {"enabled": True}}, "at least one host below ingress.hosts"),
    "a misspelt value": ({"replicaCont": 1}, "additional properties 'replicaCont' not allowed"),
    "an unknown entry": ({"secret": {"kind": "Secret", "data": {"jwt": "x"}}}, "jwt"),
    "a foreign variable": ({"settings": {"PATH": "/tmp"}}, "PATH"),
}


@pytest.fixture(scope="module")
def helm() -> dict[str, Any]:
    """Everything these tests want rendered, in one process."""
    wanted = [{}, NETWORKED, FULL, SEALED, *(values for values, _ in REFUSED.values())]
    answer = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("render.py")), str(CHART)],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return dict(json.loads(answer.stdout))


def objects(helm: dict[str, Any], index: int) -> dict[str, dict[str, Any]]:
    """Return the rendered objects of one value set by kind."""
    result = helm["results"][index]
    assert result["error"] == ""
    texts = (text for name, text in result["files"].items() if name.endswith(".yaml"))
    found = [one for text in texts for one in yaml.safe_load_all(text) if one]
    by_kind = {one["kind"]: one for one in found}
    assert len(by_kind) == len(found)
    return by_kind


DEFAULTS, NETWORKED_INDEX, FULL_INDEX, SEALED_INDEX = range(4)


def test_the_chart_passes_helms_strict_lint(helm: dict[str, Any]) -> None:
    assert helm["lint"]["errors"] == []
    assert helm["lint"]["total_charts_linted"] == 1
    assert [message for message in helm["lint"]["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("index", range(4), ids=["defaults", "networked", "full", "sealed"])
@pytest.mark.parametrize("version", ["1.25", "1.31", "1.37"])
def test_every_object_fits_the_schemas_of_kubernetes(helm: dict[str, Any], index: int, version: str) -> None:
    checked = 0
    for kind, one in objects(helm, index).items():
        if kind not in NO_OFFLINE_SCHEMA:
            kubernetes_validate.validate(one, version, strict=True)
            checked += 1
    assert checked >= 6


@pytest.mark.parametrize(
    ("index", "kinds"),
    [
        (DEFAULTS, {"PersistentVolumeClaim"}),
        (NETWORKED_INDEX, set()),
        (
            FULL_INDEX,
            {"Secret", "Ingress", "Route", "HorizontalPodAutoscaler", "PodDisruptionBudget"},
        ),
        (SEALED_INDEX, {"SealedSecret", "Route"}),
    ],
)
def test_each_object_appears_when_asked_for_and_only_then(helm: dict[str, Any], index: int, kinds: set[str]) -> None:
    always = {"Deployment", "Service", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy"}
    assert set(objects(helm, index)) == always | kinds


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_values_that_would_lose_data_or_never_start_are_refused_in_one_sentence(
    helm: dict[str, Any], case: str
) -> None:
    sentence = REFUSED[case][1]
    assert sentence in helm["results"][4 + list(REFUSED).index(case)]["error"]


@pytest.mark.parametrize("index", range(4))
def test_the_pod_keeps_to_the_restricted_pod_security_standard(helm: dict[str, Any], index: int) -> None:
    pod = objects(helm, index)["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"] + pod.get("initContainers", []):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context.get("privileged")
        assert not any("hostPort" in port for port in container["ports"])
    assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    allowed = {"persistentVolumeClaim", "emptyDir", "secret"}
    assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])
    assert ("runAsUser" in pod["securityContext"]) is (index != SEALED_INDEX)


def test_the_account_may_only_watch_our_kinds_and_fetch_secrets_by_name(helm: dict[str, Any]) -> None:
    rules = objects(helm, DEFAULTS)["Role"]["rules"]
    verbs = {(rule["apiGroups"][0], tuple(rule["resources"])): rule["verbs"] for rule in rules}
    assert verbs == {
        ("backups.riotkit.org", ("backupusers", "backupcollections")): ["list", "watch"],
        ("", ("secrets",)): ["get"],
    }
    narrowed = objects(helm, FULL_INDEX)["Role"]["rules"][1]
    assert narrowed["resourceNames"] == ["user-passwords"]
    binding = objects(helm, DEFAULTS)["RoleBinding"]
    assert binding["subjects"][0]["name"] == objects(helm, DEFAULTS)["ServiceAccount"]["metadata"]["name"]


def test_secrets_reach_the_server_as_files_and_never_as_variables(helm: dict[str, Any]) -> None:
    for index in (NETWORKED_INDEX, FULL_INDEX, SEALED_INDEX):
        pod = objects(helm, index)["Deployment"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        secret = next(volume["secret"] for volume in pod["volumes"] if volume["name"] == "secrets")
        mount = next(one["mountPath"] for one in container["volumeMounts"] if one["name"] == "secrets")
        files = {f"{mount}/{item['path']}" for item in secret["items"]}
        named = {one["value"] for one in container["env"] if one.get("value", "").startswith(mount)}
        assert named == files
        assert "secretKeyRef" not in json.dumps(pod)
    assert "s3cret" not in json.dumps(objects(helm, FULL_INDEX)["Deployment"])


def test_one_volume_means_one_writer_and_shared_stores_mean_no_gap(helm: dict[str, Any]) -> None:
    assert objects(helm, DEFAULTS)["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    rolling = objects(helm, FULL_INDEX)["Deployment"]["spec"]["strategy"]
    assert rolling["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert "replicas" not in objects(helm, FULL_INDEX)["Deployment"]["spec"]


def test_a_stopped_pod_gets_longer_than_its_transfers(helm: dict[str, Any]) -> None:
    pod = objects(helm, DEFAULTS)["Deployment"]["spec"]["template"]["spec"]
    env = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
    assert pod["terminationGracePeriodSeconds"] > int((env["BR_SHUTDOWN_TIMEOUT"] or "").removesuffix("s"))


def test_the_claim_survives_the_release(helm: dict[str, Any]) -> None:
    claim = objects(helm, DEFAULTS)["PersistentVolumeClaim"]
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_ingress_neither_buffers_nor_limits_uploads(helm: dict[str, Any]) -> None:
    annotations = objects(helm, FULL_INDEX)["Ingress"]["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io/"
    assert annotations[prefix + "proxy-body-size"] == "0"
    assert annotations[prefix + "proxy-request-buffering"] == "off"
    assert annotations[prefix + "proxy-http-version"] == "1.1"
    assert int(annotations[prefix + "proxy-read-timeout"]) >= 180 * 60
    assert objects(helm, FULL_INDEX)["Route"]["metadata"]["annotations"]["haproxy.router.openshift.io/timeout"] == "3h"


def test_selectors_find_the_pods(helm: dict[str, Any]) -> None:
    rendered = objects(helm, FULL_INDEX)
    labels = rendered["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    for selector in (
        rendered["Deployment"]["spec"]["selector"]["matchLabels"],
        rendered["Service"]["spec"]["selector"],
        rendered["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        rendered["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels
    assert (
        rendered["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"]
        == (rendered["Deployment"]["metadata"]["name"])
    )


def test_the_chart_has_the_programs_version() -> None:
    from tornado_backups import __version__

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
