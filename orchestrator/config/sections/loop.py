"""`[loop]`: how long a stage is, and what it does how often."""

from typing import Annotated

from pydantic import Field

from orchestrator.config.sections.base import Section


class LoopSection(Section):
    steps: Annotated[int, Field(ge=0)] = 100
    """Batches to train on (SFT: optimizer steps); 0: as many as `sft.epochs` makes."""
    groups_per_step: Annotated[int, Field(ge=1)] = 32
    """Groups in one batch."""
    max_staleness: Annotated[int, Field(ge=0)] = 0
    """Oldest policy version, relative to the learner's, that a trained token may have; 0: exactly on-policy."""
    publish_every: Annotated[int, Field(ge=1)] = 1
    """Batches between two publishes; at most `max_staleness` + 1."""
    dynamic_sampling: bool = False
    """Replace groups whose rewards are all equal by fresh ones (DAPO), instead of training on them."""
    eval_every: Annotated[int, Field(ge=0)] = 0
    """Batches between two evaluations (SFT: of the loss alone); 0: only before and after."""
    checkpoint_every: Annotated[int, Field(ge=0)] = 20
    """Batches between two checkpoints; 0: only at the end."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Older ones of the stage are deleted."""
    audit_every: Annotated[int, Field(ge=0)] = 10
    """Batches between two audits of the engines' logprobs against the learner's; 0: never."""
    audit_tolerance: Annotated[float, Field(ge=0)] = 0
    """Largest allowed logprob difference; 0: 1e-4 in float32, 0.25 in bfloat16."""
