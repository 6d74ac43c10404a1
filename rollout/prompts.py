"""From rows to an endless stream of prompts: render, tokenise once, mix sources by weight.

The stream is a function of (seed, sources, index) and nothing else, so a resumed run is asked exactly the questions
that the uninterrupted one would have been asked.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rollout.errors import InputError
from rollout.sources import Row
from rollout.templates import Template
from rollout.types import Prompt

TOKENIZE_BATCH = 1024
"""Texts that the tokenizer gets at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedPrompt:
    """A prompt that was too long to ask."""

    row_id: str
    num_tokens: int
    limit: int
    """Most tokens that were allowed."""


def render_prompts(
    rows: Sequence[Row], template: Template, tokenizer: Any, max_prompt_tokens: int
) -> tuple[list[Prompt], list[SkippedPrompt]]:
    """Render and tokenise every row. A prompt longer than `max_prompt_tokens` is recorded and left out, never cut.

    Returns:
        (prompts, skipped), both in the order of the rows; together they hold every row once.

    Raises:
        InputError: no row was short enough, or a prompt has no token at all (the tokenizer knows none of it).
    """
    prompts: list[Prompt] = []
    skipped: list[SkippedPrompt] = []
    for row, text, token_ids in _tokenised(rows, template, tokenizer):
        if not token_ids:
            raise InputError(f"prompt {row.row_id}: the tokenizer makes no token of it; its text is {text[:60]!r}")
        if len(token_ids) > max_prompt_tokens:
            skipped.append(SkippedPrompt(row_id=row.row_id, num_tokens=len(token_ids), limit=max_prompt_tokens))
        else:
            prompts.append(_prompt(row, text, token_ids))
    if skipped and not prompts:
        shortest = min(record.num_tokens for record in skipped)
        raise InputError(
            f"all {len(skipped)} prompts of {_sources(rows)} are longer than data.max_prompt_tokens = "
            f"{max_prompt_tokens}; the shortest has {shortest} tokens: raise the limit"
        )
    return prompts, skipped


def _tokenised(rows: Sequence[Row], template: Template, tokenizer: Any) -> Iterator[tuple[Row, str, tuple[int, ...]]]:
    """(row, text, [P] token ids) of every row, in order; the tokenizer is called on batches."""
    for start in range(0, len(rows), TOKENIZE_BATCH):
        batch = rows[start : start + TOKENIZE_BATCH]
        texts = [template.render(row.question) for row in batch]
        ids = tokenizer(texts, add_special_tokens=template.add_special_tokens)["input_ids"]
        for row, text, token_ids in zip(batch, texts, ids, strict=True):
            yield row, text, tuple(token_ids)


def _prompt(row: Row, text: str, token_ids: tuple[int, ...]) -> Prompt:
    return Prompt(
        prompt_id=row.row_id,
        source=row.source,
        rubric=row.rubric,
        text=text,
        token_ids=token_ids,
        answer=row.answer,
        fields=row.fields,
    )


def _sources(rows: Sequence[Row]) -> str:
    return ", ".join(repr(name) for name in sorted({row.source for row in rows}))


class PromptStream:
    """Weighted, seeded, resumable, endless stream of prompts.

    Each source is passed through in a fresh permutation every epoch, so no prompt of a source comes again before all
    the others of that source have come. The source of prompt number i is drawn by weight from (seed, i). So prompt
    number i depends on the seed, the sources and i alone: not on the order of the mappings, nor on restarts.

    Not thread-safe: one producer takes.
    """

    def __init__(
        self, prompts_by_source: Mapping[str, Sequence[Prompt]], weights: Mapping[str, float], seed: int
    ) -> None:
        """
        Args:
            prompts_by_source: source name → its prompts, at least one, in file order.
            weights: source name → share relative to the others; positive, the same names.
            seed: of every permutation and draw.

        Raises:
            InputError: no source, a source without prompts, names that differ, or a weight that is not positive.
        """
        _check_sources(prompts_by_source, weights)
        self._names = sorted(prompts_by_source)
        self._prompts = {name: tuple(prompts_by_source[name]) for name in self._names}
        self._weights = {name: float(weights[name]) for name in self._names}
        self._seed = seed
        total = math.fsum(self._weights.values())
        # [sources] upper end of each source's share of [0, 1).
        self._shares = np.cumsum([weight / total for weight in self._weights.values()])
        self._counts = dict.fromkeys(self._names, 0)
        self._permutations: dict[str, tuple[int, np.ndarray]] = {}
        self._fingerprints = {name: _fingerprint(prompts) for name, prompts in self._prompts.items()}

    @property
    def taken(self) -> int:
        """Prompts taken so far: the index of the next one."""
        return sum(self._counts.values())

    def take(self) -> Prompt:
        """The next prompt. Never ends."""
        name = self._source_of(self.taken)
        epoch, position = divmod(self._counts[name], len(self._prompts[name]))
        prompt = self._prompts[name][self._permutation(name, epoch)[position]]
        self._counts[name] += 1
        return prompt

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as plain JSON data; its size does not grow with the prompts."""
        return {
            "seed": self._seed,
            "taken": self.taken,
            "counts": dict(self._counts),
            "weights": dict(self._weights),
            "fingerprints": dict(self._fingerprints),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where the stream that gave `state` stood.

        Raises:
            InputError: the seed, a weight, the set of sources or the prompts of a source are not what they were
                (the continuation would be another one), or the state is not one that `state()` gave.
        """
        try:
            seed, taken = int(state["seed"]), int(state["taken"])
            counts, weights, fingerprints = (dict(state[key]) for key in ("counts", "weights", "fingerprints"))
            counts = {name: int(count) for name, count in counts.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the saved state of the prompt stream is damaged: {error!r}") from None
        self._check_unchanged(seed, weights, fingerprints)
        if set(counts) != set(self._names) or sum(counts.values()) != taken or min(counts.values()) < 0:
            raise InputError(f"the saved state of the prompt stream is damaged: {taken} taken, counts {counts}")
        self._counts = counts

    def _check_unchanged(self, seed: int, weights: Mapping[str, float], fingerprints: Mapping[str, str]) -> None:
        way_out = "put it back to resume this run, or start a new run directory"
        if seed != self._seed:
            raise InputError(f"the run was started with seed {seed}, now it is {self._seed}; {way_out}")
        if set(fingerprints) != set(self._names):
            before, now = ", ".join(sorted(fingerprints)), ", ".join(self._names)
            raise InputError(f"the run was started with data sources {before}, now they are {now}; {way_out}")
        for name in self._names:
            if fingerprints[name] != self._fingerprints[name]:
                raise InputError(
                    f"the prompts of data source {name!r} (its data, template, tokenizer or length limit) "
                    f"changed since the run was started; {way_out}"
                )
            if weights.get(name) != self._weights[name]:
                raise InputError(
                    f"data source {name!r} had weight {weights.get(name)} when the run was started, "
                    f"now it has {self._weights[name]}; {way_out}"
                )

    def _source_of(self, index: int) -> str:
        """Source of prompt number `index`."""
        uniform = _hash("source", self._seed, index) / 2**128
        # Rounding can leave the last share a hair under 1, or the draw at 1.
        chosen = int(np.searchsorted(self._shares, uniform, side="right"))
        return self._names[min(chosen, len(self._names) - 1)]

    def _permutation(self, name: str, epoch: int) -> np.ndarray:
        """[prompts of the source] order of one epoch; the current one is kept."""
        kept = self._permutations.get(name)
        if kept is None or kept[0] != epoch:
            # Raw bits, because numpy promises those to stay the same over its versions; the `permutation` of its
            # generators may change, and a run may outlive the numpy that it was started with.
            random = np.random.Philox(key=_hash("permutation", self._seed, name, epoch))
            raw = random.random_raw(len(self._prompts[name]))
            kept = (epoch, np.argsort(raw, kind="stable"))
            self._permutations[name] = kept
        return kept[1]


def _hash(*key: str | int) -> int:
    """128 evenly spread bits that belong to a key, on every machine and in every process."""
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")


def _fingerprint(prompts: Sequence[Prompt]) -> str:
    """Digest of everything that the policy is asked and scored with, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for prompt in prompts:
        parts = [prompt.prompt_id, len(prompt.token_ids), prompt.answer, sorted(prompt.fields.items())]
        digest.update(json.dumps(parts).encode())
        digest.update(np.asarray(prompt.token_ids, dtype="<i8").tobytes())
    return digest.hexdigest()


def _check_sources(prompts_by_source: Mapping[str, Sequence[Prompt]], weights: Mapping[str, float]) -> None:
    if not prompts_by_source:
        raise InputError("there are no prompts: add [data.sources.NAME] with `path` or `task`")
    if set(weights) != set(prompts_by_source):
        raise InputError(f"weights are for {sorted(weights)}, but the data sources are {sorted(prompts_by_source)}")
    for name, prompts in prompts_by_source.items():
        if not prompts:
            raise InputError(f"data source {name!r} has no prompts; raise data.max_prompt_tokens or remove the source")
        if not (math.isfinite(weights[name]) and weights[name] > 0):
            raise InputError(f"data source {name!r}: weight {weights[name]} is not a positive number")
