"""`[loop]`: the length of a stage, its batches, and how often it publishes, evaluates, saves and audits."""

from typing import Annotated

from pydantic import Field

from orchestrator.config.sections.base import Section


class LoopSection(Section):
    steps: Annotated[int, Field(ge=0)] = 100
    """Length of the stage, in batches (SFT: optimizer steps); 0: as many as `sft.epochs` makes."""
    groups_per_step: Annotated[int, Field(ge=1)] = 32
    """Groups in one batch."""
    max_staleness: Annotated[int, Field(ge=0)] = 0
    """Largest staleness of a trained token: by how many policy versions it may be older than the learner's; 0: exactly
    on-policy."""
    publish_every: Annotated[int, Field(ge=1)] = 1
    """Batches between two publishes of the weights; at most `max_staleness` + 1."""
    dynamic_sampling: bool = False
    """Whether groups whose rewards are all equal are replaced by fresh ones (DAPO) instead of trained on."""
    max_no_signal: Annotated[int, Field(ge=0)] = 20
    """Batches' worth of groups in a row whose rewards are all equal after which `dynamic_sampling` gives up and the stage ends
    with the reason; 0: never."""
    eval_every: Annotated[int, Field(ge=0)] = 0
    """Batches between two evaluations (SFT: of the loss alone); 0: only before and after the stage."""
    checkpoint_every: Annotated[int, Field(ge=0)] = 20
    """Batches between two checkpoints; 0: only at the end of the stage."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Number of checkpoints of the stage that are kept; older ones are deleted, but that of the best evaluation stays."""
    keep_steps: Annotated[int, Field(ge=0)] = 0
    """Number of files of steps (`trajectories/`) that are kept with their rows; of older ones, once no kept checkpoint needs
    them, only what the account says stays. 0: all."""
    audit_every: Annotated[int, Field(ge=0)] = 10
    """Batches between two audits of the engines' logprobs against the learner's; 0: never."""
    audit_tolerance: Annotated[float, Field(ge=0)] = 0
    """Largest mean difference between an engine's logprobs and the learner's that an audit allows, in nats; ten times
    that at the 99th percentile. 0: 2e-5 in float32, 0.04 in bfloat16."""
