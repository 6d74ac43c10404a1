"""`rayzero submit`: the same run as a job of a Ray cluster, through the cluster's dashboard address.

The job is `rayzero train`, started by Ray on the head node. One folder travels there, the resolved recipe in one of its own or
the folder that the user names, and beside it the variables that the job is given. A run has one job at a time: ids of jobs count
the jobs of their run, and the cluster takes no id twice.
"""

import contextlib
import hashlib
import ipaddress
import json
import os
import posixpath
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import rollout.ray_defaults  # noqa: F401

from orchestrator.cluster import job_environment
from orchestrator.cluster.jobs import STOP_WAIT_S, Follower, RunJob, connect, first_line, jobs_of, run_jobs
from orchestrator.config.load import load_recipe, run_folder, to_toml
from orchestrator.config.recipe import Recipe
from orchestrator.plan.local_paths import LocalPath, absolute, local_paths, with_paths
from rollout.errors import InputError, ServiceError

AGENT_TIMEOUT_S = 60
"""Longest wait for a cluster that has just been started to take a job."""
NO_AGENT = "No available agent"
"""Ray's words for a cluster that takes no jobs yet."""
TAKEN = "already exists"
"""Ray's words for an id that a job has."""
SELF = "python -m orchestrator"
"""How rayzero is called in an environment that Ray has made: by whatever Python is first there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a person wants of a job, beside the recipe."""

    run_dir: str = ""
    """Folder of the run; empty: `runs/<recipe name>` here, where the cluster is this machine."""
    working_dir: str = ""
    """Folder to send along; empty: only the recipe travels."""
    command: str = ""
    """How `rayzero` is called on the cluster; empty: as on this machine if that is the cluster."""
    variables: Sequence[str] = ()
    """`NAME` or `NAME=VALUE`."""
    packages: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """`pip` or `uv` → packages, or files of them, that Ray installs for the job."""
    follow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What Ray is asked to run."""

    entrypoint: str
    """Shell command of the job."""
    runtime_env: Mapping[str, Any]
    """What travels, and what Ray makes of it."""
    metadata: Mapping[str, str]
    """`run`, `recipe` and `digest`."""
    needs: Mapping[str, str]
    """Relative path in the user's folder → how it is named to the user: all that the job looks for there."""


def submit(recipe: Recipe, *, name: str, overrides: Sequence[str], address: str, wish: Wish) -> int:
    """Submit a run; returns the exit code of the command: 0, or 1 when the job was followed and did not succeed.

    Args:
        recipe: resolved, from `name` and `overrides`.
        name: shipped name, or path of a TOML file.
        address: `http://HOST:PORT` of the dashboard.

    Raises:
        InputError: nothing answers, the token is refused, a path would not be found on the cluster, or a job of this run goes
            on that was asked to do something else.
        ServiceError: the connection broke while following, and did not come back.
    """
    address = checked_address(address)
    run = run_on(address, wish.run_dir, recipe.name)
    with tempfile.TemporaryDirectory(prefix="rayzero-") as scratch:
        job = make_job(recipe, name, overrides, address, run, wish, Path(scratch))
        client = connect(address)
        _check_sent(job)
        before = jobs_of(run, run_jobs(client))
        going = next((each for each in before if each.goes_on), None)
        if going is not None:
            _check_same(going, job, address, wish.follow)
            job_id = going.job
            print(f"job        {job_id}, {going.state}: was asked to do this before\nrun        {run}", flush=True)
        else:
            job_id = _send(client, address, job, before)
            print(f"job        {job_id}\ncommand    {job.entrypoint}\nrun        {run}")
            if before:
                print(f"continues  {before[-1].job}, {before[-1].state}: from what it left in the folder of the run")
            print(f"dashboard  {address}/#/jobs/{job_id}", flush=True)
    if wish.follow:
        return _follow(client, job_id, run, address)
    print(_how_to(job_id, run, address), end="")
    return 0


# --- Where to


def checked_address(address: str) -> str:
    """The address without a path. Raises InputError when it is not that of a dashboard."""
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        port = parts.port
    except ValueError:
        raise InputError(f"--address {address}: write http://HOST:8265, the address of the Ray dashboard") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise InputError(f"--address {address}: write http://HOST:8265, the address of the Ray dashboard")
    return f"{parts.scheme}://{parts.netloc}" if port or parts.scheme == "https" else f"http://{parts.netloc}:8265"


def is_loopback(address: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def run_on(address: str, run_dir: str, recipe: str = "NAME") -> str:
    """The folder of a run as the cluster sees it. Raises InputError for a relative one on another machine."""
    if is_loopback(address):
        return os.path.abspath(run_dir or f"runs/{recipe}")
    if not run_dir.startswith("/"):
        raise InputError(
            f"--run {run_dir or '(none)'}: a job's own folder is deleted at its end; give an absolute folder that "
            f"every node of the cluster sees, such as --run /shared/runs/{recipe}"
        )
    return posixpath.normpath(run_dir)


# --- What


def make_job(
    recipe: Recipe, name: str, overrides: Sequence[str], address: str, run: str, wish: Wish, scratch: Path
) -> Job:
    """The job and all that travels with it, put together in `scratch`. Nothing is sent yet.

    Raises:
        InputError: a path would not be found on the cluster, or a variable or a package cannot be handed over.
    """
    variables = job_environment.read_variables(wish.variables, recipe.cluster)
    packages = {tool: _packages(tool, given) for tool, given in wish.packages.items() if given}
    if len(packages) > 1:
        raise InputError("--pip and --uv: Ray installs with one of them; give all packages to one")
    if packages and wish.command:
        raise InputError(
            f"--command {wish.command}: the packages are installed into an environment that Ray makes for the job, "
            f"in which rayzero is called by `{SELF}`; leave --command out"
        )
    here = f"{shlex.quote(sys.executable)} -m orchestrator" if is_loopback(address) else "rayzero"
    command = wish.command or (SELF if packages else here)
    if wish.working_dir:
        folder = Path(wish.working_dir)
        name, sent = _in_folder(folder, name, overrides)
        needs = {place.path: f"{place.key} = {place.path!r}" for place in local_paths(sent) if place.relative}
        needs |= {name: f"recipe {name}"} if name.startswith("./") else {}
    else:
        folder, sent = scratch / "job", recipe if not is_loopback(address) else with_paths(recipe, _made_absolute)
        if not is_loopback(address):
            _refuse_relative(recipe)
        name, overrides, needs = _write_recipe(sent, folder), (), {}
    runtime_env: dict[str, Any] = {
        "working_dir": str(folder),
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
        **packages,
    }
    if variables:
        runtime_env["py_modules"] = [str(job_environment.write_package(variables, scratch))]
    entrypoint = f"{command} {shlex.join(['train', name, *overrides, '--address', 'auto', '--run', run])}"
    digest = hashlib.sha256(json.dumps([to_toml(sent), command, packages], sort_keys=True).encode()).hexdigest()[:16]
    metadata = {"recipe": recipe.name, "run": run, "digest": digest}
    return Job(entrypoint=entrypoint, runtime_env=runtime_env, metadata=metadata, needs=needs)


def _write_recipe(recipe: Recipe, folder: Path) -> str:
    import tomli_w

    folder.mkdir()
    (folder / f"{recipe.name}.toml").write_text(tomli_w.dumps(to_toml(recipe)), encoding="utf-8")
    return f"{recipe.name}.toml"


def _made_absolute(place: LocalPath) -> str:
    return absolute(place.path) if place.relative else place.path


def _refuse_relative(recipe: Recipe) -> None:
    for place in local_paths(recipe):
        if place.relative:
            raise InputError(
                f"{place.key} = {place.path!r}: the cluster is another machine and would not find a relative path; "
                "send its folder with --working-dir DIR, or give the absolute path on the cluster"
            )


def _in_folder(folder: Path, name: str, overrides: Sequence[str]) -> tuple[str, Recipe]:
    """(name of the recipe in a copy of the user's folder, the recipe as the job will read it there).

    Raises:
        InputError: the recipe, or something that it names by a relative path, is not in the folder.
    """
    if not folder.is_dir():
        raise InputError(f"--working-dir {folder}: no such folder")
    path = Path(name)
    if path.is_file() or run_folder(name):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"recipe {name} is outside of --working-dir {folder}: put it in there")
        name = f"./{path.resolve().relative_to(folder.resolve())}"
    with contextlib.chdir(folder):
        recipe = load_recipe(name, overrides)
        for place in local_paths(recipe):
            if place.relative and not _is_inside(place.path):
                raise InputError(
                    f"{place.key} = {place.path!r}: is not in --working-dir {folder}, where the job looks for it; "
                    "put it there, or give the absolute path on the cluster"
                )
    return name, recipe


def _is_inside(path: str) -> bool:
    """Whether a relative path, or a pattern of files, is found in the folder that the process stands in, and not outside."""
    if not Path(path).resolve().is_relative_to(Path.cwd().resolve()):
        return False
    return Path(path).exists() or (any(sign in path for sign in "*?[") and any(Path().glob(path)))


def _check_sent(job: Job) -> None:
    """Raises InputError when Ray would leave behind, by a `.gitignore` or `.rayignore`, what the job looks for in the folder."""
    from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

    by_git = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") != "1"
    root = Path(job.runtime_env["working_dir"]).resolve()

    def left_behind(file: Path) -> bool:
        folders = [*reversed(file.parents)][len(root.parents) :]
        return any(
            ignored(entry)
            for place, folder in enumerate(folders)
            for ignored in get_excludes_from_ignore_files(folder, by_git)
            for entry in (*folders[place + 1 :], file)
        )

    for path, named in job.needs.items():
        if all(map(left_behind, root.glob(os.path.normpath(path)))):
            raise InputError(
                f"{named}: a .gitignore or .rayignore in --working-dir keeps it here; name it there with a ! in front"
            )


def _packages(tool: str, given: Sequence[str]) -> list[str]:
    """Packages as Ray takes them, those of files written out. Raises InputError for one that only this machine has."""
    found = []
    for each in given:
        if each.endswith(".txt"):
            try:
                lines = [line.strip() for line in Path(each).read_text(encoding="utf-8").splitlines()]
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"--{tool} {each}: cannot be read: {error}") from None
        else:
            lines = [each.strip()]
        for line in lines:
            if not line or line.startswith("#"):
                continue
            if re.match(r"-(r|c|e)\b|--(requirement|constraint|editable)\b|[.~/]|file:|.*@\s*file:", line):
                raise InputError(
                    f"--{tool} {line}: is a path of this machine; send it along with --working-dir, or name a package"
                )
            found.append(line)
    if given and not found:
        raise InputError(f"--{tool} {' '.join(given)}: names no package")
    return found


# --- Ray


def _check_same(going: RunJob, job: Job, address: str, follow: bool) -> None:
    """A run has one job at a time. Raises InputError unless the one that goes on is to be followed, and does the same."""
    if follow and going.digest == job.metadata["digest"]:
        return
    way_out = "--follow shows it" if going.digest == job.metadata["digest"] else "it was asked to do something else"
    raise InputError(
        f"--run {going.run}: job {going.job} of this run is {going.state}; {way_out}\n"
        f"wait for it, or end it: rayzero stop {shlex.quote(going.run)} --address {address}"
    )


def _send(client: Any, address: str, job: Job, before: Sequence[RunJob]) -> str:
    """The id of the job. Every failure is told in a line or two."""
    from ray.exceptions import AuthenticationError

    run = job.metadata["run"]
    stem = f"{job.metadata['recipe']}-{hashlib.sha256(run.encode()).hexdigest()[:8]}"
    counts = [int(found[1]) for each in before if (found := re.fullmatch(rf"{stem}-(\d+)", each.job))]
    try:
        return _accepted(client, job, f"{stem}-{max(counts, default=0) + 1}")
    except (AuthenticationError, RuntimeError, ValueError, OSError) as error:
        if TAKEN in str(error):
            raise InputError(
                f"--run {run}: another job of this run was submitted at this moment; look: rayzero submit --list --address {address}"
            ) from None
        raise InputError(f"--address {address}: the job was not accepted: {first_line(error)}") from None


def _accepted(client: Any, job: Job, job_id: str) -> str:
    """The id of the job. A cluster that has just been started refuses jobs until its agent is up: asked again."""
    deadline = time.monotonic() + AGENT_TIMEOUT_S
    while True:
        try:
            return str(
                client.submit_job(
                    entrypoint=job.entrypoint,
                    runtime_env=dict(job.runtime_env),
                    metadata=dict(job.metadata),
                    submission_id=job_id,
                )
            )
        except RuntimeError as error:
            if NO_AGENT not in str(error):
                raise
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"no node had a job agent within {AGENT_TIMEOUT_S} s; is another Ray's agent on "
                    "the head node's port? `ray start --dashboard-agent-listen-port=…`"
                ) from None
        time.sleep(1)


def _how_to(job_id: str, run: str, address: str) -> str:
    """How to look at a job, and how to end it."""
    mode = os.environ.get("RAY_AUTH_MODE", "")
    prefix = f"RAY_AUTH_MODE={mode} " if mode else ""
    return (
        f"follow it  {prefix}ray job logs --follow {job_id} --address {address}\n"
        f"stop it    rayzero stop {shlex.quote(run)} --address {address}\n"
    )


def _follow(client: Any, job_id: str, run: str, address: str) -> int:
    """Stream the log until the job ends. Ctrl-C ends the stream, not the job."""
    try:
        state = Follower(client, job_id).follow()
    except KeyboardInterrupt:
        print(f"\ndetached: job {job_id} goes on\n{_how_to(job_id, run, address)}", end="")
        raise
    except ServiceError as error:
        raise ServiceError(f"{error}\n{_how_to(job_id, run, address)}".rstrip()) from error
    print(f"job {job_id}: {state}")
    return 0 if state == "succeeded" else 1
