"""Preference pairs from the sources of a recipe, as the learner takes them: two sequences a pair.

Nothing is cut: a pair that is too long is left out and counted, and so is one whose two responses read the same, which says
nothing. All pairs of a prompt are either trained on or held out.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from learner.batch import TrainingBatch, TrainingSequence, make_batch
from orchestrator.config.recipe import Stage
from orchestrator.config.sections.data import SourceSection
from rollout.data.prompts import TOKENIZE_BATCH
from rollout.data.rows import Dialogue, Row
from rollout.data.sources import load_rows
from rollout.data.templates import Template
from rollout.data.tokens import prompt_tokens
from rollout.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two responses to one prompt, the better one first."""

    question: str
    chosen: TrainingSequence
    rejected: TrainingSequence


@dataclass(frozen=True, slots=True, kw_only=True)
class TooLong:
    """Why a pair was left out."""

    num_tokens: int
    key: str
    """The setting that bounds it."""
    limit: int


Reader = Callable[[Sequence[Row]], Iterator[Pair | TooLong]]
"""Rows with both responses → one result a row, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSets:
    """Pairs by the name of their source: those that a stage learns from, and those that it is measured on."""

    training: Mapping[str, list[Pair]]
    held_out: Mapping[str, list[Pair]]
    notes: tuple[str, ...]
    """What was left out, in words."""

    def fingerprints(self) -> dict[str, str]:
        """Source or evaluation set → digest of its pairs as the learner takes them."""
        return {
            name: _fingerprint([*self.training.get(name, ()), *self.held_out.get(name, ())])
            for name in {**self.training, **self.held_out}
        }


def load_pair_sets(stage: Stage, read: Reader, held_out: float, seed: int) -> PairSets:
    """The pairs of a stage: its sources, less the share `held_out` of their prompts, and its evaluation sets with pairs.

    Raises:
        InputError: a source that cannot be read, has no pairs, or none that is short enough; or nothing is left to train on.
    """
    notes: list[str] = []
    training, measured = {}, {}
    for name, section in stage.data.sources.items():
        pairs = _load(name, section, read, seed, notes)
        training[name] = [pair for pair in pairs if not is_held_out(pair.question, held_out)]
        kept = [pair for pair in pairs if is_held_out(pair.question, held_out)]
        if not training[name]:
            raise InputError(
                f"source {name!r}: {stage.kind}.held_out = {held_out:g} leaves no pair to train on; lower it"
            )
        if kept:
            measured[f"{name}/held-out"] = kept
    for name, section in stage.eval.pair_sets.items():
        measured[name] = _load(name, section, read, seed, notes)
    return PairSets(training=training, held_out=measured, notes=tuple(notes))


def _fingerprint(pairs: Sequence[Pair]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for pair in pairs:
        for sequence in (pair.chosen, pair.rejected):
            digest.update(np.array([sequence.first_target, len(sequence.token_ids)], "<i8").tobytes())
            digest.update(np.asarray(sequence.token_ids, "<i8").tobytes())
    return digest.hexdigest()


def need_end(tokenizer: Any) -> None:
    """Raises InputError when a tokenizer has no end-of-sequence token."""
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer has no end-of-sequence token (eos_token), with which a response must end")


def is_held_out(question: str, share: float) -> bool:
    """Whether the pairs of a prompt are held out: the same prompts in every stage and every run, more as `share` grows."""
    digest = hashlib.blake2b(question.strip().encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def policy_pairs(stage: Stage, template: Template, tokenizer: Any) -> Reader:
    """The reader of pairs for a policy (DPO): prompt, response and end of sequence; the response trains."""

    def read(rows: Sequence[Row]) -> Iterator[Pair | TooLong]:
        texts = [template.of_row(row) for row in rows]
        prompts = prompt_tokens(tokenizer, texts)
        responses = [
            template.reply_of_row(row, text, response)
            for text, row in zip(texts, rows, strict=True)
            for response in (row.chosen, row.rejected)
        ]
        ids = tokenizer(responses, add_special_tokens=False)["input_ids"]
        for row, prompt, chosen, rejected in zip(rows, prompts, ids[::2], ids[1::2], strict=True):
            longest = 1 + max(len(chosen), len(rejected))
            if len(prompt) > stage.data.max_prompt_tokens:
                yield TooLong(num_tokens=len(prompt), key="data.max_prompt_tokens", limit=stage.data.max_prompt_tokens)
            elif longest > stage.rollout.max_tokens:
                yield TooLong(num_tokens=longest, key="rollout.max_tokens", limit=stage.rollout.max_tokens)
            else:
                yield Pair(
                    question=row.question,
                    chosen=_sequence([*prompt, *chosen, tokenizer.eos_token_id], len(prompt)),
                    rejected=_sequence([*prompt, *rejected, tokenizer.eos_token_id], len(prompt)),
                )

    return read


def scored_pairs(stage: Stage, encode: Callable[[Sequence[tuple[str | Dialogue, str]]], list[list[int]]]) -> Reader:
    """The reader of pairs for a reward model: the whole of what it scores. `encode`: (what is asked, response) → token ids."""
    limit = stage.model.max_tokens

    def read(rows: Sequence[Row]) -> Iterator[Pair | TooLong]:
        ids = encode([(row.asked, response) for row in rows for response in (row.chosen, row.rejected)])
        for row, chosen, rejected in zip(rows, ids[::2], ids[1::2], strict=True):
            longest = max(len(chosen), len(rejected))
            if longest > limit:
                yield TooLong(num_tokens=longest, key="model.max_tokens", limit=limit)
                continue
            # Nothing of a reward model's rows trains by itself; from where they differ on, so that they may share the rest.
            same = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), longest)
            first = max(1, min(same, len(chosen) - 1, len(rejected) - 1))
            yield Pair(question=row.question, chosen=_sequence(chosen, first), rejected=_sequence(rejected, first))

    return read


def pair_batch(pairs: Sequence[Pair], stage: Stage, seed: int) -> TrainingBatch:
    """Pairs cut for the ranks of a stage, the two of a pair in one pack; every pair has the same weight."""
    return make_batch(
        [sequence for pair in pairs for sequence in (pair.chosen, pair.rejected)],
        ranks=stage.learner.groups,
        mini_batches=1,
        micro_batch_tokens=stage.learner.pack_tokens,
        length_norm="sequence",
        constant_length=1,
        temperature=1.0,
        seed=seed,
        together=2,
    )


class PairStream:
    """Which pairs make each batch: a function of the seed, the sources and the step alone, so a resume needs no state.

    The source of every pair is drawn by weight; each source is passed through in a fresh order every epoch.
    """

    def __init__(self, sources: Mapping[str, Sequence[Pair]], weights: Mapping[str, float], seed: int) -> None:
        self._names = sorted(sources)
        self._sources = sources
        self._seed = seed
        shares = np.array([weights[name] for name in self._names])
        self._shares = shares / shares.sum()

    def batches(self, size: int, start: int, steps: int) -> Iterator[list[Pair]]:
        """The batches of steps `start` to `steps` - 1, `size` pairs each."""
        drawn = np.random.default_rng([self._seed, 0]).choice(len(self._names), steps * size, p=self._shares)
        place = np.empty(steps * size, np.int64)
        for source in range(len(self._names)):
            mine = drawn == source
            place[mine] = np.arange(mine.sum())
        orders: dict[int, tuple[int, np.ndarray]] = {}

        def pair(number: int) -> Pair:
            source = int(drawn[number])
            pairs = self._sources[self._names[source]]
            epoch, index = divmod(int(place[number]), len(pairs))
            if orders.get(source, (-1,))[0] != epoch:
                rng = np.random.default_rng([self._seed, 1, source, epoch])
                orders[source] = (epoch, rng.permutation(len(pairs)))
            return pairs[orders[source][1][index]]

        for step in range(start, steps):
            yield [pair(number) for number in range(step * size, (step + 1) * size)]


def _load(name: str, section: SourceSection, read: Reader, seed: int, notes: list[str]) -> list[Pair]:
    if not section.holds_pairs:
        raise InputError(
            f"source {name!r} has no preference pairs: name their columns with `chosen_column` and `rejected_column`"
        )
    rows = load_rows(section.source(name), seed)
    parts = (rows[first : first + TOKENIZE_BATCH] for first in range(0, len(rows), TOKENIZE_BATCH))
    results = [result for part in parts for result in read(part)]
    too_long = [(row, result) for row, result in zip(rows, results, strict=True) if isinstance(result, TooLong)]
    pairs = [result for result in results if isinstance(result, Pair)]
    telling = [pair for pair in pairs if not np.array_equal(pair.chosen.token_ids, pair.rejected.token_ids)]
    if too_long:
        row, first = too_long[0]
        notes.append(
            f"{name}: {len(too_long)} of {len(rows)} pairs are longer than {first.key} = {first.limit} and were "
            f"skipped (first: {row.row_id}, {first.num_tokens} tokens)"
        )
    if len(telling) < len(pairs):
        notes.append(f"{name}: {len(pairs) - len(telling)} of {len(rows)} pairs read the same twice and were skipped")
    if not telling:
        raise InputError(f"source {name!r}: no pair is left to use; {notes[-1]}")
    return telling


def _sequence(token_ids: Sequence[int], first_target: int) -> TrainingSequence:
    return TrainingSequence(token_ids=np.array(token_ids, dtype=np.int64), first_target=first_target)
