"""Which GPUs reward workers and models see on a cluster that has some: Ray is told that it has two, nobody computes there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, json, os, sys

import rollout.ray_defaults
import ray

from rewards import scorer_actors, service
from rewards.resources import ResourceSettings
from rewards.types import FunctionSpec, Sample

class Server:
    def __init__(self, spec): ...
    def gpus(self): return os.environ.get("CUDA_VISIBLE_DEVICES")

class Spec:
    def __init__(self, **arguments): ...

scorer_actors.KINDS.update(reward_model=(Spec, Server), judge=(Spec, Server))
scorer_actors.check_scorer = lambda spec: None

async def main():
    sample = Sample(prompt="1+1=", completion="x", answer="2")
    rubrics = {"mine": [FunctionSpec(name=f"{sys.argv[1]}:gpus", label="gpus")]}
    settings = ResourceSettings(processes=1, function_timeout_s=10.0)
    pool = await service.RewardPool.start(
        rubrics, settings, {"mine": sample}, replicas=1, timeout_s=60, max_error_rate=0.5, start_timeout_s=120
    )
    models = [
        FunctionSpec(name="reward_model", label="gpu", args={"path": "x"}),
        FunctionSpec(name="reward_model", label="cpu", args={"path": "x", "device": "cpu"}),
        FunctionSpec(name="judge", label="judge", args={}),
    ]
    scorers = scorer_actors.start_scorers({"r": models}, "scorers", 60.0)
    seen = [ray.get(actor.gpus.remote()) for actor in (scorer.actor for scorer in scorers.values())]
    score = await pool.score("mine", sample)
    print(json.dumps({"worker": score.value, "models": seen}))
    await pool.close()

ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, logging_level=40, log_to_driver=False)
asyncio.run(main())
ray.shutdown()
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What each of them finds in CUDA_VISIBLE_DEVICES, on a cluster whose nodes were started as `ray start` does."""
    function = tmp_path_factory.mktemp("user") / "mine.py"
    function.write_text(
        "import os\n\ndef gpus(prompt, completion, reference):\n"
        '    return {"": 0.0}.get(os.environ.get("CUDA_VISIBLE_DEVICES"), 1.0)\n'
    )
    environment = os.environ | {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, str(function)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert answer.returncode == 0, answer.stderr
    found: dict[str, object] = json.loads(answer.stdout.splitlines()[-1])
    return found


def test_a_reward_function_sees_no_gpu(seen: dict[str, object]) -> None:
    assert seen["worker"] == 0.0


def test_a_reward_model_sees_one_and_the_models_beside_it_none(seen: dict[str, object]) -> None:
    on_gpu, on_cpu, judge = seen["models"]  # type: ignore[misc]
    assert on_gpu in ("0", "1")
    assert (on_cpu, judge) == ("", "")
