"""Ray's defaults stand in the environment before Ray is imported, whichever module is the first to import it."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

from rollout.ray_defaults import DEFAULTS

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import importlib, importlib.abc, json, os, sys

names, seen = json.loads(sys.argv[2]), {}

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "ray":
            seen["at import"] = {each: os.environ.get(each) for each in names}

sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
seen["in the end"] = {each: os.environ.get(each) for each in names}
print(json.dumps(seen))
"""


def imports_ray(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)) if "ray" in text else ():
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if any(name.split(".")[0] == "ray" for name in names):
            return True
    return False


def modules() -> list[str]:
    """Every module of ours that imports Ray, at its top or inside a function."""
    folders = ("rollout", "rewards", "learner", "orchestrator")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if imports_ray(path)]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]


MODULES = modules()


def environments(module: str, **given: str) -> dict[str, dict[str, str]]:
    """Ray's variables when Ray is imported, where it is, and after the import of `module` in a fresh interpreter."""
    inherited = {name: value for name, value in os.environ.items() if name not in DEFAULTS}
    command = [sys.executable, "-c", PROGRAM, module, json.dumps(list(DEFAULTS))]
    answer = subprocess.run(
        command, cwd=ROOT, env=inherited | given, capture_output=True, text=True, check=True, timeout=120
    )
    seen: dict[str, dict[str, str]] = json.loads(answer.stdout.splitlines()[-1])
    return seen


def test_the_services_and_the_cluster_import_ray() -> None:
    assert {"rollout.actors", "rollout.service", "rewards.service", "learner.service"} < set(MODULES)
    assert {"orchestrator.cluster.session", "orchestrator.cluster.submit"} < set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_the_defaults_are_there_before_ray(module: str) -> None:
    for environment in environments(module).values():
        assert environment == DEFAULTS


def test_what_the_environment_says_stays() -> None:
    seen = environments("rollout.actors", RAY_AUTH_MODE="disabled")
    assert seen["at import"] == DEFAULTS | {"RAY_AUTH_MODE": "disabled"}
