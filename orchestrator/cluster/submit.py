"""`rayzero submit`: the same run as a job of a Ray cluster, through the cluster's dashboard address.

The job is `rayzero train`, started by Ray on the head node. One folder travels there: the resolved recipe in one of
its own, or the folder that the user names. Ray is imported only once the address has answered.
"""

import asyncio
import ipaddress
import json
import logging
import os
import shlex
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import rollout.ray_defaults  # noqa: F401

from orchestrator.config.load import parse_recipe, run_folder, to_toml
from orchestrator.config.recipe import Recipe
from orchestrator.config.trained_rewards import PREFIX
from orchestrator.plan.model_folder import is_local
from rollout.data.rows import HUB
from rollout.data.template_settings import SHIPPED as SHIPPED_TEMPLATES
from rollout.errors import InputError, ServiceError

ANSWER_TIMEOUT_S = 5
"""Longest wait for the dashboard to say who it is."""
AGENT_TIMEOUT_S = 60
"""Longest wait for a cluster that has just been started to take a job."""
NO_AGENT = "No available agent"
"""Ray's words for a cluster that takes no jobs yet."""
STATUS_TIMEOUT_S = 60
"""Longest wait, after the last line of its log, for the job's final status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What Ray is asked to run."""

    entrypoint: str
    """Shell command of the job."""
    folder: Path
    """Folder that is uploaded; the command runs in a copy of it."""


def submit(
    recipe: Recipe,
    *,
    name: str,
    overrides: Sequence[str],
    address: str,
    run_dir: str = "",
    working_dir: str = "",
    command: str = "",
    follow: bool = False,
) -> int:
    """Submit a run; returns the exit code of the command: 0, or 1 when the job was followed and failed.

    Args:
        recipe: resolved, from `name` and `overrides`.
        name: shipped name, or path of a TOML file.
        address: `http://HOST:PORT` of the dashboard.
        run_dir: empty: `runs/<recipe name>` here, where the cluster is this machine.
        working_dir: folder to send along; empty: only the recipe travels.
        command: how `rayzero` is called on the cluster; empty: as on this machine if that is the cluster.

    Raises:
        InputError: nothing answers, the token is refused, or a path would not be found on the cluster.
        ServiceError: the connection broke while following.
    """
    address = checked_address(address)
    run = _run_dir(recipe, address, run_dir)
    if not command:
        command = f"{shlex.quote(sys.executable)} -m orchestrator" if is_loopback(address) else "rayzero"
    with tempfile.TemporaryDirectory(prefix="rayzero-") as scratch:
        if working_dir:
            job = _job_in(Path(working_dir), name, overrides, command, run)
        else:
            job = _job_of(recipe, address, Path(scratch), command, run)
        _probe(address)
        client, job_id = _send(address, job, {"recipe": recipe.name, "run": run})
    print(f"job        {job_id}\ncommand    {job.entrypoint}\nrun        {run}")
    print(f"dashboard  {address}/#/jobs/{job_id}", flush=True)
    if follow:
        return _follow(client, job_id, address)
    print(_how_to(job_id, address), end="")
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


def _probe(address: str) -> None:
    """Find out in seconds, and without Ray, whether a Ray dashboard answers."""
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=ANSWER_TIMEOUT_S) as answer:
            json.load(answer)["ray_version"]
    except urllib.error.HTTPError as error:
        # A cluster with tokens refuses a question without one. The client asks again with the token.
        if error.code not in (401, 403):
            raise InputError(f"--address {address}: HTTP {error.code}: that is not a Ray dashboard") from None
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or error
        reason = getattr(reason, "strerror", None) or reason
        raise InputError(
            f"--address {address}: no answer ({reason})\n"
            "is the cluster up, and its dashboard reachable from here? `ray start --head` prints its address"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"--address {address}: answers, but is not a Ray dashboard") from None


# --- What


def _run_dir(recipe: Recipe, address: str, run_dir: str) -> str:
    if is_loopback(address):
        return str(Path(run_dir or f"runs/{recipe.name}").absolute())
    if not run_dir.startswith("/"):
        raise InputError(
            f"--run {run_dir or '(none)'}: a job's own folder is deleted at its end; give an absolute folder that "
            f"every node of the cluster sees, such as --run /shared/runs/{recipe.name}"
        )
    return run_dir


def _entrypoint(command: str, name: str, overrides: Sequence[str], run: str) -> str:
    return f"{command} {shlex.join(['train', name, *overrides, '--address', 'auto', '--run', run])}"


def _job_in(folder: Path, name: str, overrides: Sequence[str], command: str, run: str) -> Job:
    """A job in a copy of the user's folder: relative paths are those inside it."""
    if not folder.is_dir():
        raise InputError(f"--working-dir {folder}: no such folder")
    path = Path(name)
    if path.is_file() or run_folder(name):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"recipe {name} is outside of --working-dir {folder}: put it in there")
        name = f"./{path.resolve().relative_to(folder.resolve())}"
    return Job(entrypoint=_entrypoint(command, name, overrides, run), folder=folder)


def _job_of(recipe: Recipe, address: str, scratch: Path, command: str, run: str) -> Job:
    """A job that takes only the resolved recipe along. Paths in it are absolute, or it is refused."""
    import tomli_w

    moved = absolute_paths(recipe, None if is_loopback(address) else _refuse_relative)
    file = scratch / f"{recipe.name}.toml"
    file.write_text(tomli_w.dumps(to_toml(moved)), encoding="utf-8")
    return Job(entrypoint=_entrypoint(command, file.name, (), run), folder=scratch)


def _refuse_relative(key: str, path: str) -> NoReturn:
    raise InputError(
        f"{key} = {path!r}: the cluster is another machine and would not find a relative path; "
        "send its folder with --working-dir DIR, or give the absolute path on the cluster"
    )


def absolute_paths(recipe: Recipe, refuse: Callable[[str, str], NoReturn] | None = None) -> Recipe:
    """The recipe with every relative path made absolute from here, or refused."""

    def moved(key: str, path: str) -> str:
        if Path(path).is_absolute():
            return path
        if refuse is not None:
            refuse(key, path)
        return str(Path(path).expanduser().absolute())

    raw = to_toml(recipe)
    for stage in raw["stages"]:
        for section, key, name in _paths(stage):
            section[name] = moved(key, section[name])
        for rubric, functions in stage["rewards"]["rubrics"].items():
            for label, function in functions.items():
                function["name"] = _moved_reward(f"rewards.rubrics.{rubric}.{label}", function["name"], moved)
    return parse_recipe(tomllib.loads(_dumps(raw)))


def _dumps(raw: dict[str, Any]) -> str:
    import tomli_w

    return tomli_w.dumps(raw)


def _paths(stage: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """(table, key for messages, name in the table) of everything in a stage that is a local path."""
    for kind, sources in (("data.sources", stage["data"]["sources"]), ("eval.sets", stage["eval"]["sets"])):
        for name, source in sources.items():
            if source["path"] and not source["path"].startswith(HUB):
                yield source, f"{kind}.{name}.path", "path"
    if stage["data"]["template"] not in SHIPPED_TEMPLATES:
        yield stage["data"], "data.template", "template"
    few_shot = stage["data"]["few_shot"]
    if few_shot["path"] and not few_shot["path"].startswith(HUB):
        yield few_shot, "data.few_shot.path", "path"
    models = [(stage["model"], "model.path")]
    for rubric, functions in stage["rewards"]["rubrics"].items():
        models += [
            (function, f"rewards.rubrics.{rubric}.{label}.path")
            for label, function in functions.items()
            if function["name"] == "reward_model" and not str(function.get("path", "")).startswith(PREFIX)
        ]
    # A hub id is the same everywhere.
    yield from ((table, key, "path") for table, key in models if table.get("path") and is_local(table["path"]))


def _moved_reward(key: str, function: str, moved: Callable[[str, str], str]) -> str:
    origin, colon, name = function.rpartition(":")
    return f"{moved(key, origin)}:{name}" if colon and origin.endswith(".py") else function


# --- Ray


def _send(address: str, job: Job, metadata: dict[str, str]) -> tuple[Any, str]:
    """(client, job id). Every failure is told in a line or two."""
    # These would silently send the job somewhere else than the address says.
    for variable in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(variable, None)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    # Uploads and closed connections are no news; each of these modules sets a level of its own.
    for module in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{module}").setLevel(logging.WARNING)
    try:
        client = JobSubmissionClient(address)
        return client, _accepted(client, job, metadata)
    except AuthenticationError as error:
        raise InputError(_authentication_help(address, str(error))) from None
    except (RuntimeError, ValueError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"--address {address}: the job was not accepted: {first[:300]}") from None


def _accepted(client: Any, job: Job, metadata: dict[str, str]) -> str:
    """The id of the job. A cluster that has just been started refuses jobs until its agent is up: asked again."""
    deadline = time.monotonic() + AGENT_TIMEOUT_S
    while True:
        try:
            return str(
                client.submit_job(
                    entrypoint=job.entrypoint, runtime_env={"working_dir": str(job.folder)}, metadata=metadata
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


def _authentication_help(address: str, message: str) -> str:
    """Ray's page of advice in two lines."""
    if "couldn't find an authentication token" in message:
        return (
            "no Ray token on this machine: put the cluster's into RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH or "
            "~/.ray/auth_token\na cluster without tokens: RAY_AUTH_MODE=disabled rayzero submit …"
        )
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return (
            f"--address {address}: the cluster asks for a token, and RAY_AUTH_MODE={os.environ.get('RAY_AUTH_MODE')} "
            "sends none\nunset RAY_AUTH_MODE"
        )
    return (
        f"--address {address}: the cluster refused this machine's Ray token\n"
        "take the cluster's: `ray get-auth-token` on its head node, then RAY_AUTH_TOKEN=… or ~/.ray/auth_token here"
    )


def _how_to(job_id: str, address: str) -> str:
    """How to look at a job, and how to end it."""
    mode = os.environ.get("RAY_AUTH_MODE", "")
    prefix = f"RAY_AUTH_MODE={mode} " if mode else ""
    return (
        f"follow it  {prefix}ray job logs --follow {job_id} --address {address}\n"
        f"stop it    {prefix}ray job stop {job_id} --address {address}\n"
    )


def _follow(client: Any, job_id: str, address: str) -> int:
    """Stream the log until the job ends. Ctrl-C ends the stream, not the job."""
    import aiohttp

    try:
        asyncio.run(_print_log(client, job_id))
        status = _final_status(client, job_id)
    except KeyboardInterrupt:
        print(f"\ndetached: job {job_id} goes on\n{_how_to(job_id, address)}", end="")
        raise
    except (RuntimeError, OSError, aiohttp.ClientError) as error:
        raise ServiceError(
            f"lost the connection to job {job_id}, which may go on: {error}\n{_how_to(job_id, address)}".rstrip()
        ) from error
    print(f"job {job_id}: {status.lower()}")
    return 0 if status == "SUCCEEDED" else 1


async def _print_log(client: Any, job_id: str) -> None:
    async for text in client.tail_job_logs(job_id):
        print(text, end="", flush=True)


def _final_status(client: Any, job_id: str) -> str:
    """Wait for the final status, for a bounded time: it follows the last line of the log by a second or so."""
    deadline = time.monotonic() + STATUS_TIMEOUT_S
    while time.monotonic() < deadline:
        status = client.get_job_status(job_id)
        if status.is_terminal():
            return str(status.value)
        time.sleep(0.5)
    raise ServiceError(f"job {job_id} ended its log, but has no final status after {STATUS_TIMEOUT_S} s")
