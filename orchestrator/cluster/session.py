"""The Ray cluster of a run: joined or private, left as it was found."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import rollout.ray_defaults  # noqa: F401

import ray

from orchestrator.cluster import job_environment
from orchestrator.config.sections.cluster import ClusterSection
from orchestrator.plan import machine
from orchestrator.plan.placement import MANY
from orchestrator.run.interrupts import interrupts_later, terminated_as_interrupted
from rollout.actors import Device
from rollout.errors import InputError, ServiceError
from rollout.storage.host import VARIABLE as CACHE_VARIABLE

_planned: dict[str, int] = {}


@contextmanager
def ray_session(cluster: ClusterSection, namespace: str, env: Mapping[str, str] | None = None) -> Iterator[Device]:
    """Join `cluster.address`, or start a private cluster on loopback and end it afterwards; yields the compute device.

    Args:
        namespace: of the names of the actors.
        env: variables of every actor, beside `cluster.env`.

    Token authentication is on unless the environment says otherwise (rollout/ray_defaults.py).

    Raises:
        InputError: no cluster answers at the address.
        ServiceError: the private cluster does not start.
    """
    common: dict[str, Any] = {
        "namespace": namespace,
        "logging_level": logging.ERROR,
        "log_to_driver": os.environ.get("RAYZERO_ACTOR_LOGS", "0") == "1",
    }
    variables = {name: str(value) for name, value in cluster.env.items()} | dict(env or {})
    if cluster.storage_cache:
        variables[CACHE_VARIABLE] = os.environ[CACHE_VARIABLE] = cluster.storage_cache
    if variables:
        # Of the job, so that every actor has it; what an actor is given itself stands above it.
        common["runtime_env"] = {"env_vars": variables}
    if job_environment.load():
        common.setdefault("runtime_env", {})["worker_process_setup_hook"] = job_environment.HOOK
    try:
        with terminated_as_interrupted(), _without_deaths():
            # In the middle of Ray's start an interrupt would leave a thread that crashes the process.
            with interrupts_later(), _without_handlers(), nullcontext() if cluster.address else _on_loopback():
                _start(cluster, common)
            device = _device(cluster)
            _planned["gpus"] = MANY if device == "cuda" and not gpus() else gpus()
            yield device
    finally:
        # Ends a private cluster and its processes; from a cluster that was joined it only disconnects.
        ray.shutdown()
        _planned.clear()


@contextmanager
def _without_deaths() -> Iterator[None]:
    """Ray's paragraphs about processes that died are not printed: whoever waited for one says so, in a line."""
    from ray._private import worker

    shown = worker.print_to_stdstream

    def print_others(data: Any, *args: Any, **options: Any) -> None:
        if not any(str(line).startswith("A worker died or was killed") for line in data.get("lines", ())):
            shown(data, *args, **options)

    worker.print_to_stdstream = print_others
    try:
        yield
    finally:
        worker.print_to_stdstream = shown


def _start(cluster: ClusterSection, common: Mapping[str, Any]) -> None:
    try:
        if cluster.address:
            ray.init(address=cluster.address, **common)
        else:
            ray.init(
                address="local",
                num_cpus=machine.cpu_count(),
                num_gpus=0 if cluster.device == "cpu" else None,
                include_dashboard=cluster.dashboard_port > 0,
                dashboard_host="127.0.0.1",
                dashboard_port=cluster.dashboard_port or None,
                _metrics_export_port=cluster.metrics_port or None,
                **common,
            )
    except Exception as problem:  # of no narrower kind, when a node does not come up within Ray's 30 s
        reason = next(iter(str(problem).splitlines()), type(problem).__name__)
        if cluster.address:
            raise InputError(f"cluster.address = {cluster.address!r}: no Ray cluster answers: {reason}") from problem
        raise ServiceError(f"Ray did not start here; is the machine too busy? {reason}") from problem


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A cluster that starts in the block has its node at 127.0.0.1, where Ray's services then listen, and nowhere else.

    Ray takes no loopback address from `ray.init`. It does so by itself where clusters of several machines are off, which is
    the default of other systems, and can be said here too; its processes read it from the environment.
    """
    from ray._private import ray_constants

    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    said = os.environ.get(name)
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        if said is None:
            del os.environ[name]
        else:
            os.environ[name] = said


@contextmanager
def _without_handlers() -> Iterator[None]:
    """Ray sets no handler of SIGTERM in the block: its own exits in the middle of whatever goes on."""
    import ray._private.utils as setting

    before, setting.set_sigterm_handler = setting.set_sigterm_handler, lambda _: None
    try:
        yield
    finally:
        setting.set_sigterm_handler = before


def _device(cluster: ClusterSection) -> Device:
    if cluster.device != "auto":
        return cluster.device
    return "cuda" if gpus() else "cpu"


def gpus() -> int:
    """GPUs that the cluster has now."""
    return int(ray.cluster_resources().get("GPU", 0))


def planned_gpus() -> int:
    """GPUs that the places of the whole session are planned for: those at its start, or any number where all are yet to come."""
    return _planned.get("gpus", gpus())


def cores_per_node() -> int:
    """CPU cores of the smallest node that has some; 1: none has yet."""
    return int(
        min(
            (node["Resources"]["CPU"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")),
            default=1,
        )
    )


def host_names() -> dict[str, str]:
    """Id of a node → name of its host, of all nodes that the cluster has had."""
    return {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes()}
