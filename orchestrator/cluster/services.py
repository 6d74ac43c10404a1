"""The services of a run: learner, rollout pool and rewards, each started when first needed and ended together."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from learner.learner import Learner
from learner.service import LearnerGroup
from learner.spec import LearnerSpec
from orchestrator.clock import BusyClock
from orchestrator.cluster.session import gpus, host_names
from orchestrator.cluster.specs import cores, engine_spec, learner_threads, shares
from orchestrator.config.recipe import Stage
from orchestrator.config.rubrics import resource_settings, rubrics_of
from orchestrator.config.stage_kinds import kind_of
from orchestrator.data.prompts import PromptSets
from orchestrator.display import Display
from rewards.error_budget import WINDOW, ErrorBudget
from rewards.service import RewardPool
from rewards.types import Sample
from rollout.actors import Device, Room, SharedGpus, reserve, unreserve
from rollout.errors import InputError, ServiceError
from rollout.service import RolloutPool


class Closable(Protocol):
    """What every service can do."""

    async def close(self) -> None: ...

    def members(self) -> list[dict[str, Any]]: ...


Service = TypeVar("Service", bound=Closable)


class Background(Generic[Service]):
    """One service: started in the background, kept while the same is asked for, ended before another takes its place."""

    def __init__(self) -> None:
        self.shape: object = None
        self._start: asyncio.Task[Service] | None = None

    @property
    def begun(self) -> bool:
        """Whether it was started, up or not."""
        return self._start is not None

    async def begin(self, shape: object, start: Callable[[], Coroutine[Any, Any, Service]]) -> bool:
        """Start it, unless one of this `shape` was started before; whether it was started now."""
        if self._start is not None and self.shape == shape:
            return False
        await self.close()
        self.shape, self._start = shape, asyncio.create_task(start())
        return True

    async def get(self) -> Service:
        """Wait until it is up. Raises whatever its start raises."""
        assert self._start is not None
        return await self._start

    @property
    def state(self) -> str:
        """`starting`, `up` or `failed`; empty before it is begun."""
        if self._start is None:
            return ""
        if not self._start.done():
            return "starting"
        return "failed" if self._start.cancelled() or self._start.exception() else "up"

    @property
    def up(self) -> Service | None:
        """The service; None before it is up."""
        return self._start.result() if self._start is not None and self.state == "up" else None

    def check(self) -> None:
        """Raises what its start has raised so far, or what a background task of the service has, where it has any."""
        if self._start is not None and self._start.done():
            failing = getattr(self._start.result(), "raise_failure", None)
            if failing is not None:
                failing()

    async def close(self) -> None:
        """End it, in whatever state it is."""
        start, self._start = self._start, None
        if start is None:
            return
        start.cancel()
        try:
            service = await start
        except (asyncio.CancelledError, Exception):  # noqa: BLE001
            # It never came up: whatever it did start goes down with the Ray session. The reason was raised to whoever waited.
            return
        await service.close()


@dataclass
class Services:
    """Learner, engines and reward workers of a run; the pipeline owns them. Learner and engines outlive a stage where the next one asks for the same."""

    device: Device
    start_timeout_s: float
    display: Display
    waited: BusyClock = field(default_factory=BusyClock)
    """Runs while somebody waits for a service that is not up yet."""
    wait_s: float = 0.0
    """Longest wait for nodes that an autoscaler may bring; 0: what the cluster does not have is refused."""
    _learner: Background[Learner] = field(default_factory=Background, init=False)
    _rollout: Background[RolloutPool] = field(default_factory=Background, init=False)
    _rewards: Background[RewardPool] = field(default_factory=Background, init=False)
    _reward_replicas: int = field(default=0, init=False)
    """Reward workers that were asked for while the run went on; 0: as many as the recipe says."""
    _ranks: int = field(default=0, init=False)
    """Ranks that were asked for while the run went on; 0: as many as the recipe says."""
    _rollout_replicas: int = field(default=0, init=False)
    """Engines that were asked for while the run went on; 0: as many as the recipe says."""
    _met: tuple[LearnerGroup, RolloutPool, tuple[tuple[int, int], ...]] | None = field(default=None, init=False)
    _shared: SharedGpus | None = field(default=None, init=False)
    _hosts: dict[str, str] = field(default_factory=dict, init=False)
    """Id of a node → name of its host."""
    _engine_gpus: float = field(default=0.0, init=False)
    """GPUs that the engines have for themselves."""

    @property
    def _room(self) -> Room:
        return Room(coming_s=self.wait_s, say=self.display.line)

    async def begin_learner(self, stage: Stage) -> None:
        """Start the ranks in the background, unless such ranks run already; ranks of another shape end first."""
        shared = await self._share(stage)
        if self._in_the_way(stage, shared):
            await self._rollout.close()
        begin = self._ranks_of(stage, shared)
        await self._learner.begin(
            self._shape_of(stage, shared), lambda: Learner.start(begin, self.take_gpus, self.display.warn)
        )

    async def reform_learner(self, stage: Stage, spec: LearnerSpec) -> None:
        """Ranks as `stage` has them in place of those that are up, with the same weights. Raises as `Learner.reform` does."""
        learner, shared = await self.learner(), await self._share(stage)
        with self.waited.running():
            await self.take_gpus()
            await learner.reform(self._ranks_of(stage, shared), spec)
        self._learner.shape = self._shape_of(stage, shared)

    def _shape_of(self, stage: Stage, shared: SharedGpus | None) -> tuple[object, ...]:
        """Ranks of one shape serve stage after stage."""
        settings = stage.learner
        placed = (settings.cpus, settings.gpus, settings.resources)
        shape: tuple[object, ...] = (settings.ranks, placed, learner_threads(stage), settings.timeout_s, shared)
        if self.device == "cuda" or settings.zero_stage >= 2:
            # DeepSpeed gives a model's memory back with its process alone (ZeRO 2 and 3): such a stage has ranks of its own.
            shape += (stage.name,)
        return shape

    def _ranks_of(self, stage: Stage, shared: SharedGpus | None) -> Callable[[], Coroutine[Any, Any, LearnerGroup]]:
        """What starts the ranks of a stage."""
        settings, threads = stage.learner, learner_threads(stage)

        def begin() -> Coroutine[Any, Any, LearnerGroup]:
            return LearnerGroup.start(
                shared=shared,
                ranks=settings.ranks,
                cpus=settings.cpus,
                gpus=settings.gpus,
                resources=settings.resources,
                device=self.device,
                threads=threads,
                timeout_s=settings.timeout_s,
                start_timeout_s=self.start_timeout_s,
                room=self._room,
            )

        return begin

    def sized(self, stage: Stage) -> Stage:
        """The stage with as many ranks as were asked for while the run goes on."""
        if not self._ranks or stage.learner.ranks == self._ranks or self._ranks % stage.learner.sequence_parallel:
            return stage
        return stage.model_copy(update={"learner": stage.learner.model_copy(update={"ranks": self._ranks})})

    def keep_ranks(self, count: int) -> None:
        """No other number of ranks is asked for any more."""
        self._ranks = count

    async def begin_rollout(self, stage: Stage, model: "asyncio.Future[str]", lineage: str = "") -> None:
        """Start the engines in the background, unless such engines run already: their weights come by publish.

        `model`: the folder or hub id, once it is there; engines import what they need meanwhile. `lineage`: models of
        one name have one shape, so that engines of one can take the weights of another.
        """
        settings = stage.rollout
        spec = engine_spec(stage, self.device)
        threads = settings.threads or cores(stage)
        shared = await self._share(stage)
        placed = (settings.cpus, settings.gpus, settings.resources)
        # Of another number there would be engines that come and go beside those that stay, unless ranks share with them.
        replicas = settings.replicas if shared else self._rollout_replicas or settings.replicas
        shape = (lineage, spec, placed, threads, settings.timeout_s, shared, replicas if shared else 0)
        self._engine_gpus = 0.0 if shared else replicas * settings.tensor_parallel * settings.gpus
        started = await self._rollout.begin(
            shape,
            lambda: RolloutPool.start(
                spec,
                model,
                shared=shared,
                replicas=replicas,
                cpus=settings.cpus,
                gpus=settings.gpus,
                resources=settings.resources,
                threads=threads,
                timeout_s=settings.timeout_s,
                start_timeout_s=self.start_timeout_s,
                room=self._room,
                tell=self.display.warn,
                say=self.display.line,
            ),
        )
        if not started and not shared and (pool := await self._rollout.get()).replicas != replicas:
            await pool.scale(replicas)

    async def begin_rewards(self, stage: Stage, *sets: PromptSets) -> None:
        """Start the workers that score the prompts of `sets` in the background, unless such workers run already. They try
        every reward function first; what is wrong with one is raised by `rewards`.
        """
        settings = stage.rewards
        samples = {
            prompts[0].rubric: Sample.invented(
                prompt=prompts[0].text,
                answer=prompts[0].answer,
                fields=prompts[0].fields,
                question=prompts[0].question,
                columns=prompts[0].columns,
            )
            for each in sets
            for prompts in each.prompts.values()
            if prompts
        }
        rubrics = {name: rubric for name, rubric in rubrics_of(stage).items() if name in samples}
        window = max(WINDOW, 2 * stage.loop.groups_per_step * stage.rollout.group_size)
        waits = (settings.timeout_s, settings.outage_s)
        shape = (rubrics, resource_settings(stage), settings.replicas, settings.resources, waits)
        started = await self._rewards.begin(
            shape,
            lambda: RewardPool.start(
                rubrics,
                resource_settings(stage),
                samples,
                replicas=self._reward_replicas or settings.replicas,
                resources=settings.resources,
                device=self.device,
                timeout_s=settings.timeout_s,
                max_error_rate=settings.max_error_rate,
                start_timeout_s=self.start_timeout_s,
                tell=self.display.warn,
                outage_s=settings.outage_s,
                window=window,
            ),
        )
        if not started:
            (await self._rewards.get()).budget = ErrorBudget(settings.max_error_rate, window)

    async def learner(self) -> Learner:
        """The ranks, once they are up. Raises InputError or ServiceError as `LearnerGroup.start` does."""
        with self.waited.running():
            return await self._learner.get()

    async def rollout(self) -> RolloutPool:
        """The engines, once they are up. Raises InputError or ServiceError as `RolloutPool.start` does."""
        with self.waited.running():
            return await self._rollout.get()

    async def rewards(self) -> RewardPool:
        """The reward workers, once they are up. Raises InputError or ServiceError as `RewardPool.start` does."""
        with self.waited.running():
            return await self._rewards.get()

    async def take_gpus(self) -> None:
        """Let engines that share GPUs with the ranks sleep, from here to the next publish. Nothing can be sampled meanwhile."""
        if self._shared and self._rollout.begun:
            await (await self.rollout()).sleep()

    async def meet(self, learner: LearnerGroup, members: Sequence[int]) -> None:
        """Let ranks and these engines form their NCCL group, anew when its processes have changed."""
        pool = await self.rollout()
        meeting = (learner, pool, pool.meeting(members))
        if self._met != meeting:
            self._met = None
            await learner.meet(pool, members)
            self._met = meeting

    def check(self) -> None:
        """Raises what has failed in the background so far, before somebody has to wait for it."""
        for service in (self._learner, self._rollout, self._rewards):
            service.check()

    async def scale(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        """Change numbers of workers while the run goes on: service → [before, after]. Holds for the stages to come too.

        Raises:
            InputError: a service that cannot be scaled while it runs, or there is no place for so many.
            ServiceError: the service does not run in this stage.
        """
        for service in sizes:
            self._check_scaling(service, sizes[service])
        changed = {}
        for service, count in sizes.items():
            if service == "learner":
                # They are formed anew at the stage's next step.
                changed[service] = [(await self.learner()).group.ranks, count]
                self._ranks = count
                continue
            pool = await (self.rollout() if service == "rollout" else self.rewards())
            before = pool.replicas
            await pool.scale(count)
            if service == "rollout":
                self._rollout_replicas = count
                self._engine_gpus *= count / before
            else:
                self._reward_replicas = count
            changed[service] = [before, pool.replicas]
        return changed

    def _check_scaling(self, service: str, count: int) -> None:
        services: dict[str, tuple[Background[Any], str]] = {
            "learner": (self._learner, "learner yet; ask again in a moment"),
            "rollout": (self._rollout, "engines; ask again in a stage that samples"),
            "rewards": (self._rewards, "reward workers; ask again in a stage that scores"),
        }
        if service not in services:
            raise InputError(f"{service} = {count}: there is no such service ({', '.join(services)})")
        if service == "learner" and self._shared:
            raise InputError(f"learner = {count}: ranks share their GPUs with engines (rollout.share_gpus)")
        background, lacking = services[service]
        if not background.begun:
            raise ServiceError(f"this stage has no {lacking}")

    def states(self) -> dict[str, Any]:
        """Service that was begun → its state, and those of its actors with the hosts they live on, as far as known."""
        services: dict[str, Background[Any]] = {
            "rollout": self._rollout,
            "learner": self._learner,
            "rewards": self._rewards,
        }
        found = {}
        for name, service in services.items():
            if service.begun:
                members = [
                    {key: self._host(value) if key == "node" else value for key, value in member.items()}
                    for member in (service.up.members() if service.up else ())
                ]
                found[name] = {"state": service.state, "members": members}
        return found

    async def rank_notes(self) -> list[str]:
        """What every rank of the learner is at, in words; nothing while there is none."""
        return await self._learner.up.notes() if self._learner.up else []

    @property
    def num_tokens(self) -> int:
        """Completion tokens that the engines of now have sampled."""
        return self._rollout.up.num_tokens if self._rollout.up else 0

    def _host(self, node: str) -> str:
        if node and node not in self._hosts:
            self._hosts |= {node: node[:8]} | host_names()
        return self._hosts.get(node, "")

    async def close(self) -> None:
        """End everything that was started, in whatever state it is."""
        await self._rewards.close()
        await asyncio.gather(self._rollout.close(), self._learner.close())
        self._end_sharing()

    async def _share(self, stage: Stage) -> SharedGpus | None:
        """The GPUs that engines and ranks of a stage take turns on; None: each has its own.

        A stage that samples nothing has its ranks where engines sleep, if there are as many places: they serve again later.
        """
        ranks, engine, learner = stage.learner.ranks, stage.rollout, stage.learner
        part = min(engine.gpus, learner.gpus)
        fits = self._shared is not None and self._shared.group.bundle_count == ranks
        if not shares(stage, self.device):
            if self._shared and (kind_of(stage).generates or not fits):
                await asyncio.gather(self._rollout.close(), self._learner.close())
                self._end_sharing()
        elif self._shared is None or not fits or self._shared.share != part / 2:
            # What has GPUs of its own, or other parts of them, ends first, since those are to be shared now.
            await asyncio.gather(self._rollout.close(), self._learner.close())
            self._end_sharing()
            bundle = {"GPU": part, "CPU": engine.cpus + learner.cpus, **learner.resources, **engine.resources}
            group = await reserve([bundle] * ranks, f"learner.ranks = {ranks}, with an engine each,", self._room)
            self._shared = SharedGpus(group, part / 2)
        return self._shared

    def _in_the_way(self, stage: Stage, shared: SharedGpus | None) -> bool:
        """Whether engines hold GPUs that the ranks of a stage need which samples nothing."""
        if self.device == "cpu" or shared or kind_of(stage).generates or not self._rollout.begun:
            return False
        return stage.learner.ranks * stage.learner.gpus + self._engine_gpus > gpus()

    def _end_sharing(self) -> None:
        if self._shared:
            unreserve(self._shared.group)
            self._shared = None
