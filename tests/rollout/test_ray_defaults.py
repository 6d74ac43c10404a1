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

def tell():
    print(json.dumps({each: os.environ.get(each) for each in json.loads(sys.argv[2])}), flush=True)

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "ray":
            tell()
            os._exit(0)

sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
tell()
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


def environment(module: str, **given: str) -> dict[str, str]:
    """Ray's variables in a fresh interpreter that imports `module`, when it comes to Ray; in the end where it does not."""
    inherited = {name: value for name, value in os.environ.items() if name not in DEFAULTS}
    command = [sys.executable, "-c", PROGRAM, module, json.dumps(list(DEFAULTS))]
    answer = subprocess.run(
        command, cwd=ROOT, env=inherited | given, capture_output=True, text=True, check=True, timeout=120
    )
    seen: dict[str, str] = json.loads(answer.stdout.splitlines()[-1])
    return seen


def test_the_services_and_the_cluster_import_ray() -> None:
    assert {"rollout.actors", "rollout.service", "rewards.service", "learner.service"} < set(MODULES)
    assert {"orchestrator.cluster.session", "orchestrator.cluster.submit"} < set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_the_defaults_are_there_before_ray(module: str) -> None:
    assert environment(module) == DEFAULTS


def test_what_the_environment_says_stays() -> None:
    assert environment("rollout.actors", RAY_AUTH_MODE="disabled") == DEFAULTS | {"RAY_AUTH_MODE": "disabled"}
