"""What a stage works with: its settings, its services, its place in the run directory, and the verbs stages share."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from learner.audit import LogprobGap, worst
from learner.batch import TrainingBatch, TrainingSequence, make_batch
from learner.learner import Made
from learner.spec import ObjectiveName
from learner.stats import TrainStats
from orchestrator.clock import PhaseClocks
from orchestrator.cluster.exporter import MetricsExporter
from orchestrator.cluster.services import Services
from orchestrator.cluster.specs import learner_spec, resolve_dtype
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.schedule import Schedule
from orchestrator.config.sections.learner import LearnerSection
from orchestrator.config.sections.rollout import RolloutSection
from orchestrator.config.stage_kinds import kind_of
from orchestrator.config.wiring import parent_of
from orchestrator.data.prompts import PromptSets, load_prompts
from orchestrator.display import Display
from orchestrator.evaluation.figures import EvalResult
from orchestrator.evaluation.sets import evaluate_sets
from orchestrator.evaluation.win_rate import Baselines
from orchestrator.export.best import best_step
from orchestrator.loop.audit import Auditor
from orchestrator.loop.cadence import Cadence
from orchestrator.loop.publishing import Publishing
from orchestrator.results.columns import in_words, shares
from orchestrator.run.checkpoints import check_digests, set_aside, write_digests
from orchestrator.run.files import abandoned, begin_folder, complete
from orchestrator.run.folder import checkpoints
from orchestrator.run.ledger import compact
from orchestrator.run.record import has_evaluated
from orchestrator.run.remote import patiently
from orchestrator.run.room import with_room, write_with_room
from orchestrator.run.store import RunStore
from orchestrator.sampling import GroupRequest
from rollout.data.template_settings import is_chat
from rollout.data.unchanged import check_same, check_unchanged
from rollout.errors import InputError, told
from rollout.service import PublishReport
from rollout.storage.folders import damage_of
from rollout.storage.uri import is_uri
from rollout.types import Prompt, Sampling
from rollout.waits import acting_as

AUDIT_TOLERANCE = {"float32": 2e-5, "bfloat16": 0.04}
"""Largest mean difference in nats that an audit takes for rounding, where the recipe says nothing."""


@dataclass
class StageContext:
    """One stage of one run."""

    recipe: Recipe
    stage: Stage
    model_path: str
    """Folder or hub id of the weights that the stage starts from."""
    tokenizer: Any
    store: RunStore
    services: Services
    display: Display
    clocks: PhaseClocks = field(default_factory=PhaseClocks)

    def __post_init__(self) -> None:
        # A reward model generates nothing.
        problems = self.stage.eval.prompt_sets if kind_of(self.stage).generates else {}
        self._sets = load_prompts(problems, self.stage, self.tokenizer, seed=0)
        self._scores = False
        self.queues: Callable[[], dict[str, int]] = dict
        """Queue → how many are in it now. Of the stage's page, where it has any."""
        self._baselines = Baselines()
        for note in self._sets.notes():
            self.display.line(note)
        self.schedule = Schedule(self.stage)
        self.cadence = Cadence(self.stage.loop, self.stage.loop.steps, self.schedule.steps)
        self._exporter = MetricsExporter(self.store.folder.name, self.stage.name)
        self._exporter.stage(
            stage_running=1, stage_steps=self.stage.loop.steps, staleness_limit=self.stage.loop.max_staleness
        )
        self._board: Any = None
        self._publishing = Publishing(self.services, self.clocks, self._auditor, self.display.warn)

    @property
    def seed(self) -> int:
        """Seed of the stage, derived from the run's."""
        return derive_seed(self.recipe.seed, self.stage.name)

    def record_step(self, step: int, metrics: Mapping[str, Any], weights: str = "") -> None:
        """Send one batch's metrics to metrics.jsonl, TensorBoard, and Ray's exporter. `weights`: their digest after it."""
        digest = {"weights": weights} if weights else {}
        self.store.record("step", self.stage.name, step=step, **digest, **metrics)
        self._exporter.export({"step": step, **metrics})
        try:
            if self._board is None:
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(self.store.folder / "tensorboard" / self.stage.name))
            for name, value in metrics.items():
                self._board.add_scalar(name, value, step)
        except OSError as problem:
            # Curves for the eye alone, which metrics.jsonl has too; the next step begins a new file.
            self._board = None
            self.display.warn(str(told(problem, "TensorBoard")))

    async def room(self) -> None:
        """Wait until what found no room on a full disk is written. Raises as `written` does."""
        await self.written(self.store.write_records)

    async def written(self, write: Callable[[], None]) -> None:
        """Let `write` write something, in a thread; on a full disk it is tried again when there is room.

        Raises:
            StorageError: there was none for an hour, or something else is wrong with the files.
        """
        await write_with_room(write, self.display.warn)

    @acting_as("publish")
    async def publish(self, version: int) -> PublishReport:
        """Send the learner's current weights to every engine, as `version`. From here to the next publish a replica that comes
        (back) is given the same, and serves then.
        """
        return await self._publishing.publish(version)

    @acting_as("train")
    async def train(self, batch: Made, objective: ObjectiveName) -> TrainStats:
        """One optimizer step a mini-batch, on the ranks' own GPUs or on those that engines leave to them. `batch`: or what makes
        it, which is kept in its place until the next checkpoint. Begins once all records are written."""
        await self.room()
        learner = await self.services.learner()
        async with self._publishing.training():
            with self.clocks.training():
                await self.services.take_gpus()
                return await learner.train(batch, objective)

    @acting_as("audit")
    async def audit(self, version: int, prompts: Sequence[Prompt]) -> LogprobGap:
        """Difference between samplers' and learner's logprobs on fresh completions of every replica: the worst of each figure.

        `prompts`: of which the first few are asked.

        Raises:
            ServiceError: it is above the tolerance: an engine does not hold the learner's weights.
        """
        return worst((await (await self._auditor(version)).serving(prompts)).values())

    async def _auditor(self, version: int) -> Auditor:
        settings = self.schedule.at(version).rollout
        return Auditor(
            learner=await self.services.learner(),
            pool=await self.services.rollout(),
            batch_of=lambda rows: self.batch_of(rows, seed=0, mini_batches=1, step=version),
            temperature=settings.temperature if kind_of(self.stage).is_rl else 1.0,  # as `batch_of`
            max_tokens=settings.max_tokens,
            tolerance=self.audit_tolerance,
            version=version,
        )

    @property
    def audit_tolerance(self) -> float:
        if self.stage.loop.audit_tolerance:
            return self.stage.loop.audit_tolerance
        return AUDIT_TOLERANCE[resolve_dtype(self.stage, self.services.device)]

    async def resize(self, step: int, state: Callable[[], Mapping[str, Any]]) -> None:
        """Give the learner as many ranks as were asked for meanwhile. Between two batches, of which `step` are trained."""
        wanted = self.services.sized(self.stage).learner
        if wanted == self.stage.learner:
            return
        before = self.stage.learner.ranks
        await self.checkpoint(step, state())
        try:
            await self.adopt(wanted)
        except InputError as problem:
            self.services.keep_ranks(before)
            self.display.warn(f"{before} learner ranks stay: {problem}")
            return
        self.display.line(f"{self.stage.name}: {before} → {wanted.ranks} learner ranks, from step {step + 1} on")

    async def adopt(self, section: LearnerSection) -> None:
        """Ranks as another section of the learner's has them, with the weights of now, which a checkpoint has.

        Raises:
            InputError: there is no room for them; those of now stay.
        """
        stage = self.stage.model_copy(update={"learner": section})
        spec = learner_spec(stage, self.model_path, self.model_path, self.recipe.seed, self.services.device)
        await self.services.reform_learner(stage, spec)
        self.stage = stage

    def cut(self, seed: int, mini_batches: int, step: int = 0) -> dict[str, Any]:
        """Arguments of `make_batch` beside the rows: for the ranks of this stage, with the settings of batch `step` (from 0)."""
        settings, rollout = self.stage.learner, self.schedule.at(step).rollout
        return {
            "ranks": settings.groups,
            "mini_batches": mini_batches,
            "micro_batch_tokens": settings.pack_tokens,
            "length_norm": settings.length_norm if kind_of(self.stage).is_rl else "token",
            "constant_length": rollout.max_tokens,
            "temperature": rollout.temperature if kind_of(self.stage).is_rl else 1.0,
            "seed": seed,
        }

    def batch_of(self, rows: Sequence[TrainingSequence], seed: int, mini_batches: int, step: int = 0) -> TrainingBatch:
        """The training batch of rows, cut for the ranks of this stage, with the settings of batch number `step` (from 0)."""
        return make_batch(rows, **self.cut(seed, mini_batches, step))

    def load_prompts(self) -> PromptSets:
        """The prompts of the stage's sources; what was left out is told. Raises InputError as `load_prompts` does."""
        sets = load_prompts(self.stage.data.sources, self.stage, self.tokenizer, self.recipe.seed)
        for note in sets.notes():
            self.display.line(note)
        return sets

    def request(self, number: int, prompt: Prompt, settings: RolloutSection, samples: int) -> GroupRequest:
        """Group `number` of the stage, with a seed of its own: `samples` completions of `prompt`."""
        sampling = Sampling(
            n=samples,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            seed=derive_seed(self.seed, number),
        )
        return GroupRequest(group_id=f"{self.stage.name}/{number}", prompt=prompt, sampling=sampling)

    async def begin_rewards(self, *sets: PromptSets) -> None:
        """Start the reward workers in the background, for the evaluation sets and for `sets`.

        A stage calls it once, early, so that they come up while something else is going on.
        """
        self._scores = True
        await self.services.begin_rewards(self.stage, self._sets, *sets)

    @acting_as("evaluate")
    async def evaluate(self, step: int, label: str) -> list[EvalResult]:
        """Evaluate every set with the weights that the engines hold; recorded and printed."""
        if not self._sets.prompts:
            return []
        if not self._scores:
            await self.begin_rewards()
        pool, rewards = await self.services.rollout(), await self.services.rewards()
        seed = derive_seed(self.recipe.seed, "eval")
        with self.clocks.beside(self.clocks.evaluate):
            results = await evaluate_sets(
                pool, rewards, self._sets.prompts, self.schedule.at(step), seed, self._baselines
            )
        for result in results:
            record = result.record()
            self.store.record("eval", self.stage.name, step=step, label=label, **record)
            self._exporter.evaluated(result.set, shares(record))
            self.display.line(f"{result.set} {label} {self.stage.name} (step {step}): {', '.join(in_words(record))}")
        return results

    def has_evaluated(self, step: int) -> bool:
        """Whether the figures of `step` are recorded."""
        return has_evaluated(self.store.folder, self.stage.name, step)

    def needs_first_evaluation(self) -> bool:
        """Whether no stage before this one has already evaluated the weights that it starts from."""
        return parent_of(self.recipe.stages, self.stage) is None

    @acting_as("checkpoint")
    async def checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the checkpoint of `step`, complete or absent, and delete old ones but that of the best evaluation."""
        learner = await self.services.learner()
        self.tokenizer_folder()  # an export of the checkpoint takes it along (orchestrator/export/)
        with self.clocks.beside(self.clocks.save):
            folder = self.store.checkpoint_folder(self.stage.name, step)
            held = {"eval_sets": self._sets.fingerprints(), "templates": self._templates()}
            whole = {"step": step, **held, **state}

            async def save() -> Path | str:
                if remote := self.store.remote:
                    await patiently(remote.commit, folder, await learner.save(remote.begin(folder), whole))
                    return remote.begin(folder)
                with abandoned(folder):
                    aside = begin_folder(folder)
                    await learner.save(aside, whole)
                    write_digests(aside, await learner.digests(aside))
                    await asyncio.to_thread(complete, folder)
                    return folder

            learner.saved(await with_room(save, self.display.warn))
            best, newest = best_step(self.store.folder, self.stage.name), self.stage.loop.keep_checkpoints
            await patiently(self.store.keep_checkpoints, self.stage.name, newest, best)
            if keep := self.stage.loop.keep_steps:
                kept = list(checkpoints(self.store.folder, self.stage.name))[-newest:]
                await asyncio.to_thread(compact, self.store.folder, self.stage.name, keep, kept[0])

    @acting_as("resume")
    async def resume(self) -> dict[str, Any] | None:
        """Load the newest whole checkpoint of the stage into the learner; its state, or None when there is none. Damaged ones are
        named and left aside.

        Raises:
            InputError: evaluation sets have changed since: figures before and after could not be compared; or the template, which
                the export carries.
        """
        learner = await self.services.learner()
        for folder in reversed(self.store.checkpoints(self.stage.name)):
            place = await patiently(self.store.shared, folder)
            if is_uri(place):
                if damage := await patiently(damage_of, place):
                    self.display.warn(f"{damage}; this checkpoint is left out")
                    continue
            elif damage := check_digests(folder, await learner.digests(folder)):
                self.display.warn(f"{damage}; it is left aside as {set_aside(folder).name}")
                continue
            state: dict[str, Any] = json.loads((folder / "state.json").read_text())
            held = self._sets.fingerprints()
            check_unchanged("problems", state.get("eval_sets", held), held)  # checkpoints of before do not say
            templates = self._templates()
            check_same("data.template", self.stage.data.template, state.get("templates", templates) == templates)
            await learner.load(place)
            self.display.line(f"{self.stage.name}: continues from step {state['step']}")
            return state
        return None

    @acting_as("export")
    async def export(self, tokenizer_from: str = "", *, linked: bool = True) -> Path:
        """Write the stage's result, which marks it as finished.

        Args:
            tokenizer_from: folder of its tokenizer; empty: the model's that the stage started from, with the chat template that the
                stage has read with.
            linked: whether it is now the result of the run.
        """
        folder = self.store.export_folder(self.stage.name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with self.clocks.save.running():
            learner, tokenizer = await self.services.learner(), tokenizer_from or self.tokenizer_folder()

            async def export() -> None:
                if remote := self.store.remote:
                    own = Path(tokenizer).is_relative_to(self.store.folder)
                    place = await patiently(remote.shared, Path(tokenizer)) if own else tokenizer
                    await patiently(remote.commit, folder, await learner.export(remote.begin(folder), place))
                else:
                    await learner.export(folder, tokenizer)

            await with_room(export, self.display.warn)
        if linked:
            self.store.link_export(self.stage.name)
        return folder

    def tokenizer_folder(self) -> str:
        """Folder or hub id of the tokenizer that goes with the stage's weights: with what the recipe says of the chat template,
        where it says something.
        """
        if not self.stage.data.dress:
            return self.model_path
        folder = self.store.folder / self.stage.name / "tokenizer"
        self.tokenizer.save_pretrained(folder)
        return str(folder)

    def _templates(self) -> str:
        """Digest of the chat template that the stage reads with; empty under templates of other kinds."""
        if not is_chat(self.stage.data.template):
            return ""
        return hashlib.blake2b(json.dumps(self.tokenizer.chat_template).encode(), digest_size=16).hexdigest()

    def close(self) -> None:
        """Record what no step has recorded: the time after the last one, or all of it in a stage without steps."""
        self._publishing.close()
        self.store.record("time", self.stage.name, **self.clocks.step())
        self._exporter.stage(stage_running=0)
        if self._board is not None:
            self._board.close()


def derive_seed(seed: int, *key: str | int) -> int:
    """An independent 31-bit seed for a part of the run, the same on every machine."""
    words = [seed]
    for part in key:
        words += list(part.encode()) if isinstance(part, str) else [part]
    return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)
