"""Whether every node of a cluster sees the folders of a run: its own, and the files, folders and models that its recipe names.

The folder of the run is tried by a token, a file that the driver writes and a task on each node reads: a folder of the same name
on a disk of the node's own does not have it. What is only read may be a copy, and a file is one when it is as large.
"""

import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from glob import glob
from pathlib import Path
from typing import Any

import rollout.ray_defaults  # noqa: F401

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.config.recipe import Recipe, Stage
from orchestrator.plan.local_paths import local_paths
from rollout.errors import InputError, ServiceError

TOKEN = ".seen-by-"
"""Beginning of the token's name; the rest is random."""
SEEN_WITHIN_S = 10.0
"""Time in which a file must be seen elsewhere: NFS remembers for some seconds that there was none."""
ANSWER_WITHIN_S = 120.0
"""Longest wait for a node's answer, a worker that has to start first included."""


def check_folders(recipe: Recipe, selected: Collection[Stage], run: Path | None) -> None:
    """Ask every node of the cluster that this process has joined. `run`: folder of the run; None: nothing is written there.

    Raises:
        InputError: a node does not see a folder, or has another file of its name; one line with node and folder.
        ServiceError: a node does not answer.
    """
    names = {stage.name for stage in selected}
    wanted = {
        place.path: (place.key, _size(place.path))
        for place in local_paths(
            recipe.model_copy(update={"stages": tuple(s for s in recipe.stages if s.name in names)})
        )
    }
    with nullcontext(("", "")) if run is None else _token_in(run) as (token, said):
        answers = _ask_nodes(token, said, {path: size for path, (_, size) in wanted.items()})
    for node, answer in answers.items():
        if not answer["token"]:
            raise InputError(
                f"--run {run}: node {node} does not see this folder; give one that all nodes share, at the same path"
            )
        for path, fault in answer["faults"].items():
            raise InputError(
                f"{wanted[path][0]} = {path!r}: {fault} on node {node}; put it where all nodes see it, at an absolute path"
            )


@contextmanager
def _token_in(run: Path) -> Iterator[tuple[str, str]]:
    """(path of a file in the folder, what it says), while it is there."""
    token, said = run / f"{TOKEN}{secrets.token_hex(8)}", secrets.token_hex(16)
    token.write_text(said, encoding="utf-8")
    try:
        yield str(token), said
    finally:
        token.unlink(missing_ok=True)


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
    """What a node sees: whether `token` says so (empty: it is not asked), and path → what is wrong with it. Runs on that node.

    `sizes`: path, or pattern of files → bytes of the file; -1: a folder or a pattern; None: whatever is there.
    """
    deadline = time.monotonic() + SEEN_WITHIN_S
    while not (seen := not token or _holds(Path(token), said)) and time.monotonic() < deadline:
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
    return {"token": seen, "faults": faults}


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
