"""When something is due in a loop of so many batches: a publish, an audit, an evaluation, a checkpoint."""

from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.config.sections.loop import LoopSection


@dataclass(frozen=True, slots=True)
class Cadence:
    """Asked after each batch with how many are `done`, from 1 on."""

    loop: LoopSection
    steps: int
    """Batches of the stage."""
    changes: Collection[int] = ()
    """Batches done at which settings change."""

    def is_last(self, done: int) -> bool:
        """Whether the stage has trained on all its batches."""
        return done == self.steps

    def publish(self, done: int) -> bool:
        """Whether the engines get the weights: the last ones always, and those that a change of settings is sampled with."""
        return _every(self.loop.publish_every, done) or done in self.changes or self.is_last(done)

    def audit(self, done: int) -> bool:
        """Whether a publish is audited."""
        return _every(self.loop.audit_every, done)

    def evaluation(self, done: int) -> bool:
        """Whether the model is evaluated on the way; its end has an evaluation of its own."""
        return _every(self.loop.eval_every, done) and not self.is_last(done)

    def checkpoint(self, done: int) -> bool:
        """Whether a checkpoint is written on the way."""
        return _every(self.loop.checkpoint_every, done) and not self.is_last(done)


def _every(period: int, done: int) -> bool:
    """0: never."""
    return period > 0 and done % period == 0
