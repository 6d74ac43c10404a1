"""The reward service: Ray actors that score completions while others are still being generated."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import replace
from typing import Any

import rollout.ray_defaults  # noqa: F401

import ray
from ray._private.state import available_resources_per_node
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rewards.dispatch import Batch, Dispatcher, Worker
from rewards.error_budget import ErrorBudget
from rewards.functions import may_see_group
from rewards.models.scorers import KINDS, SCORER_GPUS, check_scorer, scorer_key
from rewards.places import Host, place_of
from rewards.resources import Resources, ResourceSettings
from rewards.rubric import SILENT, Rubric, total
from rewards.types import GroupScore, RubricSpec, Sample, Score, ScoredGroup
from rollout.actors import Device, actor_name, last_line, node_here, said, within
from rollout.errors import ServiceError
from rollout.types import Completion, Prompt, RolloutGroup

SIGN_OF_LIFE_S = 5.0
PATIENCE_S = 60.0
"""Seconds that a worker which died has to come back; no less than an answer may take."""


class RewardWorker:
    """One actor; holds every rubric of the stage and the resources of their functions."""

    def __init__(
        self, rubrics: Mapping[str, RubricSpec], settings: ResourceSettings, scorers: Mapping[str, str]
    ) -> None:
        """`scorers`: `scorer_key` → name of the actor of a model that all workers share.

        By name, since Ray cannot restart an actor that was made with handles of others.
        """
        self._resources = Resources(settings, {key: ray.get_actor(name) for key, name in scorers.items()})
        self._rubrics = {name: Rubric(name, functions, self._resources) for name, functions in rubrics.items()}

    def __repr__(self) -> str:
        return actor_name() or super().__repr__()

    async def ready(self) -> str:
        """Id of the node that it lives on, once the actor is up."""
        return node_here()

    async def check(self, samples: Mapping[str, Sample]) -> None:
        """`samples`: rubric → a real problem with a made-up completion."""
        for name, sample in samples.items():
            await self._rubrics[name].check(sample)

    async def score(self, batch: list[tuple[str, Sample]]) -> AsyncIterator[list[tuple[int, Score]]]:
        """(rubric, sample) → (index, score), as they are done."""

        async def one(index: int, rubric: str, sample: Sample) -> tuple[int, Score]:
            return index, await self._rubrics[rubric].score(sample)

        pending = {asyncio.ensure_future(one(i, rubric, sample)) for i, (rubric, sample) in enumerate(batch)}
        while pending:
            # Without anything to say, a sign of life: a judge may take minutes.
            done, pending = await asyncio.wait(pending, timeout=SIGN_OF_LIFE_S, return_when=asyncio.FIRST_COMPLETED)
            yield [task.result() for task in done]

    async def score_group(self, rubric: str, samples: list[Sample]) -> list[GroupScore]:
        return await self._rubrics[rubric].score_group(samples)

    async def close(self) -> None:
        await self._resources.close()


class RewardPool:
    """The reward actors as one service: least-outstanding routing, bounded waits, one retry elsewhere, error budget."""

    def __init__(
        self,
        rubrics: Mapping[str, RubricSpec],
        settings: ResourceSettings,
        timeout_s: float,
        max_error_rate: float,
        name: str = "reward",
        resources: Mapping[str, float] | None = None,
        device: Device | None = None,
    ) -> None:
        """`resources`: custom ones of the cluster's nodes that each worker takes; `device`: as `start` has it."""
        self._name = name
        self._resources = dict(resources or {})
        self._rubrics = {name: tuple(functions) for name, functions in rubrics.items()}
        self._settings = settings
        self._timeout_s = timeout_s
        self.budget = ErrorBudget(max_error_rate)
        """Error budget of whoever names none."""
        self._scorers = _start_scorers(self._rubrics, name, device)
        self._names = 0
        self._dispatcher = Dispatcher()
        self._tasks: set[asyncio.Task[None]] = set()
        """Tasks that end with the pool: the handing out, the calls under way, the waits for workers that died."""

    @classmethod
    async def start(
        cls,
        rubrics: Mapping[str, RubricSpec],
        settings: ResourceSettings,
        samples: Mapping[str, Sample],
        *,
        replicas: int,
        resources: Mapping[str, float] | None = None,
        timeout_s: float,
        max_error_rate: float,
        start_timeout_s: float,
        name: str = "reward",
        device: Device | None = None,
    ) -> "RewardPool":
        """Start the workers, called `<name>-<index>`, and exercise every reward function once on `samples`, one problem
        a rubric.

        Args:
            resources: custom ones of the cluster's nodes that each worker takes.
            device: what reward models compute on; None: GPUs where the cluster has some now.

        Raises:
            InputError: a reward function does not exist, or one of the user's fails.
            ServiceError: a worker does not start, or a verifier that ships does not work here.
        """
        pool = cls(rubrics, settings, timeout_s, max_error_rate, name, resources, device)
        try:
            for _ in range(replicas):
                pool._dispatcher.workers.append(pool._new_worker())
            await pool.check(samples, start_timeout_s)
        except BaseException:
            await pool.close()
            raise
        pool._spawn(pool._hand_out())
        return pool

    async def check(self, samples: Mapping[str, Sample], timeout_s: float) -> None:
        """Let every worker exercise the rubrics of `samples`. Raises as `start` does."""
        check = asyncio.gather(*(worker.actor.check.remote(dict(samples)) for worker in self._dispatcher.workers))
        await within(check, timeout_s, "reward workers to check their reward functions")

    @property
    def replicas(self) -> int:
        return len(self._dispatcher.workers)

    @property
    def num_waiting(self) -> int:
        """Completions that no worker has taken yet."""
        return self._dispatcher.num_waiting

    async def scale(self, replicas: int) -> None:
        """Start or end workers while the run goes on; one that ends first finishes what it has."""
        workers = self._dispatcher.workers
        while len(workers) < replicas:
            workers.append(self._new_worker())
        for worker in self._dispatcher.keep(replicas):
            await self._dispatcher.wait_until_idle(worker)
            await _end(worker)

    async def score(self, rubric: str, sample: Sample, budget: ErrorBudget | None = None) -> Score:
        """The score of one completion; status `error` when it could not be scored, twice.

        Raises:
            ServiceError: all workers died, and none has come back within the time they have.
        """
        return await self._dispatcher.score(rubric, sample, budget or self.budget)

    def begin(self, prompt: Prompt, budget: ErrorBudget | None = None) -> "GroupScoring":
        """Score the completions of a group one by one as they finish.

        Args:
            budget: that they count in; None: the pool's own.
        """
        return GroupScoring(self, prompt, budget or self.budget)

    async def score_whole(self, rubric: str, samples: list[Sample]) -> list[GroupScore]:
        """What the rubric's group functions say of each completion.

        Raises:
            ServiceError: they failed twice.
        """
        if not any(may_see_group(spec) for spec in self._rubrics[rubric]):
            return [GroupScore() for _ in samples]
        problem: ServiceError | None = None
        for attempt in range(2):
            worker = await self._dispatcher.up(attempt)
            try:
                call = worker.actor.score_group.remote(rubric, samples)
                scores: list[GroupScore] = await within(call, self._timeout_s, "a reward worker to score a group")
                return scores
            except ServiceError as failure:
                problem = failure
                self._lost(worker)
        assert problem is not None
        raise problem

    def total(self, rubric: str, breakdown: Mapping[str, float]) -> float:
        return total(self._rubrics[rubric], breakdown)

    def metrics(self) -> dict[str, float]:
        """Figures of the pool's own budget since the last call, and of the workers."""
        return self.budget.metrics() | {
            "rewards/replicas": len(self._dispatcher.workers),
            "rewards/down": sum(worker.down for worker in self._dispatcher.workers),
            "rewards/waiting": self._dispatcher.num_waiting,
        }

    def members(self) -> list[dict[str, Any]]:
        """Every worker by the name of its actor: its state (`serving`, `down`: expected back, `dead`), its node as far as it is known,
        and completions that it has."""
        return [
            {
                "name": worker.name,
                "state": "dead" if worker.gone else "down" if worker.down else "serving",
                "node": said(worker.where),
                "completions": worker.outstanding,
            }
            for worker in self._dispatcher.workers
        ]

    async def close(self) -> None:
        """End the workers and what they started."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(_end(worker) for worker in self._dispatcher.keep(0)))
        for _, actor in self._scorers.values():
            ray.kill(actor)

    # --- Calls to the workers

    async def _hand_out(self) -> None:
        while True:
            self._spawn(self._run(await self._dispatcher.next()))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, batch: Batch) -> None:
        worker = batch.worker
        asked = [(request.rubric, request.sample) for request in batch.requests]
        stream = worker.actor.score.options(num_returns="streaming").remote(asked)
        unanswered = dict(enumerate(batch.requests))
        reason = "the reward worker ended early"
        try:
            while unanswered:
                # A bound on the silence between two answers: how long a whole batch takes is the functions' affair.
                chunk = await asyncio.wait_for(anext(stream), self._timeout_s)
                for index, score in await chunk:
                    self._dispatcher.settle(batch, unanswered.pop(index), score)
        except StopAsyncIteration:
            pass  # what it left unanswered fails below, for `reason`
        except TimeoutError:
            reason = f"no answer from a reward worker for {self._timeout_s:.0f} s"
            ray.kill(worker.actor, no_restart=False)
            self._lost(worker)
        except RayError as problem:
            reason = f"the reward worker failed: {last_line(problem)}"
            self._lost(worker)
        finally:
            self._dispatcher.release(batch)
        self._dispatcher.fail(batch, unanswered.values(), reason)

    def _lost(self, worker: Worker) -> None:
        if self._dispatcher.lost(worker):
            self._spawn(self._revive(worker))

    async def _revive(self, worker: Worker) -> None:
        """Wait until Ray has restarted a worker; the others go on."""
        while worker in self._dispatcher.workers:
            try:
                await asyncio.wait_for(worker.actor.ready.remote(), self._timeout_s)
            except (RayError, TimeoutError) as failure:
                if time.monotonic() - worker.died > max(self._timeout_s, PATIENCE_S):
                    self._dispatcher.give_up(worker, last_line(failure))
                await asyncio.sleep(0.2)
            else:
                worker.where = worker.actor.ready.remote()  # Ray may have restarted it elsewhere
                self._dispatcher.back(worker)
                return

    def _new_worker(self) -> Worker:
        name = f"{self._name}-{self._names}"
        self._names += 1
        places = Counter(worker.place for worker in self._dispatcher.workers)
        place = "" if self._resources else place_of(_hosts(), places)
        # Scoring is milliseconds between two generations; a whole core each would starve a laptop.
        remote = ray.remote(RewardWorker).options(
            name=name,
            num_cpus=0,
            **_preferably(place),
            resources=self._resources or None,
            max_restarts=-1,
            max_concurrency=1000,
            runtime_env=_sees(gpus=0),
        )
        scorers = {key: actor_name for key, (actor_name, _) in self._scorers.items()}
        actor = remote.remote(self._rubrics, self._settings, scorers)
        return Worker(actor, name, place, actor.ready.remote())


class GroupScoring:
    """The scores of one group on their way."""

    def __init__(self, pool: RewardPool, prompt: Prompt, budget: ErrorBudget) -> None:
        self._pool = pool
        self._prompt = prompt
        self._budget = budget
        self._scores: dict[int, tuple[Completion, asyncio.Task[Score]]] = {}

    def add(self, completion: Completion) -> None:
        """A completion has finished; it is scored from now on."""
        task = asyncio.create_task(
            self._pool.score(self._prompt.rubric, Sample.of(self._prompt, completion), self._budget)
        )
        self._scores[id(completion)] = (completion, task)

    async def finish(self, group: RolloutGroup) -> ScoredGroup:
        """The scored group. Completions of an earlier try, which are not in it, are forgotten.

        Raises:
            ServiceError: too many completions could not be scored so far.
        """
        began = time.perf_counter()
        for completion in group.completions:
            if id(completion) not in self._scores:
                self.add(completion)
        scores = [await self._scores.pop(id(completion))[1] for completion in group.completions]
        self.cancel()
        kept = [(c, s) for c, s in zip(group.completions, scores, strict=True) if s.status != "error"]
        samples = [Sample.of(group.prompt, completion) for completion, _ in kept]
        error = ""
        try:
            said = await self._pool.score_whole(self._prompt.rubric, samples) if kept else []
        except ServiceError as problem:
            kept, said, error = [], [], str(problem)
        whole = [(c, self._whole(score, group)) for (c, score), group in zip(kept, said, strict=True)]
        kept = [(c, score) for c, score in whole if score.breakdown]
        if len(kept) < len(whole):
            error = SILENT
        failed = [c for c in group.completions if not any(c is completion for completion, _ in kept)]
        self._budget.count(len(scores), len(failed), group.prompt, failed[-1].text if failed else "", error)
        return ScoredGroup(
            group=group,
            completions=tuple(completion for completion, _ in kept),
            scores=tuple(score for _, score in kept),
            num_errors=len(failed),
            seconds=time.perf_counter() - began,
        )

    def cancel(self) -> None:
        for _, task in self._scores.values():
            task.cancel()
        self._scores.clear()

    def _whole(self, score: Score, group: GroupScore) -> Score:
        """A score with what the group functions say in it."""
        if not group.values:
            return score
        breakdown, metrics = {**score.breakdown, **group.values}, {**score.metrics, **group.metrics}
        value = self._pool.total(self._prompt.rubric, breakdown)
        return replace(score, breakdown=breakdown, metrics=metrics, value=value)


def _start_scorers(
    rubrics: Mapping[str, RubricSpec], name: str, device: Device | None = None
) -> dict[str, tuple[str, Any]]:
    """One actor a model: key → its name and the actor, which lives while it is held."""
    on_gpus = device == "cuda" if device else bool(ray.cluster_resources().get("GPU"))
    specs = {scorer_key(spec): spec for rubric in rubrics.values() for spec in rubric if spec.name in KINDS}
    actors = {}
    for index, (key, spec) in enumerate(specs.items()):
        check_scorer(spec)
        # A GPU is shared with engines or learners by `gpus`, as theirs are.
        kind, server = KINDS[spec.name]
        computes = spec.name == "reward_model" and spec.args.get("device") != "cpu"
        gpus = SCORER_GPUS if computes and on_gpus else 0
        actor_name = f"{name}-model-{index}"
        remote = ray.remote(server).options(
            name=actor_name,
            num_cpus=0,
            num_gpus=gpus,
            **_preferably("" if gpus else place_of(_hosts(), {})),
            max_restarts=-1,
            max_concurrency=1000,
            runtime_env=_sees(gpus),
        )
        actors[key] = actor_name, remote.remote(kind(**spec.args))
    return actors


def _hosts() -> list[Host]:
    """The nodes that have cores to offer; those that are kept free of work, as heads of a cluster may be, have none."""
    free = available_resources_per_node()
    nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    return [
        # A node that has just come has reported nothing yet.
        Host(node, free.get(node, total).get("CPU", 0.0), total.get("GPU", 0.0))
        for node, total in nodes.items()
        if total.get("CPU")
    ]


def _preferably(node: str) -> dict[str, Any]:
    """Ray's options for an actor that is to live on a node, and where that is gone on any; empty `node`: on any.

    It takes a byte of the node's memory, since Ray places what takes nothing at random, whatever its strategy.
    """
    if not node:
        return {}
    return {"memory": 1, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)}


def _sees(gpus: float) -> dict[str, Any]:
    """Environment of an actor that has this share of a GPU: without one it sees none, and cannot take memory beside a rank.

    Ray hides them itself only where its node was started with rollout/ray_defaults.py, as a cluster that is joined was
    not. Without GPUs nothing is said, since Ray starts a process of its own for an environment that differs.
    """
    return {} if gpus or not ray.cluster_resources().get("GPU") else {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}


async def _end(worker: Worker) -> None:
    """Let a worker end its children, then end it."""
    await asyncio.wait({asyncio.ensure_future(_close(worker))}, timeout=5)
    ray.kill(worker.actor)


async def _close(worker: Worker) -> None:
    await asyncio.gather(worker.actor.close.remote(), return_exceptions=True)
