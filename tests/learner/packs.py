"""Sequences as a policy sees them: cut into packs, in one batch."""

import torch

from learner.batch import Pack, TrainingSequence, make_batch
from learner.model.policy import PackTensors, to_device


def packs_of(sequences: list[TrainingSequence], **cut: int) -> list[PackTensors]:
    return [to_device(pack, torch.device("cpu")) for pack in numbers_of_packs(sequences, **cut)]


def numbers_of_packs(
    sequences: list[TrainingSequence], budget: int = 1000, ranks: int = 1, seed: int = 0, together: int = 1
) -> list[Pack]:
    batch = make_batch(
        sequences,
        ranks=ranks,
        mini_batches=1,
        micro_batch_tokens=budget,
        length_norm="sequence",
        constant_length=64,
        temperature=1.0,
        seed=seed,
        together=together,
    )
    return [pack for mini in batch.packs for rank in mini for pack in rank]
