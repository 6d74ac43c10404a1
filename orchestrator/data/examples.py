"""Worked examples from the sources of a recipe, as sequences to train on, and which of them make which step."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from learner.batch import TrainingSequence
from orchestrator.config.recipe import Stage
from orchestrator.config.sections.data import SourceSection
from orchestrator.data.prompts import asking, stage_template
from rollout.data.conversations import TOKENIZE_BATCH, Turn, tokenised_turns, turns_of
from rollout.data.mixture import Mixture
from rollout.data.prompts import SkippedPrompt, skipped_note
from rollout.data.rows import Row
from rollout.data.sources import load_rows
from rollout.data.templates import Template
from rollout.data.tokens import prompt_tokens
from rollout.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """The worked examples of several named sources, and those that were too long."""

    sequences: Mapping[str, list[TrainingSequence]]
    skipped: Mapping[str, list[SkippedPrompt]]

    def notes(self) -> list[str]:
        """One line for every source that lost examples."""
        return [
            skipped_note(name, skipped, len(self.sequences[name]), "examples", "model.max_tokens")
            for name, skipped in self.skipped.items()
            if skipped
        ]


class ExampleStream(Mixture[TrainingSequence]):
    """The examples of a stage, step by step: weighted and endless, or exactly `sft.epochs`."""

    noun = "examples"

    @staticmethod
    def fingerprint(items: Sequence[TrainingSequence]) -> str:
        """A digest of token ids and of where training begins in each."""
        digest = hashlib.blake2b(digest_size=16)
        for example in items:
            digest.update(np.array([len(example.token_ids), example.first_target], dtype="<i8").tobytes())
            digest.update(example.token_ids.astype("<i8").tobytes())
        return digest.hexdigest()


def load_examples(sources: Mapping[str, SourceSection], stage: Stage, tokenizer: Any, seed: int) -> Examples:
    """Read, render and tokenise. A row of a conversation becomes one example a turn of the assistant.

    An example longer than `model.max_tokens` is recorded and left out, never cut.

    Raises:
        InputError: a source cannot be read, no example of a source is short enough, or the tokenizer has no
            end-of-sequence token.
    """
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer has no end-of-sequence token (eos_token), which supervised training must teach")
    template = stage_template(stage, tokenizer)
    limit = stage.model.max_tokens
    sequences: dict[str, list[TrainingSequence]] = {}
    skipped: dict[str, list[SkippedPrompt]] = {}
    for name, section in sources.items():
        sequences[name], skipped[name] = [], []
        asked = asking(template, section, stage)
        for example_id, token_ids, num_prompt in _tokenise(name, section, stage, asked, tokenizer, seed):
            if not num_prompt:
                raise InputError(f"row {example_id}: the tokenizer makes no token of its prompt")
            if len(token_ids) > limit:
                skipped[name].append(SkippedPrompt(row_id=example_id, num_tokens=len(token_ids), limit=limit))
                continue
            first_target = num_prompt if stage.sft.mask_prompt else 1
            sequences[name].append(
                TrainingSequence(token_ids=np.array(token_ids, dtype=np.int64), first_target=first_target)
            )
        if not sequences[name]:
            shortest = min(record.num_tokens for record in skipped[name])
            raise InputError(
                f"all {len(skipped[name])} examples of {name!r} are longer than model.max_tokens = {limit}; "
                f"the shortest has {shortest} tokens: raise the limit"
            )
    return Examples(sequences=sequences, skipped=skipped)


def has_examples(section: SourceSection) -> bool:
    """Whether the rows of a source are worked examples: there is a completion in them to learn from."""
    return bool(section.task or section.completion_column or section.messages_column)


def example_stream(examples: Examples, stage: Stage, seed: int) -> ExampleStream:
    """The mixture of the examples of a stage, endless or of `sft.epochs`."""
    weights = {name: section.weight for name, section in stage.data.sources.items()}
    return ExampleStream(examples.sequences, weights, seed, stage.sft.epochs)


def num_steps(stream: ExampleStream, stage: Stage) -> int:
    """Optimizer steps of the stage: as the recipe says, or as its epochs need."""
    return math.ceil(stream.total / stage.sft.batch_size) if stage.sft.epochs else stage.loop.steps


def first_of_step(step: int, stream: ExampleStream, stage: Stage) -> int:
    """Number of the first example of a step (from 0). Epochs are cut into steps of the same size, give or take one."""
    if not stage.sft.epochs:
        return step * stage.sft.batch_size
    return step * stream.total // num_steps(stream, stage)


def take_step(step: int, stream: ExampleStream, stage: Stage) -> list[TrainingSequence]:
    """The examples of a step. Steps are taken in order."""
    first, end = first_of_step(step, stream, stage), first_of_step(step + 1, stream, stage)
    assert stream.taken == first, f"step {step} begins with example {first}, but {stream.taken} were taken"
    return [stream.take() for _ in range(first, end)]


def _tokenise(
    name: str, section: SourceSection, stage: Stage, template: Template, tokenizer: Any, seed: int
) -> Iterator[tuple[str, list[int], int]]:
    """(id, token ids with the end of sequence, number of those of the prompt) of every example."""
    rows = load_rows(section.source(name), seed)
    if section.messages_column:
        # Where everything trains, one example holds the whole conversation.
        which = stage.sft.turns if stage.sft.mask_prompt else "last"
        turns: list[Turn] = [turn for row in rows for turn in turns_of(row, tokenizer, which)]
        for turn, (token_ids, num_prompt) in zip(turns, tokenised_turns(turns, tokenizer), strict=True):
            yield turn.turn_id, token_ids, num_prompt
        return
    for start in range(0, len(rows), TOKENIZE_BATCH):
        batch = rows[start : start + TOKENIZE_BATCH]
        prompts = [template.of_row(row) for row in batch]
        asked = prompt_tokens(tokenizer, prompts)
        replies = [
            template.reply_of_row(row, prompt, _completion(row)) for prompt, row in zip(prompts, batch, strict=True)
        ]
        worked = tokenizer(replies, add_special_tokens=False)["input_ids"]
        for row, prompt, completion in zip(batch, asked, worked, strict=True):
            yield row.row_id, [*prompt, *completion, tokenizer.eos_token_id], len(prompt)


def _completion(row: Row) -> str:
    """The worked completion of a row. Raises InputError where it has none."""
    if not row.completion:
        raise InputError(
            f"row {row.row_id} has no worked completion: name its column (data.sources.{row.source}.completion_column)"
        )
    return row.completion
