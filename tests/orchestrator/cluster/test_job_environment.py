"""Variables of a job, from the package that travels to the process that reads them."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.cluster.job_environment import FILE, HOOK, PACKAGE, load, write_package
from orchestrator.cluster.session import ray_session
from orchestrator.config.sections.cluster import ClusterSection


@pytest.fixture
def travelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("RAYZERO_TEST", "before")
    return write_package({"RAYZERO_TEST": "after"}, tmp_path)


def test_variables_are_set_and_their_file_is_the_owners_alone(travelled: Path) -> None:
    (travelled / FILE).chmod(0o644)  # as Ray leaves it
    assert load()
    assert os.environ["RAYZERO_TEST"] == "after"
    assert (travelled / FILE).stat().st_mode & 0o077 == 0


def test_without_a_package_nothing_is_set() -> None:
    assert PACKAGE not in sys.modules
    assert not load()


def test_two_packages_of_the_same_variables_are_told_apart(tmp_path: Path) -> None:
    """Ray names a package by a hash of what is in it: nobody can find a value by trying."""
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        package = write_package({"A": "1"}, tmp_path / name)
        found.append({file.name: file.read_text() for file in package.iterdir()})
    assert found[0] != found[1]


@pytest.mark.parametrize("given", [True, False])
def test_workers_get_them_by_a_hook_and_not_by_rays_variables(
    given: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given:
        request.getfixturevalue("travelled")
    seen: dict[str, Any] = {}
    monkeypatch.setattr(ray, "init", lambda **options: seen.update(options))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "cluster_resources", dict)
    with ray_session(ClusterSection(address="h:1", env={"OTHER": 1}), "r"):
        pass
    hook = {"worker_process_setup_hook": HOOK} if given else {}
    assert seen["runtime_env"] == {"env_vars": {"OTHER": "1"}} | hook
