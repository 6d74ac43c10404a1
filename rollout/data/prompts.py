"""From rows to an endless stream of prompts: render, tokenise once, mix sources by weight.

The stream is a function of (seed, sources, index) and nothing else (rollout/data/mixture.py), so a resumed run is asked exactly
the questions that the uninterrupted one would have been asked.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rollout.data.mixture import Mixture
from rollout.data.rows import Row
from rollout.data.templates import Template
from rollout.data.tokens import opening_of, prompt_tokens
from rollout.errors import InputError
from rollout.types import Baseline, Prompt

TOKENIZE_BATCH = 1024
"""Texts that the tokenizer gets at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedPrompt:
    """A prompt that was too long to ask, or an example that was too long to learn from."""

    row_id: str
    num_tokens: int
    limit: int
    """Most tokens that a prompt may have."""


def skipped_note(name: str, skipped: Sequence[SkippedPrompt], kept: int, noun: str, key: str) -> str:
    """A line about what a source lost. `key`: of the limit."""
    return (
        f"{name}: {len(skipped)} of {len(skipped) + kept} {noun} are longer than {key} = {skipped[0].limit} and were "
        f"skipped (first: {skipped[0].row_id}, {skipped[0].num_tokens} tokens)"
    )


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
    baselines = _baselines(rows, tokenizer)
    nothing = tuple(opening_of(tokenizer))
    for row, text, token_ids in _tokenise(rows, template, tokenizer):
        if token_ids == nothing:
            raise InputError(f"prompt {row.row_id}: the tokenizer makes no token of it; its text is {text[:60]!r}")
        if len(token_ids) > max_prompt_tokens:
            skipped.append(SkippedPrompt(row_id=row.row_id, num_tokens=len(token_ids), limit=max_prompt_tokens))
        else:
            prompts.append(_prompt(row, text, token_ids, baselines.get(row.row_id)))
    if skipped and not prompts:
        shortest = min(record.num_tokens for record in skipped)
        raise InputError(
            f"all {len(skipped)} prompts of {_sources(rows)} are longer than data.max_prompt_tokens = "
            f"{max_prompt_tokens}; the shortest has {shortest} tokens: raise the limit"
        )
    return prompts, skipped


def _tokenise(rows: Sequence[Row], template: Template, tokenizer: Any) -> Iterator[tuple[Row, str, tuple[int, ...]]]:
    """(row, text, [P] token ids) of every row, in order; the tokenizer is called on batches."""
    for start in range(0, len(rows), TOKENIZE_BATCH):
        batch = rows[start : start + TOKENIZE_BATCH]
        texts = [template.of_row(row) for row in batch]
        ids = prompt_tokens(tokenizer, texts)
        for row, text, token_ids in zip(batch, texts, ids, strict=True):
            yield row, text, tuple(token_ids)


def _baselines(rows: Sequence[Row], tokenizer: Any) -> dict[str, Baseline]:
    """Row → the response that completions are compared with, where it has one."""
    held = [row for row in rows if row.baseline]
    ids = tokenizer([row.baseline for row in held], add_special_tokens=False)["input_ids"] if held else []
    return {
        row.row_id: Baseline(text=row.baseline, num_tokens=len(own) + 1) for row, own in zip(held, ids, strict=True)
    }


def _prompt(row: Row, text: str, token_ids: tuple[int, ...], baseline: Baseline | None) -> Prompt:
    return Prompt(
        prompt_id=row.row_id,
        source=row.source,
        rubric=row.rubric,
        text=text,
        token_ids=token_ids,
        answer=row.answer,
        fields=row.fields,
        question=row.question,
        columns=row.columns,
        baseline=baseline,
    )


def _sources(rows: Sequence[Row]) -> str:
    return ", ".join(repr(name) for name in sorted({row.source for row in rows}))


class PromptStream(Mixture[Prompt]):
    """Weighted, seeded, resumable, endless stream of prompts."""

    noun = "prompts"

    @staticmethod
    def fingerprint(items: Sequence[Prompt]) -> str:
        """Digest of everything that the policy is asked and scored with."""
        digest = hashlib.blake2b(digest_size=16)
        for prompt in items:
            parts = [prompt.prompt_id, len(prompt.token_ids), prompt.answer, sorted(prompt.fields.items())]
            digest.update(json.dumps(parts).encode())
            digest.update(np.asarray(prompt.token_ids, dtype="<i8").tobytes())
        return digest.hexdigest()
