"""The pins of both engines' environments beside what pyproject.toml asks for."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]


def pins(engine: str) -> dict[str, Version]:
    """Distribution → the version that deploy/install.sh lets pip take."""
    lines = (ROOT / "deploy" / f"constraints-{engine}.txt").read_text().splitlines()
    found = [line.split("==") for line in lines if not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", name).lower(): Version(version) for name, version in found}


def required(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = project["dependencies"] + [text for extra in extras for text in project["optional-dependencies"][extra]]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_everything_that_is_asked_for_is_pinned_within_its_bounds(engine: str) -> None:
    pinned = pins(engine)
    for requirement in required(engine, "dev"):
        version = pinned.get(requirement.name.lower())
        assert version is not None, f"{requirement.name} has no version in constraints-{engine}.txt"
        assert version in requirement.specifier, f"{requirement} and {version} in constraints-{engine}.txt"


def test_the_gpu_engine_is_new_enough_to_receive_weights() -> None:
    """vLLM 0.32 reads weights that straddle two packs while their memory is given away; 0.33 does not."""
    (vllm,) = required("gpu")[-1:]
    assert vllm.name == "vllm"
    assert "0.32.9" not in vllm.specifier


def test_ray_and_deepspeed_are_the_same_for_both_engines() -> None:
    """What is tested on a CPU host is what a GPU host runs."""
    cpu, gpu = pins("cpu"), pins("gpu")
    assert {name: cpu[name] for name in ("ray", "deepspeed")} == {name: gpu[name] for name in ("ray", "deepspeed")}
