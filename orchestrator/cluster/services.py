"""The services of a run: learner, rollout pool and rewards, each started when first needed and ended together."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from learner.model.small import BuildSpec
from learner.service import LearnerGroup
from learner.spec import LearnerSpec
from orchestrator.clock import BusyClock
from orchestrator.cluster.session import Device, cores_per_node
from orchestrator.config.load import Stage
from orchestrator.config.rubrics import resource_settings, rubrics_of
from orchestrator.data.prompts import PromptSets
from orchestrator.display import Display
from rewards.error_budget import ErrorBudget
from rewards.service import RewardPool
from rewards.types import Sample
from rollout.engine import EngineSpec
from rollout.errors import InputError, ServiceError
from rollout.service import RolloutPool
from rollout.types import Prompt
from rollout.weights.manifest import Backend


@dataclass
class Services:
    """Owned by the pipeline. Learner and engines outlive a stage where the next one asks for the same."""

    device: Device
    start_timeout_s: float
    display: Display
    waited: BusyClock = field(default_factory=BusyClock)
    """Runs while somebody waits for a service that is not up yet."""
    _learner: "tuple[object, asyncio.Task[LearnerGroup]] | None" = field(default=None, init=False)
    _rollout: "tuple[object, asyncio.Task[RolloutPool]] | None" = field(default=None, init=False)
    _rewards: "tuple[object, asyncio.Task[RewardPool]] | None" = field(default=None, init=False)
    _reward_replicas: int = field(default=0, init=False)
    """What was asked for while the run went on; 0: the recipe's."""
    _met: tuple[LearnerGroup, RolloutPool] | None = field(default=None, init=False)

    async def begin_learner(self, stage: Stage) -> None:
        """Start the ranks in the background, unless such ranks run already; ranks of another shape end first."""
        settings = stage.learner
        threads = settings.threads or max(1, _cores(stage) // settings.ranks)
        shape = (settings.ranks, settings.cpus, settings.gpus, threads, settings.timeout_s)
        if self._learner is not None and self._learner[0] == shape:
            return
        await self._close_learner()
        start = LearnerGroup.start(
            ranks=settings.ranks,
            cpus=settings.cpus,
            gpus=settings.gpus,
            device=self.device,
            threads=threads,
            timeout_s=settings.timeout_s,
            start_timeout_s=self.start_timeout_s,
        )
        self._learner = (shape, asyncio.create_task(start))

    async def begin_rollout(self, stage: Stage, model: "asyncio.Future[str]", lineage: str = "") -> None:
        """Start the engines in the background, unless such engines run already: their weights come by publish.

        `model`: the folder or hub id, once it is there; engines import what they need meanwhile. `lineage`: models of
        one name have one shape, so that engines of one can take the weights of another.
        """
        settings = stage.rollout
        spec = self._engine_spec(stage)
        threads = settings.threads or _cores(stage)
        shape = (lineage, spec, settings.replicas, settings.cpus, settings.gpus, threads, settings.timeout_s)
        if self._rollout is not None and self._rollout[0] == shape:
            return
        await self._close_rollout()
        start = RolloutPool.start(
            spec,
            model,
            replicas=settings.replicas,
            cpus=settings.cpus,
            gpus=settings.gpus,
            threads=threads,
            timeout_s=settings.timeout_s,
            start_timeout_s=self.start_timeout_s,
        )
        self._rollout = (shape, asyncio.create_task(start))

    async def learner(self) -> LearnerGroup:
        assert self._learner is not None
        with self.waited.running():
            return await self._learner[1]

    async def rollout(self) -> RolloutPool:
        assert self._rollout is not None
        with self.waited.running():
            return await self._rollout[1]

    async def meet(self) -> None:
        """Let learner and engines form their NCCL group, once for every pair of them."""
        learner, pool = await self.learner(), await self.rollout()
        if self._met != (learner, pool):
            await learner.meet(pool)
            self._met = (learner, pool)

    async def begin_rewards(self, stage: Stage, *sets: PromptSets) -> None:
        """Start the workers that score the prompts of `sets` in the background, unless such workers run already. They try
        every reward function first; what is wrong with one is raised by `rewards`.
        """
        settings = stage.rewards
        samples = {
            prompts[0].rubric: _made_up(prompts[0]) for each in sets for prompts in each.prompts.values() if prompts
        }
        rubrics = {name: rubric for name, rubric in rubrics_of(stage).items() if name in samples}
        shape = (rubrics, resource_settings(stage), settings.replicas, settings.timeout_s)
        if self._rewards is not None and self._rewards[0] == shape:
            (await self._rewards[1]).budget = ErrorBudget(settings.max_error_rate)
            return
        await self._close_rewards()
        start = RewardPool.start(
            rubrics,
            resource_settings(stage),
            samples,
            replicas=self._reward_replicas or settings.replicas,
            timeout_s=settings.timeout_s,
            max_error_rate=settings.max_error_rate,
            start_timeout_s=self.start_timeout_s,
        )
        self._rewards = (shape, asyncio.create_task(start))

    async def rewards(self) -> RewardPool:
        """Raises InputError or ServiceError as `RewardPool.start` does."""
        assert self._rewards is not None
        with self.waited.running():
            return await self._rewards[1]

    def check(self) -> None:
        """Raises what has failed in the background so far, before somebody has to wait for it."""
        for started in (self._learner, self._rollout, self._rewards):
            if started is not None and started[1].done():
                started[1].result()

    async def scale(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        """Other numbers of workers while the run goes on: service → [before, after]. Holds for the stages to come too.

        Raises:
            InputError: a service that cannot be scaled while it runs.
            ServiceError: no reward workers run yet.
        """
        for service, count in sizes.items():
            if service != "rewards":
                raise InputError(
                    f"{service} = {count}: only `rewards` changes its size while a run goes on; stop the run and "
                    "continue it with another number"
                )
        if self._rewards is None:
            raise ServiceError("this stage has no reward workers; ask again in a stage that scores")
        pool = await self.rewards()
        before = pool.replicas
        self._reward_replicas = sizes["rewards"]
        await pool.scale(sizes["rewards"])
        return {"rewards": [before, pool.replicas]}

    async def close(self) -> None:
        """End everything that was started, in whatever state it is."""
        await self._close_rewards()
        await asyncio.gather(self._close_rollout(), self._close_learner())

    async def _close_learner(self) -> None:
        task = self._learner[1] if self._learner else None
        self._learner = None
        await _close(task)

    async def _close_rewards(self) -> None:
        task = self._rewards[1] if self._rewards else None
        self._rewards = None
        await _close(task)

    async def _close_rollout(self) -> None:
        task = self._rollout[1] if self._rollout else None
        self._rollout = None
        await _close(task)

    def _engine_spec(self, stage: Stage) -> EngineSpec:
        return EngineSpec(
            dtype=resolve_dtype(stage, self.device),
            trust_remote_code=stage.model.trust_remote_code,
            max_tokens=stage.model.max_tokens,
            max_sequences=stage.rollout.max_sequences,
            tensor_parallel=stage.rollout.tensor_parallel,
            kv_cache_gb=stage.rollout.kv_cache_gb,
            gpu_memory=stage.rollout.gpu_memory,
            eager=stage.rollout.eager,
            backend=backend(stage, self.device),
            device=self.device,
            lora_rank=stage.learner.lora_rank,
            lora_targets=stage.learner.lora_targets if stage.learner.lora_rank else (),
        )


def backend(stage: Stage, device: Device) -> Backend:
    """How weights travel: NCCL between GPUs, CUDA IPC on a shared GPU, shared memory on hosts without."""
    if device == "cpu":
        return "shm"
    return "ipc" if stage.learner.gpus < 1 and stage.rollout.gpus < 1 else "nccl"


def resolve_dtype(stage: Stage, device: Device) -> Any:
    """`auto` is bfloat16 on a GPU and float32 on a CPU."""
    if stage.model.dtype != "auto":
        return stage.model.dtype
    return "bfloat16" if device == "cuda" else "float32"


def learner_spec(stage: Stage, model_path: str, reference_path: str, seed: int, device: Device) -> LearnerSpec:
    """What the ranks need of a stage."""
    needs_reference = stage.kind == "dpo" or (stage.kind == "grpo" and stage.learner.kl_coef > 0)
    # Keys of the section that the spec has too mean the same in both; one that neither gives is a TypeError.
    settings = stage.learner.model_dump(include={known.name for known in fields(LearnerSpec)})
    settings["kl_coef"] = stage.learner.kl_coef if needs_reference else 0.0
    if stage.kind == "dpo":
        settings["reference_refresh_steps"] = 0  # its loss is defined against the model that the stage starts from
    settings["total_steps"], settings["warmup_steps"] = optimizer_steps(stage, stage.loop.steps)
    return LearnerSpec(
        **settings,
        model_path=model_path,
        reference_path=reference_path if needs_reference else "",
        dtype=resolve_dtype(stage, device),
        trust_remote_code=stage.model.trust_remote_code,
        seed=seed,
        head="score" if stage.kind == "reward_model" else "language",
        dpo_beta=stage.dpo.beta,
        dpo_label_smoothing=stage.dpo.label_smoothing,
        backend=backend(stage, device),
    )


def _cores(stage: Stage) -> int:
    """Of a CPU host, for the engines and for the ranks: half of them each where both compute at the same time."""
    cores = cores_per_node()
    return max(1, cores // 2) if stage.kind == "grpo" and stage.loop.max_staleness else cores


def optimizer_steps(stage: Stage, steps: int) -> tuple[int, int]:
    """(all, of the warm-up) of a stage that trains on so many batches."""
    total = steps * stage.learner.mini_batches if stage.kind == "grpo" else steps
    return total, round(stage.learner.warmup_share * total) or stage.learner.warmup_steps


def _made_up(prompt: Prompt) -> Sample:
    """A right answer in the R1 form to a real prompt, to try reward functions on."""
    text = f"<think>It is known.</think><answer>{prompt.answer}</answer>"
    return Sample(prompt=prompt.text, completion=text, answer=prompt.answer, fields=prompt.fields)


def build_spec(stage: Stage, seed: int) -> BuildSpec:
    """The model that a recipe makes from scratch."""
    return BuildSpec(**stage.model.build.model_dump(), max_tokens=stage.model.max_tokens, seed=seed)


async def _close(task: "asyncio.Task[Any] | None") -> None:
    if task is None:
        return
    task.cancel()
    try:
        service = await task
    except (asyncio.CancelledError, Exception):  # noqa: BLE001
        # It never came up: whatever it did start goes down with the Ray session. The reason was raised to whoever waited.
        return
    await service.close()
