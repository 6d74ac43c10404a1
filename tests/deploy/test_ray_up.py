"""deploy/ray/cluster.yaml as `ray up` reads it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def read() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "deploy" / "ray" / "cluster.yaml").read_text()))


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """With Ray's defaults, held against Ray's schema as `ray up` does. Raises what it raises."""
    util = pytest.importorskip("ray.autoscaler._private.util")
    whole = util.prepare_config(config)
    util.validate_config(whole)
    return dict(whole)


def test_ray_takes_it() -> None:
    whole = prepared(read())
    hosts = whole["provider"]
    assert whole["max_workers"] == len(hosts["worker_ips"])
    assert hosts["head_ip"] not in hosts["worker_ips"]


def test_a_key_that_ray_does_not_know_is_noticed() -> None:
    with pytest.raises(Exception, match="head_start_command"):
        prepared(read() | {"head_start_command": []})


def test_tokens_are_asked_for_and_the_dashboard_keeps_to_loopback() -> None:
    config = read()
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    for part in ("head", "worker"):
        (start,) = [each for each in config[f"{part}_start_ray_commands"] if "ray start" in each]
        assert "RAY_AUTH_MODE=token" in start
    (head,) = [each for each in config["head_start_ray_commands"] if "ray start" in each]
    assert "--dashboard-host=127.0.0.1" in head
    assert "--num-cpus=0" in head


def test_hosts_offer_the_parts_that_the_manifests_of_kuberay_offer() -> None:
    (start,) = [each for each in read()["worker_start_ray_commands"] if "ray start" in each]
    parts = [set(json.loads(found)) for found in re.findall(r"parts='([^']+)'", start)]
    cluster = yaml.safe_load((ROOT / "deploy" / "kuberay" / "cluster.yaml").read_text())
    groups = cluster["spec"]["workerGroupSpecs"]
    with_gpus = {
        name for group in groups for name in group["resources"]
        if "nvidia.com/gpu" in group["template"]["spec"]["containers"][0]["resources"]["limits"]
    }  # fmt: skip
    everything = {name for group in groups for name in group["resources"]}
    assert parts == [with_gpus, everything - with_gpus]
