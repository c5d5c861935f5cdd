"""What every pod of launch/kubernetes has to have, and what its arguments have to mean."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

import epd
from epd.cli.main import build_parser
from epd.config import Config, load_config
from epd.config.topology import Topology
from epd.wire.addresses import parse_listen
from tests.deploy.kustomize import render
from tests.deploy.overlays import KUBERNETES, OVERLAYS, Pod, every_pod, objects, of_kind, pods

PODS = every_pod()
README = KUBERNETES / "README.md"

each_pod = pytest.mark.parametrize(
    ("overlay", "pod"), PODS, ids=[f"{overlay}:{pod.owner}" for overlay, pod in PODS]
)
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def containers(pod: Pod) -> list[dict[str, Any]]:
    return [*pod.spec.get("initContainers", ()), *pod.spec["containers"]]


def config_of(overlay: str, pod: Pod, folder: Path) -> Config:
    """What `epd ROLE` makes of its arguments and of the file in the ConfigMap."""
    [found] = [o for o in of_kind(overlay, "ConfigMap") if "epd.yaml" in o["data"]]
    (folder / "epd.yaml").write_text(found["data"]["epd.yaml"])
    args = build_parser().parse_args(pod.arguments)
    assert args.config == "/etc/epd/epd.yaml"
    return load_config(folder / "epd.yaml", args.overrides)


# ---- what the arguments mean


@each_pod
def test_arguments_and_configuration_are_what_epd_takes(
    overlay: str, pod: Pod, tmp_path: Path
) -> None:
    """Every flag and key exists, and what a role needs is there."""
    config = config_of(overlay, pod, tmp_path)
    assert config.name == "a-pod"
    assert config.wire.curve_dir == Path("/run/curve")
    assert not config.wire.insecure
    role = pod.arguments[0]
    assert pod.labels["app.kubernetes.io/component"] == role
    if role == "gateway":
        assert config.gateway.host == "0.0.0.0"
        assert config.gateway.api_keys_file and config.gateway.admin_key
    else:
        assert config.gateways == ("tcp://epd-gateways:7400",)
        assert config.threads == 4


@each_pod
def test_a_pod_may_drain_for_as_long_as_it_is_told_to(
    overlay: str, pod: Pod, tmp_path: Path
) -> None:
    """The grace period covers preStop, drain_s and ten seconds of goodbyes."""
    config = config_of(overlay, pod, tmp_path)
    waits = pod.main.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    before = float(waits[1]) if waits else 0.0
    assert config.drain_s >= 60
    assert pod.spec["terminationGracePeriodSeconds"] >= before + config.drain_s + 10


@each_pod
def test_the_ports_of_a_pod_are_those_that_it_listens_on(
    overlay: str, pod: Pod, tmp_path: Path
) -> None:
    declared = {port["containerPort"] for port in pod.main["ports"]}
    assert declared == listened(config_of(overlay, pod, tmp_path), pod)


def listened(config: Config, pod: Pod) -> set[int]:
    ports = set(parse_listen(config.listen).ports)
    return ports | ({config.gateway.port} if pod.arguments[0] == "gateway" else set())


# ---- what a pod may do


@each_pod
def test_no_container_is_root_or_writes_its_root(overlay: str, pod: Pod) -> None:
    context = pod.spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] >= 10000
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod.spec["automountServiceAccountToken"] is False
    assert not pod.spec.get("hostNetwork") and not pod.spec.get("hostIPC")
    for container in containers(pod):
        own = container["securityContext"]
        assert own["readOnlyRootFilesystem"] is True
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}


@each_pod
def test_every_container_has_requests_and_limits(overlay: str, pod: Pod) -> None:
    for container in containers(pod):
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][kind]), container["name"]
        assert (
            container["resources"]["requests"]["memory"]
            == (container["resources"]["limits"]["memory"])
            or container["name"] == "keys"
        )


@each_pod
def test_images_are_of_this_version(overlay: str, pod: Pod) -> None:
    for container in containers(pod):
        name, _, tag = container["image"].rpartition(":")
        assert name in ("epd", "epd-cuda")
        assert tag == epd.__version__


@each_pod
def test_a_gpu_image_goes_with_a_gpu_and_its_nodes(overlay: str, pod: Pod) -> None:
    has_gpu = "nvidia.com/gpu" in pod.main["resources"]["limits"]
    assert pod.main["image"].startswith("epd-cuda:") == has_gpu
    assert (pod.spec.get("nodeSelector", {}).get("epd-pool") == "gpu") == has_gpu
    assert bool(pod.spec.get("tolerations")) == has_gpu


@each_pod
def test_every_mount_has_its_volume_and_every_empty_one_a_limit(overlay: str, pod: Pod) -> None:
    volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
    used = {m["name"] for container in containers(pod) for m in container["volumeMounts"]}
    assert used == set(volumes)
    for volume in volumes.values():
        assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"]


@each_overlay
def test_secrets_are_named_in_the_readme_with_the_command_that_makes_them(overlay: str) -> None:
    text = README.read_text()
    for pod in pods(overlay):
        for volume in pod.spec["volumes"]:
            if "secret" in volume:
                assert f"create secret generic {volume['secret']['secretName']} " in text
        for variable in pod.main["env"]:
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                assert f"create secret generic {reference['name']} " in text


def test_the_job_that_downloads_a_checkpoint_has_no_more_rights_than_others() -> None:
    [job] = [one for one in render(KUBERNETES / "model") if one["kind"] == "Job"]
    spec = job["spec"]["template"]["spec"]
    pod = Pod("epd-model", 1, job["spec"]["template"]["metadata"]["labels"], spec)
    test_no_container_is_root_or_writes_its_root("", pod)
    test_every_container_has_requests_and_limits("", pod)
    test_images_are_of_this_version("", pod)
    test_every_mount_has_its_volume_and_every_empty_one_a_limit("", pod)
    for overlay in OVERLAYS:
        [claim] = of_kind(overlay, "PersistentVolumeClaim")
        assert spec["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert "kubectl apply -k launch/kubernetes/model\n" in README.read_text()


# ---- the objects together


@each_overlay
def test_every_stage_is_there(overlay: str) -> None:
    count = Counter({pod.arguments[0]: pod.replicas for pod in pods(overlay)})
    if "fused" in count:
        topology = f"{count['encode']}E{count['fused']}PD"
    else:
        topology = f"{count['encode']}E{count['prefill']}P{count['decode']}D"
    assert dict(Topology.parse(topology).workers) == {
        role: num for role, num in count.items() if role != "gateway"
    }


@each_overlay
def test_the_name_of_the_gateways_has_those_that_are_not_ready_too(overlay: str) -> None:
    """They are ready only when workers have found them: else nobody would ever begin."""
    headless = [o for o in of_kind(overlay, "Service") if o["spec"].get("clusterIP") == "None"]
    [service] = [one for one in headless if one["metadata"]["name"] == "epd-gateways"]
    assert all(one["spec"]["publishNotReadyAddresses"] is True for one in headless)
    assert {port["port"] for port in service["spec"]["ports"]} == {7400, 7401}


@each_overlay
def test_every_set_of_pods_names_them_by_a_service_of_its_own(overlay: str) -> None:
    services = {one["metadata"]["name"]: one["spec"] for one in of_kind(overlay, "Service")}
    for one in of_kind(overlay, "StatefulSet"):
        service = services[one["spec"]["serviceName"]]
        assert service["clusterIP"] == "None"
        assert service["selector"] == one["spec"]["selector"]["matchLabels"]


@each_pod
def test_a_worker_has_a_gpu_for_every_rank_and_all_ranks_in_one_pod(
    overlay: str, pod: Pod, tmp_path: Path
) -> None:
    """Ranks find each other by a file and loopback, so a group of the operator's is one pod."""
    if "nvidia.com/gpu" not in pod.main["resources"]["limits"]:
        return
    ranks = config_of(overlay, pod, tmp_path).placement.of(pod.arguments[0]).tp
    gpus = {kind: pod.main["resources"][kind]["nvidia.com/gpu"] for kind in ("requests", "limits")}
    assert gpus == {"requests": str(ranks), "limits": str(ranks)}
    shared = [mount for mount in pod.main["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
    assert bool(shared) == (ranks > 1)


@each_overlay
def test_a_group_of_the_operator_s_is_one_pod(overlay: str) -> None:
    for one in of_kind(overlay, "DisaggregatedSet"):
        for role in one["spec"]["roles"]:
            assert role["spec"]["leaderWorkerTemplate"]["size"] == 1


def test_there_are_roles_of_several_ranks_in_a_set_of_each_kind() -> None:
    """Otherwise the test of them would say nothing."""
    gpus = {
        (overlay, pod.owner): pod.main["resources"]["limits"].get("nvidia.com/gpu")
        for overlay, pod in PODS
    }
    assert gpus["NENPND-tp", "epd-prefill"] == gpus["NENPND-tp", "epd-decode"] == "2"
    assert gpus["lws-tp", "epd-decode"] == "2" and gpus["lws-tp", "epd-prefill"] == "1"
    assert of_kind("NENPND-tp", "StatefulSet") and of_kind("lws-tp", "DisaggregatedSet")


@each_overlay
def test_every_role_has_a_disruption_budget_that_chooses_its_pods(overlay: str) -> None:
    for pod in pods(overlay):
        found = [o for o in of_kind(overlay, "PodDisruptionBudget") if selects(o["spec"], pod)]
        assert len(found) == 1, pod.owner


def selects(spec: dict[str, Any], pod: Pod, field: str = "selector") -> bool:
    return matches(spec[field], pod)


def matches(selector: dict[str, Any], pod: Pod) -> bool:
    wanted = selector.get("matchLabels", {})
    among = selector.get("matchExpressions", ())
    return all(pod.labels.get(key) == value for key, value in wanted.items()) and all(
        pod.labels.get(one["key"]) in one["values"] for one in among
    )


@each_overlay
def test_what_selects_pods_selects_some(overlay: str) -> None:
    every = list(pods(overlay))
    for one in objects(overlay):
        if one["kind"] == "Service":
            chosen = [p for p in every if matches({"matchLabels": one["spec"]["selector"]}, p)]
        elif one["kind"] in (
            "Deployment",
            "StatefulSet",
            "PodDisruptionBudget",
            "PodMonitor",
            "InferencePool",
        ):
            chosen = [pod for pod in every if selects(one["spec"], pod)]
        elif one["kind"] == "NetworkPolicy":
            chosen = [pod for pod in every if selects(one["spec"], pod, "podSelector")]
        else:
            continue
        assert chosen, one["metadata"]["name"]


@each_overlay
def test_no_worker_is_scaled_twice_and_what_is_scaled_exists(overlay: str) -> None:
    scalers = [*of_kind(overlay, "HorizontalPodAutoscaler"), *of_kind(overlay, "ScaledObject")]
    references = [one["spec"]["scaleTargetRef"] for one in scalers]
    targets = Counter((one.get("kind", "Deployment"), one["name"]) for one in references)
    assert all(count == 1 for count in targets.values())
    assert set(targets) <= scalable(overlay)


def scalable(overlay: str) -> set[tuple[str, str]]:
    """What an autoscaler may name: of a DisaggregatedSet the scalers that its operator makes."""
    found = {("Deployment", one["metadata"]["name"]) for one in of_kind(overlay, "Deployment")}
    for one in of_kind(overlay, "DisaggregatedSet"):
        for role in one["spec"]["roles"]:
            if role.get("scaling") == {"mode": "External"}:
                found.add(
                    ("DisaggregatedSetRoleScaler", f"{one['metadata']['name']}-{role['name']}")
                )
    return found


@each_overlay
def test_a_role_that_is_scaled_from_outside_has_one_who_does_it(overlay: str) -> None:
    """And no number of its own, which would not count."""
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in of_kind(overlay, "ScaledObject")}
    for one in of_kind(overlay, "DisaggregatedSet"):
        for role in one["spec"]["roles"]:
            outside = "scaling" in role
            assert outside == (f"{one['metadata']['name']}-{role['name']}" in scaled)
            assert outside != ("replicas" in role["spec"])


def test_the_readme_names_every_overlay() -> None:
    text = README.read_text()
    for overlay in OVERLAYS:
        assert f"kubectl apply -k launch/kubernetes/overlays/{overlay}\n" in text


def test_no_file_holds_a_secret_or_a_moving_tag() -> None:
    for path in KUBERNETES.rglob("*.yaml"):
        text = path.read_text()
        assert "kind: Secret\n" not in text
        assert not re.search(r"image: \S+:latest|image: [^\s:]+$", text, re.MULTILINE), path
        for one in yaml.safe_load_all(text):
            assert one is None or isinstance(
                one, dict | list
            )  # a list of a JSON patch's operations
