"""deploy/kubernetes: against Kubernetes' own schemas, gaiod's configuration, and each manifest against the others."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from deploy.support.manifests import BASE, FOLDER, Manifest, find, kustomization, rendered, resources
from gaiod.config import load
from gaiod.settings import Settings
from gaiod.version import __version__

MONITORING, REDIS = FOLDER / "components" / "monitoring", FOLDER / "components" / "redis"
VARIANTS = [(), (MONITORING,), (REDIS,), (MONITORING, REDIS)]
VERSIONS = ["1.27", "1.37"]
"""The oldest that is promised, and the newest whose schemas there are."""

KUSTOMIZATIONS = sorted(path.parent for path in FOLDER.rglob("kustomization.yaml"))


def name_of(value: object) -> str:
    return "+".join(path.name for path in value) or "base" if isinstance(value, tuple) else str(value)


def settings_of(components: tuple[Path, ...]) -> Settings:
    """Return what the configuration says that the pods get."""
    return load((REDIS if REDIS in components else BASE) / "gaiod.yaml")


def pod_of(deployment: Manifest) -> dict[str, Any]:
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return pod


def gaiod_of(deployment: Manifest) -> dict[str, Any]:
    (container,) = pod_of(deployment)["containers"]
    return dict(container)


# -- what Kubernetes says ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("components", VARIANTS, ids=name_of)
def test_manifests_are_what_the_schemas_want(components: tuple[Path, ...], version: str) -> None:
    """Strictly: a key that does not exist is refused. Kinds that are not Kubernetes' own have no schema here."""
    for manifest in rendered(*components):
        if manifest["kind"] != "ServiceMonitor":
            kubernetes_validate.validate(manifest, version, strict=True)


def test_schemas_refuse_what_is_misspelt() -> None:
    manifest = find(rendered(), "Deployment")
    pod_of(manifest)["terminationGracePeriod"] = 50
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: folder.name)
def test_kustomization_names_every_file_beside_it(folder: Path) -> None:
    wanted = kustomization(folder)
    generated = [file for each in wanted.get("configMapGenerator", []) for file in each["files"]]
    files = {path.name for path in folder.iterdir()} - {"kustomization.yaml"}
    assert {*wanted["resources"], *generated} == files


# -- the pods' rights ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("components", [(), (REDIS,)], ids=name_of)
def test_pods_are_what_the_restricted_profile_asks_for(components: tuple[Path, ...]) -> None:
    """Pod Security Standards, restricted; and a root that cannot be written, and no token, besides."""
    for deployment in (each for each in rendered(*components) if each["kind"] == "Deployment"):
        pod = pod_of(deployment)
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(container["resources"]) == {"requests", "limits"}


def test_user_is_the_images() -> None:
    context = pod_of(find(rendered(), "Deployment"))["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (65532, 65532)


def test_images_have_versions_and_gaiods_is_this_one() -> None:
    images = {
        container["image"]
        for manifest in rendered(REDIS)
        if manifest["kind"] == "Deployment"
        for container in pod_of(manifest)["containers"]
    }
    assert f"gaiod:{__version__}" in images
    assert all(image.partition(":")[2][:1].isdigit() for image in images)
    assert f"newTag: {__version__}}}" in (BASE / "kustomization.yaml").read_text()


# -- what gaiod needs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("components", VARIANTS, ids=name_of)
def test_ports_are_the_configurations_wherever_they_are_written(components: tuple[Path, ...]) -> None:
    settings, manifests = settings_of(components), rendered(*components)
    binds = {listener.bind for listener in settings.listeners}
    metrics = int(settings.metrics_listen.rpartition(":")[2])
    listening = {int(bind.rpartition(":")[2]) for bind in binds}
    assert all(bind.startswith("0.0.0.0:") for bind in (*binds, settings.metrics_listen))

    ports = {port["name"]: port["containerPort"] for port in gaiod_of(find(manifests, "Deployment"))["ports"]}
    assert ports["metrics"] == metrics
    assert set(ports.values()) == {metrics, *listening}
    offered = find(manifests, "Service")["spec"]["ports"]
    assert {ports[port["targetPort"]] for port in offered} == {port["port"] for port in offered} == listening


@pytest.mark.parametrize("components", VARIANTS, ids=name_of)
def test_policy_lets_everybody_to_the_listeners_and_prometheus_alone_to_the_metrics(
    components: tuple[Path, ...],
) -> None:
    settings = settings_of(components)
    clients, prometheus = find(rendered(*components), "NetworkPolicy")["spec"]["ingress"]
    assert "from" not in clients
    assert {port["port"] for port in clients["ports"]} == {
        int(listener.bind.rpartition(":")[2]) for listener in settings.listeners
    }
    assert prometheus["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert [port["port"] for port in prometheus["ports"]] == [int(settings.metrics_listen.rpartition(":")[2])]


@pytest.mark.parametrize("components", [(), (REDIS,)], ids=name_of)
def test_kill_comes_later_than_stopping_may_take(components: tuple[Path, ...]) -> None:
    settings = settings_of(components)
    waits_s = pod_of(find(rendered(*components), "Deployment"))["terminationGracePeriodSeconds"]
    assert waits_s >= settings.stop_grace_s + settings.drain_timeout_s + 5


@pytest.mark.parametrize("components", [(), (REDIS,)], ids=name_of)
def test_grace_is_longer_than_a_pod_takes_to_be_seen_as_not_ready(components: tuple[Path, ...]) -> None:
    probe = gaiod_of(find(rendered(*components), "Deployment"))["readinessProbe"]
    assert settings_of(components).stop_grace_s > probe["periodSeconds"] * (probe["failureThreshold"] + 1)


def test_probes_ask_what_the_endpoint_answers() -> None:
    container = gaiod_of(find(rendered(), "Deployment"))
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    assert all(container[name]["httpGet"]["port"] == "metrics" for name in paths)


def test_pod_has_its_configuration_and_a_place_for_the_control_socket() -> None:
    deployment = find(rendered(), "Deployment")
    mounts = {mount["name"]: mount["mountPath"] for mount in gaiod_of(deployment)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod_of(deployment)["volumes"]}
    assert set(mounts) == set(volumes)
    config = gaiod_of(deployment)["args"][-1]
    assert config == f"{mounts['config']}/gaiod.yaml"
    (generated,) = kustomization(BASE)["configMapGenerator"]
    assert volumes["config"]["configMap"]["name"] == generated["name"]
    assert (mounts["tmp"], volumes["tmp"]["emptyDir"]["medium"]) == ("/tmp", "Memory")


# -- who is selected ---------------------------------------------------------------------------------------------


def test_whatever_selects_gaiods_pods_finds_them() -> None:
    manifests = rendered(MONITORING)
    labels = find(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        find(manifests, "Deployment")["spec"]["selector"]["matchLabels"],
        find(manifests, "Service")["spec"]["selector"],
        find(manifests, "Service", "gaiod-metrics")["spec"]["selector"],
        find(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        find(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert selectors == [labels] * len(selectors)


def test_monitor_finds_the_metrics_service_and_no_other() -> None:
    manifests = rendered(MONITORING)
    monitor = find(manifests, "ServiceMonitor")["spec"]
    service = find(manifests, "Service", "gaiod-metrics")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "gaiod", "the alerts ask for this job"
    assert [endpoint["port"] for endpoint in monitor["endpoints"]] == [
        port["name"] for port in service["spec"]["ports"]
    ]
    assert (
        not monitor["selector"]["matchLabels"].items()
        <= find(manifests, "Service")["metadata"].get("labels", {}).items()
    )


def test_redis_is_where_the_configuration_says_and_may_be_connected_to() -> None:
    manifests = rendered(REDIS)
    service, deployment = find(manifests, "Service", "redis"), find(manifests, "Deployment", "redis")
    (port,) = [port["port"] for port in service["spec"]["ports"]]
    text = (REDIS / "gaiod.yaml").read_text()
    assert text.count("redis://") == text.count(f"redis://{service['metadata']['name']}:{port}/") == 2
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    to_redis, _ = find(manifests, "NetworkPolicy")["spec"]["egress"]
    assert to_redis == {"to": [{"podSelector": {"matchLabels": labels}}], "ports": [{"port": port}]}
    gaiods = find(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    (who,) = find(manifests, "NetworkPolicy", "redis")["spec"]["ingress"]
    assert {"podSelector": {"matchLabels": gaiods}} in who["from"]


def test_components_add_resources_and_repeat_none() -> None:
    named = [(each["kind"], each["metadata"]["name"]) for each in rendered(MONITORING, REDIS)]
    assert len(named) == len(set(named)) > len(resources(BASE))
