"""Prompts from the sources of a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.config.recipe import Stage
from orchestrator.config.sections.data import SourceSection
from rollout.data.chat_template import dress
from rollout.data.few_shot import with_few_shot
from rollout.data.known_sets import PLACEHOLDER, form_of
from rollout.data.prompts import PromptStream, SkippedPrompt, render_prompts, skipped_note
from rollout.data.sources import load_rows
from rollout.data.templates import Template, load_template
from rollout.errors import InputError
from rollout.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSets:
    """The prompts of several named sources, and those that were too long."""

    prompts: Mapping[str, list[Prompt]]
    skipped: Mapping[str, list[SkippedPrompt]]

    def fingerprints(self) -> dict[str, str]:
        """Source → digest of its prompts and what they are scored with."""
        return {name: PromptStream.fingerprint(prompts) for name, prompts in self.prompts.items()}

    def notes(self) -> list[str]:
        """One line for every source that lost prompts."""
        return [
            skipped_note(name, skipped, len(self.prompts.get(name, ())), "prompts", "data.max_prompt_tokens")
            for name, skipped in self.skipped.items()
            if skipped
        ]


def load_prompts(sources: Mapping[str, SourceSection], stage: Stage, tokenizer: Any, seed: int) -> PromptSets:
    """Read, render and tokenise. Conversations ask nothing that has an answer: they are left out.

    Raises:
        InputError: a source cannot be read, or its rows cannot be rendered.
    """
    template = stage_template(stage, tokenizer)
    prompts, skipped = {}, {}
    for name, section in sources.items():
        if section.messages_column:
            continue
        rows = load_rows(section.source(name), seed)
        asked = asking(template, section, stage)
        prompts[name], skipped[name] = render_prompts(rows, asked, tokenizer, stage.data.max_prompt_tokens)
    return PromptSets(prompts=prompts, skipped=skipped)


def stage_template(stage: Stage, tokenizer: Any) -> Template:
    """The template of a stage, with the examples that stand before every question. Raises InputError where one cannot be read."""
    template = load_template(stage.data.template, tokenizer)
    return with_few_shot(template, shots, tokenizer) if (shots := stage.data.shots) else template


def asking(template: Template, section: SourceSection, stage: Stage) -> Template:
    """The template with the form in which a source asks its questions."""
    form = question_form(section, stage)
    return template if form == PLACEHOLDER else template.asking(form)


def question_form(section: SourceSection, stage: Stage) -> str:
    """Text with `{prompt}` in it, into which the questions of a source are put before the template."""
    return section.prompt_form or (form_of(section.set, stage.data.template) if section.set else PLACEHOLDER)


def prompt_stream(sets: PromptSets, stage: Stage, seed: int) -> PromptStream:
    """The endless mixture of a stage's sources."""
    return PromptStream(sets.prompts, {name: section.weight for name, section in stage.data.sources.items()}, seed)


def stage_tokenizer(path: str, stage: Stage) -> Any:
    """The tokenizer of a folder or hub id, with the chat template that a stage says. Raises InputError."""
    tokenizer = load_tokenizer(path, stage.model.trust_remote_code)
    dress(tokenizer, stage.data.dress)
    return tokenizer


def load_tokenizer(path: str, trust_remote_code: bool) -> Any:
    """Raises InputError when the folder or hub id holds no tokenizer."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"model.path = {path!r} has no tokenizer that loads: {reason}") from error
