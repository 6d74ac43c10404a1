"""The reward service: Ray actors that score completions while others are still being generated."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import rollout.ray_defaults  # noqa: F401

import ray
from ray.exceptions import RayError, RayTaskError

from rewards.dispatch import Batch, Dispatcher, Worker
from rewards.error_budget import WINDOW, ErrorBudget
from rewards.functions import SCORER_TIMEOUT_S, may_see_group
from rewards.outage import Outages
from rewards.places import place_of
from rewards.placing import hosts, preferably, sees
from rewards.resources import Resources, ResourceSettings
from rewards.rubric import SILENT, Rubric, total
from rewards.scorer_actors import start_scorers
from rewards.types import GroupScore, RubricSpec, Sample, Score, ScoredGroup, Unavailable
from rollout.actors import Device, actor_name, node_here, said, within
from rollout.background import Tasks
from rollout.errors import ServiceError
from rollout.failures import last_line
from rollout.types import Completion, Prompt, RolloutGroup
from rollout.waits import waiting

SIGN_OF_LIFE_S = 5.0
WATCH_S = 5.0
"""Seconds between two looks at workers that have nothing to do, and at models that score."""
_NOBODY = ErrorBudget(1.0)
"""Error budget of what is scored to find out whether it can be."""
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

    async def score_group(self, rubric: str, samples: list[Sample]) -> AsyncIterator[list[GroupScore]]:
        """What the group functions say of each completion, once; before it empty lists, as signs of life."""
        scoring = asyncio.ensure_future(self._rubrics[rubric].score_group(samples))
        while not (await asyncio.wait({scoring}, timeout=SIGN_OF_LIFE_S))[0]:
            yield []
        yield scoring.result()

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
        start_timeout_s: float = 300.0,
        tell: Callable[[str], None] = lambda _: None,
        outage_s: float = 0.0,
        window: int = WINDOW,
    ) -> None:
        """As `start` has them."""
        self._name = name
        self._resources = dict(resources or {})
        self._rubrics = {name: tuple(functions) for name, functions in rubrics.items()}
        self._settings = settings
        self._timeout_s = timeout_s
        self.budget = ErrorBudget(max_error_rate, window)
        """Error budget of whoever names none."""
        self._scorers = start_scorers(self._rubrics, name, start_timeout_s, device)
        self._names = 0
        self._dispatcher = Dispatcher()
        self._tell = tell
        self._start_timeout_s = start_timeout_s
        longest = max(settings.function_timeout_s, settings.limits.total_s, SCORER_TIMEOUT_S)
        self._stall_s = 2 * longest + timeout_s
        self._background = Tasks("reward service", self._dispatcher.break_off)
        """Tasks that end with the pool: the handing out, the calls under way, the waits for workers that died."""
        self._outages = Outages(outage_s, tell, self._background.check)

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
        tell: Callable[[str], None] = lambda _: None,
        outage_s: float = 0.0,
        window: int = WINDOW,
    ) -> "RewardPool":
        """Start the workers, called `<name>-<index>`, and exercise every reward function once on `samples`, one problem
        a rubric.

        Args:
            resources: custom ones of the cluster's nodes that each worker takes.
            device: what reward models compute on; None: GPUs where the cluster has some now.
            timeout_s: longest silence of a worker that has work, and of a model that scores.
            max_error_rate, window: of the pool's own error budget.
            tell: told what should not have happened, and that the pool goes on after.
            outage_s: longest wait for what scores and is down; 0: none, every error is taken as it is.

        Raises:
            InputError: a reward function does not exist, or one of the user's fails.
            ServiceError: a worker does not start, or a verifier that ships does not work here.
        """
        pool = cls(
            rubrics,
            settings,
            timeout_s,
            max_error_rate,
            name,
            resources,
            device,
            start_timeout_s,
            tell,
            outage_s,
            window,
        )
        try:
            for _ in range(replicas):
                pool._dispatcher.workers.append(pool._new_worker())
            await pool.check(samples, start_timeout_s)
        except BaseException:
            await pool.close()
            raise
        pool._background.spawn(pool._hand_out())
        pool._background.spawn(pool._watch())
        return pool

    def raise_failure(self) -> None:
        """Raises ServiceError when a task in the background has failed: nothing is scored any more then."""
        self._background.check()

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
        """The score of one completion; status `error` when it could not be scored although others can (rewards/outage.py).

        Raises:
            ServiceError: what scores did not come back in time, or nothing had been scored before all workers died.
        """
        ask = partial(self._score, rubric, sample, budget or self.budget)
        return await self._outages.persist(f"rubric {rubric!r}", ask, partial(self._score, rubric, sample, _NOBODY))

    async def clear(self) -> None:
        """Wait while what scores is down: nothing new should be generated then. Raises as `score` does."""
        await self._outages.clear()

    def begin(self, prompt: Prompt, budget: ErrorBudget | None = None) -> "GroupScoring":
        """Score the completions of a group one by one as they finish.

        Args:
            budget: that they count in; None: the pool's own.
        """
        return GroupScoring(self, prompt, budget or self.budget)

    async def score_whole(self, rubric: str, samples: list[Sample]) -> list[GroupScore]:
        """What the rubric's group functions say of each completion.

        Raises:
            ServiceError: they failed twice, although they work for others; or as `score` does.
        """
        if not any(may_see_group(spec) for spec in self._rubrics[rubric]):
            return [GroupScore() for _ in samples]
        ask = partial(self._score_whole, rubric, samples)
        return await self._outages.persist(f"rubric {rubric!r} for groups", ask, ask)

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
        self._background.cancel()
        self._dispatcher.break_off(ServiceError("the reward service was closed"))
        await asyncio.gather(*(_end(worker) for worker in self._dispatcher.keep(0)))
        for scorer in self._scorers.values():
            ray.kill(scorer.actor)

    # --- Calls to the workers

    async def _score(self, rubric: str, sample: Sample, budget: ErrorBudget) -> tuple[Score, str, bool]:
        score = await self._dispatcher.score(rubric, sample, budget)
        return score, score.error if score.status == "error" else "", score.unavailable

    async def _score_whole(self, rubric: str, samples: list[Sample]) -> tuple[list[GroupScore], str, bool]:
        problem, kind = "", ServiceError
        for attempt in range(2):
            worker = await self._dispatcher.up(attempt)
            began = time.monotonic()
            try:
                async for scores in self._answers(worker.actor.score_group, rubric, samples):
                    if scores:
                        return scores, "", False
                    self._check_stall(began)
                problem = "the reward worker ended early"
            except (RayError, TimeoutError) as failure:
                problem = self._blame(worker, failure)
                kind = Unavailable if isinstance(getattr(failure, "cause", None), Unavailable) else ServiceError
        raise kind(problem)

    async def _hand_out(self) -> None:
        while True:
            self._background.spawn(self._run(await self._dispatcher.next()))

    async def _run(self, batch: Batch) -> None:
        """Let a worker score a batch. Whatever happens, every completion of it is settled, tried again, or told."""
        unanswered = dict(enumerate(batch.requests))
        reason = "the reward worker ended early"
        try:
            asked = [(request.rubric, request.sample) for request in batch.requests]
            async for answers in self._answers(batch.worker.actor.score, asked):
                for index, score in answers:
                    self._dispatcher.settle(batch, unanswered[index], score)
                    del unanswered[index]
                    batch.worker.moved = time.monotonic()
                if not unanswered:
                    break
                self._check_stall(batch.worker.moved)
        except (RayError, TimeoutError) as failure:
            reason = self._blame(batch.worker, failure)
        except asyncio.CancelledError:
            self._dispatcher.refuse(unanswered.values(), ServiceError("the reward service was closed"))
            raise
        except Exception as defect:
            problem = ServiceError(f"scoring by {batch.worker.name}: {type(defect).__name__}: {defect}")
            self._dispatcher.refuse(unanswered.values(), problem)
            unanswered.clear()
            raise problem from defect
        finally:
            self._dispatcher.release(batch)
        self._dispatcher.fail(batch, unanswered.values(), reason)

    async def _answers(self, method: Any, *args: Any) -> AsyncIterator[Any]:
        """What a worker's generator yields.

        Raises:
            TimeoutError: nothing, not even a sign of life, for the pool's limit. How long a whole call takes is the functions' affair.
            RayError: as the call failed.
        """
        stream = method.options(num_returns="streaming").remote(*args)
        while True:
            try:
                chunk = await asyncio.wait_for(anext(stream), self._timeout_s)
            except StopAsyncIteration:
                return
            yield await asyncio.wait_for(chunk, self._timeout_s)

    def _check_stall(self, moved: float) -> None:
        """Raises TimeoutError for a worker that is alive and has not answered a completion for longer than any may take."""
        if time.monotonic() - moved > self._stall_s:
            raise TimeoutError(f"signs of life from a reward worker, and no score for {self._stall_s:.0f} s")

    def _blame(self, worker: Worker, failure: Exception) -> str:
        """What a failed call says of its worker, in words. One that is silent is killed, and restarted by Ray."""
        if isinstance(failure, RayTaskError):
            return str(failure.cause) if isinstance(failure.cause, ServiceError) else last_line(failure)
        if isinstance(failure, TimeoutError):
            self._replace(worker)
            return str(failure) or f"no answer from a reward worker for {self._timeout_s:.0f} s"
        self._lost(worker)
        return f"the reward worker failed: {last_line(failure)}"

    def _replace(self, worker: Worker) -> None:
        if worker not in self._dispatcher.workers or worker.down:
            return  # it has left, or another call has noticed before
        self._tell(f"{worker.name} does not answer; it is killed and started again")
        ray.kill(worker.actor, no_restart=False)
        self._lost(worker)

    def _lost(self, worker: Worker) -> None:
        if self._dispatcher.lost(worker):
            self._background.spawn(self._revive(worker))

    async def _revive(self, worker: Worker) -> None:
        """Wait until Ray has restarted a worker; the others go on. One whose new start stands is killed again."""
        patience, started = max(self._timeout_s, PATIENCE_S), worker.died
        while worker in self._dispatcher.workers:
            try:
                await asyncio.wait_for(worker.actor.ready.remote(), self._timeout_s)
            except (RayError, TimeoutError) as failure:
                now = time.monotonic()
                if now - worker.died > patience:
                    self._dispatcher.give_up(worker, last_line(failure))
                if isinstance(failure, TimeoutError) and now - started > patience:
                    ray.kill(worker.actor, no_restart=False)
                    started = now
                await asyncio.sleep(0.2)
            else:
                worker.where = worker.actor.ready.remote()  # Ray may have restarted it elsewhere
                self._dispatcher.back(worker)
                return

    async def _watch(self) -> None:
        """Look after what no call looks after: workers that have nothing to do, and models."""
        while True:
            await asyncio.sleep(WATCH_S)
            idle = [worker for worker in self._dispatcher.workers if not (worker.down or worker.outstanding)]
            looks = [*map(self._look_at, idle), *(scorer.look(self._timeout_s) for scorer in self._scorers.values())]
            for done in await asyncio.gather(*looks):
                if done:
                    self._tell(done)

    async def _look_at(self, worker: Worker) -> str:
        try:
            await asyncio.wait_for(worker.actor.ready.remote(), self._timeout_s)
        except TimeoutError:
            self._replace(worker)
        except RayError:
            self._lost(worker)
        return ""

    def _new_worker(self) -> Worker:
        name = f"{self._name}-{self._names}"
        self._names += 1
        places = Counter(worker.place for worker in self._dispatcher.workers)
        place = "" if self._resources else place_of(hosts(), places)
        # Scoring is milliseconds between two generations; a whole core each would starve a laptop.
        remote = ray.remote(RewardWorker).options(
            name=name,
            num_cpus=0,
            **preferably(place),
            resources=self._resources or None,
            max_restarts=-1,
            max_concurrency=1000,
            runtime_env=sees(gpus=0),
        )
        scorers = {key: scorer.name for key, scorer in self._scorers.items()}
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

    async def ready(self) -> None:
        """Wait while what scores is down: what is generated now could not be scored. Raises as `RewardPool.score` does."""
        await self._pool.clear()

    async def finish(self, group: RolloutGroup) -> ScoredGroup:
        """The scored group. Completions of an earlier try, which are not in it, are forgotten.

        Raises:
            ServiceError: too many completions could not be scored so far.
        """
        began = time.perf_counter()
        for completion in group.completions:
            if id(completion) not in self._scores:
                self.add(completion)
        with waiting(f"the scores of group {group.group_id}") as wait:
            scores = []
            for completion in group.completions:
                scores.append(await self._scores.pop(id(completion))[1])
                wait.moved()
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


async def _end(worker: Worker) -> None:
    """Let a worker end its children, then end it."""
    await asyncio.wait({asyncio.ensure_future(_close(worker))}, timeout=5)
    ray.kill(worker.actor)


async def _close(worker: Worker) -> None:
    await asyncio.gather(worker.actor.close.remote(), return_exceptions=True)
