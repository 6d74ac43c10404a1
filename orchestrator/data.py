"""From the recipe's sources to prompts, and to sequences for supervised training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from learner.batch import Sequence
from orchestrator.config import SourceSection, Stage
from rollout.errors import InputError
from rollout.prompts import PromptStream, SkippedPrompt, render_prompts
from rollout.published import form_of
from rollout.sources import Row, load_rows
from rollout.templates import load_template
from rollout.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSets:
    """The prompts of several named sources, and those that were too long."""

    prompts: Mapping[str, list[Prompt]]
    skipped: Mapping[str, list[SkippedPrompt]]

    def notes(self) -> list[str]:
        """One line for every source that lost prompts."""
        return [
            f"{name}: {len(skipped)} of {len(skipped) + len(self.prompts.get(name, ()))} prompts are longer than "
            f"data.max_prompt_tokens = {skipped[0].limit} and were skipped (first: {skipped[0].row_id}, "
            f"{skipped[0].num_tokens} tokens)"
            for name, skipped in self.skipped.items()
            if skipped
        ]


def load_prompts(sources: Mapping[str, SourceSection], stage: Stage, tokenizer: Any, seed: int) -> PromptSets:
    """Read, render and tokenise. Raises InputError for whatever is wrong with the sources."""
    template = load_template(stage.data.template, tokenizer)
    prompts, skipped = {}, {}
    for name, section in sources.items():
        rows = load_rows(section.source(name), seed)
        form = section.prompt_form or (form_of(section.set, stage.data.template) if section.set else "")
        asked = template.asking(form) if form else template
        prompts[name], skipped[name] = render_prompts(rows, asked, tokenizer, stage.data.max_prompt_tokens)
    return PromptSets(prompts=prompts, skipped=skipped)


def prompt_stream(sets: PromptSets, stage: Stage, seed: int) -> PromptStream:
    """The endless mixture of a stage's sources."""
    return PromptStream(sets.prompts, {name: section.weight for name, section in stage.data.sources.items()}, seed)


def supervised_sequences(stage: Stage, tokenizer: Any, seed: int) -> tuple[dict[str, list[Sequence]], PromptSets]:
    """Worked examples by source: prompt, completion and end of sequence as one row to train on.

    Raises:
        InputError: a source has no completions, or the tokenizer no end-of-sequence token.
    """
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer has no end-of-sequence token (eos_token), which supervised training must teach")
    sets = load_prompts(stage.data.sources, stage, tokenizer, seed)
    sequences = {}
    for name, section in stage.data.sources.items():
        rows = {row.row_id: row for row in load_rows(section.source(name), seed)}
        sequences[name] = [_sequence(prompt, rows[prompt.prompt_id], stage, tokenizer) for prompt in sets.prompts[name]]
    return sequences, sets


def load_tokenizer(path: str, trust_remote_code: bool) -> Any:
    """Raises InputError when the folder or hub id holds no tokenizer."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"model.path = {path!r} has no tokenizer that loads: {reason}") from error


def _sequence(prompt: Prompt, row: Row, stage: Stage, tokenizer: Any) -> Sequence:
    if not row.completion:
        raise InputError(
            f"row {row.row_id} has no worked completion: name its column (data.sources.{row.source}.completion_column)"
        )
    completion = tokenizer(row.completion, add_special_tokens=False)["input_ids"]
    if len(completion) >= stage.rollout.max_tokens:
        raise InputError(
            f"row {row.row_id}: its completion has {len(completion)} tokens, and rollout.max_tokens = "
            f"{stage.rollout.max_tokens} must hold it and the end of sequence: raise it"
        )
    token_ids = np.array([*prompt.token_ids, *completion, tokenizer.eos_token_id], dtype=np.int64)
    return Sequence(token_ids=token_ids, first_target=len(prompt.token_ids) if stage.sft.mask_prompt else 1)
