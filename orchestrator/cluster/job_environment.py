"""Variables that a person gives a job (`rayzero submit --env`), from the package that travels to the processes that read them.

Ray's own `env_vars` stand, while a worker starts, on a command line that everybody on the host can read. These travel as a file
of a Python package, which Ray puts on the path of the job and of its workers, and nothing writes them down again.
"""

import importlib.util
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from orchestrator.config.sections.cluster import SET_BY_RAY, ClusterSection
from rollout.errors import InputError

PACKAGE = "rayzero_job_variables"
FILE = "values.json"
HOOK = f"{__name__}.load"
"""What Ray calls in every worker of the job before anything else runs there."""
AT_START = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONHOME", "PYTHONPATH")
"""Variables that a process reads before it could be given them."""


def read_variables(given: Sequence[str], cluster: ClusterSection) -> dict[str, str]:
    """`NAME` (its value is the one it has here) and `NAME=VALUE`, as a table.

    Raises:
        InputError: no name of a variable, one that is not set here, or one that cannot be given so. Values are not shown.
    """
    found = {}
    for each in given:
        name, said, value = each.partition("=")
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
            raise InputError(f"--env {name}: write NAME, or NAME=VALUE; a name has letters, digits and _")
        if not said and name not in os.environ:
            raise InputError(f"--env {name}: is not set here; set it, or write --env {name}=VALUE")
        if name in SET_BY_RAY or name.startswith("RAY_"):
            raise InputError(f"--env {name}: is Ray's own on the cluster; leave it out")
        if name in AT_START:
            raise InputError(
                f"--env {name}: is read when a process starts; write cluster.env.{name}=VALUE in its place"
            )
        if name in cluster.env:
            raise InputError(f"--env {name}: the recipe has cluster.env.{name} too; leave one of them out")
        found[name] = value if said else os.environ[name]
    return found


def write_package(variables: Mapping[str, str], folder: Path) -> Path:
    """The package that travels, written into `folder`."""
    package = folder / PACKAGE
    package.mkdir(mode=0o700)
    # Ray names the package by a hash of what is in it, in its logs too: with a random text, nobody can try values on it.
    (package / "__init__.py").write_text(f"# {secrets.token_hex(16)}\n", encoding="utf-8")
    (package / FILE).touch(mode=0o600)
    (package / FILE).write_text(json.dumps(dict(variables)), encoding="utf-8")
    return package


def load() -> bool:
    """Take over the variables that travelled with the job; returns whether there are any."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        return False
    file = Path(found.origin).with_name(FILE)
    with suppress(OSError):
        file.chmod(0o600)  # Ray unpacks it for everybody on the host to read
    os.environ.update(json.loads(file.read_text(encoding="utf-8")))
    return True
