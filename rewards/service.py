"""The reward service: Ray actors that score completions while others are still being generated."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import rollout.ray_defaults  # noqa: F401

import ray
from ray.exceptions import RayError

from rewards.error_budget import ErrorBudget
from rewards.models.scorers import KINDS, check_scorer, scorer_key
from rewards.resources import Resources, ResourceSettings
from rewards.rubric import Rubric, total
from rewards.types import RubricSpec, Sample, Score, ScoredGroup
from rollout.actors import within
from rollout.errors import ServiceError
from rollout.types import Completion, Prompt, RolloutGroup

DEPTH = 64
"""Completions that one worker is given at a time; the others wait where any worker can take them."""
BATCH = 32
"""Completions of one call to a worker."""
SIGN_OF_LIFE_S = 5.0
PATIENCE_S = 60.0
"""A worker that died has this long to come back, and no less than an answer may take."""
SCORER_GPUS = 0.1
"""Reserved by a reward model on a GPU host; orchestrator/plan/placement.py counts with the same."""


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

    async def ready(self) -> None:
        """Answers once the actor is up."""

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

    async def score_group(self, rubric: str, samples: list[Sample]) -> list[dict[str, float]]:
        return await self._rubrics[rubric].score_group(samples)

    async def close(self) -> None:
        await self._resources.close()


@dataclass(eq=False)
class _Worker:
    actor: Any
    outstanding: int = 0
    """Completions that it has been given and has not answered."""
    down: bool = False
    """It died, and has not come back yet."""
    died: float = 0.0
    """When, in terms of time.monotonic; of use while it is down."""
    gone: str = ""
    """Why it has not come back for so long that nobody should wait for it alone."""


@dataclass(eq=False)
class _Request:
    rubric: str
    sample: Sample
    result: "asyncio.Future[Score]"
    budget: ErrorBudget
    asked: float = field(default_factory=time.perf_counter)
    failed_on: _Worker | None = None
    suspect: bool = False
    """Its worker died: it goes alone next time, so that it can only harm itself."""


class RewardPool:
    """The reward actors as one service: least-outstanding routing, bounded waits, one retry elsewhere, error budget."""

    def __init__(
        self,
        rubrics: Mapping[str, RubricSpec],
        settings: ResourceSettings,
        timeout_s: float,
        max_error_rate: float,
        name: str = "reward",
    ) -> None:
        self._name = name
        self._rubrics = {name: tuple(functions) for name, functions in rubrics.items()}
        self._settings = settings
        self._timeout_s = timeout_s
        self.budget = ErrorBudget(max_error_rate)
        """Of whoever names none."""
        self._workers: list[_Worker] = []
        self._scorers = _start_scorers(self._rubrics, name)
        self._names = 0
        self._waiting: deque[_Request] = deque()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dispatcher: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        rubrics: Mapping[str, RubricSpec],
        settings: ResourceSettings,
        samples: Mapping[str, Sample],
        *,
        replicas: int,
        timeout_s: float,
        max_error_rate: float,
        start_timeout_s: float,
        name: str = "reward",
    ) -> "RewardPool":
        """Start the workers, called `<name>-<index>`, and exercise every reward function once on `samples`, one problem
        a rubric.

        Raises:
            InputError: a reward function does not exist, or one of the user's fails.
            ServiceError: a worker does not start, or a verifier that ships does not work here.
        """
        pool = cls(rubrics, settings, timeout_s, max_error_rate, name)
        try:
            pool._workers = [pool._new_worker() for _ in range(replicas)]
            await pool.check(samples, start_timeout_s)
        except BaseException:
            await pool.close()
            raise
        pool._dispatcher = asyncio.create_task(pool._dispatch())
        return pool

    async def check(self, samples: Mapping[str, Sample], timeout_s: float) -> None:
        """Let every worker exercise the rubrics of `samples`. Raises as `start` does."""
        check = asyncio.gather(*(worker.actor.check.remote(dict(samples)) for worker in self._workers))
        await within(check, timeout_s, "reward workers to check their reward functions")

    @property
    def replicas(self) -> int:
        return len(self._workers)

    @property
    def num_waiting(self) -> int:
        """Completions that no worker has taken yet."""
        return len(self._waiting)

    async def scale(self, replicas: int) -> None:
        """Start or end workers while the run goes on; one that ends first finishes what it has."""
        while len(self._workers) < replicas:
            self._workers.append(self._new_worker())
        leaving = self._workers[replicas:]
        del self._workers[replicas:]
        self._changed.set()
        for worker in leaving:
            while worker.outstanding:
                self._changed.clear()
                await self._changed.wait()
            await _end(worker)

    async def score(self, rubric: str, sample: Sample, budget: ErrorBudget | None = None) -> Score:
        """The score of one completion; status `error` when it could not be scored, twice.

        Raises:
            ServiceError: all workers died, and none has come back within the time they have.
        """
        if problem := self._all_gone():
            raise ServiceError(problem)
        request = _Request(rubric, sample, asyncio.get_running_loop().create_future(), budget or self.budget)
        self._waiting.append(request)
        self._changed.set()
        return await request.result

    def begin(self, prompt: Prompt, budget: ErrorBudget | None = None) -> "GroupScoring":
        """Score the completions of a group one by one as they finish.

        Args:
            budget: that they count in; None: the pool's own.
        """
        return GroupScoring(self, prompt, budget or self.budget)

    async def score_whole(self, rubric: str, samples: list[Sample]) -> list[dict[str, float]]:
        """Values of the rubric's group functions, one table a completion.

        Raises:
            ServiceError: they failed twice.
        """
        if not any(spec.group for spec in self._rubrics[rubric]):
            return [{} for _ in samples]
        problem: ServiceError | None = None
        for attempt in range(2):
            worker = await self._up(attempt)
            try:
                call = worker.actor.score_group.remote(rubric, samples)
                values: list[dict[str, float]] = await within(call, self._timeout_s, "a reward worker to score a group")
                return values
            except ServiceError as failure:
                problem = failure
                self._lost(worker)
        assert problem is not None
        raise problem

    def total(self, rubric: str, breakdown: Mapping[str, float]) -> float:
        return total(self._rubrics[rubric], breakdown)

    def metrics(self) -> dict[str, float]:
        """What the pool's own budget says, and how the workers stand."""
        return self.budget.metrics() | {
            "rewards/replicas": len(self._workers),
            "rewards/down": sum(worker.down for worker in self._workers),
            "rewards/waiting": len(self._waiting),
        }

    async def close(self) -> None:
        """End the workers and what they started."""
        for task in (*self._tasks, *([self._dispatcher] if self._dispatcher else [])):
            task.cancel()
        await asyncio.gather(*(_end(worker) for worker in self._workers))
        self._workers.clear()
        for _, actor in self._scorers.values():
            ray.kill(actor)

    # --- Dispatch

    async def _dispatch(self) -> None:
        while True:
            while self._waiting and (worker := self._free_worker(self._waiting[0])):
                batch = [self._waiting.popleft()]
                # One that may have killed its worker has the next one for itself.
                share = DEPTH if batch[0].suspect else 1
                while self._waiting and not self._waiting[0].suspect and share == len(batch) < self._room(worker):
                    batch.append(self._waiting.popleft())
                    share += 1
                worker.outstanding += share
                self._spawn(self._run(worker, batch, share))
            self._changed.clear()
            await self._changed.wait()

    def _free_worker(self, request: _Request) -> _Worker | None:
        up = [worker for worker in self._workers if not worker.down]
        others = [worker for worker in up if worker is not request.failed_on]
        worker = min(others or up, key=lambda worker: worker.outstanding, default=None)
        if worker is None or (request.suspect and worker.outstanding):
            return None
        return worker if worker.outstanding < DEPTH else None

    @staticmethod
    def _room(worker: _Worker) -> int:
        return min(BATCH, DEPTH - worker.outstanding)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, worker: _Worker, batch: list[_Request], share: int) -> None:
        began = time.perf_counter()
        stream = worker.actor.score.options(num_returns="streaming").remote([(r.rubric, r.sample) for r in batch])
        open_requests = dict(enumerate(batch))
        reason = "the reward worker ended early"
        try:
            while open_requests:
                # A bound on the silence between two answers: how long a whole batch takes is the functions' affair.
                chunk = await asyncio.wait_for(anext(stream), self._timeout_s)
                for index, score in await chunk:
                    self._settle(open_requests.pop(index), score, worker, began)
        except StopAsyncIteration:
            pass  # what it left open is settled below, for `reason`
        except TimeoutError:
            reason = f"no answer from a reward worker for {self._timeout_s:.0f} s"
            ray.kill(worker.actor, no_restart=False)
            self._lost(worker)
        except RayError as problem:
            reason = f"the reward worker failed: {_last_line(problem)}"
            self._lost(worker)
        finally:
            worker.outstanding -= share
            self._changed.set()
        for request in open_requests.values():
            request.suspect = True
            failed = Score(value=0.0, status="error", breakdown={}, seconds=time.perf_counter() - began, error=reason)
            self._settle(request, failed, worker, began)

    def _lost(self, worker: _Worker) -> None:
        if not worker.down:
            worker.down, worker.died = True, time.monotonic()
            self._spawn(self._revive(worker))

    async def _revive(self, worker: _Worker) -> None:
        """Wait until Ray has restarted a worker; the others go on. When none is left to go on, whoever waits is told."""
        while worker in self._workers:
            try:
                await asyncio.wait_for(worker.actor.ready.remote(), self._timeout_s)
            except (RayError, TimeoutError) as failure:
                if time.monotonic() - worker.died > max(self._timeout_s, PATIENCE_S):
                    worker.gone = _last_line(failure)
                    self._give_up()
                await asyncio.sleep(0.2)
            else:
                worker.down, worker.gone = False, ""
                self._changed.set()
                return

    async def _up(self, number: int) -> _Worker:
        """Of the workers that are up the `number`th, counted round; waits for one. Raises ServiceError when none comes."""
        while not (up := [worker for worker in self._workers if not worker.down]):
            if problem := self._all_gone():
                raise ServiceError(problem)
            self._changed.clear()
            await self._changed.wait()
        return up[number % len(up)]

    def _all_gone(self) -> str:
        """Why nothing can be scored any more; empty while a worker is up or may come back."""
        if self._workers and all(worker.gone for worker in self._workers):
            return f"no reward worker comes back: {self._workers[0].gone}"
        return ""

    def _give_up(self) -> None:
        self._changed.set()
        problem = self._all_gone()
        while problem and self._waiting:
            request = self._waiting.popleft()
            if not request.result.done():
                request.result.set_exception(ServiceError(problem))

    def _settle(self, request: _Request, score: Score, worker: _Worker, began: float) -> None:
        if score.status == "error" and request.failed_on is None:
            request.failed_on = worker
            self._waiting.append(request)
            self._changed.set()
            return
        request.budget.add(score, began - request.asked)
        if not request.result.done():
            request.result.set_result(score)

    def _new_worker(self) -> _Worker:
        name = f"{self._name}-{self._names}"
        self._names += 1
        # Scoring is milliseconds between two generations; a whole core each would starve a laptop.
        remote = ray.remote(RewardWorker).options(name=name, num_cpus=0, max_restarts=-1, max_concurrency=1000)
        scorers = {key: actor_name for key, (actor_name, _) in self._scorers.items()}
        return _Worker(remote.remote(self._rubrics, self._settings, scorers))


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
            tables = await self._pool.score_whole(self._prompt.rubric, samples) if kept else []
        except ServiceError as problem:
            kept, tables, error = [], [], str(problem)
        scored = tuple(self._whole(score, table) for (_, score), table in zip(kept, tables, strict=True))
        failed = [c for c in group.completions if not any(c is completion for completion, _ in kept)]
        self._budget.count(len(scores), len(failed), group.prompt, failed[-1].text if failed else "", error)
        return ScoredGroup(
            group=group,
            completions=tuple(completion for completion, _ in kept),
            scores=scored,
            num_errors=len(failed),
            seconds=time.perf_counter() - began,
        )

    def cancel(self) -> None:
        for _, task in self._scores.values():
            task.cancel()
        self._scores.clear()

    def _whole(self, score: Score, table: Mapping[str, float]) -> Score:
        """A score with the values of the group functions in it."""
        if not table:
            return score
        breakdown = {**score.breakdown, **table}
        return replace(score, breakdown=breakdown, value=self._pool.total(self._prompt.rubric, breakdown))


def _start_scorers(rubrics: Mapping[str, RubricSpec], name: str) -> dict[str, tuple[str, Any]]:
    """One actor a model: key → its name and the actor, which lives while it is held."""
    specs = {scorer_key(spec): spec for rubric in rubrics.values() for spec in rubric if spec.name in KINDS}
    actors = {}
    for index, (key, spec) in enumerate(specs.items()):
        check_scorer(spec)
        # A GPU is shared with engines or learners by `gpus`, as theirs are.
        kind, server = KINDS[spec.name]
        gpus = SCORER_GPUS if spec.args.get("device") != "cpu" and ray.cluster_resources().get("GPU") else 0
        actor_name = f"{name}-model-{index}"
        remote = ray.remote(server).options(
            name=actor_name,
            num_cpus=0,
            num_gpus=gpus if spec.name == "reward_model" else 0,
            max_restarts=-1,
            max_concurrency=1000,
        )
        actors[key] = actor_name, remote.remote(kind(**spec.args))
    return actors


def _last_line(problem: BaseException) -> str:
    lines = str(problem).strip().splitlines()
    return lines[-1].strip() if lines else type(problem).__name__


async def _end(worker: _Worker) -> None:
    """Let a worker end its children, then end it."""
    await asyncio.wait({asyncio.ensure_future(_closed(worker))}, timeout=5)
    ray.kill(worker.actor)


async def _closed(worker: _Worker) -> None:
    await asyncio.gather(worker.actor.close.remote(), return_exceptions=True)
