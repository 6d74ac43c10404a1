"""Whether every node of a cluster sees the folders of a run: its own, or its storage, and the files, folders and models that its
recipe names.

The folder of the run is tried by a token, a file that the driver writes and a task on each node reads: a folder of the same name
on a disk of the node's own does not have it. A storage in its place is tried by an object that the driver writes, and by one of the
node's own. What is only read may be a copy, and a file is one when it is as large.
"""

import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import Any

import rollout.ray_defaults  # noqa: F401

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.config.recipe import Recipe, Stage
from orchestrator.plan.local_paths import local_paths
from rollout.errors import InputError, ServiceError
from rollout.storage.objects import Storage
from rollout.storage.uri import inside, is_uri, split

TOKEN = ".seen-by-"
"""Beginning of the token's name; the rest is random."""
SEEN_WITHIN_S = 10.0
"""Time in which a file must be seen elsewhere: NFS remembers for some seconds that there was none."""
ANSWER_WITHIN_S = 120.0
"""Longest wait for a node's answer, a worker that has to start first included."""


def check_folders(recipe: Recipe, selected: Collection[Stage], run: Path | None, storage: str = "") -> None:
    """Ask every node of the cluster that this process has joined.

    Args:
        run: folder of the run; None: nothing is written there.
        storage: URI of the run, whose folder need not be seen then.

    Raises:
        InputError: a node does not see a folder, has another file of its name, or may not use the storage; one line with node
            and folder.
        ServiceError: a node does not answer, or the storage is away.
    """
    names = {stage.name for stage in selected}
    wanted = {
        place.path: (place.key, _size(place.path))
        for place in local_paths(
            recipe.model_copy(update={"stages": tuple(s for s in recipe.stages if s.name in names)})
        )
    }
    with _token(storage or str(run or "")) as (token, said):
        answers = _ask_nodes(token, said, {path: size for path, (_, size) in wanted.items()})
    for node, answer in answers.items():
        if answer["storage"]:
            raise InputError(
                f"cluster.storage = {recipe.cluster.storage!r}: node {node} may not use it: {answer['storage']}; give the node, or "
                "the job (`rayzero submit --env NAME`), what this host has"
            )
        if not answer["token"]:
            raise InputError(
                f"--run {run}: node {node} does not see this folder; give one that all nodes share, at the same path"
            )
        for path, fault in answer["faults"].items():
            raise InputError(
                f"{wanted[path][0]} = {path!r}: {fault} on node {node}; put it where all nodes see it, at an absolute path"
            )


@contextmanager
def _token(place: str) -> Iterator[tuple[str, str]]:
    """(path or URI of a file in a folder, what it says), while it is there; empty ones without a folder."""
    name, said = f"{TOKEN}{secrets.token_hex(8)}", secrets.token_hex(16)
    if not place:
        yield "", ""
        return
    if is_uri(place):
        storage = Storage(place)
        storage.write(name, said.encode())
        try:
            yield inside(place, name), said
        finally:
            storage.delete(name)
        return
    file = Path(place, name)
    file.write_text(said, encoding="utf-8")
    try:
        yield str(file), said
    finally:
        file.unlink(missing_ok=True)


def _ask_nodes(token: str, said: str, sizes: Mapping[str, int | None]) -> dict[str, dict[str, Any]]:
    """Node, in words → what it says. One task a node, pinned there; a node that leaves meanwhile is not asked."""
    # Its one attempt ends with its node: another node's answer would say nothing.
    task = ray.remote(num_cpus=0, max_retries=0)(look)
    nodes = {node["NodeID"]: _words(node) for node in ray.nodes() if node["Alive"]}
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            token, said, dict(sizes)
        ): node
        for node in nodes
    }
    waiting: Sequence[Any] = list(asked)
    ready, late = ray.wait(waiting, num_returns=len(waiting), timeout=ANSWER_WITHIN_S)
    answers = {}
    for answer in (*ready, *late):
        node = asked[answer]
        try:
            answers[nodes[node]] = ray.get(answer, timeout=0 if answer in late else None)
        except Exception as problem:  # whatever kept the node from answering
            if node in {each["NodeID"] for each in ray.nodes() if each["Alive"]}:
                reason = (
                    f"within {ANSWER_WITHIN_S:.0f} s" if answer in late else next(iter(str(problem).splitlines()), "")
                )
                raise ServiceError(f"node {nodes[node]} does not say what it sees: {reason}") from problem
    return answers


def _words(node: Mapping[str, Any]) -> str:
    name, address = node.get("NodeManagerHostname", ""), node.get("NodeManagerAddress", "")
    return f"{name} ({address})" if name and name != address else address or name


def look(token: str, said: str, sizes: Mapping[str, int | None]) -> dict[str, Any]:
    """What a node sees: whether `token` says so (empty: it is not asked), why not the storage that it is in, and path → what is
    wrong with it. Runs on that node.

    `sizes`: path, or pattern of files → bytes of the file; -1: a folder or a pattern; None: whatever is there.
    """
    deadline = time.monotonic() + SEEN_WITHIN_S
    refused = _refusal(token, said) if is_uri(token) else ""
    while not (seen := not token or is_uri(token) or _holds(Path(token), said)) and time.monotonic() < deadline:
        time.sleep(0.2)
    faults = {}
    for path, size in sizes.items():
        there = _size(path)
        if there is None:
            faults[path] = "is not there"
        elif size is not None and there != size:
            faults[path] = (
                f"is another file ({there:,} bytes, {size:,} here)" if min(there, size) >= 0 else "is of another kind"
            )
    return {"token": seen, "storage": refused, "faults": faults}


def _refusal(token: str, said: str) -> str:
    """Why this host cannot use the storage that a token is in; empty: it can."""
    place, name = split(token)
    try:
        storage = Storage(place)
        storage.probe()
        if storage.read(name).decode() != said:
            return "it has another token there than the driver wrote"
    except FileNotFoundError:
        return "it does not see there what the driver wrote"
    except (InputError, ServiceError) as problem:
        return str(problem)
    return ""


def _holds(token: Path, said: str) -> bool:
    try:
        return token.read_text(encoding="utf-8") == said
    except OSError:
        return False


def _size(path: str) -> int | None:
    """Bytes of a file; -1: a folder, or a pattern that files match; None: nothing is there."""
    file = Path(path)
    if file.is_file():
        return file.stat().st_size
    return -1 if file.exists() or glob(path) else None
