"""The manifests for KubeRay: fields of the published CRDs, closed doors, and places that the recipe's parts find."""

import copy
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config.load import load_recipe
from tests.deploy.kuberay_fields import FIELDS, MANIFESTS, custom_resources, faults

Manifest = dict[str, Any]

CLUSTER, JOB = (next(each for each in custom_resources() if each["kind"] == kind) for kind in ("RayCluster", "RayJob"))
SHARED: list[Manifest] = list(yaml.safe_load_all((MANIFESTS / "shared.yaml").read_text()))
(POLICY,) = [each for each in SHARED if each["kind"] == "NetworkPolicy"]
(FILES,) = [each for each in SHARED if each["kind"] == "Pod"]


def ray_pods() -> Iterator[tuple[str, Manifest]]:
    """(group, pod template) of the cluster; the job's is the same."""
    yield "head", CLUSTER["spec"]["headGroupSpec"]["template"]
    for group in CLUSTER["spec"]["workerGroupSpecs"]:
        yield group["groupName"], group["template"]


def of_schema(manifest: Manifest) -> list[str]:
    return list(faults(manifest, manifest["kind"], json.loads(FIELDS.read_text())))


@pytest.mark.parametrize("manifest", [CLUSTER, JOB], ids=["cluster", "job"])
def test_every_field_is_one_of_the_published_schema(manifest: Manifest) -> None:
    assert manifest["apiVersion"] == "ray.io/v1"
    assert of_schema(manifest) == []


def test_a_mistake_in_a_manifest_is_noticed() -> None:
    spec = ("spec", "workerGroupSpecs", 0)
    for at, name, value in (
        (("spec",), "authoptions", {}),
        (("spec", "authOptions"), "mode", "none"),
        (spec, "replicas", "1"),
        ((*spec, "template", "spec", "containers", 0), "volumeMount", []),
    ):
        wrong = copy.deepcopy(CLUSTER)
        place: Any = wrong
        for step in at:
            place = place[step]
        place[name] = value
        assert len(of_schema(wrong)) == 1, name
    lacking = copy.deepcopy(CLUSTER)
    del lacking["spec"]["workerGroupSpecs"][0]["maxReplicas"]
    assert of_schema(lacking) == ["RayCluster.spec.workerGroupSpecs[]: lacks maxReplicas"]


def test_the_job_s_cluster_is_the_one_beside_it() -> None:
    assert JOB["spec"]["rayClusterSpec"] == CLUSTER["spec"]


def test_tokens_are_asked_for_and_nothing_is_open_beyond_the_cluster() -> None:
    spec = CLUSTER["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert (spec["headGroupSpec"]["serviceType"], spec["headGroupSpec"]["enableIngress"]) == ("ClusterIP", False)
    text = "".join(file.read_text() for file in MANIFESTS.glob("*.yaml"))
    assert not re.search(
        r"^\s*(hostNetwork|hostPort|hostPID|hostIPC|nodePort|type: (NodePort|LoadBalancer))", text, re.M
    )


def test_strangers_reach_no_port_and_others_the_dashboard_alone() -> None:
    chosen = POLICY["spec"]["podSelector"]["matchLabels"]
    for group, pod in ray_pods():
        assert chosen.items() <= pod["metadata"]["labels"].items(), group
    own, others = POLICY["spec"]["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": chosen}}]}
    assert [port["port"] for port in others["ports"]] == [8265]
    assert all(peer["podSelector"]["matchLabels"] for peer in others["from"]), "nobody whose pod has no name"
    assert POLICY["spec"]["policyTypes"] == ["Ingress"]


@pytest.mark.parametrize(
    ("group", "spec"), [(name, pod["spec"]) for name, pod in ray_pods()] + [("files", FILES["spec"])]
)
def test_no_pod_has_more_rights_than_it_needs(group: str, spec: Manifest) -> None:
    whole, (container,) = spec["securityContext"], spec["containers"]
    assert whole["runAsNonRoot"] is True
    assert whole["runAsUser"] == whole["fsGroup"] == 1000, "the user of the images"
    assert whole["seccompProfile"]["type"] == "RuntimeDefault"
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert spec["automountServiceAccountToken"] is False, "a program that breaks out finds no key of Kubernetes"


def size(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([GT]i)", quantity).groups()  # type: ignore[union-attr]
    return int(number) << {"Gi": 30, "Ti": 40}[unit]


@pytest.mark.parametrize(("group", "spec"), [(name, pod["spec"]) for name, pod in ray_pods()])
def test_weights_have_room_and_folders_are_everybody_s(group: str, spec: Manifest) -> None:
    (container,) = spec["containers"]
    mounted = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    volumes = {each["name"]: each for each in spec["volumes"]}
    memory = volumes[mounted["/dev/shm"]]["emptyDir"]
    limit = size(container["resources"]["limits"]["memory"])
    assert memory["medium"] == "Memory"
    assert size(memory["sizeLimit"]) <= limit / 2, "it counts as memory of the container"
    assert volumes[mounted["/shared"]]["persistentVolumeClaim"]["claimName"] == SHARED[0]["metadata"]["name"]
    assert SHARED[0]["spec"]["accessModes"] == ["ReadWriteMany"]
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]


def test_the_job_s_command_is_a_recipe_whose_parts_all_find_their_place() -> None:
    words = shlex.split(JOB["spec"]["entrypoint"])
    assert words[:3] == ["rayzero", "train", "gsm8k"]
    options = {words[at]: words[at + 1] for at in range(len(words)) if words[at].startswith("--")}
    assert options["--address"] == "auto"
    assert options["--run"].startswith("/shared/"), "where a further try finds it"
    recipe = load_recipe("gsm8k", [word for word in words[3:] if "=" in word])
    have = {
        name: int(amount) * group["replicas"]
        for group in CLUSTER["spec"]["workerGroupSpecs"]
        for name, amount in group["resources"].items()
    }
    gpus = {
        name: group["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", 0)
        for group in CLUSTER["spec"]["workerGroupSpecs"]
        for name in group["resources"]
    }
    for stage in recipe.stages:
        for part, count in (
            (stage.rollout, stage.rollout.replicas),
            (stage.learner, stage.learner.ranks),
            (stage.rewards, stage.rewards.replicas),
        ):
            assert part.resources, "every part says where it lives"
            assert all(amount * count <= have[name] for name, amount in part.resources.items())
        for part, wants in ((stage.rollout, True), (stage.learner, True), (stage.rewards, False)):
            assert all(bool(gpus[name]) is wants for name in part.resources)


def test_a_run_that_failed_is_tried_again_and_ends_with_its_cluster() -> None:
    assert JOB["spec"]["backoffLimit"] > 0
    assert "clusterSelector" not in JOB["spec"], "KubeRay makes no further tries on a cluster that stays"
    assert JOB["spec"]["shutdownAfterJobFinishes"] is True


def test_all_images_of_a_cluster_are_one() -> None:
    images = {pod["spec"]["containers"][0]["image"] for _, pod in ray_pods()}
    assert len(images) == 1
    pinned = Path("deploy/constraints-gpu.txt").read_text()
    assert f"ray=={CLUSTER['spec']['rayVersion']}\n" in pinned
