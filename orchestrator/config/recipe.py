"""The types of a recipe. They check values one by one; what contradicts what is in orchestrator/config/consistency.py."""

from typing import Annotated

from pydantic import Field

from orchestrator.config.sections.base import Section
from orchestrator.config.sections.cluster import ClusterSection
from orchestrator.config.sections.data import DataSection
from orchestrator.config.sections.eval import EvalSection
from orchestrator.config.sections.faults import FaultsSection
from orchestrator.config.sections.kinds import DpoSection, RejectSection, RewardModelSection, SftSection
from orchestrator.config.sections.learner import LearnerSection
from orchestrator.config.sections.loop import LoopSection
from orchestrator.config.sections.model import ModelSection
from orchestrator.config.sections.rewards import RewardsSection, SandboxSection
from orchestrator.config.sections.rollout import RolloutSection
from orchestrator.config.sections.schedule import Change
from orchestrator.config.sections.tracking import Trackers, TrackingSection
from orchestrator.config.stage_kinds import StageKind, in_words

OWN = "own"
"""`model_from`: not a stage, but what the stage's own `model` section says."""


class Settings(Section):
    """The sections that a recipe gives defaults for and a stage may repeat."""

    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    rollout: RolloutSection = RolloutSection()
    rewards: RewardsSection = RewardsSection()
    sandbox: SandboxSection = SandboxSection()
    learner: LearnerSection = LearnerSection()
    loop: LoopSection = LoopSection()
    sft: SftSection = SftSection()
    reject: RejectSection = RejectSection()
    reward_model: RewardModelSection = RewardModelSection()
    dpo: DpoSection = DpoSection()
    eval: EvalSection = EvalSection()


class Stage(Settings):
    """One stage, resolved: the settings that hold in it, whoever gave them."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Name of the stage and of its folder in the run directory."""
    kind: Annotated[StageKind, Field(description=f"Work that the stage does. {in_words()}.")]
    model_from: str = ""
    """Earlier stage whose model this stage starts from; `own`: the model of its own `model` section; empty: the nearest
    stage before it that left a policy."""
    schedule: tuple[Change, ...] = ()
    """Settings that change at a step (grpo), in the order of the steps."""


class Recipe(Section):
    """A whole recipe, resolved."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Name of the recipe; the run directory is `runs/<name>` unless told otherwise."""
    description: str = ""
    """One line about the recipe, for `rayzero recipes` and the report."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Seed from which every random choice of the run derives."""
    cluster: ClusterSection = ClusterSection()
    track: Trackers = ()
    """Experiment trackers that the run is sent to besides its own files; each is an extra: `pip install -e '.[wandb]'`."""
    tracking: TrackingSection = TrackingSection()
    faults: FaultsSection = FaultsSection()
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    """Stages in their order; each starts from the model that the one before it left, unless it says otherwise."""


STAGE_SECTIONS = tuple(Settings.model_fields)
"""Names of the sections that a stage may repeat."""
